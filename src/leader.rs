//! Leader election: of all replicas, one does the work that shall be done once.
//!
//! Each round looks at the Lease and, where it is free, ours or silent for its whole duration,
//! writes it by compare-and-swap. Nobody compares wall clocks: a candidate times the Lease's silence
//! itself, and the leader counts from before it asked for its last renewal. As the renew deadline is
//! shorter than the lease duration, the leader stops before a candidate may start.

mod record;
mod settings;
mod term;

pub use settings::{LeaderElectionArgs, Settings};
pub use term::Term;

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
use record::Observation;
use std::{convert::Infallible, time::Duration};
use term::Tenure;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// The Lease, in the namespace of the settings. deploy/ gives rights to this name.
const LEASE: &str = "acr-pull-webhook-leader";

/// Runs until `shutdown`. Whenever leadership is won, `work` is started; when it is lost the work is
/// dropped, and so is stopped. Work that ends by itself gives the leadership up.
///
/// A replica that is not `fit` for the work does not stand, and lays the leadership down.
///
/// What the work spawns it must abort when it is dropped (`JoinSet` does), and `Term::still_leads` is
/// to be asked before each write: no check reaches into a task of its own.
pub async fn run<W, F>(
    client: Client,
    settings: Settings,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
    fit: impl Fn() -> bool,
    work: W,
) where
    W: Fn(Term) -> F,
    F: Future<Output = ()>,
{
    let mut election = Election {
        leases: Api::namespaced(client, &settings.namespace),
        settings,
        metrics,
        seen: None,
        failing: false,
    };
    tokio::select! {
        biased;
        () = shutdown => {}
        never = election.stand(fit, work) => match never {},
    }
    // Here the work is dropped: a successor may start at once.
    election.release().await;
}

struct Election {
    leases: Api<Lease>,
    settings: Settings,
    metrics: Metrics,
    seen: Option<Observation>,
    failing: bool,
}

/// How a round ended.
enum Round {
    /// The Lease is ours, and until this moment so is the work.
    Won(Instant),
    /// It is somebody else's.
    HeldBy(String),
    /// Somebody else wrote it at the same time.
    Contended,
}

/// Why a term ended.
enum End {
    /// The Lease was lost.
    Lost(String),
    /// This replica cannot do the work any more.
    Unfit,
}

// === impl Election ===

impl Election {
    async fn stand<W, F>(&mut self, fit: impl Fn() -> bool, work: W) -> Infallible
    where
        W: Fn(Term) -> F,
        F: Future<Output = ()>,
    {
        loop {
            if !fit() {
                sleep(self.pause()).await;
                continue;
            }
            match self.round().await {
                Ok(Round::Won(until)) => {
                    self.succeeded();
                    self.lead(until, &fit, &work).await;
                }
                Ok(_) => self.succeeded(),
                Err(error) => self.failed(error),
            }
            sleep(self.pause()).await;
        }
    }

    /// Leads until the term ends.
    async fn lead<W, F>(&mut self, until: Instant, fit: &impl Fn() -> bool, work: &W)
    where
        W: Fn(Term) -> F,
        F: Future<Output = ()>,
    {
        let tenure = Tenure::begin(until, self.metrics.clone());
        let term = tenure.term();
        // The answer may have come too late to be of use.
        if !term.still_leads() {
            return;
        }
        tracing::info!(identity = self.settings.identity, "leadership won");
        let work = term::while_leading(term.clone(), work(term));
        let lost = tokio::select! {
            biased;
            lost = self.keep(&tenure, fit) => Some(lost),
            () = work => None,
        };
        drop(tenure);
        match lost {
            Some(End::Lost(why)) => tracing::info!(why, "leadership lost"),
            Some(End::Unfit) => {
                tracing::warn!("leadership laid down: this replica does not see the ACRPullSecrets");
                self.release().await;
            }
            None => {
                tracing::warn!("the leader's work ended by itself");
                self.release().await;
            }
        }
    }

    /// Renews the lease until that fails for too long; says why the term ended.
    async fn keep(&mut self, tenure: &Tenure, fit: &impl Fn() -> bool) -> End {
        let too_late = || End::Lost("the lease was not renewed within the renew deadline".to_owned());
        let mut started = Instant::now();
        loop {
            sleep_until((started + self.pause()).min(tenure.until())).await;
            started = Instant::now();
            // A timer that fires long after its time, because the process was stopped, ends here too.
            if started >= tenure.until() {
                return too_late();
            }
            if !fit() {
                return End::Unfit;
            }
            let Ok(round) = timeout_at(tenure.until(), self.round()).await else {
                return too_late();
            };
            match round {
                Ok(Round::Won(until)) => {
                    self.succeeded();
                    if !tenure.extend(until) {
                        return too_late();
                    }
                }
                Ok(Round::HeldBy(holder)) => return End::Lost(format!("the lease is held by {holder}")),
                Ok(Round::Contended) => self.succeeded(),
                Err(error) => self.failed(error),
            }
        }
    }

    /// One try to hold the Lease, or to go on holding it.
    async fn round(&mut self) -> Result<Round, CallError> {
        // What we wrote last needs no reading, unless it is overwritten or gone.
        if self.is_ours()
            && let Some(until) = self.write().await?
        {
            return Ok(Round::Won(until));
        }
        self.look().await?;
        let Settings {
            identity,
            lease_duration,
            ..
        } = &self.settings;
        if !record::is_free(identity, self.seen.as_ref(), *lease_duration, Instant::now()) {
            return Ok(Round::HeldBy(UntrustedText::new(self.holder()).to_string()));
        }
        Ok(self.write().await?.map_or(Round::Contended, Round::Won))
    }

    /// Reads the Lease.
    async fn look(&mut self) -> Result<(), CallError> {
        let found = try_call_within(self.limit(), "get Lease", self.leases.get_opt(LEASE)).await?;
        // The instant after the answer: the holder's own count began before.
        let now = Instant::now();
        let before = self.seen.take();
        self.seen = found.map(|lease| Observation::new(lease, now, before));
        Ok(())
    }

    /// Writes the Lease as ours, over what was seen last; tells until when that makes us the leader,
    /// or nothing when it was not what is there any more.
    async fn write(&mut self) -> Result<Option<Instant>, CallError> {
        let start = Instant::now();
        let before = self.seen.as_ref().and_then(|seen| seen.lease.spec.as_ref());
        let spec = record::held(
            &self.settings.identity,
            self.settings.lease_duration,
            before,
            Timestamp::now(),
        );
        let written = self.put(spec).await?;
        Ok(written.then_some(start + self.settings.renew_deadline))
    }

    /// Compare-and-swap; false when there is something else to compare with.
    async fn put(&mut self, spec: LeaseSpec) -> Result<bool, CallError> {
        let params = PostParams::default();
        let written = match &self.seen {
            None => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(LEASE.to_owned()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(spec),
                };
                try_call_within(self.limit(), "create Lease", self.leases.create(&params, &lease)).await
            }
            Some(seen) => {
                // Others' labels stay; the resourceVersion is in the metadata.
                let lease = Lease {
                    metadata: seen.lease.metadata.clone(),
                    spec: Some(spec),
                };
                let call = self.leases.replace(LEASE, &params, &lease);
                try_call_within(self.limit(), "replace Lease", call).await
            }
        };
        match written {
            Ok(lease) => {
                self.seen = Some(Observation::new(lease, Instant::now(), None));
                Ok(true)
            }
            Err(CallError::Api(status)) if status.code == 409 => Ok(false),
            // Deleted meanwhile. At creation it would be the namespace that is missing.
            Err(CallError::Api(status)) if status.code == 404 && self.seen.is_some() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Empties the Lease if it is ours, so that nobody has to wait for its end.
    async fn release(&mut self) {
        let expected = self.is_ours();
        match timeout(self.limit(), self.try_release()).await {
            Ok(Ok(true)) => tracing::info!("leadership released"),
            Ok(Ok(false)) => {}
            _ if !expected => {}
            Ok(Err(error)) => {
                let problem = api_problem("releasing the lease", error);
                tracing::warn!(%problem, "the lease is not released; the next leader waits for its end");
            }
            Err(_) => tracing::warn!("the lease is not released in time; the next leader waits for its end"),
        }
    }

    async fn try_release(&mut self) -> Result<bool, CallError> {
        loop {
            // A write that was cut off may have arrived: what was seen last is not enough.
            self.look().await?;
            if !self.is_ours() {
                return Ok(false);
            }
            let before = self.seen.as_ref().and_then(|seen| seen.lease.spec.as_ref());
            if self.put(record::released(before, Timestamp::now())).await? {
                return Ok(true);
            }
        }
    }

    fn holder(&self) -> &str {
        self.seen.as_ref().map_or("", Observation::holder)
    }

    fn is_ours(&self) -> bool {
        self.holder() == self.settings.identity
    }

    /// One call that is not answered shall leave the time for another.
    fn limit(&self) -> Duration {
        CALL_TIMEOUT.min(self.settings.renew_deadline / 2)
    }

    /// The retry period, shortened by up to a fifth so that candidates do not move in step. Never
    /// longer: the flags promise that it fits into the renew deadline.
    fn pause(&self) -> Duration {
        let fifth = self.settings.retry_period / 5;
        self.settings.retry_period - fifth.mul_f64(settings::random() as f64 / u64::MAX as f64)
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("the leader election works again");
        }
    }

    fn failed(&mut self, error: CallError) {
        let problem = api_problem("the call for the lease", error);
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(%problem, "the leader election still fails");
        } else {
            tracing::warn!(%problem, "the leader election fails; trying again each retry period");
        }
    }
}

#[cfg(test)]
mod tests;
