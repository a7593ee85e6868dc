//! Attempts of any Pod without a right, by the network alone. Half of them come from the API server's own address, as behind a
//! proxy of connections they would.

use super::others::Others;
use azure_emulator::Endpoint;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use rustls::pki_types::ServerName;
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use testkit::{
    azure::{REGISTRY, TENANT},
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{pod, pull_secret_name, unnamed_pod, with_account},
    review::review,
    webhook::Webhook,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Addresses of other Pods.
const STRANGERS: usize = 16;
/// What a stranger tries who has read the documentation.
const GUESSES: [&str; 3] = [
    "/mutate",
    "/mutate/",
    "/mutate/0123456789abcdef0123456789abcdef01234567",
];

/// Somebody with many sockets.
struct Attacker {
    webhook: SocketAddr,
    admin: SocketAddr,
    tls: TlsConnector,
    /// Sockets that have done what they are for, once each.
    done: AtomicUsize,
}

impl Attacker {
    fn of(webhook: &Webhook) -> Self {
        Self {
            webhook: webhook.address,
            admin: webhook.admin,
            tls: webhook.tls(),
            done: AtomicUsize::new(0),
        }
    }

    /// The n-th socket.
    async fn tcp(&self, n: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if n.is_multiple_of(2) {
            let stranger = Ipv4Addr::new(127, 0, 66, 1 + (n / 2 % STRANGERS) as u8);
            socket.bind((stranger, 0).into())?;
        }
        socket.connect(to).await
    }

    async fn tls(&self, n: usize) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = self.tcp(n, self.webhook).await?;
        self.tls
            .connect(ServerName::try_from("127.0.0.1").unwrap(), stream)
            .await
    }

    /// So many sockets do this at once, each again when it is closed, but no oftener than in each `pause`.
    async fn with(
        &self,
        sockets: usize,
        pause: Duration,
        attempt: impl AsyncFn(usize) -> std::io::Result<()>,
    ) {
        let attempt = &attempt;
        let all = (0..sockets).map(async |n| {
            let mut turns = interval(pause);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                let _ = attempt(n).await;
            }
        });
        join_all(all).await;
    }

    fn did(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until each of so many sockets has done its part once.
    async fn is_in_force(&self, sockets: usize) {
        eventually("the attack is in force", async || {
            (self.done.load(Ordering::Relaxed) >= sockets).then_some(())
        })
        .await;
    }
}

/// Runs an attack with this many sockets until everybody else has seen that they notice nothing.
async fn nobody_notices(
    others: &Others<'_>,
    attacker: &Attacker,
    sockets: usize,
    attack: impl Future<Output = ()>,
) {
    let mut attack = Box::pin(attack);
    tokio::select! {
        () = &mut attack => panic!("the attack has ended"),
        () = attacker.is_in_force(sockets) => {}
    }
    others.notice_nothing_of(attack).await;
}

async fn until_closed(mut stream: impl AsyncReadExt + Unpin) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// Attempt 1: 200 × POST that declares 3 MiB and sends one byte, by somebody who does not know the path, and by somebody who
/// does: an API server gone wrong. There is room for everybody else's reviews still.
#[testkit::test]
async fn bodies_that_are_declared_and_do_not_come_hold_up_nobody() {
    let env = TestEnv::start().await;
    let known = reqwest::Url::parse(&env.webhook.url()).unwrap();
    for paths in [&GUESSES[..], &[known.path()]] {
        let (others, attacker) = (Others::of_two(&env).await, Attacker::of(&env.webhook));
        let attack = attacker.with(200, Duration::from_secs(5), async |n| {
            let mut stream = attacker.tls(n).await?;
            let path = paths[n % paths.len()];
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3145728\r\n\r\n{{"
            );
            stream.write_all(head.as_bytes()).await?;
            attacker.did();
            until_closed(stream).await;
            Ok(())
        });
        nobody_notices(&others, &attacker, 200, attack).await;
    }
}

/// Attempt 2: 128 kept sockets on the admin port.
#[testkit::test]
async fn kept_connections_to_the_admin_port_hold_up_no_probe() {
    let env = TestEnv::start().await;
    let (others, attacker) = (Others::of_two(&env).await, Attacker::of(&env.webhook));
    let attack = attacker.with(300, Duration::from_secs(1), async |n| {
        // A kubelet's address is its node's, which no Pod has that is not on the host's network.
        let mut stream = attacker.tcp(2 * n, attacker.admin).await?;
        // Some ask, and some are silent.
        if n % 4 < 2 {
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                .await?;
            stream.read_u8().await?;
        }
        attacker.did();
        until_closed(stream).await;
        Ok(())
    });
    nobody_notices(&others, &attacker, 300, attack).await;
}

/// Attempt 3: 1,024 kept sockets on the webhook port, then the API server restarts, then a Pod.
#[testkit::test]
async fn kept_connections_to_the_webhook_port_keep_no_api_server_out() {
    const SOCKETS: usize = 1024;
    let env = TestEnv::leading(&[], |_| ()).await;
    let (others, attacker) = (Others::of_two(&env).await, Attacker::of(&env.webhook));
    let asked = AtomicUsize::new(0);
    let attack = attacker.with(SOCKETS, Duration::from_secs(1), async |n| {
        // Each asks once, and is silent from then on.
        if asked.fetch_add(1, Ordering::Relaxed) < SOCKETS {
            let mut stream = attacker.tls(n).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
            stream.read_u8().await?;
            attacker.did();
            until_closed(stream).await;
        } else {
            until_closed(attacker.tcp(n, attacker.webhook).await?).await;
        }
        Ok(())
    });
    let mut attack = Box::pin(attack);
    tokio::select! {
        () = &mut attack => panic!("the attack has ended"),
        () = async {
            eventually("the sockets are taken", async || {
                (asked.load(Ordering::Relaxed) >= SOCKETS).then_some(())
            })
            .await;
            env.cluster.kill_api_server().await;
            env.cluster.start_api_server().await;
            // It asks its webhooks once it has heard of them.
            eventually("a Pod is admitted", async || {
                let pods = env.team_b.namespace.pods();
                let pod = pods.create(&PostParams::default(), &unnamed_pod("contoso")).await.ok()?;
                pod.spec?.image_pull_secrets.map(drop)
            })
            .await;
        } => {}
    }
    others.notice_nothing_of(attack).await;
}

/// Attempt 4: 400 × 400 KiB of unfinished head; and as much as a connection may have, on more connections than there may be.
#[testkit::test]
async fn heads_without_an_end_take_no_memory() {
    let env = TestEnv::start().await;
    for (sockets, size) in [(400, 400 * 1024), (1200, 15 * 1024)] {
        let (others, attacker) = (Others::of_two(&env).await, Attacker::of(&env.webhook));
        let head = format!("POST /mutate HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(size));
        let attack = attacker.with(sockets, Duration::from_secs(5), async |n| {
            let stream = attacker.tls(n).await;
            attacker.did();
            let mut stream = stream?;
            stream.write_all(head.as_bytes()).await?;
            stream.flush().await?;
            until_closed(stream).await;
            Ok(())
        });
        nobody_notices(&others, &attacker, sockets, attack).await;
    }
}

/// The same before there is TLS: the longest message of a handshake, but for its end.
#[testkit::test]
async fn handshakes_without_an_end_take_no_memory() {
    let env = TestEnv::start().await;
    let (others, attacker) = (Others::of_two(&env).await, Attacker::of(&env.webhook));
    let mut message = [&[1, 0, 0xff, 0xff][..], &[0; 0xff00]].concat();
    message[4..6].copy_from_slice(&[3, 3]);
    let records = message.chunks(0x3fff).flat_map(|fragment| {
        let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&[22, 3, 1][..], &length, fragment].concat()
    });
    let records: Vec<u8> = records.collect();
    let attack = attacker.with(1200, Duration::from_secs(5), async |n| {
        let stream = attacker.tcp(n, attacker.webhook).await;
        attacker.did();
        let mut stream = stream?;
        stream.write_all(&records).await?;
        until_closed(stream).await;
        Ok(())
    });
    nobody_notices(&others, &attacker, 1200, attack).await;
}

/// Attempt 5: 10 × 3 MiB of `containers:[{},…]` with `timeout=30s`, by who does not know the path, and by who does.
#[testkit::test]
async fn many_small_items_take_no_memory() {
    let env = TestEnv::start().await;
    let (others, attacker) = (Others::of_two(&env).await, Attacker::of(&env.webhook));
    let mut body = review(&env.team_a.namespace, &pod("app", "contoso")).to_string();
    let items = "{},".repeat((3 * 1024 * 1024 - body.len()) / 3 - 4);
    body = body.replace("\"containers\":[", &format!("\"containers\":[{items}"));
    assert!(body.len() > 3_000_000 && body.len() < 3 * 1024 * 1024);
    let guessed = format!("https://{}/mutate", env.webhook.address);
    for (url, known) in [(guessed, false), (env.webhook.url(), true)] {
        let client = env.webhook.client();
        attacker.done.store(0, Ordering::Relaxed);
        let attack = attacker.with(10, Duration::from_secs(1), async |_| {
            let request = client.post(format!("{url}?timeout=30s")).body(body.clone());
            let reply = request.header("content-type", "application/json").send().await;
            // Who is cut off while it is still sending may not see the answer.
            if let Ok(reply) = reply {
                let status = reply.status().as_u16();
                let words = reply.text().await.unwrap_or_default();
                let answered = match status {
                    404 => !known,
                    200 => known && words.contains("more than 1000 containers"),
                    // Large bodies wait for each other, and on a busy machine not all are read in time.
                    500 => known && words.contains("the body did not arrive within"),
                    _ => false,
                };
                assert!(answered, "{status}: {words}");
            }
            attacker.did();
            Ok(())
        });
        nobody_notices(&others, &attacker, 10, attack).await;
    }
}

/// What a forger wants to know.
async fn written(namespace: &TestNamespace) -> Vec<String> {
    let secrets = namespace.api::<Secret>();
    let secrets = secrets.list(&ListParams::default()).await.unwrap();
    let owners = namespace.pull_secrets();
    let owners = owners.list(&ListParams::default()).await.unwrap();
    let names = secrets.items.iter().map(ResourceExt::name_any);
    let owners = owners.items.iter().map(ResourceExt::name_any);
    names
        .chain(owners)
        .filter(|name| name.starts_with("acr-pull-"))
        .collect()
}

/// Posts a review of a Pod to wherever a stranger may think it is wanted: answered by 404 everywhere.
async fn forge(env: &TestEnv, namespace: &TestNamespace, pod: &k8s_openapi::api::core::v1::Pod) {
    for path in GUESSES {
        let url = format!("https://{}{path}?timeout=10s", env.webhook.address);
        let request = env.webhook.client().post(url).json(&review(namespace, pod));
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 404, "{path}");
    }
}

/// Attempts 6 and 7: a forged review for kube-system with a ClusterGenerator, and one for team B.
#[testkit::test]
async fn a_forged_review_makes_no_pull_secret() {
    let env = TestEnv::start().await;
    let everywhere = env
        .cluster_generator(
            json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": {
            "registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {}}}}}),
        )
        .await;
    let account = json!({"metadata": {"name": "infra", "annotations": {
        "azure.workload.identity/client-id": env.team_b.client_id}}});
    let accounts = Api::<ServiceAccount>::namespaced(env.client.clone(), "kube-system");
    let account: ServiceAccount = serde_json::from_value(account).unwrap();
    let _ = accounts.create(&PostParams::default(), &account).await;
    env.team_b.namespace.apply_generator("forged", json!({})).await;
    let name = pull_secret_name(&env.team_a.namespace.create_pod(&pod("app", "contoso")).await);
    assert!(!name.is_empty());

    let calls = env.azure.calls(Endpoint::EntraToken);
    let infra = with_account(pod("infra", &everywhere), "infra");
    let system = env.namespace("kube-system");
    forge(&env, &system, &infra).await;
    forge(&env, &env.team_b.namespace, &pod("forged", "forged")).await;
    assert_eq!(written(&system).await, [""; 0]);
    assert_eq!(written(&env.team_b.namespace).await, [""; 0]);
    assert_eq!(env.azure.calls(Endpoint::EntraToken), calls);
}

/// Attempt 8: forged reviews with unknown client ids, 10 a second.
#[testkit::test]
async fn forged_reviews_cause_no_call() {
    let env = TestEnv::start().await;
    let unknown = "cccccccc-cccc-cccc-cccc-cccccccccccc";
    env.create_workload("unknown", unknown, json!({})).await;
    let (others, attacker) = (Others::of_two(&env).await, Attacker::of(&env.webhook));
    let calls = env.azure.calls(Endpoint::EntraToken);
    let forged = with_account(pod("forged", "unknown"), "unknown");
    let body = review(&env.team_a.namespace, &forged);
    let client = env.webhook.client();
    let attack = attacker.with(10, Duration::from_secs(1), async |n| {
        let path = GUESSES[n % GUESSES.len()];
        let url = format!("https://{}{path}", env.webhook.address);
        let reply = client.post(url).json(&body).send().await.unwrap();
        assert_eq!(reply.status(), 404);
        attacker.did();
        Ok(())
    });
    nobody_notices(&others, &attacker, 30, attack).await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), calls);
    assert_eq!(written(&env.team_a.namespace).await, [""; 0]);
}
