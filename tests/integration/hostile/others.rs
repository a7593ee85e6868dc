//! The others of an attack: team B, whose Pods are created meanwhile, and the kubelet, whose probes have a time-out.

use std::time::{Duration, Instant};
use testkit::{
    env::TestEnv,
    objects::{pull_secret_name, unnamed_pod},
    webhook::Webhook,
};

pub const MIB: u64 = 1024 * 1024;
/// What a replica may hold of the machine's memory, whatever anybody tries.
pub const MAX_RESIDENT: u64 = 64 * MIB;
/// Slower than twice as slow as before is not too slow below this.
const UNNOTICED: Duration = Duration::from_millis(300);
/// Admissions that tell how long one takes without an attack.
const BEFORE: usize = 5;
/// One admission that is slow may be the machine's fault, on which other tests run too; an attack that harms others harms each
/// of so many in a row.
const IN_A_ROW: usize = 10;
/// Looks during an attack that does not end, and the time from one to the next: an attack that goes in circles of 5 s is seen
/// from each side.
const LOOKS: usize = 24;
const APART: Duration = Duration::from_millis(500);

/// Everybody else.
pub struct Others<'a> {
    env: &'a TestEnv,
    replicas: Vec<&'a Webhook>,
    /// A further replica, which is looked at too.
    own: Option<Webhook>,
    kubelet: reqwest::Client,
    /// An admission may take so long.
    pub limit: Duration,
}

impl<'a> Others<'a> {
    /// They use these replicas, and are used to how long an admission takes.
    pub async fn of(env: &'a TestEnv, replicas: &[&'a Webhook]) -> Self {
        let kubelet = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        let mut others = Self {
            env,
            replicas: replicas.to_vec(),
            own: None,
            kubelet,
            limit: UNNOTICED,
        };
        others.admission().await;
        for _ in 0..BEFORE {
            others.limit = others.limit.max(2 * others.admission().await);
        }
        others
    }

    /// The same of two replicas: the one that the API server calls, and one that is made for this.
    pub async fn of_two(env: &'a TestEnv) -> Self {
        let own = env.replica().await;
        let mut others = Self::of(env, &[&env.webhook]).await;
        others.own = Some(own);
        others
    }

    /// How long the admission of a Pod of team B takes.
    async fn admission(&self) -> Duration {
        let began = Instant::now();
        let pod = unnamed_pod("contoso");
        pull_secret_name(&self.env.team_b.namespace.create_pod(&pod).await);
        began.elapsed()
    }

    /// Each replica is ready, as a kubelet sees it, and small. A kubelet counts a replica as not ready after three probes
    /// without an answer.
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

    /// An admission of this kind is in time, for one of some in a row; returns how long the first of them took.
    pub async fn in_time(&self, admission: impl AsyncFn() -> Duration) -> Duration {
        let first = admission().await;
        let mut took = first;
        for _ in 1..IN_A_ROW {
            if took <= self.limit {
                break;
            }
            took = took.min(admission().await);
        }
        assert!(
            took <= self.limit,
            "an admission takes {took:?}, and {:?} are fine",
            self.limit
        );
        first
    }

    /// They notice nothing, at this moment.
    pub async fn look(&self) -> Duration {
        self.probe().await;
        let took = self.in_time(async || self.admission().await).await;
        self.probe().await;
        took
    }

    /// They notice nothing while an attempt is made, to its end, nor afterwards.
    pub async fn bear<T>(&self, attempt: impl Future<Output = T>) -> T {
        let mut attempt = std::pin::pin!(attempt);
        let outcome = loop {
            tokio::select! {
                outcome = &mut attempt => break outcome,
                () = async {
                    self.look().await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                } => {}
            }
        };
        self.look().await;
        outcome
    }

    /// They notice nothing of an attack that does not end. One that ends by itself has failed.
    pub async fn notice_nothing_of(&self, attack: impl Future<Output = ()>) {
        let seen = async {
            let mut times = Vec::new();
            let mut turns = tokio::time::interval(APART);
            for _ in 0..LOOKS {
                turns.tick().await;
                times.push(self.look().await);
            }
            times.sort();
            println!(
                "an admission takes {:?} (slowest {:?}), and {:?} are fine",
                times[LOOKS / 2],
                times[LOOKS - 1],
                self.limit
            );
        };
        tokio::select! {
            () = seen => {}
            () = attack => panic!("the attack has ended"),
        }
    }
}
