//! The page of reasons: the list and the first sentence come from the program, causes and fixes from `texts/reasons.md`.

use crate::{
    DocumentError,
    text::{self, code, row},
};
use acr_pull_webhook::{Class, Reason};
use std::collections::BTreeMap;

const TEXTS: &str = include_str!("../texts/reasons.md");

/// `docs/reasons.md`.
pub fn page() -> Result<String, DocumentError> {
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| Facts::of(*reason)).collect();
    let sections = sections(&reasons, TEXTS)?;
    let rows = reasons.iter().map(|facts| {
        let link = format!("[{}](#{})", facts.name, facts.name.to_lowercase());
        row([link, facts.summary.to_owned(), facts.answer.to_owned()])
    });
    let table: String = rows.collect();
    let generated = format!("| reason | meaning | the Pod is |\n|---|---|---|\n{table}\n{sections}");
    Ok(text::page(include_str!("../texts/reasons-page.md"), &generated))
}

/// What the program knows about a reason.
struct Facts {
    name: &'static str,
    summary: &'static str,
    answer: &'static str,
}

impl Facts {
    fn of(reason: Reason) -> Self {
        Self {
            name: reason.as_str(),
            summary: reason.summary(),
            answer: answer(reason),
        }
    }
}

/// What happens to a Pod that meets this reason during its admission.
fn answer(reason: Reason) -> &'static str {
    match (reason, reason.class()) {
        (Reason::InvalidReview, _) => "refused (HTTP 400)",
        (Reason::ScopeNotGranted, _) => "admitted, with a warning",
        (reason, _) if reason.summary().starts_with("A warning:") => "admitted, with a warning",
        (_, Class::Invalid) => "refused (HTTP 422)",
        (_, Class::Forbidden) => "refused (HTTP 403)",
        (_, Class::Upstream) => {
            "admitted, with a warning; refused (HTTP 403) with `--on-upstream-failure=deny`"
        }
        (_, Class::ApiServer) => "refused, unless `failurePolicy` is `Ignore`",
    }
}

/// A section for each reason. Fails for a reason without a text and for a text without a reason.
fn sections(reasons: &[Facts], texts: &str) -> Result<String, DocumentError> {
    let mut texts: BTreeMap<_, _> = texts
        .split("\n## ")
        .skip(1)
        .filter_map(|text| text.split_once('\n'))
        .collect();
    let mut sections = Vec::new();
    for Facts {
        name,
        summary,
        answer,
    } in reasons
    {
        let text = texts.remove(name).ok_or_else(|| {
            DocumentError::Wrong(format!(
                "tools/documents/texts/reasons.md does not explain {name}: add a section `## {name}` with cause and fix"
            ))
        })?;
        let missing = ["**Cause.** ", "**Fix.** "]
            .into_iter()
            .find(|part| !text.contains(part.trim_end()));
        if let Some(part) = missing {
            let message = format!("tools/documents/texts/reasons.md: {name} has no {part}");
            return Err(DocumentError::Wrong(message));
        }
        sections.push(format!(
            "## {name}\n\n{summary} The Pod is {answer}.\n\n{}\n",
            text.trim()
        ));
    }
    match texts.first_key_value() {
        None => Ok(sections.join("\n")),
        Some((name, _)) => Err(DocumentError::Wrong(format!(
            "tools/documents/texts/reasons.md explains {}, which is not a reason of src/problem.rs",
            code(name)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(names: &[&'static str], texts: &str) -> String {
        let facts = names.iter().map(|name| Facts {
            name,
            summary: "It is so.",
            answer: "refused",
        });
        match sections(&facts.collect::<Vec<_>>(), texts) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_reason_has_a_cause_and_a_fix_and_every_text_a_reason() {
        let texts = "x\n## A\n\n**Cause.** c\n\n**Fix.** f\n\n## B\n\n**Cause.** c\n";
        assert!(
            outcome(&["A"], "x\n## A\n\n**Cause.** c\n\n**Fix.** f\n")
                .starts_with("## A\n\nIt is so. The Pod is refused.\n\n**C")
        );
        assert!(outcome(&["A", "C"], texts).contains("does not explain C"));
        assert!(outcome(&["A", "B"], texts).contains("B has no **Fix.**"));
        assert!(outcome(&["A"], texts).contains("explains `B`"));
    }
}
