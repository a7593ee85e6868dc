//! Unexpected answers of Azure, and admissions during its failures.

use azure_emulator::{Endpoint, Fault};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{
    azure::REGISTRY,
    env::TestEnv,
    eventually,
    objects::{from, pod, pull_secret_name, unnamed_pod},
    review::{post, review},
};

fn fault(endpoint: Endpoint, edit: impl FnOnce(&mut Fault)) -> Vec<Fault> {
    let mut fault = Fault::on(endpoint);
    edit(&mut fault);
    vec![fault]
}

/// The webhook's answer to a Pod of this generator.
async fn answer(env: &TestEnv, generator: &str) -> Value {
    let review = review(&env.team_a.namespace, &pod("app", generator));
    post(env, &review).await
}

#[testkit::test]
async fn the_policy_deny_refuses_the_pod_with_the_reason() {
    let env = TestEnv::with_flags(&["--on-upstream-failure=deny"]).await;
    env.azure
        .set_faults(&fault(Endpoint::EntraToken, |f| f.status = Some(503)));
    let status = env.team_a.namespace.refused_pod(&pod("app", "contoso")).await;
    assert_eq!(status.code, 403);
    assert!(status.message.contains("EntraUnavailable"), "{}", status.message);
}

#[testkit::test]
async fn a_redirect_is_never_followed() {
    let env = TestEnv::start().await;
    let elsewhere = "https://fabrikam.azurecr.io/oauth2/exchange".to_owned();
    env.azure
        .set_faults(&fault(Endpoint::AcrExchange, |f| f.redirect = Some(elsewhere)));
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
        for body in ["html", "truncated"] {
            let mut broken = serde_json::json!({"endpoint": endpoint});
            broken["body"] = body.into();
            let fault: Fault = serde_json::from_value(broken).unwrap();
            env.azure.set_faults(&[fault]);
            // Each case has a generator of its own, as the webhook caches failures.
            let generator = format!("{}-{body}", reason.to_lowercase());
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
    env.azure
        .set_faults(&fault(Endpoint::EntraToken, |f| f.hang = true));
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

/// Faults of the endpoint for Entra tokens, and their results.
const ANSWERS: [(&str, Expected); 32] = {
    use Expected::{Admitted, Refused, Warned};
    [
        // Entra's errors in both of its styles.
        (
            r#"{"aadsts": 70021}"#,
            Warned("FederatedCredentialNotFound", CREDENTIAL),
        ),
        (
            r#"{"aadsts": 70021, "escapes": false}"#,
            Warned("FederatedCredentialNotFound", CREDENTIAL),
        ),
        (
            r#"{"aadsts": 700211}"#,
            Warned("FederatedCredentialNotFound", CREDENTIAL),
        ),
        (
            r#"{"aadsts": 700213, "escapes": false}"#,
            Warned("FederatedCredentialNotFound", CREDENTIAL),
        ),
        (
            r#"{"aadsts": 70025}"#,
            Warned("FederatedCredentialNotFound", CREDENTIAL),
        ),
        (
            r#"{"aadsts": 700212}"#,
            Refused("EntraRefused", &["az identity federated-credential update"]),
        ),
        (
            r#"{"aadsts": 7002138}"#,
            Refused("EntraRefused", &["az identity federated-credential update"]),
        ),
        (
            r#"{"aadsts": 700016}"#,
            Refused("EntraRefused", &["kubectl annotate serviceaccount"]),
        ),
        (
            r#"{"aadsts": 700016, "escapes": false}"#,
            Refused("EntraRefused", &["kubectl annotate serviceaccount"]),
        ),
        (r#"{"aadsts": 700024}"#, Refused("EntraRefused", &["clock"])),
        (
            r#"{"aadsts": 700027}"#,
            Refused("EntraRefused", &["/openid/v1/jwks"]),
        ),
        (
            r#"{"aadsts": 50027}"#,
            Refused("EntraRefused", &["/openid/v1/jwks"]),
        ),
        (
            r#"{"aadsts": 90002}"#,
            Refused("EntraRefused", &["kubectl patch acraccesstoken odd-"]),
        ),
        (
            r#"{"aadsts": 500011}"#,
            Refused("EntraRefused", &["--acr-audience"]),
        ),
        (r#"{"aadsts": 900144}"#, Refused("EntraRefused", &["report it"])),
        (
            r#"{"aadsts": 90061}"#,
            Warned("EntraUnavailable", &[".well-known/openid-configuration"]),
        ),
        (
            r#"{"aadsts": 90033}"#,
            Warned("EntraUnavailable", &["AADSTS90033"]),
        ),
        (
            r#"{"aadsts": 90055}"#,
            Warned("EntraThrottled", &["throttling requests"]),
        ),
        (
            r#"{"aadsts": 123456}"#,
            Refused("EntraRefused", &["AADSTS123456"]),
        ),
        // Answers that are not from Entra.
        (
            r#"{"status": 502, "body": "html"}"#,
            Warned("EntraUnavailable", &["502"]),
        ),
        (r#"{"body": "html"}"#, Warned("EntraUnavailable", &["200"])),
        (r#"{"body": "truncated"}"#, Warned("EntraUnavailable", &["200"])),
        (
            r#"{"status": 400, "body": "truncated"}"#,
            Warned("EntraUnavailable", &["400"]),
        ),
        (r#"{"body": "empty"}"#, Warned("EntraUnavailable", &["200"])),
        (
            r#"{"reset": true}"#,
            Warned(
                "EntraUnavailable",
                &["login.microsoftonline.com could not be reached"],
            ),
        ),
        (
            r#"{"redirect": "https://fabrikam.azurecr.io/"}"#,
            Warned("EntraUnavailable", &["307"]),
        ),
        (
            r#"{"status": 429}"#,
            Warned("EntraThrottled", &["throttling requests"]),
        ),
        // Unusual answers with a token.
        (r#"{"expiresIn": "quoted"}"#, Admitted),
        (r#"{"expiresIn": "missing"}"#, Admitted),
        (r#"{"extraNumbers": true}"#, Admitted),
        (r#"{"delay": "1s"}"#, Admitted),
        // This case is the last one: it delays all requests of the application.
        (
            r#"{"status": 429, "retryAfter": 60}"#,
            Warned("EntraThrottled", &["throttling requests"]),
        ),
    ]
};

/// Asserts that the answer to a Pod is as expected; returns the message or the warning.
fn assert_expected<'a>(fault: &str, expected: &Expected, answer: &'a Value) -> Option<&'a str> {
    let response = &answer["response"];
    let (text, reason, texts) = match expected {
        Expected::Admitted => {
            assert_eq!(
                (&response["allowed"], &response["warnings"]),
                (&Value::Bool(true), &Value::Null),
                "{fault}"
            );
            return None;
        }
        Expected::Warned(reason, texts) => {
            assert_eq!(response["allowed"], true, "{fault}: {answer}");
            (&response["warnings"][0], reason, texts)
        }
        Expected::Refused(reason, texts) => {
            assert_eq!(
                (&response["allowed"], &response["status"]["code"]),
                (&Value::Bool(false), &403.into()),
                "{fault}"
            );
            (&response["status"]["message"], reason, texts)
        }
    };
    let text = text.as_str().unwrap();
    for part in texts.iter().chain([reason]) {
        assert!(text.contains(part), "{fault}: {part:?} is missing: {text}");
    }
    assert!(
        !text.contains("Trace ID") && !text.contains('\r'),
        "{fault}: {text}"
    );
    Some(text)
}

#[testkit::test]
async fn each_answer_of_entra_has_the_documented_result() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let issuer = env.cluster.prepared().await.issuer.clone();
    for (number, (fault, expected)) in ANSWERS.iter().enumerate() {
        let mut entra: Value = serde_json::from_str(fault).unwrap();
        entra["endpoint"] = "entra.token".into();
        env.azure.set_faults(&[from(entra)]);
        // Each case has a generator of its own, as the webhook caches failures.
        let generator = format!("odd-{number}");
        namespace.apply_generator(&generator, json!({})).await;
        let answer = answer(&env, &generator).await;
        let Some(text) = assert_expected(fault, expected, &answer) else {
            continue;
        };
        if text.contains("FederatedCredentialNotFound") {
            let subject = format!("--subject system:serviceaccount:{namespace}:app ");
            assert!(
                text.contains(&subject) && text.contains(&format!("--issuer {issuer} ")),
                "{fault}: {text}"
            );
        }
    }
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn a_retry_after_delays_only_its_application() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let mut throttling = fault(Endpoint::EntraToken, |f| f.status = Some(503));
    throttling[0].retry_after = Some(60);
    throttling[0].client_id = Some(env.team_a.client_id.to_owned());
    env.azure.set_faults(&throttling);
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
    assert_eq!(warnings.len(), 1, "{warnings:?}");
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
