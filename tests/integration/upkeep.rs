//! What the leader does for pull secrets after admission: each test on a control plane of its own, whose only leader is
//! its webhook.

use super::site::{Site, add_application, eventually, from, pod, pod_of, pull_secret_name, unnamed};
use acr_pull_webhook::generator::ACRAccessToken;
use azure_emulator::{Effect, Endpoint, Fault, StatusCode, World};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, ServiceAccount};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

/// Tokens of this life.
fn lives(seconds: u32) -> impl FnOnce(&mut Value) {
    move |world| world["tokens"] = json!({"acrRefreshLifetime": format!("{seconds}s")})
}

async fn expires(site: &Site, namespace: &str, name: &str) -> Timestamp {
    site.status(namespace, name).await.expiration_time.unwrap().0
}

/// Waits until this pull secret has been renewed twice: whoever tries too often has done so by then.
async fn renewals_pass(site: &Site, namespace: &str, name: &str) {
    for _ in 0..2 {
        let before = expires(site, namespace, name).await;
        eventually("it is renewed", async || {
            (expires(site, namespace, name).await > before).then_some(())
        })
        .await;
    }
}

/// The reasons of all Events that warn of this object, one for each time that it was told.
async fn warnings_about(site: &Site, namespace: &str, name: &str) -> Vec<String> {
    let events = Api::<Event>::namespaced(site.client.clone(), namespace);
    let mut all = events.list(&ListParams::default()).await.unwrap().items;
    all.retain(|event| {
        event.involved_object.name.as_deref() == Some(name) && event.type_.as_deref() == Some("Warning")
    });
    let times = |event: &Event| event.series.as_ref().and_then(|s| s.count).unwrap_or(1) as usize;
    all.into_iter()
        .flat_map(|event| vec![event.reason.clone().unwrap_or_default(); times(&event)])
        .collect()
}

/// The lines that warn of something in this namespace.
fn trouble_in_log(site: &Site, namespace: &str) -> Vec<String> {
    let mut lines = site.webhook.log();
    lines.retain(|line| {
        let entry: Value = serde_json::from_str(line).unwrap_or_default();
        (entry["level"] == "WARN" || entry["level"] == "ERROR") && line.contains(namespace)
    });
    lines
}

async fn is_ready(site: &Site, name: &str) -> bool {
    site.status(&site.a.namespace, name).await.is_ready()
}

fn down() -> Vec<Fault> {
    let effect = Effect::status(StatusCode::SERVICE_UNAVAILABLE);
    vec![Fault::new(Endpoint::EntraToken, effect)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_secret_in_use_is_renewed_in_place_before_it_ends() {
    let site = Site::leading(&[], lives(12)).await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
    let uid = site.secrets(namespace).get(&name).await.unwrap().metadata.uid;
    for renewal in 1..=4 {
        let (before, token) = (
            expires(&site, namespace, &name).await,
            site.credentials(namespace, &name).await,
        );
        eventually("it is renewed", async || {
            let now = expires(&site, namespace, &name).await;
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
    site.emulator.set_faults(&down());
    eventually("the token has ended, and that is told", async || {
        let status = site.status(namespace, &name).await;
        let told = &status.conditions[0];
        (told.status == "False" && told.reason == "EntraUnavailable").then_some(())
    })
    .await;
    eventually("an Event tells it too, once", async || {
        let told = warnings_about(&site, namespace, &name).await;
        assert!(told.len() <= 1, "{told:?}");
        (told == ["EntraUnavailable"]).then_some(())
    })
    .await;
    // A Pod that comes meanwhile is admitted by the name of the pull secret.
    let made = site.create(namespace, &unnamed("contoso")).await;
    assert_eq!(pull_secret_name(&made), name);
    site.emulator.set_faults(&[]);
    eventually("it is renewed by itself", async || {
        is_ready(&site, &name).await.then_some(())
    })
    .await;
    assert!(expires(&site, namespace, &name).await > Timestamp::now());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_admitted_by_a_replica_that_died_gets_its_token_from_the_leader() {
    let mut site = Site::leading(&[], |_| ()).await;
    site.emulator.set_faults(&down());
    let namespace = site.a.namespace.clone();
    let name = pull_secret_name(&site.create(&namespace, &pod("app", "contoso")).await);
    assert!(site.secrets(&namespace).get_opt(&name).await.unwrap().is_none());
    site.webhook.kill().await;
    site.emulator.set_faults(&[]);
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
    let site = Site::leading(&["--unused-grace=4s", "--unused-notice=4s"], |_| ()).await;
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

/// What a pull secret depends on, gone under a live Pod: the workload's name says what.
struct Loss {
    of: &'static str,
    client_id: &'static str,
    reason: &'static str,
    /// In the condition's message.
    words: &'static str,
    /// Whether it takes a call to Entra to notice.
    asks: bool,
}

const LOSSES: [Loss; 5] = [
    Loss {
        of: "account",
        client_id: "cccccccc-0001-cccc-cccc-cccccccccccc",
        reason: "ServiceAccountNotFound",
        words: "service account \"account\" does not exist",
        asks: false,
    },
    Loss {
        of: "generator",
        client_id: "cccccccc-0002-cccc-cccc-cccccccccccc",
        reason: "GeneratorNotFound",
        words: "no ACRAccessToken \"generator\" exists",
        asks: false,
    },
    Loss {
        of: "credential",
        client_id: "cccccccc-0003-cccc-cccc-cccccccccccc",
        reason: "FederatedCredentialNotFound",
        words: "az identity federated-credential create",
        asks: true,
    },
    Loss {
        of: "application",
        client_id: "cccccccc-0004-cccc-cccc-cccccccccccc",
        reason: "EntraRefused",
        words: "AADSTS700016",
        asks: true,
    },
    Loss {
        of: "right",
        client_id: "cccccccc-0005-cccc-cccc-cccccccccccc",
        reason: "RegistryRefused",
        words: "AcrPull",
        asks: true,
    },
];

/// Azure without the credential, the application and the right of these names.
fn without_the_lost(world: &Value) -> World {
    let [_, _, credential, application, right] = LOSSES.map(|loss| loss.client_id);
    let mut world = world.clone();
    let applications = world["tenants"][0]["applications"].as_array_mut().unwrap();
    applications.retain(|one| one["clientId"] != application);
    for one in applications
        .iter_mut()
        .filter(|one| one["clientId"] == credential)
    {
        one["federatedCredentials"] = json!([]);
    }
    let rights = world["registries"][0]["rights"].as_array_mut().unwrap();
    rights.retain(|one| one["clientId"] != application && one["clientId"] != right);
    World::parse(&world.to_string()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_under_live_pods_is_told_once_and_calmly_and_mends_itself_when_it_is_back() {
    let mut whole = Value::Null;
    let site = Site::leading(&[], |world| {
        lives(10)(world);
        for Loss { of, client_id, .. } in LOSSES {
            add_application(world, of, client_id);
        }
        whole = world.clone();
    })
    .await;
    let namespace = &site.a.namespace;
    let untouched = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
    for Loss { of, client_id, .. } in LOSSES {
        site.workload(of, client_id, json!({})).await;
    }
    let admitted = LOSSES.map(|loss| async { site.create(namespace, &pod_of(loss.of)).await });
    let names: Vec<_> = join_all(admitted).await.iter().map(pull_secret_name).collect();

    site.emulator.apply(without_the_lost(&whole));
    let (accounts, generators) = (
        Api::<ServiceAccount>::namespaced(site.client.clone(), namespace),
        Api::<ACRAccessToken>::namespaced(site.client.clone(), namespace),
    );
    accounts
        .delete("account", &DeleteParams::default())
        .await
        .unwrap();
    generators
        .delete("generator", &DeleteParams::default())
        .await
        .unwrap();
    for (loss, name) in LOSSES.iter().zip(&names) {
        eventually(loss.reason, async || {
            let condition = site.status(namespace, name).await.conditions.remove(0);
            let told = condition.status == "False" && condition.reason == loss.reason;
            (told && condition.message.contains(loss.words)).then_some(())
        })
        .await;
    }
    site.emulator.clear_requests();
    renewals_pass(&site, namespace, &untouched).await;
    for (loss, name) in LOSSES.iter().zip(&names) {
        let calls = site.calls_of(loss.client_id, Endpoint::EntraToken);
        // After the first try, which was before, 5 s pass, 10 s, 20 s …
        let first = site.status(namespace, name).await.conditions[0]
            .last_transition_time
            .0;
        let seconds = Timestamp::now().duration_since(first).as_secs();
        let tries = (1..).take_while(|n| 5 * (2_i64.pow(*n) - 1) <= seconds).count();
        let most = if loss.asks { tries } else { 0 };
        assert!(
            calls <= most,
            "{}: {calls} calls to Entra, {most} are fine",
            loss.of
        );
        assert_eq!(warnings_about(&site, namespace, name).await, [loss.reason]);
    }

    site.emulator.apply(World::parse(&whole.to_string()).unwrap());
    for Loss { of, client_id, .. } in LOSSES {
        site.workload(of, client_id, json!({})).await;
    }
    for name in &names {
        eventually("it is renewed by itself", async || {
            is_ready(&site, name).await.then_some(())
        })
        .await;
        assert!(expires(&site, namespace, name).await > Timestamp::now());
    }
    site.assert_no_secret_was_logged();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_under_live_pods_ends_and_nothing_is_made_in_it_again() {
    const TROUBLED: &str = "cccccccc-0001-cccc-cccc-cccccccccccc";
    let site = Site::leading(&[], |world| {
        lives(10)(world);
        add_application(world, "troubled", TROUBLED);
    })
    .await;
    let (going, staying) = (&site.a.namespace, &site.b.namespace);
    let clock = pull_secret_name(&site.create(staying, &pod("app", "contoso")).await);
    // On a node that never answers, a Pod takes its time to end.
    let node: Node = from(json!({"metadata": {"name": "silent"}}));
    Api::all(site.client.clone())
        .create(&PostParams::default(), &node)
        .await
        .unwrap();
    let mut lasting = pod("app", "contoso");
    lasting.spec.as_mut().unwrap().node_name = node.metadata.name;
    let name = pull_secret_name(&site.create(going, &lasting).await);
    // Its Secret is still tried for when the namespace goes.
    let mut fault = down();
    fault[0].client_id = Some(TROUBLED.to_owned());
    site.emulator.set_faults(&fault);
    site.workload("troubled", TROUBLED, json!({})).await;
    site.create(going, &pod_of("troubled")).await;
    let namespaces = Api::<Namespace>::all(site.client.clone());
    namespaces.delete(going, &DeleteParams::default()).await.unwrap();
    let log_is_calm = async || {
        eventually("nothing more is told of the namespace", async || {
            let before = trouble_in_log(&site, going);
            renewals_pass(&site, staying, &clock).await;
            (trouble_in_log(&site, going) == before).then_some(())
        })
        .await;
    };
    // No service account gets a token there any more, for which Entra would have to be asked. Before Kubernetes 1.33 the
    // pull secret may go before the Pods, and tells nothing then.
    eventually("the condition tells why there is no other token", async || {
        let Some(owner) = site.pull_secrets(going).get_opt(&name).await.unwrap() else {
            return Some(());
        };
        (owner.status?.conditions[0].reason == "NamespaceTerminating").then_some(())
    })
    .await;
    site.emulator.clear_requests();
    log_is_calm().await;
    // Not every API server lets Pods end before it takes away what they need.
    site.pull_secrets(going)
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    log_is_calm().await;
    let pods = site.pods(going);
    assert!(pods.get_opt("app").await.unwrap().is_some());
    assert!(
        site.pull_secrets(going)
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );

    pods.delete("app", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    eventually("the namespace ends", async || {
        namespaces.get_opt(going).await.unwrap().is_none().then_some(())
    })
    .await;
    log_is_calm().await;
    for client_id in [site.a.client_id, TROUBLED] {
        assert_eq!(site.calls_of(client_id, Endpoint::EntraToken), 0);
    }
}
