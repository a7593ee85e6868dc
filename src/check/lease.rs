//! The Lease of the leader, which renews pull secrets.

use super::{
    api::{ApiServer, Unread, text},
    reason::Reason,
    report::Finding,
    settings::Settings,
    target::Target,
};
use crate::leader::LEASE_NAME;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const CHECK: &str = "Lease";
/// The clocks of this machine and of the leader's node may differ by this much.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// Checks that a replica holds the Lease and renews it.
pub async fn check(api: &ApiServer, target: &Target, settings: &Settings) -> Vec<Finding> {
    let namespace = settings.lease_namespace(target);
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE_NAME}");
    let lease = match api.get(&path).await {
        Ok(lease) => Some(lease),
        Err(Unread::NotFound) => None,
        Err(unread) => return vec![unread.finding(CHECK, &format!("Lease {namespace}/{LEASE_NAME}"))],
    };
    vec![match why_not_led(lease.as_ref(), Timestamp::now()) {
        None => {
            let holder = lease
                .as_ref()
                .map_or("", |lease| text(lease, "/spec/holderIdentity"));
            let pod = holder.split('_').next().unwrap_or_default();
            Finding::ok(
                CHECK,
                format!("{pod} is the leader and renews Lease {namespace}/{LEASE_NAME}"),
            )
        }
        Some(why) => {
            let message = format!(
                "Lease {namespace}/{LEASE_NAME} {why}: Pods are admitted, but no pull secret is renewed"
            );
            let command = format!(
                "kubectl logs --namespace {} deployment/{}",
                target.namespace,
                target.name()
            );
            Finding::failed(CHECK, Reason::NoLeader, message).command(command)
        }
    }]
}

fn why_not_led(lease: Option<&Value>, now: Timestamp) -> Option<String> {
    let Some(lease) = lease else {
        return Some("does not exist".to_owned());
    };
    let holder = text(lease, "/spec/holderIdentity");
    if holder.is_empty() {
        return Some("is held by no replica".to_owned());
    }
    let seconds = lease
        .pointer("/spec/leaseDurationSeconds")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let renewed = text(lease, "/spec/renewTime").parse::<Timestamp>().ok();
    let silence = renewed.map(|renewed| now.duration_since(renewed));
    match silence {
        Some(silence) if silence <= SignedDuration::from_secs(seconds) + CLOCK_TOLERANCE => None,
        Some(silence) => Some(format!("was last renewed {} s ago", silence.as_secs())),
        None => Some("was never renewed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lease_counts_as_held_only_while_it_is_renewed() {
        let now = Timestamp::now();
        let why = |holder: &str, ago: i64| {
            let renewed = (now - SignedDuration::from_secs(ago)).to_string();
            let lease =
                json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}});
            why_not_led(Some(&lease), now)
        };
        assert_eq!(why("w-1_0a", 5), None);
        assert_eq!(why("w-1_0a", -30), None, "the clock of the leader is ahead");
        assert_eq!(why("w-1_0a", 100).as_deref(), Some("was last renewed 100 s ago"));
        assert_eq!(why("", 5).as_deref(), Some("is held by no replica"));
        assert_eq!(why_not_led(None, now).as_deref(), Some("does not exist"));
    }
}
