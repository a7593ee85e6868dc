//! Events about Pods whose pull secret is late or useless. The leader writes them.

use crate::upkeep::entra_down;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use serde_json::json;
use testkit::{
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{pod, pull_secret_name, unnamed_pod},
};

/// The webhook's Events about this Pod. The scheduler writes Events too.
async fn events_about(namespace: &TestNamespace, pod: &str) -> Vec<Event> {
    let mut events = namespace.events().await;
    let is_own = |event: &Event| event.reporting_component.as_deref() == Some("acr-pull-webhook");
    events.retain(|event| is_own(event) && event.involved_object.name.as_deref() == Some(pod));
    events
}

/// The only Event about this Pod.
async fn event_about(namespace: &TestNamespace, pod: &str) -> Event {
    eventually("the Pod has an Event", async || {
        let mut events = events_about(namespace, pod).await;
        assert!(
            events.len() <= 1 && events.iter().all(|event| event.series.is_none()),
            "{events:?}"
        );
        events.pop()
    })
    .await
}

#[testkit::test]
async fn each_pod_whose_pull_secret_is_late_gets_one_event() {
    let env = TestEnv::leading(&[], |_| ()).await;
    env.azure.set_faults(&entra_down());
    let namespace = &env.team_a.namespace;
    let first = namespace.create_pod(&pod("app", "contoso")).await;
    let name = pull_secret_name(&first);
    let event = event_about(namespace, "app").await;
    // `kubectl describe pod` finds the Event by this uid.
    assert_eq!(event.involved_object.uid, first.uid());
    assert_eq!(event.involved_object.kind.as_deref(), Some("Pod"));
    assert_eq!(event.reason.as_deref(), Some("EntraUnavailable"));
    let note = event.message.unwrap();
    for part in [
        &name,
        "login.microsoftonline.com",
        "reasons.html#entraunavailable",
    ] {
        assert!(note.contains(part), "{part}: {note}");
    }
    // A Pod that is created later, when the pull secret does not change.
    let later = namespace.create_pod(&unnamed_pod("contoso")).await.name_any();
    event_about(namespace, &later).await;
    event_about(namespace, "app").await;
}

#[testkit::test]
async fn a_pod_whose_token_lacks_its_scope_gets_an_event() {
    let env = TestEnv::leading(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("typo", json!({"scope": "repository:team-a/typo:pull"}))
        .await;
    // This Pod has the pull secret of another generator, which is Ready.
    namespace.create_pod(&pod("ready", "contoso")).await;
    namespace.create_pod(&pod("app", "typo")).await;
    let event = event_about(namespace, "app").await;
    assert_eq!(event.reason.as_deref(), Some("ScopeNotGranted"));
    assert!(event.message.unwrap().contains("team-a/typo"));
    assert!(events_about(namespace, "ready").await.is_empty());
}
