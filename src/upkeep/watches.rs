//! What the leader looks at: the Pods that we patched, the kubelets' complaints, the pull secrets themselves. Each only wakes
//! the pull secrets that it is about.

use super::{
    Work,
    complaint::{Complaint, Event},
};
use crate::{
    admission::INJECTED_LABEL,
    watch::{Change, Item, Selector, Watch},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, core::PartialObjectMeta};

/// Finished Pods pull no more.
pub const NOT_FINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Follows the Pods, and wakes what they begin or cease to use.
pub async fn pods(work: &Work) {
    let places = work.upkeep.cluster.places::<Item<PartialObjectMeta<Pod>>>();
    let selector = Selector::default()
        .labels(&format!("{INJECTED_LABEL}=true"))
        .fields(NOT_FINISHED);
    let mut watch = Watch::start("watch of Pods", &work.upkeep.cluster, places, selector);
    while let Some(change) = watch.next().await {
        for key in work.usage.observe(&change) {
            work.queue.wake(key);
        }
        if matches!(change, Change::Whole | Change::Works(_)) {
            // Those that are not in use have waited for this, and so have complaints.
            work.pods_listed.notify_one();
            wake_all(work);
        }
    }
}

fn wake_all(work: &Work) {
    for object in work.upkeep.issuer.pull_secrets().all() {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        work.queue.wake(key);
    }
}

/// Follows the pull secrets themselves.
pub async fn changes(work: &Work) {
    let changes = work.upkeep.issuer.pull_secrets().listen();
    wake_all(work);
    loop {
        for key in changes.next().await {
            work.queue.wake(key);
        }
    }
}

/// Follows the kubelets' Events about pulls that fail.
pub async fn failed_pulls(work: &Work) {
    // A complaint about a Pod that is not known is about none of ours.
    work.pods_listed.notified().await;
    let follow = async |what, reason: &str| {
        let fields = format!("involvedObject.kind=Pod,type=Warning,reason={reason}");
        let places = work.upkeep.cluster.places::<Item<Event>>();
        let mut watch = Watch::start(
            what,
            &work.upkeep.cluster,
            places,
            Selector::default().fields(&fields),
        );
        while let Some(change) = watch.next().await {
            if let Change::There(Item(Ok(event))) = change
                && let Some(complaint) = Complaint::of(&event, Timestamp::now())
            {
                work.complained(&complaint);
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
