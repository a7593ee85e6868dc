//! Metrics in queries of Prometheus, and those that the program and the API server have.

use std::collections::{BTreeMap, BTreeSet};

/// The metrics of the API server that alerts and dashboard use, with their labels.
pub const OF_API_SERVER: &[(&str, &[&str])] = &[
    (
        "apiserver_admission_webhook_rejection_count",
        &["error_type", "name", "operation", "rejection_code", "type"],
    ),
    ("apiserver_admission_webhook_fail_open_count", &["name", "type"]),
];
const PREFIXES: [&str; 2] = ["acr_pull_webhook_", "apiserver_"];

/// The values of each label, if they are limited.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// The samples by name, with the labels of each.
#[derive(Debug, Default)]
pub struct Samples(pub BTreeMap<String, Labels>);

impl Samples {
    /// Those in the response of `/metrics`.
    pub fn parse(text: &str) -> Self {
        let mut samples = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(Selector { name, matchers }) = selectors(line).into_iter().next() else {
                continue;
            };
            let labels = samples.0.entry(name).or_default();
            for Matcher { label, value, .. } in matchers {
                labels.entry(label).or_default().insert(value);
            }
        }
        samples
    }

    /// Those of the webhook, and those of the API server.
    pub fn known() -> Self {
        let mut samples = Self::parse(&acr_pull_webhook::metrics_reference().unwrap());
        for (name, labels) in OF_API_SERVER {
            let labels = labels.iter().map(|label| ((*label).to_owned(), BTreeSet::new()));
            samples.0.insert((*name).to_owned(), labels.collect());
        }
        samples
    }

    /// What is wrong with the names and labels in a query.
    pub fn faults(&self, query: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut labels = BTreeSet::new();
        let selectors = selectors(query);
        if selectors.is_empty() {
            faults.push(format!("{query}: no metric"));
        }
        for Selector { name, matchers } in selectors {
            let Some(known) = self.0.get(&name) else {
                faults.push(format!("{query}: no metric {name}"));
                continue;
            };
            labels.extend(known.keys().cloned());
            for matcher in matchers {
                faults.extend(
                    matcher
                        .fault(known)
                        .map(|fault| format!("{query}: {name}: {fault}")),
                );
            }
        }
        let grouped = grouped(query).into_iter().filter(|label| !labels.contains(label));
        faults.extend(grouped.map(|label| format!("{query}: no metric with the label {label}")));
        faults
    }
}

/// A metric with conditions for its labels.
#[derive(Debug)]
pub struct Selector {
    pub name: String,
    pub matchers: Vec<Matcher>,
}

#[derive(Debug)]
pub struct Matcher {
    pub label: String,
    pub is_regex: bool,
    pub value: String,
}

impl Matcher {
    /// Parses `label="value"` with any operator.
    fn parse(text: &str) -> Self {
        let (head, rest) = text
            .split_once('"')
            .unwrap_or_else(|| panic!("{text} has a value"));
        let label = head.trim_end_matches(['=', '!', '~']);
        Self {
            label: label.trim().to_owned(),
            is_regex: head.ends_with('~'),
            value: rest.trim_end().trim_end_matches('"').to_owned(),
        }
    }

    fn fault(&self, known: &Labels) -> Option<String> {
        let Self {
            label,
            is_regex,
            value,
        } = self;
        match known.get(label) {
            None => Some(format!("no label {label}")),
            Some(values) if *is_regex || values.is_empty() || values.contains(value) => None,
            Some(values) => Some(format!("{label} is never {value}, but one of {values:?}")),
        }
    }
}

/// The metrics of the webhook and of the API server in a query. No value of a label contains a comma or a brace.
pub fn selectors(query: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = PREFIXES.iter().filter_map(|prefix| rest.find(prefix)).min() {
        let text = &rest[start..];
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, after) = text.split_at(end.unwrap_or(text.len()));
        let matchers = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let matchers = matchers.map_or("", |(inside, _)| inside);
        found.push(Selector {
            name: name.to_owned(),
            matchers: matchers
                .split(',')
                .filter(|text| !text.trim().is_empty())
                .map(Matcher::parse)
                .collect(),
        });
        rest = &after[matchers.len()..];
    }
    found
}

/// The labels by which a query groups.
pub fn grouped(query: &str) -> Vec<String> {
    let groupings = query.split("by (").skip(1);
    let lists = groupings.filter_map(|rest| rest.split_once(')'));
    let labels = lists.flat_map(|(list, _)| list.split(','));
    labels.map(|label| label.trim().to_owned()).collect()
}
