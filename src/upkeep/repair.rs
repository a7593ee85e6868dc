//! Making a Secret anew that a kubelet misses or that its registry refuses, and an `ACRPullSecret` that was deleted while a
//! Pod names it.

use super::{
    Key, Work,
    complaint::{Complaint, What},
};
use crate::{
    kubernetes::{self, MIRROR, Pod},
    problem::Problem,
    pull_secret::{ACRPullSecret, Cause},
    telemetry::Renewal,
    watch::Item,
};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A complaint comes again with each of the kubelet's tries, and its cause may be another one: an image that the
/// identity may not pull is refused with every token.
const MIN_BETWEEN: Duration = Duration::from_secs(10);
const MAX_BETWEEN: Duration = Duration::from_secs(600);
/// An Event that is older than a renewal is about the token before; the clocks of the two differ by less than this. The
/// kubelet says it again with its next try.
const CLOCKS: SignedDuration = SignedDuration::from_secs(5);
/// A kubelet writes its Event a moment before the status of the Pod.
const MAX_LOOKS: u32 = 2;
/// So many of the Pods that name a pull secret are read before it is tried again later.
const MAX_USERS: usize = 4;

/// What repairs are wanted, and which have been made.
#[derive(Default)]
pub struct Repairs(Mutex<HashMap<Key, Repair>>);

#[derive(Default)]
struct Repair {
    /// The complaint that is not answered yet.
    wanted: Option<Wanted>,
    /// When the last repair was made, and how many before it in a row.
    made: Option<(Instant, u32)>,
    /// When a Pod was last read for it.
    looked: Option<Instant>,
    /// The last Pod that was read of those that name it.
    read: Option<Arc<Key>>,
}

/// A complaint about a pull secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pod: Key,
    at: Timestamp,
    /// Else it is missing.
    refused: bool,
    looks: u32,
}

/// How a repair ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pull secret was made anew.
    Done,
    /// There was nothing to do.
    NothingToDo,
}

/// What the Pod says to a complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agreement {
    Agrees,
    /// It may agree a moment later.
    NotYet,
    Disagrees,
}

// === impl Repairs ===

impl Repairs {
    /// Notes a complaint, unless a later one is noted.
    fn want(&self, key: Key, wanted: Wanted) {
        let mut all = self.lock();
        let repair = all.entry(key).or_default();
        if repair.wanted.as_ref().is_none_or(|before| before.at < wanted.at) {
            repair.wanted = Some(wanted);
        }
    }

    /// The complaint about this pull secret, and how long it is to wait.
    fn wanted(&self, key: &Key) -> Option<(Wanted, Duration)> {
        let all = self.lock();
        let repair = all.get(key)?;
        let wanted = repair.wanted.clone()?;
        Some((wanted, repair.wait(Instant::now())))
    }

    /// A Pod is read because of this complaint.
    fn looked(&self, key: &Key) {
        let mut all = self.lock();
        let repair = all.entry(key.clone()).or_default();
        repair.looked = Some(Instant::now());
        if let Some(wanted) = &mut repair.wanted {
            wanted.looks += 1;
        }
    }

    /// This complaint, or an earlier one, is answered.
    fn answered(&self, key: &Key, at: Timestamp) {
        if let Some(repair) = self.lock().get_mut(key)
            && repair.wanted.as_ref().is_some_and(|wanted| wanted.at <= at)
        {
            repair.wanted = None;
        }
    }

    /// How long to wait before this one is made anew once more.
    fn wait(&self, key: &Key) -> Duration {
        let all = self.lock();
        all.get(key)
            .map_or(Duration::ZERO, |repair| repair.wait(Instant::now()))
    }

    /// It was made anew.
    fn made(&self, key: &Key) {
        let mut all = self.lock();
        let repair = all.entry(key.clone()).or_default();
        let now = Instant::now();
        // Long after, it is another matter.
        let in_a_row = match repair.made {
            Some((last, in_a_row)) if now - last <= MAX_BETWEEN * 2 => in_a_row + 1,
            _ => 0,
        };
        repair.made = Some((now, in_a_row));
    }

    /// The Pod of its users that was read last.
    fn read(&self, key: &Key) -> Option<Arc<Key>> {
        self.lock().get(key)?.read.clone()
    }

    fn set_read(&self, key: &Key, pod: Arc<Key>) {
        self.lock().entry(key.clone()).or_default().read = Some(pod);
    }

    /// The pull secret is gone, and no Pod names it.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Repair>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Repair ===

impl Repair {
    fn wait(&self, now: Instant) -> Duration {
        let made = self.made.map_or(Duration::ZERO, |(last, in_a_row)| {
            let between = MIN_BETWEEN.saturating_mul(2_u32.saturating_pow(in_a_row));
            between.min(MAX_BETWEEN).saturating_sub(now - last)
        });
        let looked = self
            .looked
            .map_or(Duration::ZERO, |last| MIN_BETWEEN.saturating_sub(now - last));
        made.max(looked)
    }
}

// === impl Wanted ===

impl Wanted {
    /// Whether the token that was made then is newer than the complaint.
    fn is_before(&self, renewed: Option<Timestamp>) -> bool {
        renewed.is_some_and(|renewed| self.at.duration_since(renewed) <= CLOCKS)
    }

    /// What the Pod says to it.
    fn checked(&self, pod: Option<&Pod>, name: &str, registry: Option<&str>) -> Agreement {
        let Some(pod) = pod.filter(|pod| asks_for(pod, name)) else {
            return Agreement::Disagrees;
        };
        let agrees = match (self.refused, registry) {
            (true, Some(registry)) => pod.waits_for_image_of(registry),
            (true, None) => false,
            // Kubelets before 1.37 say so of Pods that run already.
            (false, _) => !pod.runs(),
        };
        match agrees {
            true => Agreement::Agrees,
            false if self.looks < MAX_LOOKS => Agreement::NotYet,
            false => Agreement::Disagrees,
        }
    }
}

/// Whether the Pod pulls by the Secret of this name. What its annotation says can be written by who cannot create Pods.
fn asks_for(pod: &Pod, name: &str) -> bool {
    let mirror = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(MIRROR));
    let mut named = pod.spec.image_pull_secrets.iter().flatten();
    !mirror && named.any(|secret| secret.name == name)
}

// === impl Work ===

impl Work {
    /// Notes a complaint about the pull secrets of a Pod that it may be true of.
    pub(super) fn complained(&self, complaint: &Complaint) {
        for key in self.usage.named_by(&complaint.pod) {
            let known = self.known(&key);
            let status = known.as_ref().and_then(|owner| owner.status.as_ref());
            let registry = status.and_then(|status| status.registry.as_deref());
            if !complaint.is_about(&key.1, registry) {
                continue;
            }
            let wanted = Wanted {
                pod: complaint.pod.clone(),
                at: complaint.at,
                refused: matches!(complaint.what, What::Refused(_)),
                looks: 0,
            };
            if !wanted.is_before(known.as_ref().and_then(renewed)) {
                self.repairs.want(key.clone(), wanted);
                self.queue.wake(key);
            }
        }
    }

    /// Makes a pull secret anew that a kubelet complained of, where the Pod agrees; says how long that is to wait, if it is.
    pub(super) async fn repair(&self, owner: &ACRPullSecret, key: &Key) -> Result<Option<Duration>, Problem> {
        let Some((wanted, wait)) = self.repairs.wanted(key) else {
            return Ok(None);
        };
        if wanted.is_before(renewed(owner)) {
            self.repairs.answered(key, wanted.at);
            return Ok(None);
        }
        if !wait.is_zero() {
            return Ok(Some(wait));
        }
        self.looks.turn().await;
        self.repairs.looked(key);
        let registry = owner
            .status
            .as_ref()
            .and_then(|status| status.registry.as_deref());
        let pod = self.read_pod(&wanted.pod).await?;
        // This look included.
        let wanted = Wanted {
            looks: wanted.looks + 1,
            ..wanted
        };
        match wanted.checked(pod.as_ref(), &key.1, registry) {
            Agreement::Agrees => {}
            Agreement::NotYet => return Ok(Some(MIN_BETWEEN)),
            Agreement::Disagrees => {
                self.repairs.answered(key, wanted.at);
                self.tell(key, &Ok(Outcome::NothingToDo));
                return Ok(None);
            }
        }
        self.pace.turn().await;
        if !self.term.still_leads() {
            return Ok(None);
        }
        let outcome = self.renew(owner, Cause::Repair).await;
        self.tell(key, &outcome.clone().map(|()| Outcome::Done));
        outcome?;
        self.repairs.answered(key, wanted.at);
        self.repairs.made(key);
        Ok(None)
    }

    /// Makes a pull secret from a Pod that names it: its `ACRPullSecret` is gone.
    pub(super) async fn restore(&self, key: &Key) -> Result<Option<Duration>, Problem> {
        if let Some(wait) = self.trouble(key) {
            return Ok(Some(wait));
        }
        let wait = self.repairs.wait(key);
        if !wait.is_zero() {
            return Ok(Some(wait));
        }
        self.pace.turn().await;
        if !self.term.still_leads() {
            return Ok(None);
        }
        let (namespace, name) = key;
        let what = format!("looking for ACRPullSecret {namespace}/{name}");
        let api = Api::<ACRPullSecret>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        // The watch of Pods may be ahead of that of pull secrets.
        if kubernetes::call(&what, api.get_opt(name)).await?.is_some() {
            return Ok(Some(MIN_BETWEEN));
        }
        self.repairs.looked(key);
        let outcome = self.make_for_a_user(key).await;
        self.tell(key, &outcome);
        match outcome? {
            Outcome::Done => {
                self.recovered(key);
                self.repairs.made(key);
                // The watch shows what was written, and wakes it; this is for when it does not.
                Ok(Some(MAX_BETWEEN))
            }
            // Others of its Pods may agree.
            Outcome::NothingToDo => Ok(Some(MAX_BETWEEN)),
        }
    }

    /// Makes it as the admission of one of its Pods would.
    async fn make_for_a_user(&self, key: &Key) -> Result<Outcome, Problem> {
        let after = self.repairs.read(key);
        for user in self.usage.users_of(key, after.as_deref(), MAX_USERS) {
            self.repairs.set_read(key, user.clone());
            let Some(pod) = self.read_pod(&user).await?.filter(|pod| asks_for(pod, &key.1)) else {
                continue;
            };
            if self.make_for(&pod, &key.1).await? == Outcome::Done {
                return Ok(Outcome::Done);
            }
        }
        Ok(Outcome::NothingToDo)
    }

    /// Makes the pull secret of this name as the admission of this Pod would. What else the Pod asks for does not matter.
    async fn make_for(&self, pod: &Pod, name: &str) -> Result<Outcome, Problem> {
        let wishes = self.upkeep.admission.requests_of(pod).await?;
        let Some(wish) = wishes.into_iter().find(|wish| wish.can_be_named(name)) else {
            return Ok(Outcome::NothingToDo);
        };
        let outcome = async {
            let mut plan = self.upkeep.resolver.resolve(&wish).await?.plan;
            // The Pod names it as it is called, whatever the generator would have new ones call it.
            if plan.name() != name {
                Arc::make_mut(&mut plan).rename(name);
            }
            if !self.term.still_leads() {
                return Ok(Outcome::NothingToDo);
            }
            self.upkeep.issuer.renew(plan, Cause::Repair).await?;
            Ok(Outcome::Done)
        };
        let outcome = outcome.await;
        outcome.inspect_err(|problem| self.upkeep.resolver.warn_on_generator(&wish, problem))
    }

    async fn read_pod(&self, (namespace, name): &Key) -> Result<Option<Pod>, Problem> {
        let what = format!("reading Pod {namespace}/{name}");
        let api = Api::<Item<Pod>>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        let found = kubernetes::call(&what, api.get_opt(name)).await?;
        // What cannot be read agrees to nothing.
        Ok(found.and_then(|pod| pod.0.ok()))
    }

    fn tell(&self, (namespace, name): &Key, outcome: &Result<Outcome, Problem>) {
        let success = match outcome {
            Ok(Outcome::Done) => {
                tracing::info!(namespace, name, "pull secret repaired");
                Renewal::Repaired
            }
            Ok(Outcome::NothingToDo) => {
                tracing::debug!(
                    namespace,
                    name,
                    "no Pod agrees that this pull secret needs a repair"
                );
                Renewal::NothingToDo
            }
            Err(problem) => {
                tracing::warn!(namespace, name, %problem, "pull secret not repaired");
                Renewal::Failed
            }
        };
        self.upkeep
            .metrics
            .renewal(success, &outcome.as_ref().map(drop).map_err(Clone::clone));
    }
}

fn renewed(owner: &ACRPullSecret) -> Option<Timestamp> {
    Some(owner.status.as_ref()?.last_renewal_time.as_ref()?.0)
}

#[cfg(test)]
mod tests;
