//! Connections to the ports of the webhook that occupy sockets or memory.

use super::{
    attacker::{Attacker, GUESSED_PATHS, read_to_end},
    bystanders::Bystanders,
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use testkit::{
    env::TestEnv,
    eventually,
    objects::{pod, unnamed_pod},
    review::review,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// 200 requests declare a body of 3 MiB and send one byte, to guessed paths and to the secret path.
#[testkit::test]
async fn incomplete_bodies_delay_no_bystander() {
    let env = TestEnv::start().await;
    let known = reqwest::Url::parse(&env.webhook.url()).unwrap();
    for paths in [&GUESSED_PATHS[..], &[known.path()]] {
        let (bystanders, attacker) = (Bystanders::of_two(&env).await, Attacker::of(&env.webhook));
        let attack = attacker.attack(200, Duration::from_secs(5), async |n| {
            let mut stream = attacker.tls(n).await?;
            let path = paths[n % paths.len()];
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3145728\r\n\r\n{{"
            );
            stream.write_all(head.as_bytes()).await?;
            attacker.count();
            read_to_end(stream).await;
            Ok(())
        });
        attacker.check(&bystanders, 200, attack).await;
    }
}

/// Open connections to the admin port.
#[testkit::test]
async fn open_connections_to_the_admin_port_delay_no_probe() {
    let env = TestEnv::start().await;
    let (bystanders, attacker) = (Bystanders::of_two(&env).await, Attacker::of(&env.webhook));
    let attack = attacker.attack(300, Duration::from_secs(1), async |n| {
        // All sockets have addresses of other Pods: only Pods on the host's network have the address of a kubelet.
        let mut stream = attacker.tcp(2 * n, attacker.admin).await?;
        // Half of the sockets send a request, the others are silent.
        if n % 4 < 2 {
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                .await?;
            stream.read_u8().await?;
        }
        attacker.count();
        read_to_end(stream).await;
        Ok(())
    });
    attacker.check(&bystanders, 300, attack).await;
}

/// 1,024 open connections to the webhook port, then the API server restarts, then a Pod is created.
#[testkit::test]
async fn open_connections_do_not_exclude_a_restarted_api_server() {
    const SOCKETS: usize = 1024;
    let env = TestEnv::leading(&[], |_| ()).await;
    let (bystanders, attacker) = (Bystanders::of_two(&env).await, Attacker::of(&env.webhook));
    let opened = AtomicUsize::new(0);
    let attack = attacker.attack(SOCKETS, Duration::from_secs(1), async |n| {
        // Each socket sends one request and is silent after it.
        if opened.fetch_add(1, Ordering::Relaxed) < SOCKETS {
            let mut stream = attacker.tls(n).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
            stream.read_u8().await?;
            attacker.count();
            read_to_end(stream).await;
        } else {
            read_to_end(attacker.tcp(n, attacker.webhook).await?).await;
        }
        Ok(())
    });
    let mut attack = Box::pin(attack);
    tokio::select! {
        () = &mut attack => panic!("the attack has ended"),
        () = async {
            eventually("the sockets are open", async || {
                (opened.load(Ordering::Relaxed) >= SOCKETS).then_some(())
            })
            .await;
            env.cluster.kill_api_server().await;
            env.cluster.start_api_server().await;
            // The API server calls its webhooks as soon as it has read their registrations.
            eventually("a Pod is admitted", async || {
                let pod = unnamed_pod("contoso");
                let pod = env.team_b.namespace.try_create_pod(&pod).await.ok()?;
                pod.spec?.image_pull_secrets.map(drop)
            })
            .await;
        } => {}
    }
    bystanders.check_during_endless(attack).await;
}

/// Large incomplete headers, and small ones on more connections than the webhook accepts.
#[testkit::test]
async fn incomplete_headers_use_little_memory() {
    let env = TestEnv::start().await;
    for (sockets, size) in [(400, 400 * 1024), (1200, 15 * 1024)] {
        let (bystanders, attacker) = (Bystanders::of_two(&env).await, Attacker::of(&env.webhook));
        let head = format!("POST /mutate HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(size));
        let attack = attacker.attack(sockets, Duration::from_secs(5), async |n| {
            let stream = attacker.tls(n).await;
            attacker.count();
            let mut stream = stream?;
            stream.write_all(head.as_bytes()).await?;
            stream.flush().await?;
            read_to_end(stream).await;
            Ok(())
        });
        attacker.check(&bystanders, sockets, attack).await;
    }
}

/// The same before TLS is established: the longest handshake message without its last bytes.
#[testkit::test]
async fn incomplete_handshakes_use_little_memory() {
    let env = TestEnv::start().await;
    let (bystanders, attacker) = (Bystanders::of_two(&env).await, Attacker::of(&env.webhook));
    let mut message = [&[1, 0, 0xff, 0xff][..], &[0; 0xff00]].concat();
    message[4..6].copy_from_slice(&[3, 3]);
    let records = message.chunks(0x3fff).flat_map(|fragment| {
        let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&[22, 3, 1][..], &length, fragment].concat()
    });
    let records: Vec<u8> = records.collect();
    let attack = attacker.attack(1200, Duration::from_secs(5), async |n| {
        let stream = attacker.tcp(n, attacker.webhook).await;
        attacker.count();
        let mut stream = stream?;
        stream.write_all(&records).await?;
        read_to_end(stream).await;
        Ok(())
    });
    attacker.check(&bystanders, 1200, attack).await;
}

/// 10 bodies of 3 MiB with `containers:[{},…]` and `timeout=30s`, to a guessed path and to the secret path.
#[testkit::test]
async fn bodies_with_many_small_items_use_little_memory() {
    let env = TestEnv::start().await;
    let (bystanders, attacker) = (Bystanders::of_two(&env).await, Attacker::of(&env.webhook));
    let mut body = review(&env.team_a.namespace, &pod("app", "contoso")).to_string();
    let items = "{},".repeat((3 * 1024 * 1024 - body.len()) / 3 - 4);
    body = body.replace("\"containers\":[", &format!("\"containers\":[{items}"));
    assert!(body.len() > 3_000_000 && body.len() < 3 * 1024 * 1024);
    let guessed = format!("https://{}/mutate", env.webhook.address);
    for (url, known) in [(guessed, false), (env.webhook.url(), true)] {
        let client = env.webhook.client();
        attacker.reset();
        let attack = attacker.attack(10, Duration::from_secs(1), async |_| {
            let request = client.post(format!("{url}?timeout=30s")).body(body.clone());
            let reply = request.header("content-type", "application/json").send().await;
            // A client whose connection is closed while it sends does not always see the answer.
            if let Ok(reply) = reply {
                let status = reply.status().as_u16();
                let answer = reply.text().await.unwrap_or_default();
                let expected = match status {
                    404 => !known,
                    200 => known && answer.contains("more than 1000 containers"),
                    // Large bodies are read one after the other; on a busy machine some are not read in time.
                    500 => known && answer.contains("the body did not arrive within"),
                    _ => false,
                };
                assert!(expected, "{status}: {answer}");
            }
            attacker.count();
            Ok(())
        });
        attacker.check(&bystanders, 10, attack).await;
    }
}
