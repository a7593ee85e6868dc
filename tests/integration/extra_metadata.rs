//! Labels and annotations of the installer and of others on pull Secrets and `ACRPullSecret`s.

use acr_pull_webhook::pull_secret::ACRPullSecret;
use k8s_openapi::api::{admissionregistration::v1::ValidatingAdmissionPolicy, core::v1::Secret};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name},
};

const FLAGS: [&str; 2] = [
    "--pull-secret-labels=team=a,example.com/cost=",
    "--pull-secret-annotations=example.com/owner=Team A",
];

/// Sets the labels and the annotations that the policy permits, as the operator has to.
async fn set_in_policy(env: &TestEnv, [labels, annotations]: [&str; 2]) {
    let api = Api::<ValidatingAdmissionPolicy>::all(env.client.clone());
    let mut policy = api.get("acr-pull-webhook-secrets").await.unwrap();
    let variables = policy.spec.as_mut().unwrap().variables.as_mut().unwrap();
    for (name, expression) in [("extraLabels", labels), ("extraAnnotations", annotations)] {
        let variable = variables.iter_mut().find(|variable| variable.name == name);
        variable.unwrap().expression = expression.to_owned();
    }
    let params = PostParams::default();
    api.replace(&policy.name_any(), &params, &policy).await.unwrap();
}

/// Asserts that an object has the labels and annotations of the flags, and the label of the webhook.
fn assert_has_extra_metadata(object: &impl Resource) {
    let labels = object.labels();
    for (key, value) in [
        ("team", "a"),
        ("example.com/cost", ""),
        ("app.kubernetes.io/managed-by", "acr-pull-webhook"),
    ] {
        assert_eq!(labels.get(key).map(String::as_str), Some(value), "{labels:?}");
    }
    let annotations = object.annotations();
    let owner = annotations.get("example.com/owner").map(String::as_str);
    assert_eq!(owner, Some("Team A"), "{annotations:?}");
}

/// Asserts that the policy refuses a renewal with labels that it does not list.
async fn assert_policy_refuses_other_labels(env: &TestEnv, name: &str) {
    set_in_policy(env, [r#"{"team": "b"}"#, "{}"]).await;
    eventually("the policy refuses labels that it does not list", async || {
        let condition = env.team_a.namespace.status(name).await.conditions.pop()?;
        let is_refused = condition.status == "False" && condition.reason == "PolicyDenied";
        is_refused.then(|| {
            assert!(
                condition.message.contains("may only write pull secrets"),
                "{}",
                condition.message
            )
        })
    })
    .await;
}

#[testkit::test]
async fn configured_labels_and_annotations_are_on_both_objects() {
    let env = TestEnv::leading(&FLAGS, token_lifetime(12)).await;
    let namespace = &env.team_a.namespace;
    let permitted = [
        r#"{"team": "a", "example.com/cost": ""}"#,
        r#"{"example.com/owner": "Team A"}"#,
    ];
    set_in_policy(&env, permitted).await;
    let created = eventually("the policy permits the labels", async || {
        namespace.try_create_pod(&pod("app", "contoso")).await.ok()
    })
    .await;
    let name = pull_secret_name(&created);
    assert_has_extra_metadata(&namespace.pull_secret(&name).await);
    assert_has_extra_metadata(&namespace.secrets().get(&name).await.unwrap());

    // An object that was written with other labels, and labels of others.
    let metadata =
        |extra: Value| Patch::Merge(json!({"metadata": {"labels": {"other": "b"}, "annotations": extra}}));
    let params = PatchParams::default();
    let stale = json!({"other": "b", "acr-pull.dev/extra-metadata": "0"});
    let owners: Api<ACRPullSecret> = namespace.pull_secrets();
    owners.patch(&name, &params, &metadata(stale)).await.unwrap();
    let team = Patch::Merge(json!({"metadata": {"labels": {"team": null}}}));
    owners.patch(&name, &params, &team).await.unwrap();
    let secrets: Api<Secret> = namespace.secrets();
    secrets
        .patch(&name, &params, &metadata(json!({"other": "b"})))
        .await
        .unwrap();
    namespace.wait_for_renewals(&name, 2).await;
    let (owner, secret) = (
        owners.get(&name).await.unwrap(),
        secrets.get(&name).await.unwrap(),
    );
    assert_has_extra_metadata(&owner);
    assert_has_extra_metadata(&secret);
    // The ACRPullSecret is applied, so it keeps what others add. The webhook cannot read a Secret, and replaces it.
    assert_eq!(
        (&owner.labels()["other"], &owner.annotations()["other"]),
        (&"b".to_owned(), &"b".to_owned())
    );
    assert_eq!(
        (secret.labels().get("other"), secret.annotations().get("other")),
        (None, None)
    );
    assert_policy_refuses_other_labels(&env, &name).await;
    env.assert_no_secret_was_logged();
}
