//! Each thing that is wrong, and the sentence for it.

use acr_pull_webhook::generator::ACRAccessToken;
use azure_emulator::Endpoint;
use k8s_openapi::{
    api::core::v1::{Event, Namespace, Pod, ResourceQuota, Secret, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    azure::{REGISTRY, TENANT},
    env::TestEnv,
    eventually,
    objects::{ANNOTATION, from, pod, pull_secret_name, with_account},
    review::{post, review},
};

/// Asserts that a Pod with this annotation is refused with this code, reason and words.
async fn refuses(env: &TestEnv, pod: &Pod, code: u16, reason: &str, words: &[&str]) {
    let status = env.team_a.namespace.refused_pod(pod).await;
    assert_eq!(status.code, code, "{}", status.message);
    assert!(status.message.contains(reason), "{reason}: {}", status.message);
    for word in words {
        assert!(
            status.message.contains(word),
            "{word:?} is missing: {}",
            status.message
        );
    }
}

#[testkit::test]
async fn a_bad_annotation() {
    let env = TestEnv::start().await;
    for bad in [
        "",
        "Not a name",
        "a,,b",
        "Secret/contoso",
        "ClusterGenerator/",
        "a,none",
    ] {
        refuses(&env, &pod("app", bad), 422, "InvalidAnnotation", &[ANNOTATION]).await;
    }
    assert!(env.azure.requests().is_empty());
}

/// Who wrote the generator may never see the Pods that are refused for it.
#[testkit::test]
async fn a_generator_at_fault_is_told_so_by_one_event_but_not_for_a_dry_run() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("elsewhere", json!({"registry": "registry.example.com"}))
        .await;
    let events = namespace.api::<Event>();
    let told = async || {
        let all = events.list(&Default::default()).await.unwrap().items;
        let about = all
            .into_iter()
            .filter(|event| event.involved_object.kind.as_deref() == Some("ACRAccessToken"));
        about.collect::<Vec<_>>()
    };
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let refused = namespace.dry_run_pod(&pod("app", "elsewhere")).await;
    assert!(refused.is_err());
    for _ in 0..3 {
        refuses(&env, &pod("app", "elsewhere"), 403, "RegistryNotAllowed", &[]).await;
    }
    // Another one's comes later than any further one of these would.
    namespace
        .apply_generator("later", json!({"scope": "nothing"}))
        .await;
    refuses(&env, &pod("app", "later"), 422, "ScopeInvalid", &[]).await;
    let all = eventually("both are told", async || {
        let all = told().await;
        all.iter()
            .any(|event| event.reason.as_deref() == Some("ScopeInvalid"))
            .then_some(all)
    })
    .await;
    let all: Vec<_> = all
        .iter()
        .map(|event| {
            assert_eq!(
                (event.type_.as_deref(), event.count.unwrap_or(1)),
                (Some("Warning"), 1)
            );
            let name = event.involved_object.name.as_deref().unwrap();
            (name, event.reason.as_deref().unwrap())
        })
        .collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all.contains(&("elsewhere", "RegistryNotAllowed")), "{all:?}");
}

#[testkit::test]
async fn a_missing_generator() {
    let env = TestEnv::start().await;
    let words = ["\"fabrikam\"", env.team_a.namespace.name(), "create it"];
    refuses(&env, &pod("app", "fabrikam"), 422, "GeneratorNotFound", &words).await;
    refuses(
        &env,
        &pod("app", "contoso,fabrikam"),
        422,
        "GeneratorNotFound",
        &words,
    )
    .await;
    assert!(env.azure.requests().is_empty(), "nothing is half-done");
    assert!(env.team_a.namespace.list_pull_secrets().await.is_empty());
}

#[testkit::test]
async fn a_registry_that_may_not_be_sent_a_token() {
    let env = TestEnv::start().await;
    for host in [
        "evil.example.com",
        "contoso.azurecr.io.evil.example.com",
        "https://contoso.azurecr.io",
        "evilazurecr.io",
    ] {
        env.team_a
            .namespace
            .apply_generator("evil", json!({"registry": host}))
            .await;
        eventually("the refusal names the registry", async || {
            let status = env.team_a.namespace.refused_pod(&pod("app", "evil")).await;
            assert_eq!(status.code, 403);
            (status.message.contains("RegistryNotAllowed") && status.message.contains(host)).then_some(())
        })
        .await;
    }
    assert!(env.azure.requests().is_empty(), "no token was asked for");
}

#[testkit::test]
async fn a_scope_with_a_wildcard() {
    let env = TestEnv::start().await;
    env.team_a
        .namespace
        .apply_generator("wild", json!({"scope": "repository:team-a/*:pull"}))
        .await;
    refuses(
        &env,
        &pod("app", "wild"),
        422,
        "ScopeInvalid",
        &["character 19", "wildcards"],
    )
    .await;
}

#[testkit::test]
async fn a_service_account_without_client_or_tenant_id() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let other = with_account(pod("app", "contoso"), "default");
    refuses(
        &env,
        &other,
        422,
        "ClientIdMissing",
        &["kubectl annotate serviceaccount", namespace.name(), "default"],
    )
    .await;
    namespace
        .apply_generator("homeless", json!({"tenantId": ""}))
        .await;
    refuses(
        &env,
        &pod("app", "homeless"),
        422,
        "TenantIdMissing",
        &["--tenant-id"],
    )
    .await;
}

#[testkit::test]
async fn a_generator_that_may_not_be_used_here() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("managed", json!({"auth": {"managedIdentity": {}}}))
        .await;
    refuses(
        &env,
        &pod("app", "managed"),
        403,
        "ManagedIdentityNotAllowed",
        &["--managed-identity-namespaces", namespace.name()],
    )
    .await;
    let foreign =
        json!({"workloadIdentity": {"serviceAccountRef": {"name": "app", "namespace": "elsewhere"}}});
    namespace
        .apply_generator("foreign", json!({"auth": foreign}))
        .await;
    refuses(
        &env,
        &pod("app", "foreign"),
        403,
        "CrossNamespaceNotAllowed",
        &["serviceAccountRef.namespace"],
    )
    .await;
    let missing = json!({"workloadIdentity": {"serviceAccountRef": {"name": "missing"}}});
    namespace
        .apply_generator("missing", json!({"auth": missing}))
        .await;
    refuses(
        &env,
        &pod("app", "missing"),
        422,
        "ServiceAccountNotFound",
        &["\"missing\""],
    )
    .await;
}

/// Makes the schemas of the generators take anything, as those of other versions may.
pub async fn loosen(env: &TestEnv) {
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
async fn an_invalid_generator_is_refused_by_name_and_blinds_nobody_to_the_others() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    // What an older or foreign CRD would let through: a registry that is no string.
    loosen(&env).await;
    let loose: ApiResource = ApiResource::erase::<ACRAccessToken>(&());
    let api = Api::<DynamicObject>::namespaced_with(env.client.clone(), namespace.name(), &loose);
    let broken: Value = json!({"apiVersion": loose.api_version, "kind": loose.kind,
        "metadata": {"name": "broken"}, "spec": {"registry": 7}});
    let broken: DynamicObject = from(broken);
    eventually("the looser schema is in force", async || {
        api.create(&PostParams::default(), &broken).await.ok()
    })
    .await;

    refuses(&env, &pod("app", "broken"), 422, "GeneratorInvalid", &["broken"]).await;
    namespace.apply_generator("later", json!({})).await;
    namespace.create_pod(&pod("app", "contoso,later")).await;
}

#[testkit::test]
async fn a_foreign_secret_of_our_name_is_left_as_it_is() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let name = pull_secret_name(&namespace.dry_run_pod(&pod("app", "contoso")).await.unwrap());
    let config = json!({"auths": {REGISTRY: {"username": "me", "password": "mine"}}}).to_string();
    for foreign in [
        json!({"type": "Opaque", "stringData": {"mine": "yes"}}),
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}}),
    ] {
        let mut foreign = foreign;
        foreign["metadata"] = json!({"name": name});
        let before = namespace
            .secrets()
            .create(&PostParams::default(), &from::<Secret>(foreign))
            .await
            .unwrap();
        eventually("the refusal of the Secret", async || {
            let status = namespace.refused_pod(&pod("app", "contoso")).await;
            assert_eq!(status.code, 403);
            assert!(!status.message.contains("password"), "{}", status.message);
            (status.message.contains("SecretConflict") && status.message.contains(&name)).then_some(())
        })
        .await;
        let after = namespace.secrets().get(&name).await.unwrap();
        assert_eq!(
            (before.data, before.metadata.uid),
            (after.data, after.metadata.uid)
        );
        eventually("a refusal leaves nothing behind", async || {
            let owner = namespace.pull_secrets().get_opt(&name).await.unwrap();
            owner.is_none().then_some(())
        })
        .await;
        namespace.delete_secret(&name).await;
    }
    eventually("once it is gone, a Pod gets its own", async || {
        namespace.try_create_pod(&pod("app", "contoso")).await.ok()
    })
    .await;
}

#[testkit::test]
async fn a_quota_on_secrets() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let quotas = namespace.api::<ResourceQuota>();
    let quota = from(json!({"metadata": {"name": "no-secrets"}, "spec": {"hard": {"secrets": "0"}}}));
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    eventually("the quota is in force", async || {
        quotas.get("no-secrets").await.unwrap().status?.hard
    })
    .await;
    refuses(
        &env,
        &pod("app", "contoso"),
        403,
        "WriteForbidden",
        &["exceeded quota", "no-secrets"],
    )
    .await;
    quotas
        .delete("no-secrets", &DeleteParams::default())
        .await
        .unwrap();
    eventually("without the quota the Pod is admitted", async || {
        namespace.try_create_pod(&pod("app", "contoso")).await.ok()
    })
    .await;
}

#[testkit::test]
async fn a_namespace_that_is_being_deleted() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    // Finalizers keep what the Pod refers to, and so the namespace, for as long as the test needs it.
    let finalizers = |list: Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    let generators = namespace.api::<ACRAccessToken>();
    let accounts = namespace.api::<ServiceAccount>();
    let params = PatchParams::default();
    generators
        .patch("contoso", &params, &finalizers(json!(["test.dev/held"])))
        .await
        .unwrap();
    accounts
        .patch("app", &params, &finalizers(json!(["test.dev/held"])))
        .await
        .unwrap();
    let namespaces = Api::<Namespace>::all(env.client.clone());
    namespaces
        .delete(namespace.name(), &DeleteParams::default())
        .await
        .unwrap();
    // The API server refuses such Pods itself before it asks us, but for the moment that
    // its own cache lags; so the review is sent as it would be then.
    let answer = eventually("the refusal", async || {
        let answer = post(&env, &review(namespace, &pod("app", "contoso"))).await;
        let message = answer["response"]["status"]["message"].as_str()?;
        message.contains("NamespaceTerminating").then_some(answer)
    })
    .await;
    assert_eq!(
        (
            &answer["response"]["allowed"],
            &answer["response"]["status"]["code"]
        ),
        (&json!(false), &json!(403))
    );
    generators
        .patch("contoso", &params, &finalizers(json!(null)))
        .await
        .unwrap();
    accounts
        .patch("app", &params, &finalizers(json!(null)))
        .await
        .unwrap();
}

#[testkit::test]
async fn what_entra_refuses_for_good() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let unknown = "cccccccc-cccc-cccc-cccc-cccccccccccc";
    namespace
        .apply_service_account("stranger", &[("azure.workload.identity/client-id", unknown)])
        .await;
    let stranger = with_account(pod("app", "contoso"), "stranger");
    refuses(
        &env,
        &stranger,
        403,
        "EntraRefused",
        &[
            "AADSTS700016",
            &format!("az ad sp show --id {unknown}"),
            &format!("kubectl annotate serviceaccount --overwrite --namespace {namespace} stranger azure.workload.identity/client-id="),
        ],
    )
    .await;

    let nowhere = "99999999-9999-9999-9999-999999999999";
    namespace
        .apply_generator("nowhere", json!({"tenantId": nowhere}))
        .await;
    refuses(
        &env,
        &pod("app", "nowhere"),
        403,
        "EntraRefused",
        &["AADSTS90002", "kubectl patch acraccesstoken nowhere --namespace"],
    )
    .await;
    assert_ne!(nowhere, TENANT);
    assert_eq!(env.azure.calls(Endpoint::AcrExchange), 0);
    env.assert_no_secret_was_logged();
}
