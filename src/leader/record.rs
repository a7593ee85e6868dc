//! What the Lease says, and what that allows: plain values, no client and no clock inside.

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use std::time::Duration;
use tokio::time::Instant;

/// No flag permits a longer lease duration, and no Lease is believed one: a mistake in it shall not
/// keep everybody waiting.
pub const MAX_LEASE_DURATION: Duration = Duration::from_secs(300);

/// The Lease as last seen, and since when it has been like this by our own clock.
pub struct Observation {
    pub lease: Lease,
    since: Instant,
}

// === impl Observation ===

impl Observation {
    /// The Lease as seen at `now`; `before` is what was seen of it until then.
    pub fn new(lease: Lease, now: Instant, before: Option<Self>) -> Self {
        let since = match before {
            Some(before) if is_same(&before.lease, &lease) => before.since,
            _ => now,
        };
        Self { lease, since }
    }

    /// Who holds it; nobody is the empty string.
    pub fn holder(&self) -> &str {
        let spec = self.lease.spec.as_ref();
        spec.and_then(|s| s.holder_identity.as_deref())
            .unwrap_or_default()
    }

    /// How long its holder may be silent.
    fn duration(&self, unsaid: Duration) -> Duration {
        let said = self.lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
        match said.and_then(|s| u64::try_from(s).ok()) {
            None | Some(0) => unsaid,
            Some(seconds) => Duration::from_secs(seconds).min(MAX_LEASE_DURATION),
        }
    }
}

/// Holder, times and transitions are in the spec. The resourceVersion alone would do on a sane server.
fn is_same(before: &Lease, now: &Lease) -> bool {
    before.metadata.resource_version == now.metadata.resource_version && before.spec == now.spec
}

/// Whether `me` may write the Lease: where there is none, where it was released, where it is ours
/// already (the answer to our write may have been lost), and where we have seen its holder silent for
/// the whole of the duration that it names itself.
pub fn is_free(me: &str, seen: Option<&Observation>, unsaid: Duration, now: Instant) -> bool {
    let Some(seen) = seen else { return true };
    let holder = seen.holder();
    holder.is_empty() || holder == me || now.saturating_duration_since(seen.since) >= seen.duration(unsaid)
}

/// The record of `me` as holder.
pub fn held(me: &str, duration: Duration, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
    let mut spec = before.cloned().unwrap_or_default();
    if spec.holder_identity.as_deref() != Some(me) {
        spec.holder_identity = Some(me.to_owned());
        spec.acquire_time = Some(MicroTime(now));
        spec.lease_transitions =
            Some(before.map_or(0, |b| b.lease_transitions.unwrap_or(0).saturating_add(1)));
    }
    spec.lease_duration_seconds = i32::try_from(duration.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    spec
}

/// The record of a Lease that nobody holds.
pub fn released(before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        // As client-go does: the API server refuses zero.
        lease_duration_seconds: Some(1),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        ..before.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "me";
    const UNSAID: Duration = Duration::from_secs(15);

    fn lease(holder: &str, seconds: Option<i32>, version: &str) -> Lease {
        let mut lease = Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: seconds,
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        lease.metadata.resource_version = Some(version.to_owned());
        lease
    }

    fn is_free_after(lease: Lease, silence: Duration) -> bool {
        let since = Instant::now();
        let seen = Observation::new(lease, since, None);
        is_free(ME, Some(&seen), UNSAID, since + silence)
    }

    #[test]
    fn a_lease_that_is_missing_released_or_ours_is_free_at_once() {
        assert!(is_free(ME, None, UNSAID, Instant::now()));
        assert!(is_free_after(lease("", Some(1), "1"), Duration::ZERO));
        assert!(is_free_after(lease(ME, Some(15), "1"), Duration::ZERO));
        assert!(is_free_after(Lease::default(), Duration::ZERO));
    }

    #[test]
    fn anothers_lease_is_free_after_the_duration_that_it_names_and_not_before() {
        let second = Duration::from_secs(1);
        for (named, waited) in [
            (Some(3), 3),
            (Some(60), 60),
            (None, 15),
            (Some(0), 15),
            (Some(-5), 15),
            (Some(i32::MAX), 300),
        ] {
            let waited = Duration::from_secs(waited);
            let early = waited - Duration::from_nanos(1);
            assert!(
                !is_free_after(lease("other", named, "1"), early),
                "{named:?} early"
            );
            assert!(is_free_after(lease("other", named, "1"), waited), "{named:?}");
            assert!(
                is_free_after(lease("other", named, "1"), waited + second),
                "{named:?} late"
            );
        }
    }

    #[test]
    fn every_change_of_the_record_begins_the_silence_anew() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let since = |changed: Lease| {
            let before = Observation::new(lease("other", Some(15), "1"), start, None);
            Observation::new(changed, later, Some(before)).since
        };
        assert_eq!(since(lease("other", Some(15), "1")), start);
        assert_eq!(since(lease("other", Some(15), "2")), later);
        assert_eq!(since(lease("third", Some(15), "1")), later);
        let mut renewed = lease("other", Some(15), "1");
        renewed.spec.as_mut().unwrap().renew_time = Some(MicroTime(Timestamp::UNIX_EPOCH));
        assert_eq!(since(renewed), later);
        let mut handed_over = lease("other", Some(15), "1");
        handed_over.spec.as_mut().unwrap().lease_transitions = Some(1);
        assert_eq!(since(handed_over), later);
    }

    #[test]
    fn what_wall_clocks_say_is_no_reason() {
        // Renewed in the year 1970, or in the far future: only our own clock counts.
        for time in [Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let mut lease = lease("other", Some(3), "1");
            lease.spec.as_mut().unwrap().renew_time = Some(MicroTime(time));
            assert!(!is_free_after(lease.clone(), Duration::from_secs(2)));
            assert!(is_free_after(lease, Duration::from_secs(3)));
        }
    }

    #[test]
    fn a_transition_is_counted_when_the_holder_changes_and_only_then() {
        let now = Timestamp::UNIX_EPOCH;
        let first = held("a", UNSAID, None, now);
        assert_eq!(first.lease_transitions, Some(0));
        let renewed = held("a", UNSAID, Some(&first), now + Duration::from_secs(2));
        assert_eq!(
            (renewed.lease_transitions, &renewed.acquire_time),
            (Some(0), &first.acquire_time)
        );
        assert!(renewed.renew_time > first.renew_time);
        let taken = held("b", UNSAID, Some(&renewed), now + Duration::from_secs(20));
        assert_eq!(
            (taken.lease_transitions, &taken.acquire_time),
            (Some(1), &taken.renew_time)
        );
        let empty = released(Some(&taken), now);
        assert_eq!(
            (
                empty.holder_identity.as_deref(),
                empty.lease_duration_seconds,
                empty.lease_transitions
            ),
            (Some(""), Some(1), Some(1))
        );
        assert_eq!(held("a", UNSAID, Some(&empty), now).lease_transitions, Some(2));
    }
}
