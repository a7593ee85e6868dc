//! Limits warnings to what an API server passes on: it drops warnings with control characters, and if the warnings of
//! all webhooks have more than 4,096 characters, it truncates each to 256 and drops those that still do not fit.
//! Source:
//! <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go>.

use crate::untrusted;

/// The maximum total size of the warnings, which leaves some room for those of other webhooks.
const MAX_TOTAL_BYTES: usize = 3500;
/// The minimum share of a warning. A warning that is truncated to less is not understandable.
const MIN_WARNING_BYTES: usize = 250;

/// Truncates warnings so that the API server passes them on. If not all fit, the last one is the number of omitted
/// warnings.
pub fn bounded(all: impl IntoIterator<Item = String>) -> Vec<String> {
    let all: Vec<_> = all
        .into_iter()
        .map(|warning| untrusted::sanitize(warning, MAX_TOTAL_BYTES))
        .collect();
    if all.iter().map(String::len).sum::<usize>() <= MAX_TOTAL_BYTES {
        return all;
    }
    let count = all.len();
    let mut left = MAX_TOTAL_BYTES;
    let mut kept = Vec::new();
    for (number, warning) in all.into_iter().enumerate() {
        // Each warning gets an equal share of the bytes that the previous warnings have left.
        let share = (left / (count - number)).max(MIN_WARNING_BYTES);
        if share > left {
            kept.push(format!(
                "acr-pull-webhook: {} more warnings are omitted",
                count - number
            ));
            break;
        }
        let warning = untrusted::sanitize(warning, share);
        left = left.saturating_sub(warning.len());
        kept.push(warning);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn warnings_that_do_not_fit_are_truncated_to_equal_shares() {
        let few = vec!["a".repeat(1500), "b".repeat(1500)];
        assert_eq!(bounded(few.clone()), few);
        let four = bounded((0..4).map(|n| format!("{n}{}", "x".repeat(2000))));
        assert_eq!(four.len(), 4);
        assert!(
            four.iter()
                .all(|warning| warning.len() > 800 && warning.ends_with('…'))
        );
        // A long warning gets the bytes that a short one does not need.
        let mixed = bounded(["short".to_owned(), "x".repeat(5000)]);
        assert!(mixed[1].len() > 3400, "{}", mixed[1].len());
        let many = bounded((0..48).map(|n| format!("{n}{}", "x".repeat(500))));
        assert!(
            many[0].starts_with("0x") && many.last().unwrap().contains("35 more warnings"),
            "{many:?}"
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(bounded(["a\nb".to_owned()]), [r"a\nb"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn the_total_size_is_below_the_limit_of_the_api_server(all in prop::collection::vec("[a-zä\n]{0,900}", 0..50)) {
            let count = all.len();
            let kept = bounded(all);
            prop_assert!(kept.len() <= count);
            prop_assert!(kept.iter().map(|warning| warning.chars().count()).sum::<usize>() < 4096);
            prop_assert!(kept.iter().all(|warning| !warning.chars().any(char::is_control)));
        }
    }
}
