//! Texts and lists of users, cut while they are decoded: what is longer than it may be is kept with a little more than
//! that length, so that resolving refuses it, and does not fill the store of every replica. Our own copy of the kinds
//! refuses it at the API server; External Secrets Operator's has no such bounds.

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use std::fmt;

/// A text of at most so many bytes, and a little more where it was longer.
struct Cut<const MOST: usize>(String);

/// A required field.
pub fn text<'de, D: Deserializer<'de>, const MOST: usize>(deserializer: D) -> Result<String, D::Error> {
    Cut::<MOST>::deserialize(deserializer).map(|Cut(text)| text)
}

/// An optional field.
pub fn optional<'de, D: Deserializer<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<Cut<MOST>>::deserialize(deserializer)?;
    Ok(text.map(|Cut(text)| text))
}

/// A list of at most so many texts, and one more where there were more.
pub fn list<'de, D: Deserializer<'de>, const MANY: usize, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(List::<MANY, MOST>)
}

impl<'de, const MOST: usize> Deserialize<'de> for Cut<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text::<MOST>)
    }
}

struct Text<const MOST: usize>;

impl<const MOST: usize> Visitor<'_> for Text<MOST> {
    type Value = Cut<MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let end = text.ceil_char_boundary(MOST.saturating_add(1));
        Ok(Cut(text[..end].to_owned()))
    }
}

struct List<const MANY: usize, const MOST: usize>;

impl<'de, const MANY: usize, const MOST: usize> Visitor<'de> for List<MANY, MOST> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= MANY {
            match list.next_element()? {
                Some(Cut::<MOST>(text)) => kept.push(text),
                None => return Ok(kept),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[derive(Deserialize)]
    struct Fields {
        #[serde(deserialize_with = "text::<_, 4>")]
        one: String,
        #[serde(default, deserialize_with = "optional::<_, 4>")]
        other: Option<String>,
        #[serde(default, deserialize_with = "list::<_, 2, 4>")]
        all: Vec<String>,
    }

    /// As a reply of the API server is decoded, and as a guard decodes it again.
    fn read(fields: Value) -> Fields {
        let text = fields.to_string();
        let read: Fields = serde_json::from_str(&text).unwrap();
        let again: Fields = serde_json::from_value(fields).unwrap();
        assert_eq!(
            (&read.one, &read.other, &read.all),
            (&again.one, &again.other, &again.all)
        );
        read
    }

    #[test]
    fn what_fits_is_kept_and_what_does_not_stays_too_long() {
        let fields = read(json!({"one": "abcd", "other": null, "all": ["a", "b"]}));
        assert_eq!(
            (fields.one.as_str(), fields.other, fields.all.len()),
            ("abcd", None, 2)
        );
        let fields = read(
            json!({"one": "ab\u{e4}\u{e4}\u{e4}", "other": "abcdefgh", "all": ["a", "b", "c", "d", "abcdefgh"]}),
        );
        assert_eq!(
            fields.one, "ab\u{e4}\u{e4}",
            "more than the bound, and whole characters"
        );
        assert_eq!(fields.other.as_deref(), Some("abcde"));
        assert_eq!(fields.all, ["a", "b", "c"]);
        assert!(serde_json::from_value::<Fields>(json!({"one": 1})).is_err());
    }
}
