//! What users of one namespace write so that others run out of memory, run a command of theirs, or read what is not theirs.
//! Attempts 22 and 23, with the webhook's own token, are in `policies.rs`.

use super::{
    bears,
    others::{MAX_RESIDENT, MIB},
};
use crate::refusals::loosen;
use acr_pull_webhook::{generator::ACRAccessToken, pull_secret::ACRPullSecret};
use azure_emulator::Fault;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    azure::{REGISTRY, TENANT, add_application},
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{ANNOTATION, from, pod, pod_of, pull_secret_names, unnamed_pod},
    review::{post, review},
};

/// A generator of team A with this spec, whatever our types think of it, on a control plane whose schemas have no bounds.
async fn unbounded(env: &TestEnv, name: &str, spec: &Value) {
    let kind = ApiResource::erase::<ACRAccessToken>(&());
    let api = Api::<DynamicObject>::namespaced_with(env.client.clone(), env.team_a.namespace.name(), &kind);
    let generator: DynamicObject = from(
        json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}),
    );
    eventually("the looser schema is in force", async || {
        api.create(&PostParams::default(), &generator).await.ok()
    })
    .await;
}

/// What the creation of this Pod of team A by a dry run is answered with: a refusal.
async fn refused_by_dry_run(env: &TestEnv, pod: &Pod) -> String {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match env.team_a.namespace.dry_run_pod(pod).await {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("{other:?}"),
    }
}

/// Attempt 13, its second half: one scope, a copy for each of twelve service accounts.
#[testkit::test]
async fn a_scope_of_a_mebibyte_is_refused_for_each_service_account_and_takes_no_memory() {
    let env = TestEnv::leading(&[], |_| ()).await;
    loosen(&env).await;
    let namespace = &env.team_a.namespace;
    let account = |n: usize| format!("account-{n}");
    for n in 0..12 {
        let annotation = ("azure.workload.identity/client-id", env.team_a.client_id);
        namespace.apply_service_account(&account(n), &[annotation]).await;
    }
    let part = "repository:a:pull ";
    let attempt = async {
        // The second is as large as an object that is decoded at all.
        for (generator, bytes) in [("mebibyte", 1 << 20), ("quarter", 250 * 1024)] {
            let scope = part.repeat(bytes / part.len());
            let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {}}, "scope": scope});
            unbounded(&env, generator, &spec).await;
            for _ in 0..4 {
                let pods = (0..12).map(async |n| {
                    let mut pod = unnamed_pod(generator);
                    pod.spec.as_mut().unwrap().service_account_name = Some(account(n));
                    refused_by_dry_run(&env, &pod).await
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
        env.replica().await
    };
    let replica = bears(&env, &[&env.webhook], attempt).await;
    bears(&env, &[&env.webhook, &replica], async {}).await;
}

/// Attempt 14: eight generators that ask for as many audiences as fit into an object.
#[testkit::test]
async fn generators_with_hundreds_of_thousands_of_audiences_are_refused_and_take_no_memory() {
    let env = TestEnv::leading(&[], |_| ()).await;
    loosen(&env).await;
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
                unbounded(&env, name, &spec).await;
                let resident = env.webhook.resident();
                assert!(resident < MAX_RESIDENT, "{} MiB are resident", resident / MIB);
                assert_eq!(env.webhook.admin_get("/readyz").await.0, 200);
            }
            all.extend(names);
        }
    };
    let served = async {
        loop {
            env.team_b.namespace.create_pod(&unnamed_pod("contoso")).await;
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
                    .map(async |name| refused_by_dry_run(&env, &unnamed_pod(name)).await);
                for message in join_all(pods).await {
                    assert!(
                        message.contains("GeneratorInvalid") && message.len() < 1000,
                        "{message}"
                    );
                }
            }
        }
        env.replica().await
    };
    let replica = bears(&env, &[&env.webhook], attempt).await;
    bears(&env, &[&env.webhook, &replica], async {}).await;
}

/// A ClusterGenerator for the registry by this service account.
fn by_account(namespace: &TestNamespace, name: &str) -> Value {
    let reference = json!({"name": name, "namespace": namespace});
    let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {"serviceAccountRef": reference}}});
    json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}})
}

/// Attempt 21: an annotation that is to be pasted into a shell by whoever is refused, or by an administrator. Nor does whoever
/// is refused learn whom else the service account allows.
#[testkit::test]
async fn what_another_namespace_allows_is_neither_printed_nor_put_into_a_command() {
    let env = TestEnv::start().await;
    let client_id = ("azure.workload.identity/client-id", env.team_b.client_id);
    let attempt = async {
        for (number, allowed) in ["x'; touch /tmp/pwned; '", "competitor,acquisition"]
            .into_iter()
            .enumerate()
        {
            let account = format!("puller-{number}");
            let annotations = [client_id, ("acr-pull.dev/allowed-namespaces", allowed)];
            env.team_b
                .namespace
                .apply_service_account(&account, &annotations)
                .await;
            let generator = by_account(&env.team_b.namespace, &account);
            let reference = env.cluster_generator_of(&account, generator).await;
            let refused = env.team_a.namespace.refused_pod(&unnamed_pod(&reference)).await;
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
            let events = Api::<Event>::namespaced(env.client.clone(), "default");
            let event = eventually("who wrote the generator is told", async || {
                let all = events.list(&Default::default()).await.unwrap().items;
                all.into_iter()
                    .find(|event| event.involved_object.name.as_deref() == Some(name))
            })
            .await;
            let told = [refused.message.clone(), event.message.unwrap()];
            let logged = env
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
    bears(&env, &[&env.webhook], attempt).await;
}

/// Attempt 24: spellings of a registry by which a token could go elsewhere.
#[testkit::test]
async fn no_spelling_of_a_registry_and_no_reference_leads_elsewhere() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
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
            namespace
                .apply_generator(&name, json!({"registry": spelling}))
                .await;
            let refused = namespace.refused_pod(&unnamed_pod(&name)).await;
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
        namespace
            .apply_generator("capitals", json!({"registry": "CONTOSO.azurecr.io"}))
            .await;
        namespace.create_pod(&unnamed_pod("capitals")).await;

        let other = &env.team_b.namespace;
        let of_b = json!({"workloadIdentity": {"serviceAccountRef": {"name": "app", "namespace": other}}});
        let key = json!({"name": "sp", "key": "id", "namespace": other});
        let secret_of_b = json!({"servicePrincipal": {"secretRef": {"clientId": key, "clientSecret": key}}});
        for (name, auth) in [("account-of-b", of_b), ("secret-of-b", secret_of_b)] {
            namespace.apply_generator(name, json!({"auth": auth})).await;
            let refused = namespace.refused_pod(&unnamed_pod(name)).await;
            assert!(
                refused.message.contains("CrossNamespaceNotAllowed"),
                "{}",
                refused.message
            );
        }
        let reference = env.cluster_generator(by_account(other, "app")).await;
        let refused = namespace.refused_pod(&unnamed_pod(&reference)).await;
        assert!(
            refused.message.contains("CrossNamespaceNotAllowed"),
            "{}",
            refused.message
        );
    };
    bears(&env, &[&env.webhook], attempt).await;
    for request in env.azure.requests() {
        assert!(
            ["login.microsoftonline.com", REGISTRY].contains(&request.host.as_str()),
            "{request:?}"
        );
    }
}

/// Attempt 25: an upstream that leads elsewhere, does not end, or speaks to terminals and shells.
#[testkit::test]
async fn nothing_that_an_upstream_answers_leads_elsewhere_fills_memory_or_is_run() {
    let cases = [
        (
            "acr.exchange",
            json!({"redirect": "https://fabrikam.azurecr.io/oauth2/exchange"}),
            "RegistryUnavailable",
        ),
        ("acr.exchange", json!({"body": "endless"}), "RegistryUnavailable"),
        ("acr.exchange", json!({"slow": "30s"}), "UpstreamTimeout"),
        (
            "acr.exchange",
            json!({"status": 503, "body": "hostile"}),
            "RegistryUnavailable",
        ),
        (
            "acr.exchange",
            json!({"status": 403, "body": "hostile"}),
            "RegistryRefused",
        ),
        (
            "entra.token",
            json!({"redirect": "https://login.microsoftonline.us/"}),
            "EntraUnavailable",
        ),
        ("entra.token", json!({"body": "endless"}), "EntraUnavailable"),
        (
            "entra.token",
            json!({"status": 400, "body": "hostile"}),
            "EntraRefused",
        ),
    ];
    let workload = |number: usize| format!("strange-{number}");
    let client_id = |number: usize| format!("{number:08}-dddd-dddd-dddd-dddddddddddd");
    let env = TestEnv::with(&[], |world| {
        for number in 0..cases.len() {
            add_application(world, &workload(number), &client_id(number));
        }
    })
    .await;
    let namespace = &env.team_a.namespace;
    let mut faults: Vec<Fault> = Vec::new();
    for (number, (endpoint, fault, _)) in cases.iter().enumerate() {
        env.create_workload(&workload(number), &client_id(number), json!({}))
            .await;
        let mut fault = fault.clone();
        fault["endpoint"] = json!(endpoint);
        fault["clientId"] = json!(client_id(number));
        faults.push(from(fault));
    }
    faults.push(from(
        json!({"endpoint": "acr.challenge", "realm": "https://evil.example/token"}),
    ));
    let attempt = async {
        // The pull secret of team B is there by now.
        env.azure.set_faults(&faults);
        let answers = (0..cases.len()).map(async |number| {
            let pod = pod_of(&workload(number));
            post(&env, &review(namespace, &pod)).await["response"].clone()
        });
        join_all(answers).await
    };
    let answers = bears(&env, &[&env.webhook], attempt).await;
    let mut told = Vec::new();
    for ((endpoint, fault, reason), answer) in cases.iter().zip(answers) {
        let text = match answer["allowed"].as_bool().unwrap() {
            true => answer["warnings"][0].as_str().unwrap_or_default(),
            false => answer["status"]["message"].as_str().unwrap(),
        };
        assert!(text.contains(reason), "{endpoint} {fault}: {answer}");
        told.push(text.to_owned());
    }
    let owners = namespace.api::<ACRPullSecret>();
    for owner in owners.list(&Default::default()).await.unwrap() {
        let conditions = owner.status.unwrap_or_default().conditions;
        told.extend(conditions.into_iter().map(|condition| condition.message));
    }
    let events = namespace.api::<Event>();
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
    for request in env.azure.requests() {
        assert!(
            ["login.microsoftonline.com", REGISTRY].contains(&request.host.as_str()),
            "{request:?}"
        );
    }
}

/// Attempt 26: whoever may label a Namespace takes it away from the webhook, as AKS wants it of every webhook. The Pods there are
/// admitted as they are, and nothing else changes: docs/security.md says so.
#[testkit::test]
async fn a_namespace_labelled_as_a_control_plane_is_left_alone_and_no_other() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let label = async |value: Value| namespace.set_label("control-plane", value).await;
    let attempt = async {
        label(json!("true")).await;
        eventually("Pods there are not sent", async || {
            let made = env.team_a.namespace.try_create_pod(&unnamed_pod("no-such")).await;
            made.ok().filter(|pod| pull_secret_names(pod).is_empty())
        })
        .await;
        label(json!(null)).await;
        eventually("Pods there are sent again", async || {
            let made = env.team_a.namespace.try_create_pod(&unnamed_pod("no-such")).await;
            made.err()
                .filter(|error| error.to_string().contains("GeneratorNotFound"))
        })
        .await;
    };
    bears(&env, &[&env.webhook], attempt).await;
    env.team_a.namespace.create_pod(&pod("app", "contoso")).await;
}

/// Attempt 6, once somebody has found a way past the registration: the program itself makes nothing for an excluded namespace,
/// neither at an admission nor as the leader.
#[testkit::test]
async fn no_pull_secret_is_made_in_an_excluded_namespace_whoever_asks() {
    let env = TestEnv::leading(&["--excluded-namespaces=infra,TEAM_A"], |_| ()).await;
    let system = env.namespace("kube-system");
    let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {}}});
    let reference = env
        .cluster_generator(json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}}))
        .await;
    let annotation = ("azure.workload.identity/client-id", env.team_a.client_id);
    system.apply_service_account("app", &[annotation]).await;
    let attempt = async {
        for namespace in [&system, &env.team_a.namespace] {
            namespace.set_default_generator(json!("contoso")).await;
            let answer = post(&env, &review(namespace, &pod("forged", &reference))).await;
            assert_eq!(answer["response"]["status"]["code"], 403, "{answer}");
            let message = answer["response"]["status"]["message"].as_str().unwrap();
            assert!(message.contains("NamespaceExcluded"), "{message}");
            // Who has not asked is not refused, whatever the Namespace has as its default.
            let mut silent = pod("forged", "none");
            for none in [true, false] {
                if !none {
                    silent.annotations_mut().remove(ANNOTATION);
                }
                let answer = post(&env, &review(namespace, &silent)).await;
                assert_eq!(answer["response"]["allowed"], true, "{answer}");
                assert!(answer["response"]["patch"].is_null(), "{answer}");
            }
            assert!(namespace.list_pull_secrets().await.is_empty());
        }
        // One of before, in use: the leader adopts what has no token after a while.
        let owner = from(json!({"metadata": {"name": "acr-pull-before"},
            "spec": {"generator": {"kind": "ACRAccessToken", "name": "contoso"}, "serviceAccountName": "app"}}));
        let namespace = &env.team_a.namespace;
        namespace.set_default_generator(json!(null)).await;
        namespace
            .pull_secrets()
            .create(&PostParams::default(), &owner)
            .await
            .unwrap();
        let uses = json!({
            "metadata": {"name": "uses", "labels": {"acr-pull.dev/injected": "true"}, "annotations": {"acr-pull.dev/pull-secrets": "acr-pull-before"}},
            "spec": {"serviceAccountName": "app", "imagePullSecrets": [{"name": "acr-pull-before"}],
                "containers": [{"name": "app", "image": format!("{REGISTRY}/app")}]}});
        namespace.create_pod(&from(uses)).await;
        eventually("the leader says why it does not renew", async || {
            let owner = namespace.pull_secret("acr-pull-before").await;
            let ready = owner.status?.conditions.into_iter().next()?;
            (ready.reason == "NamespaceExcluded").then_some(())
        })
        .await;
        assert!(
            namespace
                .secrets()
                .get_opt("acr-pull-before")
                .await
                .unwrap()
                .is_none()
        );
    };
    bears(&env, &[&env.webhook], attempt).await;
    let asked = |client_id: &str| {
        let requests = env.azure.requests();
        requests
            .into_iter()
            .filter(|request| request.client_id.as_deref() == Some(client_id))
            .count()
    };
    assert_eq!(asked(env.team_a.client_id), 0);
}
