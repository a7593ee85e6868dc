//! Leader election: one replica at a time does the work that must not be done twice.
//!
//! A candidate reads the Lease and writes it by compare-and-swap if the Lease is free, names this process, or was not
//! renewed for its whole duration. Wall clocks are never compared: a candidate measures on its own clock how long the
//! Lease has been unchanged, and the leader counts from before it sent its last renewal. As the renew deadline is
//! shorter than the lease duration, the leader stops before a candidate may start.

mod leadership;
mod record;
mod settings;

pub use leadership::Leadership;
pub use settings::{LeaderElectionArgs, Settings};

use crate::{
    kubernetes::{CALL_TIMEOUT, CallError, api_problem, try_call_within},
    telemetry::Metrics,
    untrusted::UntrustedText,
};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use leadership::LeadershipGuard;
use record::Observation;
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Name of the Lease in the namespace of the settings. The Roles in deploy/ grant access to this name.
pub const LEASE_NAME: &str = "acr-pull-webhook-leader";

/// Runs until `shutdown`. Starts `work` when this process becomes the leader and drops it, which stops it, when
/// leadership is lost. Work that ends by itself releases the leadership.
///
/// A replica that is not `fit` for the work does not run for leader, and releases the leadership if it holds it.
///
/// The work must abort the tasks it spawned when it is dropped (`JoinSet` does), and must check
/// `Leadership::still_leads` before each write: this function cannot stop a spawned task.
pub async fn run<W, F>(
    client: Client,
    settings: Settings,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
    fit: impl Fn() -> bool,
    work: W,
) where
    W: Fn(Leadership) -> F,
    F: Future<Output = ()>,
{
    let mut election = Election {
        leases: Api::namespaced(client, &settings.namespace),
        settings,
        metrics,
        observed: None,
        failing: false,
    };
    tokio::select! {
        biased;
        () = shutdown => {}
        never = election.campaign(fit, work) => match never {},
    }
    // The work is dropped by now, so a successor may start immediately.
    election.release().await;
}

struct Election {
    leases: Api<Lease>,
    settings: Settings,
    metrics: Metrics,
    observed: Option<Observation>,
    failing: bool,
}

/// Result of an attempt to acquire or renew the Lease.
enum Attempt {
    /// This process holds the Lease and may work until this instant.
    Acquired(Instant),
    /// Another process holds the Lease.
    HeldBy(String),
    /// Another process wrote the Lease at the same time.
    Conflict,
}

/// Why the leadership ended.
enum LossReason {
    /// The Lease was lost.
    LeaseLost(String),
    /// This replica can no longer do the work.
    Unable,
}

impl Election {
    async fn campaign<W, F>(&mut self, fit: impl Fn() -> bool, work: W) -> Infallible
    where
        W: Fn(Leadership) -> F,
        F: Future<Output = ()>,
    {
        loop {
            if !fit() {
                sleep(self.retry_delay()).await;
                continue;
            }
            match self.try_acquire_or_renew().await {
                Ok(Attempt::Acquired(until)) => {
                    self.log_recovery();
                    self.lead(until, &fit, &work).await;
                }
                Ok(_) => self.log_recovery(),
                Err(error) => self.log_failure(error),
            }
            sleep(self.retry_delay()).await;
        }
    }

    /// Leads until the leadership ends.
    async fn lead<W, F>(&mut self, until: Instant, fit: &impl Fn() -> bool, work: &W)
    where
        W: Fn(Leadership) -> F,
        F: Future<Output = ()>,
    {
        let guard = LeadershipGuard::begin(until, self.metrics.clone());
        let leadership = guard.leadership();
        // The response may have arrived after the renew deadline.
        if !leadership.still_leads() {
            return;
        }
        tracing::info!(identity = self.settings.identity, "leadership won");
        let work = leadership::while_leading(leadership.clone(), work(leadership));
        let reason = tokio::select! {
            biased;
            reason = self.renew_until_lost(&guard, fit) => Some(reason),
            () = work => None,
        };
        drop(guard);
        match reason {
            Some(LossReason::LeaseLost(why)) => tracing::info!(why, "leadership lost"),
            Some(LossReason::Unable) => {
                tracing::warn!("leadership released: the watch of ACRPullSecrets fails on this replica");
                self.release().await;
            }
            None => {
                tracing::warn!("leadership released: the leader's work ended by itself");
                self.release().await;
            }
        }
    }

    /// Renews the Lease until the renew deadline passes without success. Returns why the leadership ended.
    async fn renew_until_lost(&mut self, guard: &LeadershipGuard, fit: &impl Fn() -> bool) -> LossReason {
        let deadline_passed =
            || LossReason::LeaseLost("the lease was not renewed within the renew deadline".to_owned());
        let mut started = Instant::now();
        loop {
            sleep_until((started + self.retry_delay()).min(guard.until())).await;
            started = Instant::now();
            // The timer may fire long after the deadline if the process was suspended.
            if started >= guard.until() {
                return deadline_passed();
            }
            if !fit() {
                return LossReason::Unable;
            }
            let Ok(round) = timeout_at(guard.until(), self.try_acquire_or_renew()).await else {
                return deadline_passed();
            };
            match round {
                Ok(Attempt::Acquired(until)) => {
                    self.log_recovery();
                    if !guard.extend(until) {
                        return deadline_passed();
                    }
                }
                Ok(Attempt::HeldBy(holder)) => {
                    return LossReason::LeaseLost(format!("the lease is held by {holder}"));
                }
                Ok(Attempt::Conflict) => self.log_recovery(),
                Err(error) => self.log_failure(error),
            }
        }
    }

    /// Tries once to acquire or renew the Lease.
    async fn try_acquire_or_renew(&mut self) -> Result<Attempt, CallError> {
        // The holder need not read the Lease first: the write fails if the Lease was changed or deleted.
        if self.is_holder()
            && let Some(until) = self.write_lease().await?
        {
            return Ok(Attempt::Acquired(until));
        }
        self.read_lease().await?;
        let Settings {
            identity,
            lease_duration,
            ..
        } = &self.settings;
        if !record::is_free(identity, self.observed.as_ref(), *lease_duration, Instant::now()) {
            return Ok(Attempt::HeldBy(UntrustedText::new(self.holder()).to_string()));
        }
        Ok(self
            .write_lease()
            .await?
            .map_or(Attempt::Conflict, Attempt::Acquired))
    }

    /// Reads and records the Lease.
    async fn read_lease(&mut self) -> Result<(), CallError> {
        let found =
            try_call_within(self.call_timeout(), "get Lease", self.leases.get_opt(LEASE_NAME)).await?;
        // Taken after the response: the holder's own count began earlier.
        let now = Instant::now();
        let before = self.observed.take();
        self.observed = found.map(|lease| Observation::new(lease, now, before));
        Ok(())
    }

    /// Writes this process into the Lease as its holder. Returns until when this process leads, or `None` if the Lease
    /// has changed since it was read.
    async fn write_lease(&mut self) -> Result<Option<Instant>, CallError> {
        let start = Instant::now();
        let before = self
            .observed
            .as_ref()
            .and_then(|observed| observed.lease.spec.as_ref());
        let spec = record::held_spec(
            &self.settings.identity,
            self.settings.lease_duration,
            before,
            Timestamp::now(),
        );
        let written = self.compare_and_swap(spec).await?;
        Ok(written.then_some(start + self.settings.renew_deadline))
    }

    /// Writes the Lease if it is unchanged since it was read. Returns false if it has changed.
    async fn compare_and_swap(&mut self, spec: LeaseSpec) -> Result<bool, CallError> {
        let params = PostParams::default();
        let written = match &self.observed {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(LEASE_NAME.to_owned()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                try_call_within(
                    self.call_timeout(),
                    "create Lease",
                    self.leases.create(&params, &lease),
                )
                .await
            }
            Some(observed) => {
                // The metadata keeps labels set by others and holds the resourceVersion.
                let lease = Lease {
                    metadata: observed.lease.metadata.clone(),
                    spec: Some(spec),
                };
                let call = self.leases.replace(LEASE_NAME, &params, &lease);
                try_call_within(self.call_timeout(), "replace Lease", call).await
            }
        };
        match written {
            Ok(lease) => {
                self.observed = Some(Observation::new(lease, Instant::now(), None));
                Ok(true)
            }
            Err(CallError::Api(status)) if status.code == 409 => Ok(false),
            // The Lease was deleted meanwhile. A 404 on create means that the namespace is missing.
            Err(CallError::Api(status)) if status.code == 404 && self.observed.is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Clears the holder if it is this process, so that a successor need not wait for the Lease to expire.
    async fn release(&mut self) {
        let expected = self.is_holder();
        match timeout(self.call_timeout(), self.try_release()).await {
            Ok(Ok(true)) => tracing::info!("leadership released"),
            Ok(Ok(false)) => {}
            _ if !expected => {}
            Ok(Err(error)) => {
                let problem = api_problem("releasing the lease", error);
                tracing::warn!(%problem, "the lease was not released; the next leader must wait until it expires");
            }
            Err(_) => {
                tracing::warn!("releasing the lease timed out; the next leader must wait until it expires")
            }
        }
    }

    async fn try_release(&mut self) -> Result<bool, CallError> {
        loop {
            // A cancelled write may have reached the API server, so the Lease is read again.
            self.read_lease().await?;
            if !self.is_holder() {
                return Ok(false);
            }
            let before = self
                .observed
                .as_ref()
                .and_then(|observed| observed.lease.spec.as_ref());
            if self
                .compare_and_swap(record::released_spec(before, Timestamp::now()))
                .await?
            {
                return Ok(true);
            }
        }
    }

    fn holder(&self) -> &str {
        self.observed.as_ref().map_or("", Observation::holder)
    }

    fn is_holder(&self) -> bool {
        self.holder() == self.settings.identity
    }

    /// Half of the renew deadline at most, so that one unanswered call leaves time for another.
    fn call_timeout(&self) -> Duration {
        CALL_TIMEOUT.min(self.settings.renew_deadline / 2)
    }

    /// The retry period, shortened by up to a fifth so that candidates do not act in step. It is never longer, because
    /// the flags ensure that the retry period fits into the renew deadline.
    fn retry_delay(&self) -> Duration {
        let fifth = self.settings.retry_period / 5;
        self.settings.retry_period - fifth.mul_f64(fastrand::f64())
    }

    fn log_recovery(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("the leader election has recovered");
        }
    }

    fn log_failure(&mut self, error: CallError) {
        let problem = api_problem("the call for the lease", error);
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(%problem, "the leader election still fails");
        } else {
            tracing::warn!(%problem, "the leader election fails; retrying after each retry period");
        }
    }
}

#[cfg(test)]
mod tests;
