//! The text of a problem for a person: one sentence that ends with a link, and the command that fixes the problem.
//!
//! A sentence has a limited length, whatever the names in it are. If it is too long, the text from outside the webhook
//! is shortened first, then the longest words, which are names. The link and the command are never shortened: a part of
//! a command is worse than none. Where there is not enough room for the command, it is left out as a whole.

use crate::untrusted::UntrustedText;
use std::{borrow::Cow, fmt};

/// The limit of a sentence, in bytes, with the reason in front of it and the link at its end.
pub const MAX_SENTENCE_BYTES: usize = 250;
/// The page that explains every reason, each at an anchor of its own.
const REASONS_PAGE: &str = "https://acr-pull.dev/reasons.html";

/// Stands between the fact and the link.
const SEE: &str = "; see ";
/// The mark of a shortened text.
const ELLIPSIS: &str = "…";
/// Less text from outside the webhook than this is not understandable.
const MIN_DETAIL_BYTES: usize = 16;
/// The lengths to which the words of a sentence are shortened, one after the other, until the sentence is short enough.
const WORD_LIMITS: [usize; 4] = [63, 48, 36, 28];

/// A command on one line that a person can paste into a shell. It contains no text that a user could have chosen freely,
/// and is never shortened. Words in upper case, such as `CLIENT_ID`, stand for values that the person has to fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(String);

impl Command {
    /// This command. A line break would end it, so invisible characters are removed.
    pub fn new(command: impl Into<String>) -> Self {
        let mut command = command.into();
        command.retain(|c| !c.is_control());
        Self(command)
    }

    /// The command.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a person can do: the part of a sentence that says so, and the command for it.
#[derive(Clone, Debug)]
pub struct Advice {
    /// The part of the sentence, which follows a description of what is wrong.
    pub hint: String,
    /// The command.
    pub command: Option<Command>,
}

impl Advice {
    /// Advice without a command.
    pub fn new(hint: impl Into<String>) -> Self {
        Self {
            hint: hint.into(),
            command: None,
        }
    }

    /// The same advice with a command.
    pub fn command(self, command: impl Into<String>) -> Self {
        Self {
            command: Some(Command::new(command)),
            ..self
        }
    }
}

/// The address of the explanation of a reason.
pub fn link(reason: &str) -> String {
    format!("{REASONS_PAGE}#{}", reason.to_ascii_lowercase())
}

/// A sentence: the fact, the text from outside the webhook in brackets, and the link. `reserved` is the number of bytes
/// that stand in front of it.
pub fn sentence(fact: &str, detail: Option<UntrustedText<'_>>, link: &str, reserved: usize) -> String {
    let room = MAX_SENTENCE_BYTES.saturating_sub(reserved + SEE.len() + link.len());
    let fact = shortened(fact, room);
    let detail_room = (room - fact.len()).saturating_sub(" ()".len() + ELLIPSIS.len());
    match detail {
        Some(detail) if detail_room >= MIN_DETAIL_BYTES => {
            format!("{fact} ({}){SEE}{link}", detail.at_most(detail_room))
        }
        _ => format!("{fact}{SEE}{link}"),
    }
}

/// A sentence with its command on a second line.
pub fn with_command(sentence: String, command: Option<&Command>) -> String {
    match command {
        Some(command) => format!("{sentence}\n{command}"),
        None => sentence,
    }
}

/// The text without its last lines, if it is longer than this. The first line is a sentence, and the others are whole
/// commands.
pub fn whole_lines(text: &str, max_bytes: usize) -> &str {
    let mut text = text;
    while text.len() > max_bytes {
        let Some((lines, _)) = text.rsplit_once('\n') else {
            break;
        };
        text = lines;
    }
    text
}

/// The text, with its longest words and then its end shortened.
fn shortened(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let mut short = String::new();
    for limit in WORD_LIMITS {
        short = text
            .split(' ')
            .map(|word| shortened_word(word, limit))
            .collect::<Vec<_>>()
            .join(" ");
        if short.len() <= max_bytes {
            return Cow::Owned(short);
        }
    }
    let room = max_bytes.saturating_sub(ELLIPSIS.len());
    Cow::Owned(UntrustedText::new(&short).at_most(room).to_string())
}

/// A word without its middle, if it is longer than this: the beginning and the end of a name distinguish it best.
fn shortened_word(word: &str, max_bytes: usize) -> Cow<'_, str> {
    if word.len() <= max_bytes {
        return Cow::Borrowed(word);
    }
    let rest = max_bytes - ELLIPSIS.len();
    let start = &word[..word.floor_char_boundary(rest * 2 / 3)];
    let end = &word[word.ceil_char_boundary(word.len() - rest / 3)..];
    Cow::Owned(format!("{start}{ELLIPSIS}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINK: &str = "https://acr-pull.dev/reasons.html#generatornotfound";

    #[test]
    fn foreign_text_is_shortened_before_names_and_the_link_never() {
        let name = "n".repeat(253);
        let foreign = "f".repeat(400);
        let short = sentence("it is wrong", Some(UntrustedText::new(&foreign)), LINK, 20);
        assert!(
            short.starts_with("it is wrong (fff") && short.contains("f…); see https"),
            "{short}"
        );
        let fact = format!("service account team-a/{name} is wrong, and its owner can correct it");
        let long = sentence(&fact, Some(UntrustedText::new(&foreign)), LINK, 20);
        assert!(long.starts_with("service account team-a/nnn"), "{long}");
        assert!(
            long.contains("n is wrong, and its owner can correct it"),
            "{long}"
        );
        for text in [short, long] {
            assert!(
                text.len() + 20 <= MAX_SENTENCE_BYTES && text.ends_with(LINK),
                "{text}"
            );
        }
    }

    #[test]
    fn a_command_is_one_line() {
        assert_eq!(
            Command::new("kubectl get\npods\u{7f}").as_str(),
            "kubectl getpods"
        );
    }

    #[test]
    fn a_text_loses_whole_lines_only() {
        let text = "a sentence\naz one\naz two";
        for (max, kept) in [
            (24, text),
            (23, "a sentence\naz one"),
            (16, "a sentence"),
            (3, "a sentence"),
        ] {
            assert_eq!(whole_lines(text, max), kept, "{max}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_sentence_too_long(fact in any::<String>(), detail in any::<String>(), reserved in 0usize..40) {
            let text = sentence(&fact, Some(UntrustedText::new(&detail)), LINK, reserved);
            prop_assert!(text.len() + reserved <= MAX_SENTENCE_BYTES, "{}", text.len());
            prop_assert!(text.ends_with(LINK));
        }
    }
}
