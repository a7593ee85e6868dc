//! Two replicas write the same objects, objects go while they are written, and the API server is slow.

use super::bears;
use crate::{
    gate::{Held, Write},
    review::{post, review},
    site::{Site, eventually, pod, pull_secret_name, unnamed},
    webhook::Webhook,
};
use azure_emulator::{Effect, Endpoint, Fault};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

const OTHER: &str = "other.azurecr.io";

/// The hosts that a Secret has credentials for.
fn hosts(secret: &Secret) -> Vec<String> {
    let config = &secret.data.as_ref().unwrap()[".dockerconfigjson"].0;
    let config: Value = serde_json::from_slice(config).unwrap();
    config["auths"].as_object().unwrap().keys().cloned().collect()
}

/// Asks a replica as the API server would; returns the HTTP status of the answer and its body.
async fn ask(replica: &Webhook, review: &Value, seconds: u64) -> (u16, String) {
    let url = format!("{}?timeout={seconds}s", replica.url());
    let request = replica.client().post(url).json(review);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn delete(site: &Site, namespace: &str, name: &str) {
    let pull_secrets = site.pull_secrets(namespace);
    pull_secrets.delete(name, &DeleteParams::default()).await.unwrap();
}

async fn uid(site: &Site, namespace: &str, name: &str) -> Option<String> {
    let found = site.pull_secrets(namespace).get_opt(name).await.unwrap();
    found.map(|owner| owner.uid().unwrap())
}

/// The uids of the owners that a Secret names.
fn owners(secret: &Secret) -> Vec<String> {
    let owners = secret.metadata.owner_references.iter().flatten();
    owners.map(|owner| owner.uid.clone()).collect()
}

/// What a pull secret of the generator `contoso` and the service account `app` is called.
async fn name_of_contoso(site: &Site) -> String {
    let dry_run = kube::api::PostParams {
        dry_run: true,
        ..kube::api::PostParams::default()
    };
    let pods = site.pods(&site.a.namespace);
    pull_secret_name(&pods.create(&dry_run, &unnamed("contoso")).await.unwrap())
}

/// Finding M8: a generator changes while one replica is between its two writes; another replica makes both meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_tells_of_the_inputs_whose_token_the_secret_holds() {
    let site = Site::leading_through_a_gate(&[], |world| {
        let registries = world["registries"].as_array_mut().unwrap();
        let mut other = registries[0].clone();
        other["host"] = OTHER.into();
        registries.push(other);
    })
    .await;
    let namespace = &site.a.namespace;
    let name = name_of_contoso(&site).await;
    let second = site.replica().await;
    let review = review(namespace, &pod("app", "contoso"));
    let attempt = async {
        site.gate().hold(Held::Write(Write::Status));
        let (first, told) = tokio::join!(ask(&site.webhook, &review, 10), async {
            site.gate().is_holding().await;
            site.generator(namespace, "contoso", json!({"registry": OTHER}))
                .await;
            let told = eventually("another replica has made both anew", async || {
                ask(&second, &review, 10).await;
                let secret = site.secrets(namespace).get_opt(&name).await.unwrap()?;
                (hosts(&secret) == [OTHER]).then_some(())?;
                site.status(namespace, &name).await.inputs_hash
            })
            .await;
            site.gate().let_go();
            told
        });
        // What the Pod asked for is not what there is any more: whoever created it tries again.
        assert!(first.0 == 200 || first.1.contains("try again"), "{}", first.1);
        eventually("all is written", async || {
            (site.webhook_is_issuing().await == 0).then_some(())
        })
        .await;
        let secret = site.secrets(namespace).get(&name).await.unwrap();
        let status = site.status(namespace, &name).await;
        assert_eq!(hosts(&secret), [OTHER]);
        assert_eq!(status.inputs_hash, Some(told), "{status:?}");
        assert_eq!(status.registry.as_deref(), Some(OTHER));
    };
    bears(&site, &[&site.webhook, &second], attempt).await;
}

/// Finding M8: an `ACRPullSecret` is deleted while its Secret is about to be written, and another replica makes both anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_belongs_to_the_pull_secret_that_is_there() {
    let site = Site::leading_through_a_gate(&[], |_| ()).await;
    let namespace = &site.a.namespace;
    let name = name_of_contoso(&site).await;
    let second = site.replica().await;
    let review = review(namespace, &pod("app", "contoso"));
    let attempt = async {
        site.gate().hold(Held::Write(Write::Secret));
        tokio::join!(ask(&site.webhook, &review, 10), async {
            site.gate().is_holding().await;
            let before = uid(&site, namespace, &name).await.unwrap();
            delete(&site, namespace, &name).await;
            eventually("another replica has made both anew", async || {
                ask(&second, &review, 10).await;
                let owner = site.pull_secrets(namespace).get_opt(&name).await.unwrap()?;
                let secret = site.secrets(namespace).get_opt(&name).await.unwrap()?;
                let is_new = owner.uid()? != before && owner.status.as_ref()?.is_ready();
                (is_new && owners(&secret) == [owner.uid()?]).then_some(())
            })
            .await;
            site.gate().let_go();
        });
        eventually("all is written", async || {
            (site.webhook_is_issuing().await == 0).then_some(())
        })
        .await;
        let living = uid(&site, namespace, &name).await.unwrap();
        let secret = site.secrets(namespace).get(&name).await.unwrap();
        assert_eq!(owners(&secret), [living]);
    };
    bears(&site, &[&site.webhook, &second], attempt).await;
}

/// Finding M9: a pull secret is about to be collected, as the replica knows it, and is gone, or another one, when a Pod comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_admitted_whose_pull_secret_goes_as_it_is_marked_used() {
    let flags = ["--unused-grace=2s", "--unused-notice=60s"];
    let site = Site::leading_through_a_gate(&flags, |_| ()).await;
    let namespace = &site.a.namespace;
    let second = site.replica().await;
    let marked = async |generator: &str| {
        site.generator(namespace, generator, json!({})).await;
        let name = pull_secret_name(&site.create(namespace, &pod(generator, generator)).await);
        let at_once = DeleteParams::default().grace_period(0);
        site.pods(namespace).delete(generator, &at_once).await.unwrap();
        eventually("it is marked", async || {
            site.status(namespace, &name).await.unused_since
        })
        .await;
        name
    };
    let attempt = async {
        for (generator, is_made_anew) in [("gone", false), ("another", true)] {
            let name = marked(generator).await;
            // The leader marks what it has seen, and has seen this one after the mark of the other.
            marked(&format!("after-{generator}")).await;
            site.gate().hold(Held::Watch("acrpullsecrets".to_owned()));
            delete(&site, namespace, &name).await;
            site.secret_is_collected(namespace, &name).await;
            if is_made_anew {
                eventually("another replica has made it anew", async || {
                    ask(&second, &review(namespace, &pod("app", generator)), 10).await;
                    site.secrets(namespace).get_opt(&name).await.unwrap()
                })
                .await;
            }
            let answer = post(&site, &review(namespace, &pod("app", generator))).await;
            assert_eq!(answer["response"]["allowed"], true, "{generator}: {answer}");
            assert_eq!(answer["response"]["warnings"], Value::Null, "{generator}");
            let living = uid(&site, namespace, &name).await.unwrap();
            let secret = site.secrets(namespace).get(&name).await.unwrap();
            assert_eq!(owners(&secret), [living], "{generator}");
            site.gate().let_go();
        }
    };
    bears(&site, &[&site.webhook, &second], attempt).await;
}

/// Finding M13: what is late is said as what it is, and only what Azure owes admits the Pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_api_server_and_a_long_queue_are_told_as_such() {
    let site = Site::leading_through_a_gate(&["--issue-concurrency=2"], |_| ()).await;
    let namespace = &site.a.namespace;
    let attempt = async {
        site.gate().hold(Held::Write(Write::Secret));
        let late = review(namespace, &pod("app", "contoso"));
        let (status, words) = ask(&site.webhook, &late, 3).await;
        site.gate().let_go();
        assert_eq!(status, 500, "failurePolicy decides: {words}");
        assert!(
            words.contains("ApiServerUnavailable") && !words.contains("microsoftonline"),
            "{words}"
        );
        eventually("it is written in the end", async || {
            (site.webhook_is_issuing().await == 0).then_some(())
        })
        .await;

        let hang = Fault::new(Endpoint::EntraToken, Effect::Hang).of_client(site.a.client_id);
        site.emulator.set_faults(&[hang]);
        let generators: Vec<_> = (0..4).map(|n| format!("late-{n}")).collect();
        for generator in &generators {
            site.generator(namespace, generator, json!({})).await;
        }
        let answers = generators.iter().map(async |generator| {
            let (status, words) = ask(&site.webhook, &review(namespace, &pod("app", generator)), 3).await;
            assert_eq!(status, 200, "{words}");
            let answer: Value = serde_json::from_str(&words).unwrap();
            assert_eq!(answer["response"]["allowed"], true, "{answer}");
            answer["response"]["warnings"][0].as_str().unwrap().to_owned()
        });
        let told = join_all(answers).await;
        let of = |words: &str| told.iter().filter(|told| told.contains(words)).count();
        let host = "login.microsoftonline.com";
        let (slow, queue) = (
            of(&format!("{host} did not respond")),
            of(&format!("the call to {host} was still queued")),
        );
        assert!(slow > 0 && queue > 0 && slow + queue == told.len(), "{told:?}");
        assert!(site.calls_of(site.a.client_id, Endpoint::EntraToken) <= 3);
        site.emulator.set_faults(&[]);
    };
    bears(&site, &[&site.webhook], attempt).await;
}
