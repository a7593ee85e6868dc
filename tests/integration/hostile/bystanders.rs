//! Those who must be unaffected by an attack: team B, whose Pods are created meanwhile, and the kubelet, whose probes
//! have a time-out.

use std::time::{Duration, Instant};
use testkit::{
    env::TestEnv,
    objects::{pull_secret_name, unnamed_pod},
    speed, turns, turns_every,
    webhook::Webhook,
};

pub const MIB: u64 = 1024 * 1024;
/// The memory that a replica may use during any attack.
pub const MAX_RESIDENT: u64 = 64 * MIB;
/// An admission below this duration is fast enough. Otherwise it may take twice as long as without an attack.
const NOMINAL_LIMIT: Duration = Duration::from_millis(300);
/// Admissions before the attack, which determine the limit.
const WARM_UP: usize = 5;
/// Other tests on the machine may delay a single admission. An attack that affects bystanders delays each of these in a
/// row.
const MAX_SLOW: usize = 10;
/// Checks during an endless attack, and the interval between them. They cover all phases of an attack with a period of
/// 5 s.
const CHECKS: usize = 24;
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The time-out of a kubelet's probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Bystanders<'a> {
    env: &'a TestEnv,
    replicas: Vec<&'a Webhook>,
    /// One more replica, which is probed too.
    own: Option<Webhook>,
    kubelet: reqwest::Client,
    /// The longest admission that is fast enough.
    pub limit: Duration,
}

impl<'a> Bystanders<'a> {
    /// Bystanders of these replicas. The limit of an admission is measured now.
    pub async fn of(env: &'a TestEnv, replicas: &[&'a Webhook]) -> Self {
        let kubelet = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(speed::scaled(PROBE_TIMEOUT))
            .build()
            .unwrap();
        let mut bystanders = Self {
            env,
            replicas: replicas.to_vec(),
            own: None,
            kubelet,
            limit: speed::scaled(NOMINAL_LIMIT),
        };
        bystanders.admission().await;
        for _ in 0..WARM_UP {
            bystanders.limit = bystanders.limit.max(2 * bystanders.admission().await);
        }
        bystanders
    }

    /// Bystanders of two replicas: the registered one, and one that is started for this purpose.
    pub async fn of_two(env: &'a TestEnv) -> Self {
        let own = env.replica().await;
        let mut bystanders = Self::of(env, &[&env.webhook]).await;
        bystanders.own = Some(own);
        bystanders
    }

    /// Creates a Pod of team B and returns the duration of the creation.
    async fn admission(&self) -> Duration {
        let began = Instant::now();
        let pod = unnamed_pod("contoso");
        pull_secret_name(&self.env.team_b.namespace.create_pod(&pod).await);
        began.elapsed()
    }

    /// Asserts that each replica is ready for a kubelet and uses little memory. A kubelet counts a replica as not ready
    /// after three probes without an answer.
    pub async fn probe(&self) {
        for replica in self.replicas.iter().copied().chain(&self.own) {
            let url = format!("http://{}/readyz", replica.admin);
            let mut answer = self.kubelet.get(&url).send().await;
            for _ in 0..2 {
                if answer.is_err() {
                    answer = self.kubelet.get(&url).send().await;
                }
            }
            let answer = answer.expect("one of three probes is answered in time");
            let (status, body) = (answer.status(), answer.text().await.unwrap_or_default());
            assert_eq!(status, 200, "{body}");
            let resident = replica.resident();
            assert!(resident < MAX_RESIDENT, "{} MiB are resident", resident / MIB);
        }
    }

    /// Asserts that one of several admissions in a row is fast enough; returns the duration of the first one.
    pub async fn check_admission(&self, admission: impl AsyncFn() -> Duration) -> Duration {
        let first = admission().await;
        let mut took = first;
        for _ in 1..MAX_SLOW {
            if took <= self.limit {
                break;
            }
            took = took.min(admission().await);
        }
        assert!(
            took <= self.limit,
            "an admission takes {took:?}; the limit is {:?}",
            self.limit
        );
        first
    }

    /// Asserts that the replicas are ready and small, and that Pods of team B are admitted in time; returns the duration of
    /// one admission.
    pub async fn check(&self) -> Duration {
        self.probe().await;
        let took = self.check_admission(async || self.admission().await).await;
        self.probe().await;
        took
    }

    /// Checks during an attempt and after it.
    pub async fn check_during<T>(&self, attempt: impl Future<Output = T>) -> T {
        let (mut attempt, mut turns) = (std::pin::pin!(attempt), turns());
        let outcome = loop {
            tokio::select! {
                outcome = &mut attempt => break outcome,
                () = async {
                    turns.tick().await;
                    self.check().await;
                } => {}
            }
        };
        self.check().await;
        outcome
    }

    /// Checks during an attack that does not end. An attack that ends has failed.
    pub async fn check_during_endless(&self, attack: impl Future<Output = ()>) {
        let checks = async {
            let mut times = Vec::new();
            let mut turns = turns_every(CHECK_INTERVAL);
            for _ in 0..CHECKS {
                turns.tick().await;
                times.push(self.check().await);
            }
            self.report(times);
        };
        tokio::select! {
            () = checks => {}
            () = attack => panic!("the attack has ended"),
        }
    }

    /// Prints median and maximum of the durations of admissions.
    pub fn report(&self, mut times: Vec<Duration>) {
        times.sort_unstable();
        println!(
            "{} warm admissions take {:?} (slowest {:?}); the limit is {:?}",
            times.len(),
            times[times.len() / 2],
            times[times.len() - 1],
            self.limit
        );
    }
}
