//! The leader's watches: the Pods that the webhook patched, the kubelets' Events about failed pulls, and the pull
//! secrets. Each watch wakes only the pull secrets that a change concerns.

use super::{
    Reconciler,
    pull_failure::{Event, PullFailure},
};
use crate::{
    admission::INJECTED_LABEL,
    names::NamespacedName,
    watch::{Change, Item, Selector, Watch},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, core::PartialObjectMeta};

/// Excludes finished Pods, which pull no images.
pub const NOT_FINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Watches the Pods, and wakes the pull secrets whose use begins or ends.
pub async fn pods(reconciler: &Reconciler) {
    let scopes = reconciler
        .upkeep
        .cluster
        .watch_scopes::<Item<PartialObjectMeta<Pod>>>();
    let selector = Selector::default()
        .labels(&format!("{INJECTED_LABEL}=true"))
        .fields(NOT_FINISHED);
    let mut watch = Watch::start("watch of Pods", &reconciler.upkeep.cluster, scopes, selector);
    while let Some(change) = watch.next().await {
        for key in reconciler.usage.observe(&change) {
            reconciler.queue.wake(key);
        }
        reconciler.wake_for_pod(&change);
        if matches!(change, Change::Synced | Change::Recovered(_)) {
            // Unused pull secrets and the watch of Events wait for the list of Pods.
            reconciler.pods_listed.notify_one();
            wake_all(reconciler);
        }
    }
}

fn wake_all(reconciler: &Reconciler) {
    for object in reconciler.upkeep.issuer.pull_secrets().all() {
        if let Some(key) = NamespacedName::of(object.meta()) {
            reconciler.queue.wake(key);
        }
    }
}

/// Wakes the pull secrets that change.
pub async fn pull_secrets(reconciler: &Reconciler) {
    let changes = reconciler.upkeep.issuer.pull_secrets().listen();
    wake_all(reconciler);
    loop {
        for key in changes.next().await {
            reconciler.wake_if_unready(key.clone());
            reconciler.queue.wake(key);
        }
    }
}

/// Watches the kubelets' Events about failed pulls.
pub async fn failed_pulls(reconciler: &Reconciler) {
    // Events about unknown Pods are ignored, so the Pods must be known first.
    reconciler.pods_listed.notified().await;
    let follow = async |name, reason: &str| {
        let fields = format!("involvedObject.kind=Pod,type=Warning,reason={reason}");
        let scopes = reconciler.upkeep.cluster.watch_scopes::<Item<Event>>();
        let mut watch = Watch::start(
            name,
            &reconciler.upkeep.cluster,
            scopes,
            Selector::default().fields(&fields),
        );
        while let Some(change) = watch.next().await {
            if let Change::Applied(Item(Ok(event))) = change
                && let Some(failure) = PullFailure::from_event(&event, Timestamp::now())
            {
                reconciler.on_pull_failure(&failure);
            }
        }
    };
    tokio::join!(
        follow(
            "watch of Events about missing pull secrets",
            "FailedToRetrieveImagePullSecret"
        ),
        follow("watch of Events about failed pulls", "Failed"),
    );
}
