//! Azure in trouble: its odd answers, and what is done meanwhile.

use azure_emulator::{Endpoint, Fault};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::{
    azure::REGISTRY,
    control_plane,
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name, unnamed_pod},
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
async fn with_deny_the_pod_is_refused_with_the_reason() {
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
async fn an_answer_that_is_no_token_is_told_as_such() {
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
            // Each trouble is met by a generator of its own, so that no earlier try is remembered.
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
async fn a_secret_that_is_old_but_good_serves_pods_while_azure_is_down() {
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
    eventually("the age of the Secret is noticed", async || {
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

/// What an odd answer of Entra's is to become.
enum Becomes {
    /// The Pod is admitted as if nothing were odd.
    Fine,
    /// The Pod is admitted, and warned of with this reason and these words.
    Warned(&'static str, &'static [&'static str]),
    /// The Pod is refused with this reason and these words.
    Refused(&'static str, &'static [&'static str]),
}

#[testkit::test]
async fn each_odd_answer_of_entra_ends_in_its_class_and_its_words_in_time() {
    use Becomes::{Fine, Refused, Warned};
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let issuer = control_plane::shared().prepared().await.issuer.clone();
    let credential: &[&str] = &[
        "az identity federated-credential create",
        "--audiences api://AzureADTokenExchange",
    ];
    for (number, (odd, becomes)) in [
        // Entra's errors, in both of its styles.
        (
            r#"{"aadsts": 70021}"#,
            Warned("FederatedCredentialNotFound", credential),
        ),
        (
            r#"{"aadsts": 70021, "escapes": false}"#,
            Warned("FederatedCredentialNotFound", credential),
        ),
        (
            r#"{"aadsts": 700211}"#,
            Warned("FederatedCredentialNotFound", credential),
        ),
        (
            r#"{"aadsts": 700213, "escapes": false}"#,
            Warned("FederatedCredentialNotFound", credential),
        ),
        (
            r#"{"aadsts": 70025}"#,
            Warned("FederatedCredentialNotFound", credential),
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
        // What is not Entra's.
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
        // Right answers, oddly written.
        (r#"{"expiresIn": "quoted"}"#, Fine),
        (r#"{"expiresIn": "missing"}"#, Fine),
        (r#"{"extraNumbers": true}"#, Fine),
        (r#"{"delay": "1s"}"#, Fine),
        // The last one: the application is not asked again for so long.
        (
            r#"{"status": 429, "retryAfter": 60}"#,
            Warned("EntraThrottled", &["throttling requests"]),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut fault: Value = serde_json::from_str(odd).unwrap();
        fault["endpoint"] = "entra.token".into();
        env.azure.set_faults(&[serde_json::from_value(fault).unwrap()]);
        // A generator of its own, so that no earlier try is remembered.
        let generator = format!("odd-{number}");
        namespace.apply_generator(&generator, serde_json::json!({})).await;
        let answer = answer(&env, &generator).await;
        let response = &answer["response"];
        let (text, reason, words) = match &becomes {
            Fine => {
                assert_eq!(
                    (&response["allowed"], &response["warnings"]),
                    (&Value::Bool(true), &Value::Null),
                    "{odd}"
                );
                continue;
            }
            Warned(reason, words) => {
                assert_eq!(response["allowed"], true, "{odd}: {answer}");
                (&response["warnings"][0], reason, words)
            }
            Refused(reason, words) => {
                assert_eq!(
                    (&response["allowed"], &response["status"]["code"]),
                    (&Value::Bool(false), &403.into()),
                    "{odd}"
                );
                (&response["status"]["message"], reason, words)
            }
        };
        let text = text.as_str().unwrap();
        for word in words.iter().chain([reason]) {
            assert!(text.contains(word), "{odd}: {word:?} is missing: {text}");
        }
        assert!(
            !text.contains("Trace ID") && !text.contains('\r'),
            "{odd}: {text}"
        );
        if *reason == "FederatedCredentialNotFound" {
            let subject = format!("--subject system:serviceaccount:{namespace}:app ");
            assert!(
                text.contains(&subject) && text.contains(&format!("--issuer {issuer} ")),
                "{odd}: {text}"
            );
        }
    }
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn what_an_application_is_asked_to_wait_stops_all_its_pull_secrets_and_no_other_application() {
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
async fn a_token_that_opens_less_than_its_scope_is_written_and_warned_of() {
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
    assert_eq!(
        env.azure.calls(Endpoint::AcrExchange),
        1,
        "the token is not fetched for each Pod"
    );

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
