//! The webhook's error type. It states whether a retry can succeed, a short stable reason, and a message for a person.

mod message;
mod reason;

#[cfg(any(test, fuzzing))]
pub use message::MAX_SENTENCE_BYTES;
pub use message::{Advice, Command, link, whole_lines};
pub use reason::{Class, Reason};

use crate::untrusted::{self, UntrustedText};
use std::{fmt, time::Duration};

/// Stands between the reason and the sentence.
const AFTER_REASON: &str = ": ";
/// Longer facts and details are truncated. A sentence is shorter.
const MAX_TEXT_BYTES: usize = 1024;

/// A failure that affects the pull secret of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable reason, the same in messages, metrics and conditions.
    pub reason: Reason,
    /// What is wrong and where, and what a person can do, without a full stop. It never contains a credential.
    pub fact: String,
    /// What Azure or the API server says about it. The sentence contains as much of it as there is room for.
    pub detail: Option<Box<str>>,
    /// The command that fixes the problem.
    pub command: Option<Command>,
    /// The wait before the next try that the called service asked for.
    pub retry_after: Option<Duration>,
    /// Whether a host outside the cluster did not respond.
    pub unreachable: bool,
}

impl Problem {
    /// A problem with the fact that its sentence states.
    pub fn new(reason: Reason, fact: impl Into<String>) -> Self {
        Self {
            reason,
            fact: untrusted::sanitize(fact.into(), MAX_TEXT_BYTES),
            detail: None,
            command: None,
            retry_after: None,
            unreachable: false,
        }
    }

    /// The same problem, with a text from outside the webhook at the end of its sentence.
    pub fn quoting(mut self, text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
        self.detail = (!text.trim().is_empty()).then(|| text.trim().into());
        self
    }

    /// The same problem, with the command that fixes it.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(Command::new(command));
        self
    }

    /// The same problem, with this advice at the end of the fact.
    pub fn advice(self, advice: Advice) -> Self {
        Self {
            fact: untrusted::sanitize(format!("{}: {}", self.fact, advice.hint), MAX_TEXT_BYTES),
            command: advice.command,
            ..self
        }
    }

    /// The same problem, with the place where it occurred in front of the fact.
    pub fn at(self, place: impl fmt::Display) -> Self {
        let fact = untrusted::sanitize(format!("{place}: {}", self.fact), MAX_TEXT_BYTES);
        Self { fact, ..self }
    }

    /// The same problem, with the wait that the called service asked for.
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// The same problem, marked as caused by a host that did not respond.
    pub fn unreachable(mut self) -> Self {
        self.unreachable = true;
        self
    }

    /// Whether a later try may succeed without a change of an object.
    pub fn is_transient(&self) -> bool {
        matches!(self.reason.class(), Class::Upstream | Class::ApiServer)
    }

    /// One sentence of at most [`MAX_SENTENCE_BYTES`] together with the reason: the fact, and the link to the explanation
    /// of the reason.
    pub fn sentence(&self) -> String {
        // A person who pastes more than the command must execute nothing of a foreign text.
        let form = match self.command {
            Some(_) => UntrustedText::inert,
            None => UntrustedText::new,
        };
        let reserved = self.reason.as_str().len() + AFTER_REASON.len();
        let detail = self.detail.as_deref().map(form);
        message::sentence(&self.fact, detail, &self.reason.link(), reserved)
    }

    /// The sentence, and the command on a line of its own. For places that show the reason themselves.
    pub fn message(&self) -> String {
        message::with_command(self.sentence(), self.command.as_ref())
    }

    /// The fact with the text from outside the webhook, for places that show the reason and the link themselves.
    pub fn explanation(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{} ({})", self.fact, UntrustedText::inert(detail)),
            None => self.fact.clone(),
        }
    }

    /// The reason and the sentence, and the command on a line of its own.
    pub fn full(&self) -> String {
        message::with_command(self.to_string(), self.command.as_ref())
    }
}

/// The reason and the sentence, on one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{AFTER_REASON}{}", self.reason.as_str(), self.sentence())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_sentence_of_limited_length_with_its_link() {
        let names = ["team-a/app".to_owned(), format!("{0}/{0}", "n".repeat(253))];
        for reason in Reason::ALL.iter().copied() {
            for name in &names {
                let command = format!("kubectl describe serviceaccount --namespace {name}");
                let problem = Problem::new(reason, format!("service account {name} is wrong"))
                    .quoting(&"Entra says why ".repeat(200))
                    .command(command.clone());
                let text = problem.to_string();
                assert!(text.len() <= MAX_SENTENCE_BYTES, "{text}");
                assert!(
                    text.ends_with(&reason.link()) && text.contains("is wrong"),
                    "{text}"
                );
                assert_eq!(problem.full(), format!("{text}\n{command}"));
                assert_eq!(
                    whole_lines(&problem.message(), 300),
                    match name.len() {
                        10 => problem.message(),
                        _ => problem.sentence(),
                    }
                );
            }
        }
    }

    #[test]
    fn a_sentence_is_one_line_wherever_the_problem_occurred() {
        let problem = Problem::new(Reason::EntraRefused, format!("a\n{}", "b".repeat(1 << 20)));
        let wait = Some(Duration::from_secs(7));
        let placed = problem.retry_after(wait).at("in a\rplace").quoting("c\nd");
        let text = placed.to_string();
        assert!(text.starts_with(r"EntraRefused: in a\rplace: a\nbb"), "{text}");
        assert!(!text.contains(char::is_control) && text.len() <= MAX_SENTENCE_BYTES);
        assert_eq!(placed.retry_after, wait);
    }

    #[test]
    fn foreign_text_beside_a_command_is_inert() {
        let problem = Problem::new(Reason::EntraRefused, "it is wrong").quoting("x'; touch $HOME; '");
        assert!(problem.to_string().contains("(x'; touch $HOME; ')"), "{problem}");
        let text = problem.command("az account show").full();
        assert!(text.contains("(x  touch  HOME  )"), "{text}");
    }

    #[test]
    fn a_reason_is_found_by_its_name() {
        assert_eq!(Reason::parse("ScopeNotGranted"), Some(Reason::ScopeNotGranted));
        assert_eq!(Reason::parse("Issued"), None);
        assert_eq!(
            Reason::ScopeNotGranted.link(),
            "https://acr-pull.dev/reasons.html#scopenotgranted"
        );
    }
}
