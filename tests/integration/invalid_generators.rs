//! Invalid generators, and the reports about them.

use crate::refusals::assert_refused;
use acr_pull_webhook::generator::ACRAccessToken;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::json;
use testkit::{
    env::TestEnv,
    eventually,
    objects::{from, pod},
};

/// The author of a generator does not always see the Pods that are refused because of it.
#[testkit::test]
async fn an_invalid_generator_gets_one_event_and_none_for_a_dry_run() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let registry = json!({"registry": "registry.example.com"});
    namespace.apply_generator("elsewhere", registry).await;
    let elsewhere = pod("app", "elsewhere");
    assert!(namespace.dry_run_pod(&elsewhere).await.is_err());
    for _ in 0..3 {
        assert_refused(&env, &elsewhere, 403, "RegistryNotAllowed", &[]).await;
    }
    // The Event of a later refusal is written after all Events of the earlier ones.
    namespace
        .apply_generator("later", json!({"scope": "nothing"}))
        .await;
    assert_refused(&env, &pod("app", "later"), 422, "ScopeInvalid", &[]).await;
    let events = eventually("both generators have an Event", async || {
        let mut events = namespace.events().await;
        events.retain(|event| event.involved_object.kind.as_deref() == Some("ACRAccessToken"));
        let mut reasons = events.iter().filter_map(|event| event.reason.as_deref());
        reasons.any(|reason| reason == "ScopeInvalid").then_some(events)
    })
    .await;
    let reasons: Vec<_> = events
        .iter()
        .map(|event| {
            let type_and_count = (event.type_.as_deref(), event.count.unwrap_or(1));
            assert_eq!(type_and_count, (Some("Warning"), 1));
            let name = event.involved_object.name.as_deref().unwrap();
            (name, event.reason.as_deref().unwrap())
        })
        .collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons.contains(&("elsewhere", "RegistryNotAllowed")),
        "{reasons:?}"
    );
}

/// An Event and its object have names of the same maximum length.
#[testkit::test]
async fn a_generator_with_the_longest_name_gets_an_event() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = format!("{}.x", "g".repeat(251));
    let registry = json!({"registry": "registry.example.com"});
    namespace.apply_generator(&name, registry).await;
    assert_refused(&env, &pod("app", &name), 403, "RegistryNotAllowed", &[]).await;
    let event = eventually("the generator has an Event", async || {
        let mut events = namespace.events().await.into_iter();
        events.find(|event| event.involved_object.name.as_deref() == Some(&name))
    })
    .await;
    assert_eq!(event.reason.as_deref(), Some("RegistryNotAllowed"));
    assert_eq!(event.reporting_component.as_deref(), Some("acr-pull-webhook"));
}

/// Removes the constraints from the schemas of the generators, which other versions of the CRDs do not have either.
pub async fn loosen_schemas(env: &TestEnv) {
    let crds = Api::<CustomResourceDefinition>::all(env.client.clone());
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    for kind in ["acraccesstokens", "clustergenerators"] {
        let schema = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
            "value": anything}]);
        let patch: json_patch::Patch = serde_json::from_value(schema).unwrap();
        let name = format!("{kind}.generators.external-secrets.io");
        crds.patch(&name, &PatchParams::default(), &Patch::Json::<()>(patch))
            .await
            .unwrap();
    }
}

#[testkit::test]
async fn an_undecodable_generator_affects_only_pods_that_reference_it() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    // Older or foreign CRDs permit a registry that is not a string.
    loosen_schemas(&env).await;
    let kind = ApiResource::erase::<ACRAccessToken>(&());
    let api = Api::<DynamicObject>::namespaced_with(env.client.clone(), namespace.name(), &kind);
    let broken: DynamicObject = from(json!({"apiVersion": kind.api_version, "kind": kind.kind,
        "metadata": {"name": "broken"}, "spec": {"registry": 7}}));
    eventually("the looser schema applies", async || {
        api.create(&PostParams::default(), &broken).await.ok()
    })
    .await;

    assert_refused(&env, &pod("app", "broken"), 422, "GeneratorInvalid", &["broken"]).await;
    namespace.apply_generator("later", json!({})).await;
    namespace.create_pod(&pod("app", "contoso,later")).await;
}

#[testkit::test]
async fn a_missing_kind_is_named_in_the_refusal_the_log_and_readiness() {
    let env = TestEnv::on_api_server_with(&[]).await;
    let crd = "acraccesstokens.generators.external-secrets.io";
    let crds = Api::<CustomResourceDefinition>::all(env.client.clone());
    crds.delete(crd, &DeleteParams::default()).await.unwrap();
    eventually("the refusal names the missing kind", async || {
        let refused = env
            .team_a
            .namespace
            .try_create_pod(&pod("app", "contoso"))
            .await
            .err()?;
        let text = refused.to_string();
        (text.contains("CrdNotInstalled") && text.contains(crd)).then_some(())
    })
    .await;
    eventually("the log names the missing kind at level error", async || {
        let log = env.webhook.log();
        let mut lines = log.iter();
        lines
            .any(|line| line.contains("ERROR") && line.contains(crd))
            .then_some(())
    })
    .await;
    eventually("readiness names the missing kind", async || {
        let (status, body) = env.webhook.admin_get("/readyz").await;
        let expected = "ok (CustomResourceDefinition not installed: watch of ACRAccessTokens)";
        (status == 200 && body == expected).then_some(())
    })
    .await;
}
