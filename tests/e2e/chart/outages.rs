//! A release without replicas.

use crate::release::{Release, TEST, is_patched};
use e2e::{
    client, eventually,
    scenario::{Scenario, ScenarioNamespace},
    webhook::replaced,
};
use k8s_openapi::api::{core::v1::Pod, rbac::v1::Role};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::namespace::TestNamespace;
use testkit::objects::{ANNOTATION, from, pod_json, with_account};

/// Asserts that this failure policy applies to an annotated Pod. The API server sees a change after a delay.
async fn wait_for_policy(namespace: &ScenarioNamespace, policy: &str) {
    eventually(&format!("{policy} applies to an annotated Pod"), async || match (
        policy,
        namespace.try_create_pod(&annotated_pod()).await,
    ) {
        ("Fail", Err(kube::Error::Api(refusal))) => {
            let message = &refusal.message;
            let expected = "failed calling webhook \"pods.acr-pull.dev\"";
            assert!(message.contains(expected), "{message}");
            Some(())
        }
        ("Ignore", Ok(pod)) => {
            assert!(!is_patched(&pod));
            Some(())
        }
        ("Ignore", Err(_)) => None,
        (_, other) => panic!("{other:?}"),
    })
    .await;
}

/// Asserts that Pods without the annotation and Pods of an excluded namespace are admitted without a patch.
async fn check_other_pods(namespace: &ScenarioNamespace, system: &TestNamespace) {
    let unannotated = namespace.create_pod(&gated(json!({}))).await;
    assert!(!is_patched(&unannotated));
    for annotations in [json!({}), json!({ANNOTATION: "contoso"})] {
        let pod = with_account(gated(annotations), "default");
        let created = system.create_pod(&pod).await;
        assert!(!is_patched(&created));
        system.delete_pod(&created.name_any()).await;
    }
}

#[testkit::test]
async fn without_replicas_failure_policy_decides_on_annotated_pods_only() {
    // Each failing test of the chart is repeated for a minute.
    testkit::allow_more_time(Duration::from_secs(120));
    let client = client().await;
    let release = Release::fresh(&client, json!({})).await;
    let namespace = Scenario::NoReplicas.set_up(&client, json!({})).await;
    let system = TestNamespace::existing(&client, "kube-system");
    let roles = Api::<Role>::namespaced(client.clone(), "default");
    let created = namespace.try_create_pod(&annotated_pod()).await;
    release.assert_patched(created).await;

    release.upgrade(json!({"replicas": 0})).await;
    replaced(&client, 0).await;
    for (policy, report) in [
        ("Fail", "the API server could not call the webhook"),
        ("Ignore", "the API server did not call the webhook"),
    ] {
        // `Fail` is the default.
        if policy != "Fail" {
            let values = json!({"webhook": {"failurePolicy": policy}});
            release.upgrade(values).await;
        }
        wait_for_policy(&namespace, policy).await;
        let log = release.failed_test().await;
        assert!(log.contains(report), "{log}");
        // The rights of the test are deleted with the test.
        assert!(roles.get_opt(TEST).await.unwrap().is_none());
        check_other_pods(&namespace, &system).await;
    }

    let values = json!({"replicas": 2, "webhook": {"failurePolicy": "Fail"}});
    release.upgrade(values).await;
    eventually("an annotated Pod is patched again", async || {
        let pod = namespace.try_create_pod(&annotated_pod()).await.ok()?;
        is_patched(&pod).then_some(())
    })
    .await;
}

/// A Pod that needs a pull secret. No node is involved: only its admission matters.
fn annotated_pod() -> Pod {
    gated(json!({ANNOTATION: "contoso"}))
}

fn gated(annotations: Value) -> Pod {
    let mut pod = pod_json("", &Scenario::NoReplicas.image(), annotations);
    pod["metadata"]["generateName"] = json!("app-");
    pod["spec"]["schedulingGates"] = json!([{"name": "acr-pull.dev/e2e"}]);
    from(pod)
}
