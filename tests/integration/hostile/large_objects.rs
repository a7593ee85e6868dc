//! Objects as large as an API server accepts.

use super::{
    bystanders::{MAX_RESIDENT, MIB},
    unaffected_by,
};
use crate::invalid_generators::loosen_schemas;
use acr_pull_webhook::generator::ACRAccessToken;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{CLIENT_ID, from, generator_spec, unnamed_pod, with_account},
};

/// Creates a generator of team A by a type without fields, on a control plane whose schemas have no limits.
async fn create_unlimited_generator(env: &TestEnv, name: &str, overrides: Value) {
    let kind = ApiResource::erase::<ACRAccessToken>(&());
    let namespace = env.team_a.namespace.name();
    let api = Api::<DynamicObject>::namespaced_with(env.client.clone(), namespace, &kind);
    let spec = generator_spec(overrides);
    let generator: DynamicObject = from(
        json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}),
    );
    eventually("the looser schema applies", async || {
        api.create(&PostParams::default(), &generator).await.ok()
    })
    .await;
}

/// The message with which a dry run is refused. It is never long.
async fn dry_run_refusal(namespace: &TestNamespace, pod: &Pod) -> String {
    match namespace.dry_run_pod(pod).await {
        Err(kube::Error::Api(status)) => {
            assert!(status.message.len() < 1000, "{}", status.message);
            status.message.clone()
        }
        other => panic!("{other:?}"),
    }
}

/// The messages with which dry runs of these Pods at the same time are refused. While other tests use the processors, the
/// API server may need longer for such an object than the webhook waits. Such a Pod is tried again, without the others.
async fn dry_run_refusals(namespace: &TestNamespace, pods: Vec<Pod>) -> Vec<String> {
    let mut messages = join_all(pods.iter().map(|pod| dry_run_refusal(namespace, pod))).await;
    for (pod, message) in pods.iter().zip(&mut messages) {
        if is_late(message) {
            *message = eventually("the API server answers the webhook in time", async || {
                let message = dry_run_refusal(namespace, pod).await;
                (!is_late(&message)).then_some(message)
            })
            .await;
        }
    }
    messages
}

fn is_late(message: &str) -> bool {
    message.contains("ApiServerUnavailable") && message.contains("no response within")
}

/// Asserts that bystanders are unaffected while both replicas run, of which the second has just listed all objects.
async fn check_both(env: &TestEnv, attempt: impl Future<Output = ()>) {
    let attempt = async {
        attempt.await;
        env.replica().await
    };
    let replica = unaffected_by(env, &[&env.webhook], attempt).await;
    unaffected_by(env, &[&env.webhook, &replica], async {}).await;
}

/// One scope, a copy for each of twelve service accounts.
#[testkit::test]
async fn a_scope_of_a_mebibyte_is_refused_and_uses_little_memory() {
    const ACCOUNTS: usize = 12;
    let env = TestEnv::leading(&[], |_| ()).await;
    loosen_schemas(&env).await;
    let namespace = &env.team_a.namespace;
    let account = |n: usize| format!("account-{n}");
    for n in 0..ACCOUNTS {
        let annotation = (CLIENT_ID, env.team_a.client_id);
        namespace.apply_service_account(&account(n), &[annotation]).await;
    }
    let part = "repository:a:pull ";
    check_both(&env, async {
        // The webhook decodes no object that is larger than the second one.
        for (generator, bytes, reason) in [
            ("mebibyte", 1 << 20, "GeneratorInvalid"),
            ("quarter", 250 * 1024, "ScopeInvalid"),
        ] {
            let scope = part.repeat(bytes / part.len());
            create_unlimited_generator(&env, generator, json!({"scope": scope})).await;
            for _ in 0..4 {
                let pods = (0..ACCOUNTS).map(|n| with_account(unnamed_pod(generator), &account(n)));
                for message in dry_run_refusals(namespace, pods.collect()).await {
                    assert!(message.contains(reason), "{message}");
                }
            }
        }
    })
    .await;
}

/// Eight generators with as many audiences as an object can contain.
#[testkit::test]
async fn hundreds_of_thousands_of_audiences_are_refused() {
    const GENERATORS: usize = 8;
    let env = TestEnv::leading(&[], |_| ()).await;
    loosen_schemas(&env).await;
    let mut all = Vec::new();
    let creations = async {
        for (size, audiences) in [("huge", 350_000), ("large", 60_000)] {
            let reference = json!({"name": "app", "audiences": vec!["a"; audiences]});
            let auth = json!({"workloadIdentity": {"serviceAccountRef": reference}});
            // The API server itself is slow while it stores these objects, so durations are checked afterwards.
            for n in 0..GENERATORS {
                let name = format!("{size}-{n}");
                create_unlimited_generator(&env, &name, json!({"auth": auth})).await;
                let resident = env.webhook.resident();
                assert!(resident < MAX_RESIDENT, "{} MiB are resident", resident / MIB);
                assert_eq!(env.webhook.admin_get("/readyz").await.0, 200);
                all.push(name);
            }
        }
    };
    let pods = async {
        loop {
            env.team_b.namespace.create_pod(&unnamed_pod("contoso")).await;
        }
    };
    tokio::select! {
        () = creations => {}
        () = pods => {}
    }
    check_both(&env, async {
        for _ in 0..3 {
            for names in all.chunks(GENERATORS) {
                let pods = names.iter().map(|name| unnamed_pod(name)).collect();
                for message in dry_run_refusals(&env.team_a.namespace, pods).await {
                    assert!(message.contains("GeneratorInvalid"), "{message}");
                }
            }
        }
    })
    .await;
}

/// Annotations as long as an API server accepts.
#[testkit::test]
async fn hundreds_of_large_service_accounts_use_little_memory() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let accounts = namespace.api::<ServiceAccount>();
    check_both(&env, async {
        for batch in 0..50 {
            let created = (0..8).map(async |n| {
                let allowed = "x,".repeat(125 * 1024);
                let annotations = json!({"acr-pull.dev/allowed-namespaces": allowed});
                let metadata = json!({"name": format!("large-{batch}-{n}"), "annotations": annotations});
                let account = from(json!({"metadata": metadata}));
                accounts.create(&PostParams::default(), &account).await.unwrap();
            });
            join_all(created).await;
        }
    })
    .await;
    // Other tests use the same control plane.
    let (params, all) = (DeleteParams::default(), ListParams::default());
    accounts.delete_collection(&params, &all).await.unwrap();
}
