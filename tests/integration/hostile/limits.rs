//! Limits and failures of one namespace or application, which leave the others unaffected.

use super::{bystanders::Bystanders, fairness::admitted};
use azure_emulator::{Effect, Endpoint, Fault, InvalidBody, Uri};
use futures::future::join_all;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Api;
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use testkit::{
    azure::REGISTRY,
    control_plane::apply,
    env::TestEnv,
    eventually,
    objects::{from, pod, unnamed_pod},
    review::{post, review},
};

/// The number of pull secrets in a namespace is limited for all its Pods together.
#[testkit::test]
async fn a_namespace_has_at_most_the_permitted_number_of_pull_secrets() {
    let env = TestEnv::with_flags(&["--max-pull-secrets-per-namespace=5"]).await;
    let namespace = &env.team_a.namespace;
    for n in 0..8 {
        namespace.apply_generator(&format!("g-{n}"), json!({})).await;
    }
    for n in 0..5 {
        let pod = pod(&format!("app-{n}"), &format!("g-{n}"));
        namespace.create_pod(&pod).await;
    }
    let refused = namespace.refused_pod(&pod("more", "g-5")).await;
    assert_eq!(refused.code, 403);
    for text in [
        "TooManyPullSecrets",
        "--max-pull-secrets-per-namespace",
        namespace.name(),
    ] {
        assert!(refused.message.contains(text), "{}", refused.message);
    }
    // Simultaneous reviews do not exceed the limit either.
    let allowed = (0..8).map(async |n| {
        let review = review(namespace, &pod("more", &format!("g-{n}")));
        post(&env, &review).await["response"]["allowed"] == true
    });
    assert_eq!(
        join_all(allowed).await.iter().filter(|allowed| **allowed).count(),
        5
    );
    let all = namespace.list_pull_secrets().await;
    assert_eq!(all.len(), 5);
    // The existing pull secrets and other namespaces are still served.
    namespace.create_pod(&pod("again", "g-0")).await;
    admitted(&env, "contoso").await;
    Bystanders::of(&env, &[&env.webhook]).await.check().await;
    // After the deletion of one pull secret, another one is permitted.
    namespace
        .delete_pull_secret(all[0].metadata.name.as_deref().unwrap())
        .await;
    namespace.retry_create_pod(&unnamed_pod("g-5")).await;
}

/// Unexpected answers to the requests of one application.
#[testkit::test]
async fn bad_answers_to_one_application_do_not_affect_others() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let bystanders = Bystanders::of(&env, &[&env.webhook]).await;
    let redirect = |location| Effect::Redirect(Uri::from_static(location));
    let slow = || Effect::Slow(Duration::from_secs(30));
    for (number, (endpoint, effect)) in [
        (
            Endpoint::AcrExchange,
            redirect("https://elsewhere.example/oauth2/exchange"),
        ),
        (Endpoint::EntraToken, redirect("https://elsewhere.example/")),
        (Endpoint::AcrExchange, slow()),
        (Endpoint::EntraToken, slow()),
        (Endpoint::AcrExchange, Effect::Body(InvalidBody::Truncated)),
        (Endpoint::EntraToken, Effect::Body(InvalidBody::Html)),
        (Endpoint::AcrExchange, Effect::Reset),
        (Endpoint::EntraToken, Effect::Aadsts(700_016)),
    ]
    .into_iter()
    .enumerate()
    {
        let fault = Fault::new(endpoint, effect.clone()).of_client(env.team_a.client_id);
        env.azure.set_faults(&[fault]);
        let generator = format!("bad-{number}");
        for namespace in [namespace, &env.team_b.namespace] {
            namespace.apply_generator(&generator, json!({})).await;
        }
        let review = review(namespace, &pod("app", &generator));
        let (answer, _) = tokio::join!(post(&env, &review), admitted(&env, &generator));
        let text = answer["response"].to_string();
        // A refusal has a line for the sentence, the command and the uid.
        for control in ["\\r", "\\u00"] {
            assert!(!text.contains(control), "{effect:?}: {text}");
        }
        let hosts: BTreeSet<_> = env.azure.requests().into_iter().map(|r| r.host).collect();
        assert!(
            hosts
                .iter()
                .all(|host| host == REGISTRY || host.starts_with("login.")),
            "{hosts:?}"
        );
        bystanders.check().await;
    }
    env.assert_no_secret_was_logged();
}

/// An admission policy of the cluster refuses the webhook's object: the user has to know the message of the policy.
#[testkit::test]
async fn the_message_of_a_policy_is_returned_and_not_retried() {
    const MESSAGE: &str = "every object has a label team";
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = format!("{namespace}-labels");
    let policy: ValidatingAdmissionPolicy = from(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [{
                    "apiGroups": ["acr-pull.dev"], "apiVersions": ["*"], "resources": ["acrpullsecrets"],
                    "operations": ["CREATE"],
                }],
            },
            "validations": [{
                "expression": "has(object.metadata.labels) && 'team' in object.metadata.labels",
                "message": MESSAGE,
            }],
        },
    }));
    let binding: ValidatingAdmissionPolicyBinding = from(json!({
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }));
    apply(&Api::all(env.client.clone()), &policy).await;
    apply(&Api::all(env.client.clone()), &binding).await;
    let count = AtomicUsize::new(0);
    eventually("the policy refuses a pull secret", async || {
        // Each attempt needs a new pull secret: existing ones are not created again.
        let generator = format!("try-{}", count.fetch_add(1, Ordering::Relaxed));
        namespace.apply_generator(&generator, json!({})).await;
        let refused = namespace.try_create_pod(&unnamed_pod(&generator)).await.err()?;
        let kube::Error::Api(status) = refused else {
            return None;
        };
        assert_eq!(status.code, 403, "{}", status.message);
        assert!(
            status.message.contains("PolicyDenied") && status.message.contains(MESSAGE),
            "{}",
            status.message
        );
        Some(())
    })
    .await;
    admitted(&env, "contoso").await;
    Bystanders::of(&env, &[&env.webhook]).await.check().await;
    let is_retry =
        |line: &String| line.contains("pull secret not issued yet") && line.contains(namespace.name());
    assert!(
        !env.webhook.log().iter().any(is_retry),
        "the webhook does not retry in the background"
    );
}
