//! Warnings as an API server passes them on: it drops one with a control character in it, and beyond 4,096 characters of all
//! webhooks it cuts each to 256 and drops the rest.
//! Source: <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go>.

use crate::untrusted;

/// The most bytes of all, so that others have some room too.
const ALL: usize = 3500;
/// What one says in less is not understood.
const LEAST: usize = 250;

/// Cuts them to what is passed on whole. The first come first; what finds no room is counted in the last.
pub fn bounded(all: impl IntoIterator<Item = String>) -> Vec<String> {
    let all: Vec<_> = all
        .into_iter()
        .map(|warning| untrusted::sanitize(warning, ALL))
        .collect();
    if all.iter().map(String::len).sum::<usize>() <= ALL {
        return all;
    }
    let (count, mut left, mut kept) = (all.len(), ALL, Vec::new());
    for (number, warning) in all.into_iter().enumerate() {
        // An equal share of what the ones before have left.
        let share = (left / (count - number)).max(LEAST);
        if share > left {
            kept.push(format!(
                "acr-pull-webhook: {} warnings more, which are too many to pass on",
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
    fn what_fits_is_passed_on_whole_and_what_does_not_is_shared_out() {
        let few = vec!["a".repeat(1500), "b".repeat(1500)];
        assert_eq!(bounded(few.clone()), few);
        let four = bounded((0..4).map(|n| format!("{n}{}", "x".repeat(2000))));
        assert_eq!(four.len(), 4);
        assert!(
            four.iter()
                .all(|warning| warning.len() > 800 && warning.ends_with('…'))
        );
        // What short ones leave is for the others.
        let mixed = bounded(["short".to_owned(), "x".repeat(5000)]);
        assert!(mixed[1].len() > 3400, "{}", mixed[1].len());
        let many = bounded((0..48).map(|n| format!("{n}{}", "x".repeat(500))));
        assert!(
            many[0].starts_with("0x") && many.last().unwrap().contains("35 warnings more"),
            "{many:?}"
        );
    }

    #[test]
    fn no_warning_is_dropped_for_a_control_character() {
        assert_eq!(bounded(["a\nb".to_owned()]), [r"a\nb"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn all_together_are_below_the_bound_of_the_api_server(all in prop::collection::vec("[a-zä\n]{0,900}", 0..50)) {
            let count = all.len();
            let kept = bounded(all);
            prop_assert!(kept.len() <= count);
            prop_assert!(kept.iter().map(|warning| warning.chars().count()).sum::<usize>() < 4096);
            prop_assert!(kept.iter().all(|warning| !warning.chars().any(char::is_control)));
        }
    }
}
