//! Broken installations: objects of the webhook that are missing, changed or not permitted.

use super::{
    installation::Installation,
    table::{Break, Fix, Row, assert_pulls, row},
};

/// A pull of team A is part of every check, so that a corrected installation is well in every part.
const ARGUMENTS: &str = "check --namespace TEAM_A contoso --service-account app";
const PRINTED: Fix = Fix::Printed(&[]);

fn objects() -> Vec<Row> {
    vec![
        row(
            "an old version of a CustomResourceDefinition",
            Break::Shell(
                "kubectl patch crd acrpullsecrets.acr-pull.dev --type json --patch '[{\"op\": \"remove\", \
                 \"path\": \"/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/secretUID\"}]'",
            ),
            "CrdOutdated",
            PRINTED,
        ),
        row(
            "no replicas",
            Break::Shell(
                "kubectl scale deployment --namespace acr-pull-webhook acr-pull-webhook --replicas=0",
            ),
            "DeploymentNotReady",
            PRINTED,
        ),
        row(
            "an invalid variable",
            Break::Shell(
                "kubectl set env --namespace acr-pull-webhook deployment/acr-pull-webhook \
                 ACR_PULL_WEBHOOK_REGISTRY_SUFFIXES=io",
            ),
            "SettingsInvalid",
            PRINTED,
        ),
        row(
            "a deleted Service",
            Break::Shell("kubectl delete service --namespace acr-pull-webhook acr-pull-webhook"),
            "NoEndpoints",
            PRINTED,
        ),
        row(
            "another namespace of the webhook",
            Break::No,
            "DeploymentNotFound",
            Fix::Shell("true"),
        )
        .with_arguments("check --webhook-namespace TEAM_A --only=installation"),
    ]
}

fn registrations() -> Vec<Row> {
    vec![
        row(
            "a deleted registration",
            Break::Shell("kubectl delete mutatingwebhookconfiguration acr-pull-webhook"),
            "RegistrationNotFound",
            PRINTED,
        ),
        row(
            "a changed rule",
            Break::Shell(
                "kubectl patch mutatingwebhookconfiguration acr-pull-webhook --type json --patch '[{\"op\": \
                 \"replace\", \"path\": \"/webhooks/0/rules/0/operations\", \"value\": [\"UPDATE\"]}]'",
            ),
            "RegistrationChanged",
            PRINTED,
        ),
        row(
            "failurePolicy Ignore",
            Break::Shell(
                "kubectl patch mutatingwebhookconfiguration acr-pull-webhook --type json --patch '[{\"op\": \
                 \"replace\", \"path\": \"/webhooks/0/failurePolicy\", \"value\": \"Ignore\"}]'",
            ),
            "FailurePolicyIgnore",
            PRINTED,
        )
        .with_code(0),
        row(
            "a second registration",
            Break::Shell(
                "sed 's/^  name: acr-pull-webhook$/  name: old-webhook/' deploy/kustomize/base/webhook.yaml \
                 | kubectl create --filename -",
            ),
            "RegistrationDuplicate",
            PRINTED,
        ),
        row(
            "a foreign certificate authority that the webhook may not replace",
            Break::Shell(
                "kubectl delete clusterrolebinding acr-pull-webhook-certificates
                 CA=$(base64 --wrap=0 < $(dirname $KUBECONFIG)/pki/ca.crt)
                 kubectl patch mutatingwebhookconfiguration acr-pull-webhook --type json --patch '[{\"op\": \"replace\", \
                 \"path\": \"/webhooks/0/clientConfig/caBundle\", \"value\": \"'$CA'\"}]'",
            ),
            "CaBundleMismatch",
            PRINTED,
        ),
        row(
            "a removed path that the webhook may not publish",
            Break::Shell(
                "kubectl delete clusterrolebinding acr-pull-webhook-certificates
                 kubectl patch mutatingwebhookconfiguration acr-pull-webhook --type json --patch '[{\"op\": \"remove\", \
                 \"path\": \"/webhooks/0/clientConfig/service/path\"}]'",
            ),
            "PathNotPublished",
            PRINTED,
        ),
    ]
}

fn permissions() -> Vec<Row> {
    vec![
        row(
            "a deleted ClusterRoleBinding",
            Break::Shell("kubectl delete clusterrolebinding acr-pull-webhook"),
            "PermissionMissing",
            PRINTED,
        ),
        row(
            "no right to the Lease",
            Break::Shell(
                "kubectl delete role --namespace acr-pull-webhook acr-pull-webhook
                 kubectl delete lease --namespace acr-pull-webhook acr-pull-webhook-leader",
            ),
            "NoLeader",
            PRINTED,
        ),
        row(
            "a policy without its binding",
            Break::Shell("kubectl delete validatingadmissionpolicybinding acr-pull-webhook-tokens"),
            "PolicyMissing",
            PRINTED,
        ),
        row(
            "a policy that is not enforced",
            Break::Shell(
                "kubectl patch validatingadmissionpolicybinding acr-pull-webhook-secrets --type merge \
                 --patch '{\"spec\": {\"validationActions\": [\"Audit\"]}}'",
            ),
            "PolicyMissing",
            PRINTED,
        ),
        row(
            "all policies deleted",
            Break::Shell(
                "for name in secrets tokens registration; do
                   kubectl delete validatingadmissionpolicy acr-pull-webhook-$name
                 done",
            ),
            "PolicyMissing",
            PRINTED,
        )
        .with_code(0),
    ]
}

fn namespaces() -> Vec<Row> {
    vec![
        row(
            "a namespace that the registration does not select",
            Break::Shell("kubectl label namespace TEAM_A control-plane=true"),
            "NamespaceNotSelected",
            PRINTED,
        ),
        row("a missing namespace", Break::No, "NamespaceNotFound", PRINTED)
            .with_arguments("check --namespace missing --only=round-trip"),
        row(
            "another webhook that refuses the test Pod",
            Break::Shell(
                "kubectl create --filename - <<'YAML'
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: aaa-called-first}
webhooks:
- name: other.example.com
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
  rules: [{apiGroups: [''], apiVersions: [v1], resources: [pods], operations: [CREATE]}]
  clientConfig: {service: {name: none, namespace: default}}
  admissionReviewVersions: [v1]
  sideEffects: None
YAML",
            ),
            "RefusedByAnother",
            Fix::Shell("kubectl delete mutatingwebhookconfiguration aaa-called-first"),
        )
        .with_arguments("check --namespace default --only=round-trip")
        .with_code(2),
    ]
}

#[testkit::test]
async fn each_broken_installation_has_its_reason_and_is_corrected() {
    testkit::allow_more_time(std::time::Duration::from_secs(300));
    let installation = Installation::start().await;
    installation
        .wait_until_well(ARGUMENTS.trim_start_matches("check "))
        .await;
    for row in objects()
        .into_iter()
        .chain(registrations())
        .chain(permissions())
        .chain(namespaces())
    {
        row.run(&installation, ARGUMENTS).await;
        assert_pulls(&installation, row.name).await;
    }
}

#[testkit::test]
async fn an_unreachable_webhook_is_distinguished_from_one_that_is_not_called() {
    let installation = Installation::start().await;
    let endpoint = installation.endpoint().await;
    let slice = "kubectl delete endpointslice --namespace acr-pull-webhook acr-pull-webhook-process";
    installation.shell(slice).await;
    let report = testkit::eventually("the webhook is reported as unreachable", async || {
        let report = installation
            .check("--namespace TEAM_A contoso --service-account app")
            .await;
        (report.has("WebhookUnreachable") && report.has("NoEndpoints")).then_some(report)
    })
    .await;
    assert_eq!(report.code, 1, "{report:#?}");
    installation.shell(&endpoint).await;
    installation
        .wait_until_well("--namespace TEAM_A contoso --service-account app")
        .await;
}

#[testkit::test]
async fn a_missing_custom_resource_definition_is_installed_by_the_printed_command() {
    let installation = Installation::start().await;
    installation
        .shell("kubectl delete crd acraccesstokens.generators.external-secrets.io")
        .await;
    let report = installation.check("--only=installation").await;
    assert!(report.has("CrdNotInstalled") && report.code == 1, "{report:#?}");
    let command = report
        .commands()
        .into_iter()
        .find(|command| command.contains(" crds | "))
        .unwrap();
    installation.shell(&command).await;
    installation.wait_until_well("--only=installation").await;
    installation
        .env
        .team_a
        .namespace
        .apply_generator("contoso", serde_json::json!({}))
        .await;
    assert_pulls(&installation, "a missing definition").await;
}
