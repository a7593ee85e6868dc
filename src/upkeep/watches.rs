//! What the leader looks at: the Pods that we patched, the kubelets' complaints, the pull secrets themselves.

use super::{
    Guarded, Key, RecvError, Work,
    repair::{Complaint, Event},
};
use crate::{
    admission::INJECTED,
    watch::{Change, Item, Selector, Watch},
};
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::Pod;
use kube::{core::PartialObjectMeta, runtime::reflector::ObjectRef};
use std::sync::Arc;

/// Finished Pods pull no more.
pub const NOT_FINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

type Wake = UnboundedSender<ObjectRef<Guarded>>;

/// Follows the Pods, and wakes what they begin or cease to use.
pub async fn pods(work: Arc<Work>, wake: Wake) {
    let places = work.upkeep.cluster.places::<Item<PartialObjectMeta<Pod>>>();
    let selector = Selector::default()
        .labels(&format!("{INJECTED}=true"))
        .fields(NOT_FINISHED);
    let mut watch = Watch::start("watch of Pods", &work.upkeep.cluster, places, selector);
    while let Some(change) = watch.next().await {
        for key in work.usage.observe(&change) {
            missing(&work, &key);
            // The other end lives as long as we do.
            let _ = wake.unbounded_send(reference(&key));
        }
        if matches!(change, Change::Whole) {
            // Those that are not in use have waited for this.
            wake_all(&work, &wake);
        }
    }
}

fn wake_all(work: &Work, wake: &Wake) {
    for object in work.upkeep.issuer.store().state() {
        let _ = wake.unbounded_send(ObjectRef::from_obj(&*object));
    }
}

/// Follows the pull secrets themselves. Those that are there to begin with are woken when all Pods are known.
pub async fn changes(work: Arc<Work>, wake: Wake) {
    let store = work.upkeep.issuer.store();
    let mut changes = work.upkeep.issuer.changes();
    loop {
        match changes.recv().await {
            Ok(reference) => {
                let key = (
                    reference.namespace.clone().unwrap_or_default(),
                    reference.name.clone(),
                );
                if store.get(&reference).is_none() {
                    work.forget(&key);
                    missing(&work, &key);
                }
                let _ = wake.unbounded_send(reference);
            }
            Err(RecvError::Lagged(_)) => wake_all(&work, &wake),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Follows the kubelets' Events about pulls that fail, and repairs what may be the cause.
pub async fn failed_pulls(work: Arc<Work>) {
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
                && let Some((pod, complaint)) = Complaint::of(&event)
            {
                work.complained(pod, complaint);
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

/// A pull secret in use of which there is no trace is made anew from a Pod that names it.
fn missing(work: &Work, key: &Key) {
    if work.upkeep.issuer.store().get(&reference(key)).is_none()
        && let Some(pod) = work.usage.user_of(key)
    {
        work.complained(pod, Complaint::NoTrace);
    }
}

fn reference((namespace, name): &Key) -> ObjectRef<Guarded> {
    ObjectRef::new(name).within(namespace)
}
