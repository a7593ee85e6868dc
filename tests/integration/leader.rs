//! The leader election of real processes on a real API server.

use futures::future::join_all;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::{
    coordination::v1::{Lease, LeaseSpec},
    core::v1::Namespace,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use testkit::{
    azure::Azure,
    control_plane::{self, apply},
    env::TestEnv,
    eventually,
    objects::{from, pod, pull_secret_name},
    speed, turns,
    webhook::Webhook,
};

const LEASE: &str = "acr-pull-webhook-leader";

/// Replicas with their own Lease.
struct Election {
    namespace: String,
    leases: Api<Lease>,
    candidates: Vec<Webhook>,
}

impl Election {
    /// Starts this many candidates, waits until one leads, and returns its index.
    async fn start(name: &str, candidates: usize, timings: [&str; 3]) -> (Self, usize) {
        let cluster = control_plane::for_elections();
        let (prepared, client) = (cluster.prepared().await, cluster.admin().await);
        let namespace = format!("election-{name}");
        let object: Namespace = from(json!({"metadata": {"name": namespace}}));
        apply(&Api::all(client.clone()), &object).await;
        let (mut role, mut binding) = prepared.lease_rights.clone();
        role.metadata.namespace = Some(namespace.clone());
        binding.metadata.namespace = Some(namespace.clone());
        apply(&Api::namespaced(client.clone(), &namespace), &role).await;
        apply(&Api::namespaced(client.clone(), &namespace), &binding).await;
        let [lease, renew, retry] = timings;
        let flags = [
            format!("--leader-election-namespace={namespace}"),
            format!("--leader-election-lease-duration={lease}"),
            format!("--leader-election-renew-deadline={renew}"),
            format!("--leader-election-retry-period={retry}"),
        ];
        // No candidate issues a token.
        let azure = Azure::without_tenants();
        let starting = (0..candidates).map(|_| Webhook::start(cluster, &azure, &flags));
        let election = Self {
            leases: Api::namespaced(client, &namespace),
            namespace,
            candidates: join_all(starting).await,
        };
        let leader = eventually("a candidate leads", async || election.leaders().await.pop()).await;
        (election, leader)
    }

    /// The candidates that report at this moment that they lead.
    async fn leaders(&self) -> Vec<usize> {
        self.leaders_of(&(0..self.candidates.len()).collect::<Vec<_>>())
            .await
    }

    async fn leaders_of(&self, candidates: &[usize]) -> Vec<usize> {
        let answers = join_all(candidates.iter().map(|n| self.candidates[*n].is_leader())).await;
        let leading = candidates.iter().zip(answers).filter(|(_, leads)| *leads);
        leading.map(|(n, _)| *n).collect()
    }

    /// The successor of a leader that does not run, and the last record of that leader.
    async fn successor_of(&self, leader: usize) -> (usize, LeaseSpec) {
        let others: Vec<_> = (0..self.candidates.len()).filter(|n| *n != leader).collect();
        let last = self.record().await;
        let last = std::cell::RefCell::new(last);
        let successor = eventually("another candidate leads", async || {
            let record = self.record().await;
            if record.holder_identity == last.borrow().holder_identity {
                last.replace(record);
            }
            let leaders = self.leaders_of(&others).await;
            assert!(leaders.len() <= 1, "two leaders: {leaders:?}");
            leaders.first().copied()
        })
        .await;
        (successor, last.into_inner())
    }

    async fn record(&self) -> LeaseSpec {
        self.leases.get(LEASE).await.unwrap().spec.unwrap()
    }
}

/// From the last renewal of the Lease to its acquisition by the next leader.
fn silence(last: &LeaseSpec, next: &LeaseSpec) -> jiff::SignedDuration {
    let written = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime>| {
        time.as_ref().map(|time| time.0).unwrap()
    };
    written(&next.acquire_time).duration_since(written(&last.renew_time))
}

/// An upper limit on this machine.
fn scaled(seconds: u64) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(speed::seconds(seconds)).unwrap()
}

fn seconds(seconds: i64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(seconds)
}

/// How many lines of the log have this message.
fn logged(webhook: &Webhook, message: &str) -> usize {
    webhook.logged(&format!("\"message\":\"{message}"))
}

#[testkit::test]
async fn one_of_three_candidates_leads_at_every_moment() {
    let (election, leader) = Election::start("three", 3, ["3s", "2s", "250ms"]).await;
    let end = Timestamp::now() + 9.seconds();
    let mut last = election.record().await;
    let (mut renewals, mut turns) = (0, turns());
    while Timestamp::now() < end {
        turns.tick().await;
        assert_eq!(election.leaders().await, [leader]);
        let record = election.record().await;
        renewals += usize::from(record.renew_time != last.renew_time);
        last = record;
    }
    assert!(renewals > 10, "renewed {renewals} times");
    assert_eq!(last.lease_transitions, Some(0));
    assert_eq!(last.lease_duration_seconds, Some(3));
}

#[testkit::test]
async fn a_killed_leader_is_replaced_after_the_lease_duration() {
    let (mut election, leader) = Election::start("killed", 3, ["3s", "2s", "250ms"]).await;
    election.candidates[leader].kill().await;
    let (successor, last) = election.successor_of(leader).await;
    let record = election.record().await;
    let silence = silence(&last, &record);
    assert!(silence >= seconds(3), "replaced after {silence:?}");
    assert!(silence < scaled(6), "replaced only after {silence:?}");
    assert_eq!(record.lease_transitions, Some(1));
    assert_eq!(logged(&election.candidates[successor], "leadership won"), 1);
}

#[testkit::test]
async fn a_stopped_leader_is_replaced_and_does_not_lead_after_it() {
    let (election, leader) = Election::start("stopped", 3, ["3s", "2s", "250ms"]).await;
    let stopped = &election.candidates[leader];
    stopped.signal("STOP").await;
    let (successor, last) = election.successor_of(leader).await;
    let record = election.record().await;
    assert!(silence(&last, &record) >= seconds(3));
    // The request waits in the socket until the process continues.
    let (leads, ()) = tokio::join!(stopped.is_leader(), async {
        eventually("the request has arrived", async || {
            has_unread_bytes(stopped).then_some(())
        })
        .await;
        stopped.signal("CONT").await;
    });
    assert!(!leads, "the stopped candidate still leads");
    eventually("the candidate has lost the leadership", async || {
        (logged(stopped, "leadership lost") == 1).then_some(())
    })
    .await;
    assert_eq!(election.leaders().await, [successor]);
    assert_eq!(election.record().await.holder_identity, record.holder_identity);
}

/// Whether a connection of the admin listener has bytes that the process has not read.
fn has_unread_bytes(webhook: &Webhook) -> bool {
    let port = format!(":{:04X}", webhook.admin.port());
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    connections.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // Local address, state (01 is established) and receive queue.
        fields[1].ends_with(&port) && fields[3] == "01" && !fields[4].ends_with(":00000000")
    })
}

#[testkit::test]
async fn a_terminated_leader_releases_its_lease() {
    let (mut election, leader) = Election::start("terminated", 2, ["60s", "40s", "250ms"]).await;
    let began = Timestamp::now();
    assert!(election.candidates[leader].terminate().await);
    assert_eq!(logged(&election.candidates[leader], "leadership released"), 1);
    let (successor, _) = election.successor_of(leader).await;
    let record = election.record().await;
    let took = record.acquire_time.unwrap().0.duration_since(began);
    assert!(took < scaled(3), "the succession took {took:?}");
    // One transition: no other candidate led in between.
    assert_eq!(record.lease_transitions, Some(1));
    assert_eq!(logged(&election.candidates[successor], "leadership won"), 1);
}

#[testkit::test]
async fn a_leader_recreates_its_deleted_lease() {
    let (election, leader) = Election::start("deleted", 1, ["3s", "2s", "250ms"]).await;
    let uid = election.leases.get(LEASE).await.unwrap().metadata.uid;
    let deleted = election.leases.delete(LEASE, &DeleteParams::default()).await;
    assert!(deleted.is_ok(), "in {}", election.namespace);
    eventually("the Lease is recreated", async || {
        let lease = election.leases.get_opt(LEASE).await.unwrap()?;
        (lease.metadata.uid != uid).then_some(())
    })
    .await;
    assert!(election.candidates[leader].is_leader().await);
    assert_eq!(logged(&election.candidates[leader], "leadership won"), 1);
}

#[testkit::test]
async fn pods_are_admitted_without_a_right_to_the_lease() {
    let env = TestEnv::with_flags(&[
        "--leader-election-namespace=default",
        "--leader-election-retry-period=100ms",
    ])
    .await;
    eventually("the webhook has tried several times", async || {
        (logged(&env.webhook, "the leader election still fails") > 3).then_some(())
    })
    .await;
    assert_eq!(
        logged(&env.webhook, "the leader election fails"),
        1,
        "one warning for all attempts"
    );
    assert_eq!(env.webhook.admin_get("/readyz").await.0, 200);
    assert!(!env.webhook.is_leader().await);
    let created = env.team_a.namespace.create_pod(&pod("app", "contoso")).await;
    env.team_a
        .namespace
        .credentials(&pull_secret_name(&created))
        .await;
}

#[testkit::test]
async fn the_account_may_use_no_other_lease() {
    control_plane::shared().prepared().await;
    let webhook: Client = control_plane::shared().as_webhook().await;
    let own = Api::<Lease>::namespaced(webhook.clone(), control_plane::NAMESPACE);
    let elsewhere = Api::<Lease>::namespaced(webhook, "kube-system");
    let other: Lease = from(json!({"metadata": {"name": "other"}, "spec": {}}));
    let params = PostParams::default();
    let refused = [
        own.get("other").await.err(),
        own.replace("other", &params, &other).await.err(),
        own.list(&Default::default()).await.err(),
        own.delete(LEASE, &DeleteParams::default()).await.err(),
        elsewhere.get(LEASE).await.err(),
        elsewhere.create(&params, &other).await.err(),
    ];
    for (n, error) in refused.into_iter().enumerate() {
        match error {
            Some(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{n}: {}", status.message),
            other => panic!("{n} was not forbidden: {other:?}"),
        }
    }
}
