//! The contents of the Lease and the decisions based on them, as pure functions without a client or a clock.

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use std::time::Duration;
use tokio::time::Instant;

/// Upper bound of the lease duration in flags and in a Lease that was read: a wrong value in a Lease must not block the
/// election for longer.
pub const MAX_LEASE_DURATION: Duration = Duration::from_secs(300);

/// The Lease as last read, and since when it has been unchanged by this process' own clock.
pub struct Observation {
    pub lease: Lease,
    unchanged_since: Instant,
}

impl Observation {
    /// Records the Lease as read at `now`. `before` is the previous observation.
    pub fn new(lease: Lease, now: Instant, before: Option<Self>) -> Self {
        let unchanged_since = match before {
            Some(before) if is_same(&before.lease, &lease) => before.unchanged_since,
            _ => now,
        };
        Self {
            lease,
            unchanged_since,
        }
    }

    /// Identity of the holder; empty if the Lease is not held.
    pub fn holder(&self) -> &str {
        let spec = self.lease.spec.as_ref();
        spec.and_then(|s| s.holder_identity.as_deref())
            .unwrap_or_default()
    }

    /// How long the holder may go without renewing the Lease.
    fn duration(&self, default_duration: Duration) -> Duration {
        let seconds = self.lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
        match seconds.and_then(|s| u64::try_from(s).ok()) {
            None | Some(0) => default_duration,
            Some(seconds) => Duration::from_secs(seconds).min(MAX_LEASE_DURATION),
        }
    }
}

/// The spec contains holder, times and transitions. Comparing it too guards against a server that reuses a
/// resourceVersion.
fn is_same(before: &Lease, now: &Lease) -> bool {
    before.metadata.resource_version == now.metadata.resource_version && before.spec == now.spec
}

/// Whether `me` may write the Lease: if the Lease does not exist, was released, names `me` (the response to an earlier
/// write may have been lost), or was not renewed for the whole duration that it states.
pub fn is_free(me: &str, observed: Option<&Observation>, default_duration: Duration, now: Instant) -> bool {
    let Some(observed) = observed else { return true };
    let holder = observed.holder();
    holder.is_empty()
        || holder == me
        || now.saturating_duration_since(observed.unchanged_since) >= observed.duration(default_duration)
}

/// The spec of a Lease that `me` holds.
pub fn held_spec(me: &str, duration: Duration, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
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

/// The spec of a released Lease.
pub fn released_spec(before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
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
    const DEFAULT_DURATION: Duration = Duration::from_secs(15);

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
        let observed = Observation::new(lease, since, None);
        is_free(ME, Some(&observed), DEFAULT_DURATION, since + silence)
    }

    #[test]
    fn a_lease_that_is_missing_released_or_held_by_this_process_is_free() {
        assert!(is_free(ME, None, DEFAULT_DURATION, Instant::now()));
        assert!(is_free_after(lease("", Some(1), "1"), Duration::ZERO));
        assert!(is_free_after(lease(ME, Some(15), "1"), Duration::ZERO));
        assert!(is_free_after(Lease::default(), Duration::ZERO));
    }

    #[test]
    fn a_lease_held_by_another_process_is_free_only_after_its_duration() {
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
    fn every_change_of_the_lease_restarts_its_duration() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let since = |changed: Lease| {
            let before = Observation::new(lease("other", Some(15), "1"), start, None);
            Observation::new(changed, later, Some(before)).unchanged_since
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
    fn wall_clock_times_in_the_lease_are_ignored() {
        // Renewed in 1970, or in the far future: only this process' own clock counts.
        for time in [Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let mut lease = lease("other", Some(3), "1");
            lease.spec.as_mut().unwrap().renew_time = Some(MicroTime(time));
            assert!(!is_free_after(lease.clone(), Duration::from_secs(2)));
            assert!(is_free_after(lease, Duration::from_secs(3)));
        }
    }

    #[test]
    fn a_transition_is_counted_only_when_the_holder_changes() {
        let now = Timestamp::UNIX_EPOCH;
        let first = held_spec("a", DEFAULT_DURATION, None, now);
        assert_eq!(first.lease_transitions, Some(0));
        let renewed = held_spec("a", DEFAULT_DURATION, Some(&first), now + Duration::from_secs(2));
        assert_eq!(
            (renewed.lease_transitions, &renewed.acquire_time),
            (Some(0), &first.acquire_time)
        );
        assert!(renewed.renew_time > first.renew_time);
        let taken = held_spec(
            "b",
            DEFAULT_DURATION,
            Some(&renewed),
            now + Duration::from_secs(20),
        );
        assert_eq!(
            (taken.lease_transitions, &taken.acquire_time),
            (Some(1), &taken.renew_time)
        );
        let empty = released_spec(Some(&taken), now);
        assert_eq!(
            (
                empty.holder_identity.as_deref(),
                empty.lease_duration_seconds,
                empty.lease_transitions
            ),
            (Some(""), Some(1), Some(1))
        );
        assert_eq!(
            held_spec("a", DEFAULT_DURATION, Some(&empty), now).lease_transitions,
            Some(2)
        );
    }
}
