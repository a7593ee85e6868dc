//! Pull secrets that are deleted while Pods use them, and Pods that are deleted before their complaint is handled.

use super::{
    complaints::{after_renewal, missing, post},
    unaffected_by,
};
use futures::{StreamExt, stream};
use http::Method;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use std::collections::BTreeSet;
use testkit::{
    api_proxy::Held,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{pod, pull_secret_name, pull_secret_names},
};

const PODS: usize = 15;
/// The pull secrets of each Pod.
const REFERENCES: usize = 16;

/// Creates the Pods and returns the names of their pull secrets.
async fn create_pods(namespace: &TestNamespace) -> BTreeSet<String> {
    let generators = stream::iter(0..PODS * REFERENCES).map(async |n| {
        namespace.apply_generator(&format!("g-{n}"), json!({})).await;
    });
    generators.buffer_unordered(16).collect::<()>().await;
    let named = stream::iter(0..PODS).map(async |n| {
        let references = (n * REFERENCES..(n + 1) * REFERENCES).map(|n| format!("g-{n}"));
        let annotation = references.collect::<Vec<_>>().join(",");
        let pod = pod(&format!("app-{n}"), &annotation);
        pull_secret_names(&namespace.retry_create_pod(&pod).await)
    });
    let named: Vec<_> = named.buffer_unordered(4).collect().await;
    let named: BTreeSet<_> = named.into_iter().flatten().collect();
    assert_eq!(named.len(), PODS * REFERENCES);
    named
}

async fn wait_until_ready(namespace: &TestNamespace, names: &BTreeSet<String>) {
    eventually("all pull secrets have a token", async || {
        let mut owners = namespace.list_pull_secrets().await;
        owners.retain(|owner| owner.status.as_ref().is_some_and(|status| status.is_ready()));
        let ready: BTreeSet<_> = owners.iter().map(ResourceExt::name_any).collect();
        (ready == *names).then_some(())
    })
    .await;
}

/// Hundreds of pull secrets are deleted at the same moment.
#[testkit::test]
async fn all_pull_secrets_are_restored_after_a_bulk_deletion() {
    let flags = [
        "--renewal-rate=500",
        "--renewal-concurrency=100",
        "--max-pull-secrets-per-namespace=2000",
        "--log-level=info",
    ];
    let env = TestEnv::leading_through_proxy(&flags, |_| ()).await;
    let namespace = &env.team_a.namespace;
    let names = create_pods(namespace).await;
    wait_until_ready(namespace, &names).await;
    let attempt = async {
        // The replica sees all deletions together, at its next list.
        env.proxy().hold(Held::Watch("acrpullsecrets".to_owned()));
        let (params, all) = (DeleteParams::default(), ListParams::default());
        let pull_secrets = namespace.pull_secrets();
        pull_secrets.delete_collection(&params, &all).await.unwrap();
        env.proxy().expire_watches(&["acrpullsecrets"]);
        env.proxy().release();
        wait_until_ready(namespace, &names).await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
}

/// A Pod is deleted while the webhook checks its complaint.
#[testkit::test]
async fn the_complaint_of_a_deleted_pod_causes_no_repair() {
    let env = TestEnv::leading_through_proxy(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("deleted", "contoso")).await);
    let logged = |text: &str| {
        let log = env.webhook.log();
        let lines = log.iter();
        lines
            .filter(|line| line.contains(text) && line.contains(namespace.name()))
            .count()
    };
    let attempt = async {
        let at = after_renewal(namespace, &name).await;
        let path = format!("/api/v1/namespaces/{namespace}/pods/deleted");
        env.proxy().hold(Held::Path(Method::GET, path));
        post(namespace, missing(namespace, "deleted", &name, at)).await;
        env.proxy().wait_until_holding().await;
        namespace.delete_pod("deleted").await;
        env.proxy().release();
        let counts = eventually("the complaint is handled", async || {
            let repaired = logged("pull secret repaired");
            let rejected = logged("no Pod confirms that it needs a repair");
            (repaired + rejected > 0).then_some((repaired, rejected))
        })
        .await;
        assert_eq!(counts, (0, 1));
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
    let (_, metrics) = env.webhook.admin_get("/metrics").await;
    assert!(
        !metrics.contains("renewals_total{outcome=\"Repaired\""),
        "{metrics}"
    );
    let nothing = "renewals_total{outcome=\"NothingToDo\",reason=\"Ok\"}";
    env.webhook.wait_until_counted(nothing, 1).await;
}
