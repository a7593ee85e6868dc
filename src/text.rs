//! Text of a JSON document that is decoded without a copy.

use serde::Deserialize;
use std::{borrow::Cow, ops::Deref};

/// The text of a JSON string. It borrows the document unless the string contains an escape, inside an `Option` too:
/// serde lets a field of type `Cow<str>` borrow, but not one of type `Option<Cow<str>>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    /// The same text, independent of the document.
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<&str> for Text<'_> {
    fn eq(&self, text: &&str) -> bool {
        **self == **text
    }
}

impl From<String> for Text<'static> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        required: Text<'a>,
        #[serde(borrow)]
        optional: Option<Text<'a>>,
    }

    #[test]
    fn a_text_without_escapes_is_not_copied() {
        let json = r#"{"required": "a", "optional": "b"}"#;
        let document: Document = serde_json::from_str(json).unwrap();
        let optional = document.optional.unwrap();
        for text in [&document.required, &optional] {
            assert!(
                json.as_bytes().as_ptr_range().contains(&text.as_ptr()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_text_with_an_escape_is_decoded() {
        let json = r#"{"required": "a\n", "optional": null}"#;
        let document: Document = serde_json::from_str(json).unwrap();
        assert_eq!((&*document.required, document.optional), ("a\n", None));
    }
}
