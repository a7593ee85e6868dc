//! Unexpected answers of Azure, and admissions during its failures.

use azure_emulator::{Effect, Endpoint, ExpiresIn, Fault, InvalidBody, StatusCode, Uri};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{
    azure::REGISTRY,
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name, unnamed_pod},
    review::{post, review},
};

fn set_fault(env: &TestEnv, endpoint: Endpoint, effect: Effect) {
    env.azure.set_faults(&[Fault::new(endpoint, effect)]);
}

/// The webhook's answer to a Pod of this generator.
async fn answer(env: &TestEnv, generator: &str) -> Value {
    let review = review(&env.team_a.namespace, &pod("app", generator));
    post(env, &review).await
}

#[testkit::test]
async fn the_policy_deny_refuses_the_pod_with_the_reason() {
    let env = TestEnv::with_flags(&["--on-upstream-failure=deny"]).await;
    let unavailable = Effect::status(StatusCode::SERVICE_UNAVAILABLE);
    set_fault(&env, Endpoint::EntraToken, unavailable);
    let status = env.team_a.namespace.refused_pod(&pod("app", "contoso")).await;
    assert_eq!(status.code, 403);
    assert!(status.message.contains("EntraUnavailable"), "{}", status.message);
}

#[testkit::test]
async fn a_redirect_is_never_followed() {
    let env = TestEnv::start().await;
    let elsewhere = Uri::from_static("https://fabrikam.azurecr.io/oauth2/exchange");
    set_fault(&env, Endpoint::AcrExchange, Effect::Redirect(elsewhere));
    let answer = answer(&env, "contoso").await;
    assert!(
        answer["response"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("RegistryUnavailable"),
        "{answer}"
    );
    assert!(
        env.azure
            .requests()
            .iter()
            .all(|r| r.host == REGISTRY || r.host.starts_with("login."))
    );
}

#[testkit::test]
async fn an_answer_without_a_token_is_reported() {
    let env = TestEnv::start().await;
    for (endpoint, reason) in [
        (Endpoint::EntraToken, "EntraUnavailable"),
        (Endpoint::AcrExchange, "RegistryUnavailable"),
    ] {
        for (name, body) in [("html", InvalidBody::Html), ("truncated", InvalidBody::Truncated)] {
            set_fault(&env, endpoint, Effect::Body(body));
            // Each case has a generator of its own, as the webhook caches failures.
            let generator = format!("{}-{name}", reason.to_lowercase());
            env.team_a
                .namespace
                .apply_generator(&generator, serde_json::json!({}))
                .await;
            let answer = answer(&env, &generator).await;
            let warning = answer["response"]["warnings"][0]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            assert!(warning.contains(reason), "{answer}");
        }
    }
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn a_usable_secret_serves_pods_during_an_outage() {
    let env = TestEnv::with_flags(&["--on-upstream-failure=deny"]).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    set_fault(&env, Endpoint::EntraToken, Effect::Hang);
    let minutes = |n: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(n)).to_string();
    let aged =
        serde_json::json!({"status": {"lastRenewalTime": minutes(-150), "expirationTime": minutes(30)}});
    let api = namespace.pull_secrets();
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(aged))
        .await
        .unwrap();
    eventually("the age of the Secret is detected", async || {
        // With `deny`, a Pod that had to wait for Azure would be refused.
        namespace.create_pod(&unnamed_pod("contoso")).await;
        (env.webhook.metric("pull_secrets_issuing").await > 0).then_some(())
    })
    .await;
    let condition = api.get(&name).await.unwrap().status.unwrap().conditions.remove(0);
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("True", "Issued")
    );
}

/// The warnings of an answer, each on a line as kubectl prints them.
fn warnings_of(answer: &Value) -> String {
    let warnings = answer["response"]["warnings"].as_array().unwrap();
    let warnings: Vec<_> = warnings.iter().map(|warning| warning.as_str().unwrap()).collect();
    warnings.join("\n")
}

/// The expected result of an answer of Entra.
enum Expected {
    /// The Pod is admitted without a warning.
    Admitted,
    /// The Pod is admitted with a warning that contains this reason and these texts.
    Warned(&'static str, &'static [&'static str]),
    /// The Pod is refused with this reason and these texts.
    Refused(&'static str, &'static [&'static str]),
}

const CREDENTIAL: &[&str] = &[
    "az identity federated-credential create",
    "--audiences api://AzureADTokenExchange",
];

/// Errors of Entra, and their results.
fn entra_errors() -> Vec<(u32, Expected)> {
    use Expected::{Refused, Warned};
    vec![
        (70021, Warned("FederatedCredentialNotFound", CREDENTIAL)),
        (700211, Warned("FederatedCredentialNotFound", CREDENTIAL)),
        (700213, Warned("FederatedCredentialNotFound", CREDENTIAL)),
        (70025, Warned("FederatedCredentialNotFound", CREDENTIAL)),
        (
            700212,
            Warned(
                "FederatedCredentialNotFound",
                &["az identity federated-credential update"],
            ),
        ),
        (
            7002138,
            Warned(
                "FederatedCredentialNotFound",
                &["az identity federated-credential update"],
            ),
        ),
        (
            700016,
            Refused("EntraRefused", &["kubectl annotate serviceaccount"]),
        ),
        (700024, Refused("ClockSkewed", &["clock", " s "])),
        (700027, Refused("EntraRefused", &["/openid/v1/jwks"])),
        (50027, Refused("EntraRefused", &["/openid/v1/jwks"])),
        (
            90002,
            Refused("EntraRefused", &["kubectl patch acraccesstoken odd-"]),
        ),
        (500011, Refused("EntraRefused", &["--acr-audience"])),
        (900144, Refused("EntraRefused", &["report it"])),
        (
            90061,
            Warned("EntraUnavailable", &[".well-known/openid-configuration"]),
        ),
        (
            50166,
            Warned("EntraUnavailable", &[".well-known/openid-configuration"]),
        ),
        (
            501661,
            Warned("EntraUnavailable", &[".well-known/openid-configuration"]),
        ),
        (90024, Warned("EntraUnavailable", &["AADSTS90024"])),
        (90033, Warned("EntraUnavailable", &["AADSTS90033"])),
        (7000229, Refused("EntraRefused", &["az ad sp create --id"])),
        (90055, Warned("EntraThrottled", &["throttling requests"])),
        (123456, Refused("EntraRefused", &["AADSTS123456"])),
    ]
}

/// Other answers of Entra's endpoint, and their results.
fn other_answers() -> Vec<(Effect, Expected)> {
    use Expected::{Admitted, Warned};
    let error = |code, body| Effect::Status {
        code,
        retry_after: None,
        body: Some(body),
    };
    let throttled = Effect::retry_after(StatusCode::TOO_MANY_REQUESTS, 60);
    vec![
        // Answers that are not from Entra.
        (
            error(StatusCode::BAD_GATEWAY, InvalidBody::Html),
            Warned("EntraUnavailable", &["502"]),
        ),
        (
            Effect::Body(InvalidBody::Html),
            Warned("EntraUnavailable", &["200"]),
        ),
        (
            Effect::Body(InvalidBody::Truncated),
            Warned("EntraUnavailable", &["200"]),
        ),
        (
            error(StatusCode::BAD_REQUEST, InvalidBody::Truncated),
            Warned("EntraUnavailable", &["400"]),
        ),
        (
            Effect::Body(InvalidBody::Empty),
            Warned("EntraUnavailable", &["200"]),
        ),
        (
            Effect::Reset,
            Warned(
                "EntraUnavailable",
                &["login.microsoftonline.com:443 gave no complete response for the Entra token"],
            ),
        ),
        (
            Effect::Redirect(Uri::from_static("https://fabrikam.azurecr.io/")),
            Warned("EntraUnavailable", &["307"]),
        ),
        (
            Effect::status(StatusCode::TOO_MANY_REQUESTS),
            Warned("EntraThrottled", &["throttling requests"]),
        ),
        // Unusual answers with a token.
        (Effect::ExpiresIn(ExpiresIn::Quoted), Admitted),
        (Effect::ExpiresIn(ExpiresIn::Missing), Admitted),
        (Effect::Delay(Duration::from_secs(1)), Admitted),
        // This case is the last one: it delays all requests of the application.
        (throttled, Warned("EntraThrottled", &["throttling requests"])),
    ]
}

/// Asserts that the answer to a Pod is as expected; returns the message or the warnings.
fn assert_expected(effect: &Effect, expected: &Expected, answer: &Value) -> Option<String> {
    let response = &answer["response"];
    let (text, reason, texts) = match expected {
        Expected::Admitted => {
            assert_eq!(
                (&response["allowed"], &response["warnings"]),
                (&Value::Bool(true), &Value::Null),
                "{effect:?}"
            );
            return None;
        }
        Expected::Warned(reason, texts) => {
            assert_eq!(response["allowed"], true, "{effect:?}: {answer}");
            (warnings_of(answer), reason, texts)
        }
        Expected::Refused(reason, texts) => {
            assert_eq!(
                (&response["allowed"], &response["status"]["code"]),
                (&Value::Bool(false), &403.into()),
                "{effect:?}"
            );
            let message = response["status"]["message"].as_str().unwrap();
            let uid = response["uid"].as_str().unwrap();
            assert!(
                message.ends_with(&format!("\n(uid {uid} in the log of acr-pull-webhook)")),
                "{message}"
            );
            (message.to_owned(), reason, texts)
        }
    };
    for part in texts.iter().chain([reason]) {
        assert!(text.contains(part), "{effect:?}: {part:?} is missing: {text}");
    }
    assert!(
        !text.contains("Trace ID") && !text.contains('\r'),
        "{effect:?}: {text}"
    );
    let link = format!("https://acr-pull.dev/reasons.html#{}", reason.to_lowercase());
    assert!(
        text.lines().next().unwrap().ends_with(&link),
        "{effect:?}: {text}"
    );
    Some(text)
}

#[testkit::test]
async fn each_answer_of_entra_has_the_documented_result() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let issuer = env.cluster.prepared().await.issuer.clone();
    let errors = entra_errors().into_iter();
    let errors = errors.map(|(number, expected)| (Effect::Aadsts(number), expected));
    for (number, (effect, expected)) in errors.chain(other_answers()).enumerate() {
        set_fault(&env, Endpoint::EntraToken, effect.clone());
        // Each case has a generator of its own, as the webhook caches failures.
        let generator = format!("odd-{number}");
        namespace.apply_generator(&generator, json!({})).await;
        let answer = answer(&env, &generator).await;
        let Some(text) = assert_expected(&effect, &expected, &answer) else {
            continue;
        };
        if text.contains("FederatedCredentialNotFound") {
            let subject = format!("--subject system:serviceaccount:{namespace}:app ");
            assert!(
                text.contains(&subject) && text.contains(&format!("--issuer {issuer} ")),
                "{effect:?}: {text}"
            );
        }
    }
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn a_retry_after_delays_only_its_application() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let throttled = Effect::retry_after(StatusCode::SERVICE_UNAVAILABLE, 60);
    let fault = Fault::new(Endpoint::EntraToken, throttled).of_client(env.team_a.client_id);
    env.azure.set_faults(&[fault]);
    for n in 0..5 {
        let generator = format!("more-{n}");
        namespace.apply_generator(&generator, serde_json::json!({})).await;
        let answer = answer(&env, &generator).await;
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(
            warning.contains("EntraUnavailable") && warning.contains("503"),
            "{warning}"
        );
    }
    assert_eq!(env.azure.calls_of(env.team_a.client_id, Endpoint::EntraToken), 1);
    let other = env.team_b.namespace.create_pod(&pod("app", "contoso")).await;
    env.team_b.namespace.credentials(&pull_secret_name(&other)).await;
}

#[testkit::test]
async fn a_token_with_less_than_its_scope_causes_a_warning() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let scope = format!(
        "repository:{}:pull repository:team-a/typo:pull",
        env.team_a.repository
    );
    namespace.apply_generator("typo", json!({"scope": scope})).await;
    let pod = pod("app", "typo");
    let warnings = env.warnings(namespace, &pod).await;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[1].contains("kubectl patch acraccesstoken typo --namespace"),
        "{warnings:?}"
    );
    for part in [
        "ScopeNotGranted",
        "cannot pull from repository team-a/typo",
        REGISTRY,
    ] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    let name = pull_secret_name(&namespace.create_pod(&pod).await);
    env.assert_pulls(namespace, &name, env.team_a.repository).await;
    let status = namespace.status(&name).await;
    let ready = &status.conditions[0];
    assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "False"));
    assert_eq!(ready.reason, "ScopeNotGranted");
    assert!(ready.message.contains("team-a/typo"), "{}", ready.message);
    assert_eq!(env.azure.calls(Endpoint::AcrExchange), 1, "Pods share the token");

    let scope = format!("repository:{}:pull", env.team_a.repository);
    namespace.apply_generator("typo", json!({"scope": scope})).await;
    eventually("the corrected scope is used", async || {
        let review = review(namespace, &unnamed_pod("typo"));
        post(&env, &review).await;
        let status = namespace.status(&name).await;
        (status.is_ready() && status.conditions.len() == 1).then_some(())
    })
    .await;
}
