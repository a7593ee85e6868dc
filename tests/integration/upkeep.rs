//! What the leader does for pull secrets after admission: each test on a control plane of its own, whose only leader is
//! its webhook.

use super::site::{Site, eventually, pod, pull_secret_name, unnamed};
use azure_emulator::{Endpoint, Fault};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

/// Tokens of this life.
fn lives(seconds: u32) -> impl FnOnce(&mut Value) {
    move |world| world["tokens"] = json!({"acrRefreshLifetime": format!("{seconds}s")})
}

async fn expires(site: &Site, name: &str) -> Timestamp {
    site.status(&site.a.namespace, name)
        .await
        .expiration_time
        .unwrap()
        .0
}

async fn is_ready(site: &Site, name: &str) -> bool {
    site.status(&site.a.namespace, name).await.is_ready()
}

fn down() -> Vec<Fault> {
    let mut fault = Fault::on(Endpoint::EntraToken);
    fault.status = Some(503);
    vec![fault]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_secret_in_use_is_renewed_in_place_before_it_ends() {
    let site = Site::leading(&[], lives(12)).await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
    let uid = site.secrets(namespace).get(&name).await.unwrap().metadata.uid;
    for renewal in 1..=4 {
        let (before, token) = (
            expires(&site, &name).await,
            site.credentials(namespace, &name).await,
        );
        eventually("it is renewed", async || {
            let now = expires(&site, &name).await;
            assert!(now > Timestamp::now(), "it has ended before renewal {renewal}");
            (now > before).then_some(())
        })
        .await;
        assert_ne!(site.credentials(namespace, &name).await, token);
    }
    assert_eq!(
        site.secrets(namespace).get(&name).await.unwrap().metadata.uid,
        uid
    );
    assert!(is_ready(&site, &name).await);
    // One exchange a renewal, and none for nothing.
    let renewed = site
        .metric("renewals_total{outcome=\"Renewed\",reason=\"Ok\"}")
        .await;
    assert!(
        site.calls(Endpoint::EntraToken) as u64 <= renewed + 2,
        "{renewed} renewals"
    );
    site.assert_no_secret_was_logged();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_a_token_is_told_and_mends_itself() {
    let site = Site::leading(&[], lives(10)).await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
    site.emulator.set_faults(&down()).unwrap();
    eventually("the token has ended, and that is told", async || {
        let status = site.status(namespace, &name).await;
        let told = &status.conditions[0];
        (told.status == "False" && told.reason == "EntraUnavailable").then_some(())
    })
    .await;
    let events = Api::<Event>::namespaced(site.client.clone(), namespace);
    eventually("an Event tells it too, once", async || {
        let all = events.list(&Default::default()).await.unwrap().items;
        let ours = all.iter().filter(|event| {
            event.involved_object.name.as_deref() == Some(&name)
                && event.reason.as_deref() == Some("EntraUnavailable")
        });
        assert!(ours.clone().count() <= 1);
        (ours.count() == 1).then_some(())
    })
    .await;
    // A Pod that comes meanwhile is admitted by the name of the pull secret.
    let made = site.create(namespace, &unnamed("contoso")).await;
    assert_eq!(pull_secret_name(&made), name);
    site.emulator.set_faults(&[]).unwrap();
    eventually("it is renewed by itself", async || {
        is_ready(&site, &name).await.then_some(())
    })
    .await;
    assert!(expires(&site, &name).await > Timestamp::now());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_admitted_by_a_replica_that_died_gets_its_token_from_the_leader() {
    let mut site = Site::leading(&[], |_| ()).await;
    site.emulator.set_faults(&down()).unwrap();
    let namespace = site.a.namespace.clone();
    let name = pull_secret_name(&site.create(&namespace, &pod("app", "contoso")).await);
    assert!(site.secrets(&namespace).get_opt(&name).await.unwrap().is_none());
    site.webhook.kill().await;
    site.emulator.set_faults(&[]).unwrap();
    site.restart_webhook().await;
    eventually("the Secret is written, and nobody has asked again", async || {
        site.secrets(&namespace).get_opt(&name).await.unwrap()
    })
    .await;
    eventually("its state says so", async || {
        is_ready(&site, &name).await.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_pod_names_is_collected_after_the_grace_and_what_one_names_stays() {
    let site = Site::leading(&["--unused-grace=4s"], |_| ()).await;
    let namespace = &site.a.namespace;
    site.generator(namespace, "other", json!({})).await;
    let going = pull_secret_name(&site.create(namespace, &pod("going", "contoso")).await);
    let staying = pull_secret_name(&site.create(namespace, &pod("staying", "other")).await);
    let pods = site.pods(namespace);
    pods.delete("going", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    eventually("the leader announces the end", async || {
        let found = site.pull_secrets(namespace).get_opt(&going).await.unwrap()?;
        found.status?.unused_since
    })
    .await;
    // A Pod that comes now is in time.
    site.create(namespace, &pod("back", "contoso")).await;
    eventually("the announcement is taken back", async || {
        site.status(namespace, &going)
            .await
            .unused_since
            .is_none()
            .then_some(())
    })
    .await;
    let uid = site.secrets(namespace).get(&going).await.unwrap().metadata.uid;
    eventually("the leader has seen that it is in use", async || {
        // Long past grace and notice, by its own creation.
        let age = Timestamp::now().duration_since(pods.get("back").await.unwrap().creation_timestamp()?.0);
        (age.as_secs() > 10).then_some(())
    })
    .await;
    assert_eq!(
        site.secrets(namespace).get(&going).await.unwrap().metadata.uid,
        uid
    );

    pods.delete("back", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    site.secret_is_collected(namespace, &going).await;
    assert!(
        site.pull_secrets(namespace)
            .get_opt(&going)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(site.metric("pull_secrets_collected_total").await, 1);
    site.credentials(namespace, &staying).await;
    // And the next Pod makes it again.
    let again = pull_secret_name(&site.create(namespace, &pod("again", "contoso")).await);
    assert_eq!(again, going);
    site.credentials(namespace, &going).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_secret_that_is_deleted_under_a_live_pod_comes_back() {
    let site = Site::leading(&[], |_| ()).await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
    let uid = site.pull_secrets(namespace).get(&name).await.unwrap().uid();
    site.pull_secrets(namespace)
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    eventually("it is there again, with a Secret", async || {
        let found = site.pull_secrets(namespace).get_opt(&name).await.unwrap()?;
        let secret = site.secrets(namespace).get_opt(&name).await.unwrap()?;
        let owner = secret.owner_references()[0].uid.clone();
        (found.uid() != uid && Some(owner) == found.uid() && found.status?.is_ready()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_that_is_deleted_under_a_live_pod_is_told_calmly() {
    let site = Site::leading(&[], lives(10)).await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
    let generators =
        Api::<acr_pull_webhook::generator::ACRAccessToken>::namespaced(site.client.clone(), namespace);
    generators
        .delete("contoso", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the condition names what is missing", async || {
        let status = site.status(namespace, &name).await;
        (status.conditions[0].reason == "GeneratorNotFound").then_some(())
    })
    .await;
    site.generator(namespace, "contoso", json!({})).await;
    eventually("once it is there again, it is renewed", async || {
        is_ready(&site, &name).await.then_some(())
    })
    .await;
}
