//! What users of one namespace write so that others run out of memory, run a command of theirs, or read what is not theirs.
//! Attempts 22 and 23, with the webhook's own token, are in `policies.rs`.

use super::{
    bears,
    others::{MAX_RESIDENT, MIB},
};
use crate::{
    refusals::loosen,
    review::{post, review},
    site::{
        ANNOTATION, REGISTRY, Site, TENANT, add_application, eventually, from, pod, pod_of,
        pull_secret_names, unnamed,
    },
};
use acr_pull_webhook::{generator::ACRAccessToken, pull_secret::ACRPullSecret};
use azure_emulator::{Effect, Endpoint, Fault, InvalidBody, StatusCode, Uri};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::time::Duration;

/// A generator of team A with this spec, whatever our types think of it, on a control plane whose schemas have no bounds.
async fn unbounded(site: &Site, name: &str, spec: &Value) {
    let kind = ApiResource::erase::<ACRAccessToken>(&());
    let api = Api::<DynamicObject>::namespaced_with(site.client.clone(), &site.a.namespace, &kind);
    let generator: DynamicObject = from(
        json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}),
    );
    eventually("the looser schema is in force", async || {
        api.create(&PostParams::default(), &generator).await.ok()
    })
    .await;
}

/// What the creation of this Pod of team A by a dry run is answered with: a refusal.
async fn refused_by_dry_run(site: &Site, pod: &Pod) -> String {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match site.pods(&site.a.namespace).create(&dry_run, pod).await {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("{other:?}"),
    }
}

/// Attempt 13, its second half: one scope, a copy for each of twelve service accounts.
#[tokio::test(flavor = "multi_thread")]
async fn a_scope_of_a_mebibyte_is_refused_for_each_service_account_and_takes_no_memory() {
    let site = Site::leading(&[], |_| ()).await;
    loosen(&site).await;
    let namespace = &site.a.namespace;
    let account = |n: usize| format!("account-{n}");
    for n in 0..12 {
        let annotation = ("azure.workload.identity/client-id", site.a.client_id);
        site.service_account(namespace, &account(n), &[annotation]).await;
    }
    let part = "repository:a:pull ";
    let attempt = async {
        // The second is as large as an object that is decoded at all.
        for (generator, bytes) in [("mebibyte", 1 << 20), ("quarter", 250 * 1024)] {
            let scope = part.repeat(bytes / part.len());
            let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {}}, "scope": scope});
            unbounded(&site, generator, &spec).await;
            for _ in 0..4 {
                let pods = (0..12).map(async |n| {
                    let mut pod = unnamed(generator);
                    pod.spec.as_mut().unwrap().service_account_name = Some(account(n));
                    refused_by_dry_run(&site, &pod).await
                });
                for message in join_all(pods).await {
                    let reason = if generator == "quarter" {
                        "ScopeInvalid"
                    } else {
                        "GeneratorInvalid"
                    };
                    assert!(message.contains(reason) && message.len() < 1000, "{message}");
                }
            }
        }
        site.replica().await
    };
    let replica = bears(&site, &[&site.webhook], attempt).await;
    bears(&site, &[&site.webhook, &replica], async {}).await;
}

/// Attempt 14: eight generators that ask for as many audiences as fit into an object.
#[tokio::test(flavor = "multi_thread")]
async fn generators_with_hundreds_of_thousands_of_audiences_are_refused_and_take_no_memory() {
    let site = Site::leading(&[], |_| ()).await;
    loosen(&site).await;
    let mut all = Vec::new();
    let attempt = async {
        for (size, audiences) in [("huge", 350_000), ("large", 60_000)] {
            let reference = json!({"name": "app", "audiences": vec!["a"; audiences]});
            let spec = json!({"registry": REGISTRY, "tenantId": TENANT,
                "auth": {"workloadIdentity": {"serviceAccountRef": reference}}});
            let names: Vec<_> = (0..8).map(|n| format!("{size}-{n}")).collect();
            // The API server itself is slow while it takes these, whatever a webhook does: how long admissions last is looked
            // at afterwards.
            for name in &names {
                unbounded(&site, name, &spec).await;
                let resident = site.webhook.resident();
                assert!(resident < MAX_RESIDENT, "{} MiB are resident", resident / MIB);
                assert_eq!(site.webhook.admin_get("/readyz").await.0, 200);
            }
            all.extend(names);
        }
    };
    let served = async {
        loop {
            site.create(&site.b.namespace, &unnamed("contoso")).await;
        }
    };
    tokio::select! {
        () = attempt => {}
        () = served => {}
    }
    let attempt = async {
        for _ in 0..3 {
            for names in all.chunks(8) {
                let pods = names
                    .iter()
                    .map(async |name| refused_by_dry_run(&site, &unnamed(name)).await);
                for message in join_all(pods).await {
                    assert!(
                        message.contains("GeneratorInvalid") && message.len() < 1000,
                        "{message}"
                    );
                }
            }
        }
        site.replica().await
    };
    let replica = bears(&site, &[&site.webhook], attempt).await;
    bears(&site, &[&site.webhook, &replica], async {}).await;
}

/// A ClusterGenerator for the registry by this service account.
fn by_account(namespace: &str, name: &str) -> Value {
    let reference = json!({"name": name, "namespace": namespace});
    let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {"serviceAccountRef": reference}}});
    json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}})
}

/// Attempt 21: an annotation that is to be pasted into a shell by whoever is refused, or by an administrator. Nor does whoever
/// is refused learn whom else the service account allows.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_namespace_allows_is_neither_printed_nor_put_into_a_command() {
    let site = Site::start().await;
    let client_id = ("azure.workload.identity/client-id", site.b.client_id);
    let attempt = async {
        for (number, allowed) in ["x'; touch /tmp/pwned; '", "competitor,acquisition"]
            .into_iter()
            .enumerate()
        {
            let account = format!("puller-{number}");
            let annotations = [client_id, ("acr-pull.dev/allowed-namespaces", allowed)];
            site.service_account(&site.b.namespace, &account, &annotations)
                .await;
            let generator = by_account(&site.b.namespace, &account);
            let reference = site.cluster_generator_named(&account, generator).await;
            let refused = site.refused(&site.a.namespace, &unnamed(&reference)).await;
            assert!(
                refused.message.contains("CrossNamespaceNotAllowed"),
                "{}",
                refused.message
            );
            assert!(
                refused.message.contains("kubectl annotate serviceaccount"),
                "{}",
                refused.message
            );
            let name = reference.strip_prefix("ClusterGenerator/").unwrap();
            let events = Api::<Event>::namespaced(site.client.clone(), "default");
            let event = eventually("who wrote the generator is told", async || {
                let all = events.list(&Default::default()).await.unwrap().items;
                all.into_iter()
                    .find(|event| event.involved_object.name.as_deref() == Some(name))
            })
            .await;
            let told = [refused.message.clone(), event.message.unwrap()];
            let logged = site
                .webhook
                .log()
                .into_iter()
                .filter(|line| line.contains("CrossNamespaceNotAllowed"));
            for text in told.into_iter().chain(logged) {
                for foreign in ["touch", "'", "competitor", "acquisition"] {
                    assert!(!text.contains(foreign), "{foreign}: {text}");
                }
            }
        }
    };
    bears(&site, &[&site.webhook], attempt).await;
}

/// Attempt 24: spellings of a registry by which a token could go elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_registry_and_no_reference_leads_elsewhere() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let spellings = [
        "contoso.azurecr.io.",
        "contoso.azurecr.io:443",
        "user@contoso.azurecr.io",
        "contoso.azurecr.io%00.evil.example",
        "contoso.azurecr.io\u{0}.evil.example",
        "https://contoso.azurecr.io",
        "//contoso.azurecr.io",
        "contoso.azurecr.io/v2",
        "contoso.azurecr.io/../evil.example",
        "contoso.azurecr.io?x=.azurecr.io",
        "evil.example#.azurecr.io",
        "evil.example\\.azurecr.io",
        "evil.example\r\nHost: contoso.azurecr.io",
        " contoso.azurecr.io",
        "169.254.169.254",
        "[::1]",
        "localhost",
        "contoso.azurecr.io.evil.example",
        "evilazurecr.io",
        "azurecr.io",
        "*.azurecr.io",
        "c\u{43e}ntoso.azurecr.io",
    ];
    let attempt = async {
        for (number, spelling) in spellings.into_iter().enumerate() {
            let name = format!("spelling-{number}");
            site.generator(namespace, &name, json!({"registry": spelling}))
                .await;
            let refused = site.refused(namespace, &unnamed(&name)).await;
            assert!(
                refused.message.contains("RegistryNotAllowed"),
                "{spelling:?}: {}",
                refused.message
            );
            assert!(
                !refused.message.contains(char::is_control),
                "{:?}",
                refused.message
            );
        }
        // As some portals copy it. It is another way to write the same.
        site.generator(namespace, "capitals", json!({"registry": "CONTOSO.azurecr.io"}))
            .await;
        site.create(namespace, &unnamed("capitals")).await;

        let other = site.b.namespace.as_str();
        let of_b = json!({"workloadIdentity": {"serviceAccountRef": {"name": "app", "namespace": other}}});
        let key = json!({"name": "sp", "key": "id", "namespace": other});
        let secret_of_b = json!({"servicePrincipal": {"secretRef": {"clientId": key, "clientSecret": key}}});
        for (name, auth) in [("account-of-b", of_b), ("secret-of-b", secret_of_b)] {
            site.generator(namespace, name, json!({"auth": auth})).await;
            let refused = site.refused(namespace, &unnamed(name)).await;
            assert!(
                refused.message.contains("CrossNamespaceNotAllowed"),
                "{}",
                refused.message
            );
        }
        let reference = site.cluster_generator(by_account(other, "app")).await;
        let refused = site.refused(namespace, &unnamed(&reference)).await;
        assert!(
            refused.message.contains("CrossNamespaceNotAllowed"),
            "{}",
            refused.message
        );
    };
    bears(&site, &[&site.webhook], attempt).await;
    for request in site.emulator.requests() {
        assert!(
            ["login.microsoftonline.com", REGISTRY].contains(&request.host.as_str()),
            "{request:?}"
        );
    }
}

/// Attempt 25: an upstream that leads elsewhere, does not end, or speaks to terminals and shells.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_an_upstream_answers_leads_elsewhere_fills_memory_or_is_run() {
    let redirect = |location| Effect::Redirect(Uri::from_static(location));
    let hostile = |code| Effect::Status {
        code,
        retry_after: None,
        body: Some(InvalidBody::Hostile),
    };
    let (entra, exchange) = (Endpoint::EntraToken, Endpoint::AcrExchange);
    let cases = [
        (
            exchange,
            redirect("https://fabrikam.azurecr.io/oauth2/exchange"),
            "RegistryUnavailable",
        ),
        (
            exchange,
            Effect::Body(InvalidBody::Endless),
            "RegistryUnavailable",
        ),
        (exchange, Effect::Slow(Duration::from_secs(30)), "UpstreamTimeout"),
        (
            exchange,
            hostile(StatusCode::SERVICE_UNAVAILABLE),
            "RegistryUnavailable",
        ),
        (exchange, hostile(StatusCode::FORBIDDEN), "RegistryRefused"),
        (
            entra,
            redirect("https://login.microsoftonline.us/"),
            "EntraUnavailable",
        ),
        (entra, Effect::Body(InvalidBody::Endless), "EntraUnavailable"),
        (entra, hostile(StatusCode::BAD_REQUEST), "EntraRefused"),
    ];
    let workload = |number: usize| format!("strange-{number}");
    let client_id = |number: usize| format!("{number:08}-dddd-dddd-dddd-dddddddddddd");
    let site = Site::with(&[], |world| {
        for number in 0..cases.len() {
            add_application(world, &workload(number), &client_id(number));
        }
    })
    .await;
    let namespace = &site.a.namespace;
    let mut faults: Vec<Fault> = Vec::new();
    for (number, (endpoint, effect, _)) in cases.iter().enumerate() {
        site.workload(&workload(number), &client_id(number), json!({}))
            .await;
        faults.push(Fault::new(*endpoint, effect.clone()).of_client(&client_id(number)));
    }
    let attempt = async {
        // The pull secret of team B is there by now.
        site.emulator.set_faults(&faults);
        let answers = (0..cases.len()).map(async |number| {
            let pod = pod_of(&workload(number));
            post(&site, &review(namespace, &pod)).await["response"].clone()
        });
        join_all(answers).await
    };
    let answers = bears(&site, &[&site.webhook], attempt).await;
    let mut told = Vec::new();
    for ((endpoint, effect, reason), answer) in cases.iter().zip(answers) {
        let text = match answer["allowed"].as_bool().unwrap() {
            true => answer["warnings"][0].as_str().unwrap_or_default(),
            false => answer["status"]["message"].as_str().unwrap(),
        };
        assert!(text.contains(reason), "{endpoint:?} {effect:?}: {answer}");
        told.push(text.to_owned());
    }
    let owners = Api::<ACRPullSecret>::namespaced(site.client.clone(), namespace);
    for owner in owners.list(&Default::default()).await.unwrap() {
        let conditions = owner.status.unwrap_or_default().conditions;
        told.extend(conditions.into_iter().map(|condition| condition.message));
    }
    let events = Api::<Event>::namespaced(site.client.clone(), namespace);
    told.extend(
        events
            .list(&Default::default())
            .await
            .unwrap()
            .items
            .into_iter()
            .filter_map(|event| event.message),
    );
    for text in told {
        let strange = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!text.contains(strange) && text.len() <= 5000, "{text:?}");
        if text.contains("kubectl ") || text.contains("az ") {
            for foreign in ["; touch", "$(touch", "x'"] {
                assert!(!text.contains(foreign), "{foreign}: {text}");
            }
        }
    }
    for request in site.emulator.requests() {
        assert!(
            ["login.microsoftonline.com", REGISTRY].contains(&request.host.as_str()),
            "{request:?}"
        );
    }
}

/// Attempt 26: whoever may label a Namespace takes it away from the webhook, as AKS wants it of every webhook. The Pods there are
/// admitted as they are, and nothing else changes: docs/security.md says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_labelled_as_a_control_plane_is_left_alone_and_no_other() {
    let site = Site::start().await;
    let namespaces = Api::<Namespace>::all(site.client.clone());
    let label = async |value: Value| {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"control-plane": value}}}));
        namespaces
            .patch(&site.a.namespace, &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    let attempt = async {
        label(json!("true")).await;
        eventually("Pods there are not sent", async || {
            let made = site
                .pods(&site.a.namespace)
                .create(&PostParams::default(), &unnamed("no-such"))
                .await;
            made.ok().filter(|pod| pull_secret_names(pod).is_empty())
        })
        .await;
        label(json!(null)).await;
        eventually("Pods there are sent again", async || {
            let made = site
                .pods(&site.a.namespace)
                .create(&PostParams::default(), &unnamed("no-such"))
                .await;
            made.err()
                .filter(|error| error.to_string().contains("GeneratorNotFound"))
        })
        .await;
    };
    bears(&site, &[&site.webhook], attempt).await;
    site.create(&site.a.namespace, &pod("app", "contoso")).await;
}

/// Attempt 6, once somebody has found a way past the registration: the program itself makes nothing for an excluded namespace,
/// neither at an admission nor as the leader.
#[tokio::test(flavor = "multi_thread")]
async fn no_pull_secret_is_made_in_an_excluded_namespace_whoever_asks() {
    let site = Site::leading(&["--excluded-namespaces=infra,TEAM_A"], |_| ()).await;
    let system = "kube-system";
    let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {}}});
    let reference = site
        .cluster_generator(json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}}))
        .await;
    let annotation = ("azure.workload.identity/client-id", site.a.client_id);
    site.service_account(system, "app", &[annotation]).await;
    let attempt = async {
        for namespace in [system, site.a.namespace.as_str()] {
            site.namespace_default(namespace, json!("contoso")).await;
            let answer = post(&site, &review(namespace, &pod("forged", &reference))).await;
            assert_eq!(answer["response"]["status"]["code"], 403, "{answer}");
            let message = answer["response"]["status"]["message"].as_str().unwrap();
            assert!(message.contains("NamespaceExcluded"), "{message}");
            // Who has not asked is not refused, whatever the Namespace has as its default.
            let mut silent = pod("forged", "none");
            for none in [true, false] {
                if !none {
                    silent.annotations_mut().remove(ANNOTATION);
                }
                let answer = post(&site, &review(namespace, &silent)).await;
                assert_eq!(answer["response"]["allowed"], true, "{answer}");
                assert!(answer["response"]["patch"].is_null(), "{answer}");
            }
            assert!(
                site.pull_secrets(namespace)
                    .list(&Default::default())
                    .await
                    .unwrap()
                    .items
                    .is_empty()
            );
        }
        // One of before, in use: the leader adopts what has no token after a while.
        let owner = from(json!({"metadata": {"name": "acr-pull-before"},
            "spec": {"generator": {"kind": "ACRAccessToken", "name": "contoso"}, "serviceAccountName": "app"}}));
        let namespace = &site.a.namespace;
        site.namespace_default(namespace, json!(null)).await;
        site.pull_secrets(namespace)
            .create(&PostParams::default(), &owner)
            .await
            .unwrap();
        let uses = json!({
            "metadata": {"name": "uses", "labels": {"acr-pull.dev/injected": "true"}, "annotations": {"acr-pull.dev/pull-secrets": "acr-pull-before"}},
            "spec": {"serviceAccountName": "app", "imagePullSecrets": [{"name": "acr-pull-before"}],
                "containers": [{"name": "app", "image": format!("{REGISTRY}/app")}]}});
        site.create(namespace, &from(uses)).await;
        eventually("the leader says why it does not renew", async || {
            let owner = site.pull_secrets(namespace).get("acr-pull-before").await.unwrap();
            let ready = owner.status?.conditions.into_iter().next()?;
            (ready.reason == "NamespaceExcluded").then_some(())
        })
        .await;
        assert!(
            site.secrets(namespace)
                .get_opt("acr-pull-before")
                .await
                .unwrap()
                .is_none()
        );
    };
    bears(&site, &[&site.webhook], attempt).await;
    let asked = |client_id: &str| {
        let requests = site.emulator.requests();
        requests
            .into_iter()
            .filter(|request| request.client_id.as_deref() == Some(client_id))
            .count()
    };
    assert_eq!(asked(site.a.client_id), 0);
}
