//! A host in trouble and a namespace with much of it delay nobody else.

use super::others::Others;
use crate::{
    control_plane::apply,
    review::{post, review},
    site::{REGISTRY, Site, eventually, from, pod, pull_secret_name, unnamed},
};
use azure_emulator::{Effect, Endpoint, Fault, InvalidBody, Uri};
use futures::{StreamExt, future::join_all, stream};
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::Pod,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

const HANGS: &str = "hangs.azurecr.io";
const UNKNOWN_CLIENT: &str = "99999999-9999-9999-9999-999999999999";

/// How long a Pod of team B takes to be admitted, which must have its token.
async fn admitted(site: &Site, generator: &str) -> Duration {
    let start = Instant::now();
    let answer = post(site, &review(&site.b.namespace, &pod("app", generator))).await;
    let response = &answer["response"];
    assert_eq!(
        (&response["allowed"], &response["warnings"]),
        (&json!(true), &Value::Null),
        "{answer}"
    );
    start.elapsed()
}

fn pod_as(account: &str, annotation: &str) -> Pod {
    let mut pod = unnamed(annotation);
    pod.spec.as_mut().unwrap().service_account_name = Some(account.to_owned());
    pod
}

/// Attempts 15 and 16, and the fourth thing that the webhook must show: a registry hangs, and the packets to another cloud are dropped, under 200 pull
/// secrets of Pods of one namespace; 5,000 combinations of another one fail, again and again. Pods of a third namespace are
/// admitted with their tokens, and its tokens are renewed before they end.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_registry_a_dropped_cloud_and_thousands_of_refusals_delay_no_other_namespace() {
    const ACCOUNTS: usize = 10;
    const TROUBLED: usize = 10;
    const GENERATORS: usize = 50;
    const COMBINED: usize = 100;
    const LASTS: Duration = Duration::from_secs(45);
    let flags = ["--log-level=info", "--max-pull-secrets-per-namespace=5100"];
    let site = Site::leading(&flags, |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "20s"});
        world["unreachableHosts"] = json!(["login.chinacloudapi.cn"]);
        let registries = world["registries"].as_array_mut().unwrap();
        let mut hanging = registries[0].clone();
        hanging["host"] = HANGS.into();
        registries.push(hanging);
        // Entra trusts the accounts of the first namespace: their tokens get as far as the registry that hangs.
        let trusted = &mut world["tenants"][0]["applications"][0]["federatedCredentials"];
        let trusted = trusted.as_array_mut().unwrap();
        let app = trusted[0].clone();
        trusted.extend((0..ACCOUNTS).map(|n| {
            let mut trust = app.clone();
            trust["subject"] = format!("{}-{n}", app["subject"].as_str().unwrap()).into();
            trust
        }));
    })
    .await;
    let (a, b) = (&site.a.namespace, &site.b.namespace);
    let c = format!("{b}-c");
    site.settle_in(&c, "nobody", UNKNOWN_CLIENT).await;
    let annotation = |client_id| [("azure.workload.identity/client-id", client_id)];
    for n in 0..ACCOUNTS {
        let name = format!("app-{n}");
        site.service_account(a, &name, &annotation(site.a.client_id))
            .await;
    }
    for n in 0..TROUBLED {
        site.generator(a, &format!("hangs-{n}"), json!({"registry": HANGS}))
            .await;
        let china = json!({"registry": "contoso.azurecr.cn", "environmentType": "ChinaCloud"});
        site.generator(a, &format!("dropped-{n}"), china).await;
    }
    for n in 0..GENERATORS {
        site.generator(&c, &format!("fails-{n}"), json!({})).await;
    }
    for n in 0..COMBINED {
        let name = format!("app-{n}");
        site.service_account(&c, &name, &annotation(UNKNOWN_CLIENT)).await;
    }
    let hang = Fault::new(Endpoint::AcrExchange, Effect::Hang).at_host(HANGS);
    site.emulator.set_faults(&[hang]);
    let kept = pull_secret_name(&site.create(b, &pod("kept", "contoso")).await);
    let others = Others::of_two(&site).await;
    // The owners of what fails live: the leader tries for them too.
    let started = (0..2 * TROUBLED * ACCOUNTS).map(|n| {
        let (site, generator) = (&site, n / ACCOUNTS);
        let generator = match generator < TROUBLED {
            true => format!("hangs-{generator}"),
            false => format!("dropped-{}", generator - TROUBLED),
        };
        async move {
            let troubled = pod_as(&format!("app-{}", n % ACCOUNTS), &generator);
            let pods = site.pods(a);
            // As a controller would have it, whatever the API server says to so many at once.
            eventually("a Pod of what fails is admitted", async || {
                pods.create(&PostParams::default(), &troubled).await.ok()
            })
            .await
        }
    });
    let (over, posts) = (AtomicBool::new(false), AtomicUsize::new(0));
    let troubles = stream::iter(started).buffer_unordered(32).collect::<Vec<_>>();
    // A Pod names 16 of them at most.
    let fails: Vec<_> = (0..GENERATORS).map(|n| format!("fails-{n}")).collect();
    let fails: Vec<_> = fails.chunks(16).map(|some| some.join(",")).collect();
    let refusals = async {
        while !over.load(Ordering::Relaxed) {
            let round = (0..COMBINED * fails.len()).map(|n| {
                let (site, c, posts) = (&site, &c, &posts);
                let (account, fails) = (n / fails.len(), &fails[n % fails.len()]);
                async move {
                    let refused = pod_as(&format!("app-{account}"), fails);
                    // Whoever asks for so much may well wait in vain.
                    let client = site.webhook.client();
                    let request = client.post(site.webhook.url()).json(&review(c, &refused));
                    drop(request.send().await);
                    posts.fetch_add(1, Ordering::Relaxed);
                }
            });
            stream::iter(round).buffer_unordered(16).collect::<Vec<_>>().await;
        }
    };
    let third = async {
        let (mut renewed, mut slowest, mut cold, mut peak) = (BTreeSet::new(), Duration::ZERO, 0, 0);
        let mut times = Vec::new();
        let start = Instant::now();
        while start.elapsed() < LASTS {
            times.push(others.in_time(async || admitted(&site, "contoso").await).await);
            let fresh = format!("cold-{cold}");
            site.generator(b, &fresh, json!({})).await;
            slowest = slowest.max(admitted(&site, &fresh).await);
            cold += 1;
            let status = site.status(b, &kept).await;
            let ends = status.expiration_time.unwrap().0;
            assert!(ends > Timestamp::now(), "the token of a live Pod has ended");
            renewed.insert(status.last_renewal_time.unwrap().0);
            peak = peak.max(site.webhook.resident());
            others.probe().await;
        }
        over.store(true, Ordering::Relaxed);
        times.sort_unstable();
        let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{:?} are fine; under attack {} warm admissions, {middle:?} (slowest {last:?}), {cold} cold ones (slowest {slowest:?}), \
             {} renewals, at most {} KiB resident",
            others.limit,
            times.len(),
            renewed.len() - 1,
            peak / 1024
        );
        assert!(renewed.len() >= 3, "{} renewals in {LASTS:?}", renewed.len() - 1);
    };
    let (pods, (), ()) = tokio::join!(troubles, refusals, third);
    assert_eq!(pods.len(), 2 * TROUBLED * ACCOUNTS);
    // With back-off from 1 s to 30 s each of the combinations is tried a handful of times, however often it is asked for.
    let tries = site.calls_of(UNKNOWN_CLIENT, Endpoint::EntraToken);
    let asked = posts.load(Ordering::Relaxed) * GENERATORS / fails.len();
    println!("{asked} refused references, {tries} calls to Entra; the emulator remembers only so many");
    assert!(tries <= 7 * GENERATORS * COMBINED, "{tries}");
    eventually("a refusal leaves nothing behind", async || {
        let left = site.pull_secrets(&c).list(&ListParams::default()).await.unwrap();
        left.items.is_empty().then_some(())
    })
    .await;
}

/// The end of attempt 16: so many pull secrets of one namespace and no more, whoever asks for them.
#[tokio::test]
async fn a_namespace_has_so_many_pull_secrets_and_no_more() {
    let site = Site::with_flags(&["--max-pull-secrets-per-namespace=5"]).await;
    let namespace = &site.a.namespace;
    for n in 0..8 {
        site.generator(namespace, &format!("g-{n}"), json!({})).await;
    }
    for n in 0..5 {
        site.create(namespace, &pod(&format!("app-{n}"), &format!("g-{n}")))
            .await;
    }
    let refused = site.refused(namespace, &pod("more", "g-5")).await;
    assert_eq!(refused.code, 403);
    for words in [
        "TooManyPullSecrets",
        "--max-pull-secrets-per-namespace",
        namespace,
    ] {
        assert!(refused.message.contains(words), "{}", refused.message);
    }
    // At the same time too.
    let many = (0..8).map(|n| {
        let review = review(namespace, &pod("more", &format!("g-{n}")));
        let site = &site;
        async move { post(site, &review).await["response"]["allowed"] == true }
    });
    assert_eq!(join_all(many).await.iter().filter(|allowed| **allowed).count(), 5);
    let all = site
        .pull_secrets(namespace)
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(all.items.len(), 5);
    // Those that are there serve on, and so do other namespaces.
    site.create(namespace, &pod("again", "g-0")).await;
    admitted(&site, "contoso").await;
    Others::of(&site, &[&site.webhook]).await.look().await;
    // One that goes makes room.
    let name = all.items[0].metadata.name.as_deref().unwrap();
    site.pull_secrets(namespace)
        .delete(name, &Default::default())
        .await
        .unwrap();
    eventually("there is room again", async || {
        let more = unnamed("g-5");
        site.pods(namespace)
            .create(&PostParams::default(), &more)
            .await
            .ok()
    })
    .await;
}

/// Attempt 25: whatever an upstream answers to one, the others have their tokens.
#[tokio::test]
async fn an_upstream_that_answers_one_application_badly_serves_the_others() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let client_id = site.a.client_id;
    let others = Others::of(&site, &[&site.webhook]).await;
    let redirect = |location| Effect::Redirect(Uri::from_static(location));
    for (number, (endpoint, bad)) in [
        (
            Endpoint::AcrExchange,
            redirect("https://elsewhere.example/oauth2/exchange"),
        ),
        (Endpoint::EntraToken, redirect("https://elsewhere.example/")),
        (Endpoint::AcrExchange, Effect::Slow(Duration::from_secs(30))),
        (Endpoint::EntraToken, Effect::Slow(Duration::from_secs(30))),
        (Endpoint::AcrExchange, Effect::Body(InvalidBody::Truncated)),
        (Endpoint::EntraToken, Effect::Body(InvalidBody::Html)),
        (Endpoint::AcrExchange, Effect::Reset),
        (Endpoint::EntraToken, Effect::Aadsts(700_016)),
    ]
    .into_iter()
    .enumerate()
    {
        let fault = Fault::new(endpoint, bad.clone()).of_client(client_id);
        site.emulator.set_faults(&[fault]);
        let generator = format!("bad-{number}");
        for namespace in [namespace, &site.b.namespace] {
            site.generator(namespace, &generator, json!({})).await;
        }
        let review = review(namespace, &pod("app", &generator));
        let (answer, _) = tokio::join!(post(&site, &review), admitted(&site, &generator));
        let text = answer["response"].to_string();
        for control in ["\\n", "\\r", "\\u00"] {
            assert!(!text.contains(control), "{bad:?}: {text}");
        }
        let hosts: BTreeSet<_> = site.emulator.requests().into_iter().map(|r| r.host).collect();
        assert!(
            hosts
                .iter()
                .all(|host| host == REGISTRY || host.starts_with("login.")),
            "{hosts:?}"
        );
        others.probe().await;
    }
    site.assert_no_secret_was_logged();
}

/// An admission policy of the cluster that refuses our object is the user's matter, and is told in its own words.
#[tokio::test]
async fn what_a_policy_refuses_is_told_in_its_words_and_not_tried_again_and_again() {
    const WORDS: &str = "every object has a label team";
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let policy: ValidatingAdmissionPolicy = from(json!({
        "metadata": {"name": format!("{namespace}-labels")},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [{
                    "apiGroups": ["acr-pull.dev"], "apiVersions": ["*"], "resources": ["acrpullsecrets"],
                    "operations": ["CREATE"],
                }],
            },
            "validations": [{
                "expression": "has(object.metadata.labels) && 'team' in object.metadata.labels",
                "message": WORDS,
            }],
        },
    }));
    let binding: ValidatingAdmissionPolicyBinding = from(json!({
        "metadata": {"name": format!("{namespace}-labels")},
        "spec": {"policyName": format!("{namespace}-labels"), "validationActions": ["Deny"]},
    }));
    apply(&Api::all(site.client.clone()), &policy).await;
    apply(&Api::all(site.client.clone()), &binding).await;
    let count = AtomicUsize::new(0);
    eventually(
        "the policy is in force, and its words reach the user",
        async || {
            // A pull secret of its own each time: those of before are there.
            let generator = format!("try-{}", count.fetch_add(1, Ordering::Relaxed));
            site.generator(namespace, &generator, json!({})).await;
            let pods = site.pods(namespace);
            let refused = pods
                .create(&PostParams::default(), &unnamed(&generator))
                .await
                .err()?;
            let kube::Error::Api(status) = refused else {
                return None;
            };
            assert_eq!(status.code, 403, "{}", status.message);
            assert!(
                status.message.contains("WriteForbidden") && status.message.contains(WORDS),
                "{}",
                status.message
            );
            Some(())
        },
    )
    .await;
    admitted(&site, "contoso").await;
    Others::of(&site, &[&site.webhook]).await.look().await;
    let tries = |line: &String| line.contains("pull secret not issued yet") && line.contains(namespace);
    assert!(
        !site.webhook.log().iter().any(tries),
        "it is not tried in the background"
    );
}
