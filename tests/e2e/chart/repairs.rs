//! Releases whose objects were deleted or changed: `check`, run by a person, names the cause and prints the command of
//! helm that repairs the release.

use crate::release::{Release, environment};
use e2e::{client, eventually, scenario::Scenario};
use serde_json::{Value, json};
use tokio::process::Command;

/// A change of the release, and the reason that `check` finds.
const BROKEN: [(&str, &str); 4] = [
    (
        "kubectl delete mutatingwebhookconfiguration acr-pull-webhook",
        "RegistrationNotFound",
    ),
    (
        "kubectl delete service --namespace acr-pull-webhook acr-pull-webhook",
        "NoEndpoints",
    ),
    (
        "kubectl delete clusterrolebinding acr-pull-webhook",
        "PermissionMissing",
    ),
    (
        "kubectl delete validatingadmissionpolicybinding acr-pull-webhook-tokens",
        "PolicyMissing",
    ),
];

/// Runs a line of shell with the programs of this cluster.
async fn shell(line: &str) -> std::process::Output {
    let functions = format!(
        "helm() {{ {} \"$@\"; }}\nkubectl() {{ {} \"$@\"; }}\nacr-pull-webhook() {{ {} \"$@\"; }}",
        environment("HELM"),
        environment("KUBECTL"),
        environment("PROGRAM")
    );
    let script = format!("set -o pipefail\n{functions}\n{line}");
    Command::new("bash").args(["-c", &script]).output().await.unwrap()
}

/// The report of the installation and of the round trip.
async fn check() -> (Option<i32>, Vec<Value>) {
    let output = shell("acr-pull-webhook check --only=installation,round-trip --output=json").await;
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let sections = report["sections"].as_array().unwrap().iter();
    let findings = sections.flat_map(|section| section["findings"].as_array().unwrap().clone());
    (output.status.code(), findings.collect())
}

#[testkit::test]
async fn a_broken_release_is_repaired_by_the_printed_command() {
    let client = client().await;
    let release = Release::fresh(&client, json!({})).await;
    for (line, reason) in BROKEN {
        let broken = shell(line).await;
        assert!(broken.status.success(), "{line}: {broken:?}");
        let finding = eventually(&format!("{line}: {reason} is found"), async || {
            let (code, findings) = check().await;
            let found = findings.into_iter().find(|finding| finding["reason"] == reason);
            found.filter(|_| code == Some(1))
        })
        .await;
        let command = finding["commands"][0].as_str().unwrap();
        assert!(
            command.starts_with("helm get manifest acr-pull-webhook"),
            "{command}"
        );
        let repaired = shell(command).await;
        assert!(repaired.status.success(), "{command}: {repaired:?}");
        eventually(&format!("{line} is repaired"), async || {
            let (code, findings) = check().await;
            testkit::observe(json!(findings));
            (code == Some(0)).then_some(())
        })
        .await;
    }
    release.runs_app(Scenario::ReleaseRepair).await;
}
