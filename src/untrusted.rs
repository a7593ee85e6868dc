//! Prints text from outside the webhook: annotations, fields of generators, and messages of Entra, registries and the
//! API server. The printed text has a limited length, is on one line, and shows invisible characters as escapes.

use std::fmt::{self, Write};

/// The default limit for one text, in printed bytes.
const MAX_BYTES: usize = 400;
/// Marks the end of a truncated text.
const ELLIPSIS: &str = "…";

/// A text from outside the webhook, with the form in which it is printed.
#[derive(Clone, Copy, Debug)]
pub struct UntrustedText<'a> {
    text: &'a str,
    max_bytes: usize,
    form: Form,
}

impl<'a> UntrustedText<'a> {
    /// Prints the text without quotes, at the end of a sentence or in brackets.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            max_bytes: MAX_BYTES,
            form: Form::Plain,
        }
    }

    /// Prints the text in quotes, as the value of a field.
    pub fn quoted(text: &'a str) -> Self {
        Self {
            form: Form::Quoted,
            ..Self::new(text)
        }
    }

    /// Prints the text without quotes and with spaces in place of characters that are special to a shell. Messages that
    /// contain a command use this form, so that a person who copies more than the command executes nothing from the
    /// text.
    pub fn inert(text: &'a str) -> Self {
        Self {
            form: Form::Inert,
            ..Self::new(text)
        }
    }

    /// Sets another limit, in printed bytes.
    pub fn at_most(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// Writes the printed form of one character to `out`.
    fn write(self, c: char, out: &mut PrintedChar) {
        out.clear();
        // `out` has room for every form of one character, so the result can be ignored.
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

impl fmt::Display for UntrustedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.form == Form::Quoted { "\"" } else { "" };
        f.write_str(quote)?;
        let mut printed = PrintedChar::default();
        let mut left = self.max_bytes;
        for c in self.text.chars() {
            self.write(c, &mut printed);
            let Some(rest) = left.checked_sub(printed.as_str().len()) else {
                f.write_str(ELLIPSIS)?;
                break;
            };
            left = rest;
            f.write_str(printed.as_str())?;
        }
        f.write_str(quote)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Without quotes.
    Plain,
    /// In quotes, so that leading and trailing spaces are visible.
    Quoted,
    /// Without characters that are special to a shell.
    Inert,
}

/// The printed form of one character. The longest is `\u{10ffff}`.
#[derive(Default)]
struct PrintedChar {
    bytes: [u8; 10],
    length: usize,
}

impl PrintedChar {
    fn clear(&mut self) {
        self.length = 0;
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Write for PrintedChar {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Truncates a whole message, and escapes its invisible characters. A message that needs neither is returned without a
/// copy.
pub fn sanitize(text: String, max_bytes: usize) -> String {
    if text.len() <= max_bytes && !text.chars().any(is_invisible) {
        text
    } else {
        UntrustedText::new(&text).at_most(max_bytes).to_string()
    }
}

/// Whether a character is a control character, a line or paragraph separator, or a format character that changes the
/// text direction or has no width. With such characters, a person sees another text than the one that was written.
fn is_invisible(c: char) -> bool {
    // The fast path for most characters.
    if (' '..='~').contains(&c) {
        return false;
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// For tests of messages: text that tries to inject commands into a shell.
#[cfg(test)]
pub mod hostile {
    use proptest::prelude::*;

    const SHELL_CHARACTERS: [char; 9] = ['\'', '"', '$', ';', '|', '&', '`', '\\', '\n'];

    /// Texts that a user can write. Each shell character is between the marks `Q` and `Z`, which distinguish it from
    /// the shell characters of the webhook's own commands. Some texts have a valid prefix, so that they pass the first
    /// checks.
    pub fn text() -> impl Strategy<Value = String> {
        let prefix = prop_oneof![
            Just(""),
            Just("/subscriptions/a/"),
            Just("repository:"),
            Just("contoso.azurecr.io"),
            Just("team-b,"),
            Just("api://AzureADTokenExchange"),
            Just("AADSTS700213: "),
        ];
        (
            prefix,
            "([b-j./, :-]{0,4}Q['\"$;|&`\\\\\n]Z){1,4}[b-j./, :-]{0,4}",
        )
            .prop_map(|(prefix, rest)| format!("{prefix}{rest}"))
    }

    /// Asserts that the lines of the message contain no invisible characters and, if it contains a command, none of the
    /// shell characters of a [`text`].
    pub fn check(message: &str) {
        assert!(message.lines().count() <= 2, "{message:?}");
        assert!(
            message.lines().all(|line| !line.contains(super::is_invisible)),
            "{message:?}"
        );
        if ["kubectl ", "az "]
            .iter()
            .any(|command| message.contains(command))
        {
            for c in SHELL_CHARACTERS {
                assert!(!message.contains(&format!("{c}Z")), "{message}");
            }
            assert!(
                !message.contains("Q\\"),
                "a backslash is special to a shell too: {message}"
            );
        }
    }

    #[test]
    #[should_panic(expected = "kubectl")]
    fn a_command_that_contains_a_shell_character_fails_the_check() {
        check("do this: kubectl annotate x 'yQ'Z");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_truncated_between_characters_and_marked() {
        let truncated = UntrustedText::new("ääääb").at_most(5);
        assert_eq!(truncated.to_string(), "ää…");
        assert_eq!(UntrustedText::new("abc").at_most(3).to_string(), "abc");
        assert_eq!(UntrustedText::quoted("abcd").at_most(3).to_string(), "\"abc…\"");
        assert!(UntrustedText::new(&"a".repeat(1 << 20)).to_string().len() < MAX_BYTES + 4);
    }

    #[test]
    fn invisible_characters_are_printed_as_escapes() {
        let text = "a\nb\r\u{1b}[31m\u{202e}c\u{2028}\u{200b}\u{0}";
        assert_eq!(
            UntrustedText::new(text).to_string(),
            r"a\nb\r\u{1b}[31m\u{202e}c\u{2028}\u{200b}\u{0}"
        );
        assert_eq!(UntrustedText::quoted("a\"b\\\t").to_string(), r#""a\"b\\\t""#);
        // Text in other scripts stays readable.
        assert_eq!(UntrustedText::new("名前 ñ é 🚀").to_string(), "名前 ñ é 🚀");
    }

    #[test]
    fn the_inert_form_contains_no_shell_characters() {
        let text = "x'; touch /tmp/pwned; '$(id)`id`|a&b\n\"c\\";
        let printed = UntrustedText::inert(text).to_string();
        assert_eq!(printed, "x  touch /tmp/pwned   (id)id a b c ");
    }

    #[test]
    fn a_message_is_changed_only_if_it_is_too_long_or_has_invisible_characters() {
        assert_eq!(sanitize("short".to_owned(), 8), "short");
        assert_eq!(sanitize("longer than that".to_owned(), 8), "longer t…");
        assert_eq!(sanitize("a\nb".to_owned(), 8), r"a\nb");
    }

    proptest! {
        #[test]
        fn every_form_is_one_line_of_limited_length(text in any::<String>(), max_bytes in 0usize..200) {
            for form in [UntrustedText::new(&text), UntrustedText::quoted(&text), UntrustedText::inert(&text)] {
                let printed = form.at_most(max_bytes).to_string();
                prop_assert!(printed.len() <= max_bytes + ELLIPSIS.len() + 2);
                prop_assert!(!printed.contains(is_invisible), "{printed:?}");
            }
            let inert = UntrustedText::inert(&text).to_string();
            prop_assert!(!inert.contains(['\'', '"', '$', ';', '|', '&', '`', '\\', '<', '>']), "{inert:?}");
        }
    }
}
