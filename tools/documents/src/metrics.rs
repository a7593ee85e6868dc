//! The page of metrics, from what the program exports.

use crate::{
    DocumentError,
    text::{self, cell, code, row},
};
use std::collections::{BTreeMap, BTreeSet};

/// `docs/metrics.md`.
pub fn page() -> Result<String, DocumentError> {
    let exported =
        acr_pull_webhook::metrics_reference().map_err(|error| DocumentError::Wrong(error.to_string()))?;
    let rows: String = families(&exported).iter().map(Family::row).collect();
    let generated = format!("| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}");
    Ok(text::page(include_str!("../texts/metrics.md"), &generated))
}

/// A family of the OpenMetrics text.
#[derive(Debug, Default)]
struct Family {
    name: String,
    kind: String,
    help: String,
    /// The values of each label in the samples.
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Family {
    fn row(&self) -> String {
        // The name as Prometheus stores it.
        let name = match self.kind.as_str() {
            "counter" => format!("{}_total", self.name),
            _ => self.name.clone(),
        };
        let labels = self.labels.iter().map(|(label, values)| match label.as_str() {
            "reason" => "`reason`: `Ok` or one of the [reasons](reasons.md)".to_owned(),
            "watch" => "`watch`: `Pods`, `ACRAccessTokens`, …".to_owned(),
            _ => {
                let values: Vec<_> = values.iter().map(|value| code(value)).collect();
                format!("{}: {}", code(label), values.join(", "))
            }
        });
        let labels: Vec<_> = labels.collect();
        row([
            code(&name),
            self.kind.clone(),
            labels.join("; "),
            cell(&self.help),
        ])
    }
}

/// The families of an OpenMetrics text, in their order.
fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.push(Family {
                name: name.to_owned(),
                help: help.to_owned(),
                ..Family::default()
            });
        } else if let Some(family) = families.last_mut() {
            if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                family.kind = kind.to_owned();
            } else if let Some((labels, _)) = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'))
            {
                add_labels(family, labels);
            }
        }
    }
    families
}

/// Adds the labels of a sample, such as `outcome="denied",reason="Ok"`. None of the values contains a comma.
fn add_labels(family: &mut Family, labels: &str) {
    for (label, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
        // The buckets of a histogram.
        if label == "le" {
            continue;
        }
        let values = family.labels.entry(label.to_owned()).or_default();
        values.insert(value.trim_matches('"').to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_type_its_help_and_the_values_of_its_labels() {
        let text = "# HELP a_calls Calls made.\n# TYPE a_calls counter\na_calls_total{hop=\"x\",reason=\"Ok\"} 1\n\
                    a_calls_total{hop=\"y\",reason=\"Ok\"} 1\n# HELP a_s Time.\n# TYPE a_s histogram\n# UNIT a_s seconds\n\
                    a_s_bucket{le=\"1.0\"} 0\n# EOF\n";
        let rows: Vec<_> = families(text).iter().map(Family::row).collect();
        assert_eq!(
            rows,
            [
                "| `a_calls_total` | counter | `hop`: `x`, `y`; `reason`: `Ok` or one of the [reasons](reasons.md) | Calls made. |\n",
                "| `a_s` | histogram |  | Time. |\n",
            ]
        );
    }
}
