//! Deserializes strings and lists of users with a limit. A value above the limit is truncated to slightly more than the
//! limit: resolution still refuses it, and it does not fill the stores of all replicas. The schemas of
//! acr-pull-webhook's CRDs have the same limits; those of External Secrets Operator's CRDs have none.

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use std::fmt;

/// Deserializes a required string.
pub fn required<'de, D: Deserializer<'de>, const MAX_BYTES: usize>(
    deserializer: D,
) -> Result<String, D::Error> {
    Truncated::<MAX_BYTES>::deserialize(deserializer).map(|Truncated(text)| text)
}

/// Deserializes an optional string.
pub fn optional<'de, D: Deserializer<'de>, const MAX_BYTES: usize>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<Truncated<MAX_BYTES>>::deserialize(deserializer)?;
    Ok(text.map(|Truncated(text)| text))
}

/// Deserializes a list of strings. A list with more than `MAX_ITEMS` items keeps one item more than that.
pub fn list<'de, D: Deserializer<'de>, const MAX_ITEMS: usize, const MAX_BYTES: usize>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_seq(ListVisitor::<MAX_ITEMS, MAX_BYTES>)
}

/// A string that is cut at the first character boundary after `MAX_BYTES` if it is longer.
struct Truncated<const MAX_BYTES: usize>(String);

impl<'de, const MAX_BYTES: usize> Deserialize<'de> for Truncated<MAX_BYTES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(StringVisitor::<MAX_BYTES>)
    }
}

struct StringVisitor<const MAX_BYTES: usize>;

impl<const MAX_BYTES: usize> Visitor<'_> for StringVisitor<MAX_BYTES> {
    type Value = Truncated<MAX_BYTES>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let end = text.ceil_char_boundary(MAX_BYTES.saturating_add(1));
        Ok(Truncated(text[..end].to_owned()))
    }
}

struct ListVisitor<const MAX_ITEMS: usize, const MAX_BYTES: usize>;

impl<'de, const MAX_ITEMS: usize, const MAX_BYTES: usize> Visitor<'de> for ListVisitor<MAX_ITEMS, MAX_BYTES> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= MAX_ITEMS {
            match items.next_element()? {
                Some(Truncated::<MAX_BYTES>(text)) => kept.push(text),
                None => return Ok(kept),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[derive(Deserialize)]
    struct Fields {
        #[serde(deserialize_with = "required::<_, 4>")]
        required: String,
        #[serde(default, deserialize_with = "optional::<_, 4>")]
        optional: Option<String>,
        #[serde(default, deserialize_with = "list::<_, 2, 4>")]
        list: Vec<String>,
    }

    /// Decodes from text, as a reply of the API server is decoded, and from a value, as an `Item` is.
    fn decode(fields: Value) -> Fields {
        let from_text: Fields = serde_json::from_str(&fields.to_string()).unwrap();
        let from_value: Fields = serde_json::from_value(fields).unwrap();
        assert_eq!(
            (&from_text.required, &from_text.optional, &from_text.list),
            (&from_value.required, &from_value.optional, &from_value.list)
        );
        from_text
    }

    #[test]
    fn values_above_the_limit_stay_above_the_limit() {
        let fields = decode(json!({"required": "abcd", "optional": null, "list": ["a", "b"]}));
        assert_eq!(
            (fields.required.as_str(), fields.optional, fields.list.len()),
            ("abcd", None, 2)
        );
        let fields = decode(
            json!({"required": "ab\u{e4}\u{e4}\u{e4}", "optional": "abcdefgh", "list": ["a", "b", "c", "d", "abcdefgh"]}),
        );
        assert_eq!(
            fields.required, "ab\u{e4}\u{e4}",
            "one byte above the limit, at a character boundary"
        );
        assert_eq!(fields.optional.as_deref(), Some("abcde"));
        assert_eq!(fields.list, ["a", "b", "c"]);
        assert!(serde_json::from_value::<Fields>(json!({"required": 1})).is_err());
    }
}
