//! Text that somebody else wrote: annotations, fields of generators, messages of Entra, of registries and of the API
//! server. It is printed in one way: cut to a length, on one line, with everything visible that is in it.

use std::fmt::{self, Write};

/// The most bytes of such a text in a sentence, unless the sentence says otherwise.
const MOST: usize = 400;
/// Stands where a text was cut.
const CUT: &str = "…";

/// Somebody else's text, to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Foreign<'a> {
    text: &'a str,
    most: usize,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As it is.
    Plain,
    /// In quotes, so that its blanks show.
    Quoted,
    /// Without what a shell reads specially.
    Inert,
}

/// Cuts a whole message, and escapes what moves a cursor or hides. The message is returned as it is where nothing is to
/// be done.
pub fn message(text: String, most: usize) -> String {
    match text.len() <= most && !text.chars().any(is_invisible) {
        true => text,
        false => Foreign::new(&text).at_most(most).to_string(),
    }
}

/// Control characters, separators of lines and paragraphs, and the format characters that turn the direction of a text or
/// take no room: with these, what a person reads is not what is there.
fn is_invisible(c: char) -> bool {
    // Most characters, and so most texts, are decided here.
    if (' '..='~').contains(&c) {
        return false;
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

// === impl Foreign ===

impl<'a> Foreign<'a> {
    /// As it is, for the end of a sentence or for brackets.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            most: MOST,
            form: Form::Plain,
        }
    }

    /// In quotes, for values of fields.
    pub fn quoted(text: &'a str) -> Self {
        Self {
            form: Form::Quoted,
            ..Self::new(text)
        }
    }

    /// For a sentence that holds a command: without quotes, and with a blank in place of what a shell reads specially, so
    /// that a person who copies too much runs nothing of it.
    pub fn inert(text: &'a str) -> Self {
        Self {
            form: Form::Inert,
            ..Self::new(text)
        }
    }

    /// With another length, in bytes of what is printed.
    pub fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// What one character is printed as.
    fn write(self, c: char, out: &mut Piece) {
        out.clear();
        // A Piece has room for every form of one character.
        let _ = match (self.form, c) {
            (_, c) if is_invisible(c) && self.form == Form::Inert => out.write_char(' '),
            (_, c) if is_invisible(c) => write!(out, "{}", c.escape_default()),
            (Form::Quoted, '"' | '\\') => write!(out, "\\{c}"),
            (Form::Inert, '"' | '\'' | '`') => Ok(()),
            (Form::Inert, '$' | ';' | '|' | '&' | '<' | '>' | '\\') => out.write_char(' '),
            (_, c) => out.write_char(c),
        };
    }
}

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.form == Form::Quoted { "\"" } else { "" };
        f.write_str(quote)?;
        let (mut piece, mut left) = (Piece::default(), self.most);
        for c in self.text.chars() {
            self.write(c, &mut piece);
            let Some(rest) = left.checked_sub(piece.as_str().len()) else {
                f.write_str(CUT)?;
                break;
            };
            left = rest;
            f.write_str(piece.as_str())?;
        }
        f.write_str(quote)
    }
}

/// The printed form of one character, at most `\u{10ffff}`.
#[derive(Default)]
struct Piece {
    bytes: [u8; 10],
    length: usize,
}

impl Piece {
    fn clear(&mut self) {
        self.length = 0;
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Write for Piece {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// For the tests of those who write messages: text that is meant to be run by whoever pastes it.
#[cfg(test)]
pub mod hostile {
    use proptest::prelude::*;

    const READ_BY_SHELLS: [char; 9] = ['\'', '"', '$', ';', '|', '&', '`', '\\', '\n'];

    /// What a user can write. Each character that a shell reads stands between two marks, `Q` and `Z`, so that it can be told
    /// from those of our own commands. Some begin as what is valid, so that they get further.
    pub fn text() -> impl Strategy<Value = String> {
        let begin = prop_oneof![
            Just(""),
            Just("/subscriptions/a/"),
            Just("repository:"),
            Just("contoso.azurecr.io"),
            Just("team-b,"),
            Just("api://AzureADTokenExchange"),
            Just("AADSTS700213: "),
        ];
        (begin, "([b-j./, :-]{0,4}Q['\"$;|&`\\\\\n]Z){1,4}[b-j./, :-]{0,4}")
            .prop_map(|(begin, rest)| format!("{begin}{rest}"))
    }

    /// Nothing of a [`text`] that a shell reads is in this message, if it holds a command; and it is one line in any case.
    pub fn check(message: &str) {
        assert!(!message.contains(super::is_invisible), "{message:?}");
        if ["kubectl ", "az "]
            .iter()
            .any(|command| message.contains(command))
        {
            for c in READ_BY_SHELLS {
                assert!(!message.contains(&format!("{c}Z")), "{message}");
            }
            assert!(
                !message.contains("Q\\"),
                "an escape is read by a shell too: {message}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "kubectl")]
    fn a_command_with_foreign_text_in_it_is_found() {
        check("do this: kubectl annotate x 'yQ'Z");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_cut_with_a_mark_and_at_a_character() {
        let foreign = Foreign::new("ääääb").at_most(5);
        assert_eq!(foreign.to_string(), "ää…");
        assert_eq!(Foreign::new("abc").at_most(3).to_string(), "abc");
        assert_eq!(Foreign::quoted("abcd").at_most(3).to_string(), "\"abc…\"");
        assert!(Foreign::new(&"a".repeat(1 << 20)).to_string().len() < MOST + 4);
    }

    #[test]
    fn what_cannot_be_seen_is_written_as_an_escape() {
        let text = "a\nb\r\u{1b}[31m\u{202e}c\u{2028}\u{200b}\u{0}";
        assert_eq!(
            Foreign::new(text).to_string(),
            r"a\nb\r\u{1b}[31m\u{202e}c\u{2028}\u{200b}\u{0}"
        );
        assert_eq!(Foreign::quoted("a\"b\\\t").to_string(), r#""a\"b\\\t""#);
        // A text in another script is as readable as before.
        assert_eq!(Foreign::new("名前 ñ é 🚀").to_string(), "名前 ñ é 🚀");
    }

    #[test]
    fn beside_a_command_nothing_is_left_that_a_shell_reads() {
        let text = "x'; touch /tmp/pwned; '$(id)`id`|a&b\n\"c\\";
        let printed = Foreign::inert(text).to_string();
        assert_eq!(printed, "x  touch /tmp/pwned   (id)id a b c ");
    }

    #[test]
    fn a_message_is_copied_only_where_something_is_wrong_with_it() {
        assert_eq!(message("as it is".to_owned(), 8), "as it is");
        assert_eq!(message("longer than that".to_owned(), 8), "longer t…");
        assert_eq!(message("a\nb".to_owned(), 8), r"a\nb");
    }

    proptest! {
        #[test]
        fn every_form_is_one_short_line(text in any::<String>(), most in 0usize..200) {
            for form in [Foreign::new(&text), Foreign::quoted(&text), Foreign::inert(&text)] {
                let printed = form.at_most(most).to_string();
                prop_assert!(printed.len() <= most + CUT.len() + 2);
                prop_assert!(!printed.contains(is_invisible), "{printed:?}");
            }
            let inert = Foreign::inert(&text).to_string();
            prop_assert!(!inert.contains(['\'', '"', '$', ';', '|', '&', '`', '\\', '<', '>']), "{inert:?}");
        }
    }
}
