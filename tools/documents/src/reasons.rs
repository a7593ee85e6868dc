//! The page of reasons: the lists and the first sentences come from the program, causes and fixes from
//! `texts/reasons.md` and `texts/check-reasons.md`.

use crate::{
    DocumentError,
    text::{self, code, row},
};
use acr_pull_webhook::{Class, Reason, check};
use std::collections::BTreeMap;

const OF_WEBHOOK: Texts = Texts {
    file: "tools/documents/texts/reasons.md",
    content: include_str!("../texts/reasons.md"),
    parts: &["**Cause.** ", "**Fix.** "],
};
const OF_CHECK: Texts = Texts {
    file: "tools/documents/texts/check-reasons.md",
    content: include_str!("../texts/check-reasons.md"),
    parts: &["**Fix.** "],
};

/// What people wrote about reasons.
#[derive(Clone, Copy)]
struct Texts {
    file: &'static str,
    content: &'static str,
    /// What each text has.
    parts: &'static [&'static str],
}

/// `docs/reasons.md`.
pub fn page() -> Result<String, DocumentError> {
    let reasons = Reason::ALL.iter().copied();
    let rows = reasons.clone().map(|reason| {
        row([
            link(reason.as_str()),
            reason.summary().to_owned(),
            answer(reason).to_owned(),
        ])
    });
    let table: String = rows.collect();
    let meaning = |reason: Reason| format!("{} The Pod is {}.", reason.summary(), answer(reason));
    let sections = sections(
        reasons.map(|reason| (reason.as_str(), meaning(reason))),
        OF_WEBHOOK,
    )?;
    let of_check = check::REASONS.iter();
    let of_check = of_check.map(|(name, meaning)| (*name, meaning.trim().to_owned()));
    let check_rows = of_check.clone().map(|(name, meaning)| row([link(name), meaning]));
    let check_table: String = check_rows.collect();
    let check_sections = self::sections(of_check, OF_CHECK)?;
    let generated = format!(
        "| reason | meaning | the Pod is |\n|---|---|---|\n{table}\n{sections}\n{}\n| reason | meaning \
         |\n|---|---|\n{check_table}\n{check_sections}",
        include_str!("../texts/check-reasons-head.md"),
    );
    Ok(text::page(include_str!("../texts/reasons-page.md"), &generated))
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
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

/// A section for each reason, whose first sentence is its meaning. Fails for a reason without a text and for a text
/// without a reason.
fn sections(
    reasons: impl Iterator<Item = (&'static str, String)>,
    Texts { file, content, parts }: Texts,
) -> Result<String, DocumentError> {
    let mut texts: BTreeMap<_, _> = content
        .split("\n## ")
        .skip(1)
        .filter_map(|text| text.split_once('\n'))
        .collect();
    let mut sections = Vec::new();
    for (name, meaning) in reasons {
        let text = texts.remove(name).ok_or_else(|| {
            DocumentError::Wrong(format!(
                "{file} does not explain {name}: add a section `## {name}` with {}",
                parts.concat()
            ))
        })?;
        if let Some(part) = parts.iter().find(|part| !text.contains(part.trim_end())) {
            return Err(DocumentError::Wrong(format!("{file}: {name} has no {part}")));
        }
        sections.push(format!("## {name}\n\n{meaning}\n\n{}\n", text.trim()));
    }
    match texts.first_key_value() {
        None => Ok(sections.join("\n")),
        Some((name, _)) => Err(DocumentError::Wrong(format!(
            "{file} explains {}, which is not a reason of the program",
            code(name)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(names: &[&'static str], content: &'static str) -> String {
        let reasons = names.iter().map(|name| (*name, "It is so.".to_owned()));
        match sections(
            reasons,
            Texts {
                content,
                ..OF_WEBHOOK
            },
        ) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_reason_has_a_cause_and_a_fix_and_every_text_a_reason() {
        let texts = "x\n## A\n\n**Cause.** c\n\n**Fix.** f\n\n## B\n\n**Cause.** c\n";
        assert!(
            outcome(&["A"], "x\n## A\n\n**Cause.** c\n\n**Fix.** f\n")
                .starts_with("## A\n\nIt is so.\n\n**C")
        );
        assert!(outcome(&["A", "C"], texts).contains("does not explain C"));
        assert!(outcome(&["A", "B"], texts).contains("B has no **Fix.**"));
        assert!(outcome(&["A"], texts).contains("explains `B`"));
    }
}
