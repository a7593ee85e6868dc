//! What a check found, and how it is printed: as lines for a person, or as JSON.

use super::reason::Reason;
use crate::{problem, untrusted};
use serde::Serialize;
use std::{fmt, process::ExitCode};

/// Longer messages are truncated.
const MAX_MESSAGE_BYTES: usize = 2048;

/// The outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is wrong.
    Ok,
    /// Pulls work, but something should be changed.
    Warning,
    /// Something is wrong.
    Failed,
    /// The check could not be made, for example because the caller's permissions do not suffice.
    Unknown,
}

impl Status {
    fn mark(self) -> char {
        match self {
            Status::Ok => '✔',
            Status::Warning => '‼',
            Status::Failed => '✘',
            Status::Unknown => '?',
        }
    }
}

/// The result of one check: one line, with commands and a link below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: String,
    /// The outcome.
    pub status: Status,
    /// The stable word for what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// One sentence.
    pub message: String,
    /// Commands that correct what is wrong. Words in capitals are placeholders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Where the reason is explained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Finding {
    /// Nothing is wrong.
    pub fn ok(check: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, None, message)
    }

    /// Something is wrong.
    pub fn failed(check: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(check, Status::Failed, Some(reason.as_str()), message)
    }

    /// Something should be changed.
    pub fn warning(check: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(check, Status::Warning, Some(reason.as_str()), message)
    }

    /// The check could not be made.
    pub fn unknown(check: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(check, Status::Unknown, Some(reason.as_str()), message)
    }

    /// The problem that the webhook itself would report.
    pub fn problem(check: impl Into<String>, problem: &problem::Problem) -> Self {
        let reason = Some(problem.reason.as_str());
        Self::new(check, Status::Failed, reason, problem.explanation()).commands(
            problem
                .command
                .as_ref()
                .map(|command| command.as_str().to_owned()),
        )
    }

    fn new(
        check: impl Into<String>,
        status: Status,
        reason: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            check: check.into(),
            status,
            reason,
            message: untrusted::sanitize(message.into(), MAX_MESSAGE_BYTES),
            commands: Vec::new(),
            link: reason.map(problem::link),
        }
    }

    /// The same finding with a command that corrects it.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }

    /// The same finding with a command, if there is one.
    pub fn commands(mut self, commands: impl IntoIterator<Item = String>) -> Self {
        self.commands.extend(commands);
        self
    }

    /// The same finding with another outcome.
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.status.mark(), self.check)?;
        if let Some(reason) = self.reason {
            write!(f, "{reason}: ")?;
        }
        writeln!(f, "{}", self.message)?;
        for command in &self.commands {
            writeln!(f, "    {command}")?;
        }
        match &self.link {
            Some(link) => writeln!(f, "    {link}"),
            None => Ok(()),
        }
    }
}

/// The findings about one subject.
#[derive(Debug, Serialize)]
pub struct Section {
    /// The subject.
    pub name: String,
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
}

/// All findings.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The findings by subject.
    pub sections: Vec<Section>,
}

impl Report {
    /// Adds the findings about a subject.
    pub fn add(&mut self, name: impl Into<String>, findings: Vec<Finding>) {
        if !findings.is_empty() {
            self.sections.push(Section {
                name: name.into(),
                findings,
            });
        }
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.sections.iter().flat_map(|section| &section.findings)
    }

    /// The outcome of all checks: failed if something is wrong, otherwise unknown if a check could not be made.
    pub fn status(&self) -> Status {
        let has = |status| self.findings().any(|finding| finding.status == status);
        [Status::Failed, Status::Unknown, Status::Warning]
            .into_iter()
            .find(|status| has(*status))
            .unwrap_or(Status::Ok)
    }

    /// The reasons of the findings that are not well, for a line of progress.
    pub fn reasons(&self) -> Vec<&'static str> {
        let bad = self.findings();
        let bad = bad.filter(|finding| matches!(finding.status, Status::Failed | Status::Unknown));
        bad.filter_map(|finding| finding.reason).collect()
    }

    /// 0 if all is well, 1 if something is wrong, 2 if a check could not be made.
    pub fn exit_code(&self) -> ExitCode {
        match self.status() {
            Status::Ok | Status::Warning => ExitCode::SUCCESS,
            Status::Failed => ExitCode::from(1),
            Status::Unknown => ExitCode::from(2),
        }
    }

    /// The report as one JSON document.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            status: Status,
            #[serde(flatten)]
            report: &'a Report,
        }
        let document = Document {
            status: self.status(),
            report: self,
        };
        // The serialization of these types cannot fail.
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, section) in self.sections.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}", section.name)?;
            for finding in &section.findings {
                write!(f, "{finding}")?;
            }
        }
        let summary = match self.status() {
            Status::Ok => "all is well",
            Status::Warning => "all works; see the warnings",
            Status::Failed => "something is wrong; see ✘",
            Status::Unknown => "nothing wrong was found, but not everything could be checked; see ?",
        };
        writeln!(f, "\n{summary}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statuses: &[Status]) -> Report {
        let finding = |status: &Status| Finding::ok("a check", "fine").status(*status);
        let mut report = Report::default();
        report.add("section", statuses.iter().map(finding).collect());
        report
    }

    #[test]
    fn a_failure_outweighs_what_is_unknown_and_a_warning_is_no_failure() {
        use Status::{Failed, Ok, Unknown, Warning};
        for (statuses, expected) in [
            (&[][..], Ok),
            (&[Ok, Ok], Ok),
            (&[Ok, Warning], Warning),
            (&[Unknown, Warning], Unknown),
            (&[Unknown, Failed, Ok], Failed),
        ] {
            assert_eq!(report(statuses).status(), expected, "{statuses:?}");
        }
        let code = |status| format!("{:?}", report(&[status]).exit_code());
        assert_eq!(code(Warning), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(Failed), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code(Unknown), format!("{:?}", ExitCode::from(2)));
    }

    #[test]
    fn a_finding_has_its_command_and_its_link_on_lines_of_their_own() {
        let finding = Finding::failed(
            "Deployment",
            Reason::DeploymentNotReady,
            "0 of 2\nreplicas are ready",
        )
        .command("kubectl get pods");
        assert_eq!(
            finding.to_string(),
            "✘ Deployment: DeploymentNotReady: 0 of 2\\nreplicas are ready\n    kubectl get pods\n    \
             https://acr-pull.dev/reasons.html#deploymentnotready\n"
        );
        assert_eq!(
            Finding::ok("CRDs", "installed").to_string(),
            "✔ CRDs: installed\n"
        );
    }

    #[test]
    fn the_json_document_has_the_status_and_every_finding() {
        let mut report = report(&[Status::Ok]);
        let failed = Finding::failed("CRDs", Reason::CrdOutdated, "missing").command("do this");
        report.add("installation", vec![failed]);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["status"], "failed");
        let finding = &json["sections"][1]["findings"][0];
        assert_eq!(
            (&finding["status"], &finding["reason"]),
            (&"failed".into(), &"CrdOutdated".into())
        );
        assert_eq!(finding["commands"][0], "do this");
        assert_eq!(json["sections"][0]["findings"][0].get("reason"), None);
    }
}
