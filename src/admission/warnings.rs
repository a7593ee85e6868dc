//! Limits warnings to what an API server passes on: it drops warnings with control characters, and if the warnings of
//! all webhooks have more than 4,096 characters, it truncates each to 256 and drops those that still do not fit.
//! Source:
//! <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go>.
//!
//! A warning is one HTTP header, which cannot contain a line break. So a command is a warning of its own after the
//! sentence that it belongs to: kubectl prints each warning on a line, and only the first two words of that line are not
//! the command.

use crate::{
    problem::{Command, Problem},
    untrusted,
};
use std::fmt;

/// The maximum total size of the warnings, which leaves some room for those of other webhooks.
const MAX_TOTAL_BYTES: usize = 3500;
/// The maximum size of a sentence, with the words in front of that of a problem.
const MAX_SENTENCE_BYTES: usize = 500;
/// The size of the warning that reports the number of omitted warnings.
const OMISSION_BYTES: usize = 64;
/// The sender of a warning, because a response may contain the warnings of several webhooks.
const SENDER: &str = "acr-pull-webhook: ";
/// Stands in front of a command.
const RUN: &str = "acr-pull-webhook, run: ";

/// A warning for the creator of a Pod.
#[derive(Clone, Debug)]
pub struct Warning {
    sentence: String,
    command: Option<Command>,
}

impl Warning {
    /// A warning about this problem, with words in front of it.
    pub fn about(words: impl fmt::Display, problem: &Problem) -> Self {
        Self {
            sentence: format!("{words}{problem}"),
            command: problem.command.clone(),
        }
    }

    /// A warning without a problem.
    pub fn new(sentence: String) -> Self {
        Self {
            sentence,
            command: None,
        }
    }
}

impl From<Problem> for Warning {
    fn from(problem: Problem) -> Self {
        Self::about("", &problem)
    }
}

/// The texts of the warnings that the API server passes on, each as a whole. Sentences precede commands where not both
/// fit. If not all sentences fit, the last one is the number of omitted warnings.
pub fn bounded(all: impl IntoIterator<Item = Warning>) -> Vec<String> {
    let mut left = MAX_TOTAL_BYTES - OMISSION_BYTES;
    let mut fits = |text: &String| {
        let fits = text.len() <= left;
        left -= if fits { text.len() } else { 0 };
        fits
    };
    let all: Vec<_> = all
        .into_iter()
        .map(|Warning { sentence, command }| {
            let sentence = untrusted::sanitize(format!("{SENDER}{sentence}"), MAX_SENTENCE_BYTES);
            (sentence, command)
        })
        .collect();
    let kept = all.iter().take_while(|(sentence, _)| fits(sentence)).count();
    let omitted = all.len() - kept;
    let mut texts = Vec::with_capacity(2 * kept + 1);
    for (sentence, command) in all.into_iter().take(kept) {
        texts.push(sentence);
        let command = command.map(|command| format!("{RUN}{command}"));
        texts.extend(command.filter(|command| fits(command)));
    }
    if omitted > 0 {
        texts.push(format!("{SENDER}{omitted} more warnings are omitted"));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Reason;
    use proptest::prelude::*;

    fn warning(text: &str, command: &str) -> Warning {
        Warning::from(Problem::new(Reason::EntraRefused, text).command(command))
    }

    #[test]
    fn a_command_is_a_warning_of_its_own_after_its_sentence() {
        let texts = bounded([
            warning("one is wrong", "az one"),
            warning("two is wrong", "az two"),
        ]);
        let link = Reason::EntraRefused.link();
        assert_eq!(
            texts,
            [
                format!("acr-pull-webhook: EntraRefused: one is wrong; see {link}"),
                "acr-pull-webhook, run: az one".to_owned(),
                format!("acr-pull-webhook: EntraRefused: two is wrong; see {link}"),
                "acr-pull-webhook, run: az two".to_owned(),
            ]
        );
    }

    #[test]
    fn a_command_that_does_not_fit_is_left_out_and_the_sentences_stay() {
        let long = "x".repeat(2000);
        let texts = bounded((0..3).map(|n| warning(&format!("{n} is wrong"), &format!("az {n} {long}"))));
        let sentences = texts.iter().filter(|text| text.contains("is wrong")).count();
        let commands: Vec<_> = texts.iter().filter(|text| text.contains("run: az")).collect();
        assert_eq!((sentences, commands.len()), (3, 1), "{texts:?}");
        assert!(commands[0].ends_with(&format!("az 0 {long}")), "{texts:?}");
    }

    #[test]
    fn sentences_that_do_not_fit_are_counted() {
        let texts = bounded((0..48).map(|n| warning(&format!("{n} {}", "x".repeat(400)), "az x")));
        let last = texts.last().unwrap();
        assert!(last.contains("more warnings are omitted"), "{last}");
        let link = Reason::EntraRefused.link();
        let kept = &texts[..texts.len() - 1];
        assert!(
            kept.iter()
                .all(|text| text.ends_with(&link) || text.ends_with("az x")),
            "{texts:?}"
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            bounded([Warning::new("a\nb".to_owned())]),
            [r"acr-pull-webhook: a\nb"]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn the_total_size_is_below_the_limit_of_the_api_server(all in prop::collection::vec("[a-zä\n]{0,900}", 0..50)) {
            let kept = bounded(all.iter().map(|text| warning(text, text)));
            prop_assert!(kept.iter().map(|warning| warning.chars().count()).sum::<usize>() < 4096);
            prop_assert!(kept.iter().all(|warning| !warning.chars().any(char::is_control)));
        }
    }
}
