//! Texts of other tenants and of upstreams in messages and commands.

use super::unaffected_by;
use azure_emulator::{Effect, Endpoint, Fault, InvalidBody, StatusCode, Uri};
use futures::future::join_all;
use serde_json::json;
use std::time::Duration;
use testkit::{
    azure::{REGISTRY, add_application},
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{CLIENT_ID, cluster_generator_spec, pod_of, unnamed_pod},
    review::{post, review},
};

/// Users paste commands from messages into shells. A refusal lists no namespace that the service account
/// allows.
#[testkit::test]
async fn allowed_namespaces_are_not_in_messages_or_commands() {
    let env = TestEnv::start().await;
    let attempt = async {
        for (number, allowed) in ["x'; touch /tmp/pwned; '", "competitor,acquisition"]
            .into_iter()
            .enumerate()
        {
            let account = format!("puller-{number}");
            check_refusal(&env, &account, allowed).await;
        }
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
}

async fn check_refusal(env: &TestEnv, account: &str, allowed: &str) {
    let (namespace, other) = (&env.team_a.namespace, &env.team_b.namespace);
    let annotations = [
        (CLIENT_ID, env.team_b.client_id),
        ("acr-pull.dev/allowed-namespaces", allowed),
    ];
    other.apply_service_account(account, &annotations).await;
    let reference = json!({"name": account, "namespace": other});
    let auth = json!({"workloadIdentity": {"serviceAccountRef": reference}});
    let spec = cluster_generator_spec(json!({"auth": auth}));
    let reference = env.cluster_generator_of(account, spec).await;
    let refused = namespace.refused_pod(&unnamed_pod(&reference)).await;
    for text in ["CrossNamespaceNotAllowed", "kubectl annotate serviceaccount"] {
        assert!(refused.message.contains(text), "{}", refused.message);
    }
    let name = reference.strip_prefix("ClusterGenerator/").unwrap();
    let default = env.namespace("default");
    let event = eventually("the generator has an Event", async || {
        let mut events = default.events().await.into_iter();
        events.find(|event| event.involved_object.name.as_deref() == Some(name))
    })
    .await;
    let messages = [refused.message.clone(), event.message.unwrap()];
    let mut log = env.webhook.log();
    log.retain(|line| line.contains("CrossNamespaceNotAllowed"));
    for text in messages.into_iter().chain(log) {
        for foreign in ["touch", "'", "competitor", "acquisition"] {
            assert!(!text.contains(foreign), "{foreign}: {text}");
        }
    }
}

/// Answers of upstreams: the endpoint, the effect, and the reason in the answer to a Pod.
fn hostile_answers() -> [(Endpoint, Effect, &'static str); 8] {
    let redirect = |location| Effect::Redirect(Uri::from_static(location));
    let hostile = |code| Effect::Status {
        code,
        retry_after: None,
        body: Some(InvalidBody::Hostile),
    };
    let (entra, exchange) = (Endpoint::EntraToken, Endpoint::AcrExchange);
    [
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
    ]
}

fn workload(number: usize) -> String {
    format!("strange-{number}")
}

fn client_id(number: usize) -> String {
    format!("{number:08}-dddd-dddd-dddd-dddddddddddd")
}

/// Redirects, endless bodies, control characters, and text for shells.
#[testkit::test]
async fn hostile_answers_of_upstreams_are_bounded_and_harmless() {
    let cases = hostile_answers();
    let env = TestEnv::with(&[], |world| {
        for number in 0..cases.len() {
            add_application(world, &workload(number), &client_id(number));
        }
    })
    .await;
    let namespace = &env.team_a.namespace;
    let mut faults: Vec<Fault> = Vec::new();
    for (number, (endpoint, effect, _)) in cases.iter().enumerate() {
        env.create_workload(&workload(number), &client_id(number), json!({}))
            .await;
        let fault = Fault::new(*endpoint, effect.clone());
        faults.push(fault.of_client(&client_id(number)));
    }
    let attempt = async {
        // The bystanders have created the pull secret of team B before.
        env.azure.set_faults(&faults);
        let answers = (0..cases.len()).map(async |number| {
            let pod = pod_of(&workload(number));
            post(&env, &review(namespace, &pod)).await["response"].clone()
        });
        join_all(answers).await
    };
    let answers = unaffected_by(&env, &[&env.webhook], attempt).await;
    let mut texts = Vec::new();
    for ((endpoint, effect, reason), answer) in cases.iter().zip(answers) {
        let text = match answer["allowed"].as_bool().unwrap() {
            true => answer["warnings"][0].as_str().unwrap_or_default(),
            false => answer["status"]["message"].as_str().unwrap(),
        };
        assert!(text.contains(reason), "{endpoint:?} {effect:?}: {answer}");
        texts.push(text.to_owned());
    }
    texts.extend(written_texts(namespace).await);
    for text in texts {
        assert_harmless(&text);
    }
    assert_known_hosts(&env);
}

/// The messages of all conditions and Events in a namespace.
async fn written_texts(namespace: &TestNamespace) -> Vec<String> {
    let owners = namespace.list_pull_secrets().await.into_iter();
    let conditions = owners.flat_map(|owner| owner.status.unwrap_or_default().conditions);
    let mut texts: Vec<_> = conditions.map(|condition| condition.message).collect();
    let events = namespace.events().await.into_iter();
    texts.extend(events.filter_map(|event| event.message));
    texts
}

fn assert_harmless(text: &str) {
    // A sentence, a command, and the uid of the review.
    let is_strange = |c: char| c.is_control() || c == '\u{202e}';
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() <= 3 && text.len() <= 5000, "{text:?}");
    assert!(!lines.iter().any(|line| line.contains(is_strange)), "{text:?}");
    if text.contains("kubectl ") || text.contains("az ") {
        for foreign in ["; touch", "$(touch", "x'"] {
            assert!(!text.contains(foreign), "{foreign}: {text}");
        }
    }
}

/// Asserts that only Entra and the registry received requests.
pub fn assert_known_hosts(env: &TestEnv) {
    for request in env.azure.requests() {
        assert!(
            ["login.microsoftonline.com", REGISTRY].contains(&request.host.as_str()),
            "{request:?}"
        );
    }
}
