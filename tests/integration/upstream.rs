//! Azure in trouble: its odd answers, and what is done meanwhile.

use super::site::{REGISTRY, Site, eventually, pod, pull_secret_name, unnamed};
use azure_emulator::{Effect, Endpoint, ExpiresIn, Fault, InvalidBody, StatusCode, Uri};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

fn set_fault(site: &Site, endpoint: Endpoint, effect: Effect) {
    site.emulator.set_faults(&[Fault::new(endpoint, effect)]);
}

fn unavailable() -> Effect {
    Effect::status(StatusCode::SERVICE_UNAVAILABLE)
}

/// The webhook's answer to a Pod of this generator.
async fn answer(site: &Site, generator: &str) -> Value {
    let review = super::review::review(&site.a.namespace, &pod("app", generator));
    super::review::post(site, &review).await
}

#[tokio::test]
async fn with_deny_the_pod_is_refused_with_the_reason() {
    let site = Site::with_flags(&["--on-upstream-failure=deny"]).await;
    set_fault(&site, Endpoint::EntraToken, unavailable());
    let status = site.refused(&site.a.namespace, &pod("app", "contoso")).await;
    assert_eq!(status.code, 403);
    assert!(status.message.contains("EntraUnavailable"), "{}", status.message);
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let site = Site::start().await;
    let elsewhere = Uri::from_static("https://fabrikam.azurecr.io/oauth2/exchange");
    set_fault(&site, Endpoint::AcrExchange, Effect::Redirect(elsewhere));
    let answer = answer(&site, "contoso").await;
    assert!(
        answer["response"]["warnings"][0]
            .as_str()
            .unwrap()
            .contains("RegistryUnavailable"),
        "{answer}"
    );
    assert!(
        site.emulator
            .requests()
            .iter()
            .all(|r| r.host == REGISTRY || r.host.starts_with("login."))
    );
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_told_as_such() {
    let site = Site::start().await;
    for (endpoint, reason) in [
        (Endpoint::EntraToken, "EntraUnavailable"),
        (Endpoint::AcrExchange, "RegistryUnavailable"),
    ] {
        for (name, body) in [("html", InvalidBody::Html), ("truncated", InvalidBody::Truncated)] {
            set_fault(&site, endpoint, Effect::Body(body));
            // Each trouble is met by a generator of its own, so that no earlier try is remembered.
            let generator = format!("{}-{name}", reason.to_lowercase());
            site.generator(&site.a.namespace, &generator, serde_json::json!({}))
                .await;
            let answer = answer(&site, &generator).await;
            let warning = answer["response"]["warnings"][0]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            assert!(warning.contains(reason), "{answer}");
        }
    }
    site.assert_no_secret_was_logged();
}

#[tokio::test]
async fn a_secret_that_is_old_but_good_serves_pods_while_azure_is_down() {
    let site = Site::with_flags(&["--on-upstream-failure=deny"]).await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("one", "contoso")).await);
    set_fault(&site, Endpoint::EntraToken, Effect::Hang);
    let minutes = |n: i64| (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(n)).to_string();
    let aged =
        serde_json::json!({"status": {"lastRenewalTime": minutes(-150), "expirationTime": minutes(30)}});
    let api = site.pull_secrets(namespace);
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(aged))
        .await
        .unwrap();
    eventually("the age of the Secret is noticed", async || {
        // With `deny`, a Pod that had to wait for Azure would be refused.
        site.create(namespace, &unnamed("contoso")).await;
        (site.webhook_is_issuing().await > 0).then_some(())
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

#[tokio::test]
async fn each_odd_answer_of_entra_ends_in_its_class_and_its_words_in_time() {
    use Becomes::{Fine, Refused, Warned};
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let issuer = super::control_plane::shared().prepared().await.issuer.clone();
    let credential: &[&str] = &[
        "az identity federated-credential create",
        "--audiences api://AzureADTokenExchange",
    ];
    let error = |code, body| Effect::Status {
        code,
        retry_after: None,
        body: Some(body),
    };
    let throttled = Effect::Status {
        code: StatusCode::TOO_MANY_REQUESTS,
        retry_after: Some(60),
        body: None,
    };
    for (number, (odd, becomes)) in [
        // Entra's errors.
        (
            Effect::Aadsts(70021),
            Warned("FederatedCredentialNotFound", credential),
        ),
        (
            Effect::Aadsts(700211),
            Warned("FederatedCredentialNotFound", credential),
        ),
        (
            Effect::Aadsts(700213),
            Warned("FederatedCredentialNotFound", credential),
        ),
        (
            Effect::Aadsts(70025),
            Warned("FederatedCredentialNotFound", credential),
        ),
        (
            Effect::Aadsts(700212),
            Refused("EntraRefused", &["az identity federated-credential update"]),
        ),
        (
            Effect::Aadsts(7002138),
            Refused("EntraRefused", &["az identity federated-credential update"]),
        ),
        (
            Effect::Aadsts(700016),
            Refused("EntraRefused", &["kubectl annotate serviceaccount"]),
        ),
        (Effect::Aadsts(700024), Refused("EntraRefused", &["clock"])),
        (
            Effect::Aadsts(700027),
            Refused("EntraRefused", &["/openid/v1/jwks"]),
        ),
        (
            Effect::Aadsts(50027),
            Refused("EntraRefused", &["/openid/v1/jwks"]),
        ),
        (
            Effect::Aadsts(90002),
            Refused("EntraRefused", &["kubectl patch acraccesstoken odd-"]),
        ),
        (
            Effect::Aadsts(500011),
            Refused("EntraRefused", &["--acr-audience"]),
        ),
        (Effect::Aadsts(900144), Refused("EntraRefused", &["report it"])),
        (
            Effect::Aadsts(90061),
            Warned("EntraUnavailable", &[".well-known/openid-configuration"]),
        ),
        (
            Effect::Aadsts(90033),
            Warned("EntraUnavailable", &["AADSTS90033"]),
        ),
        (
            Effect::Aadsts(90055),
            Warned("EntraThrottled", &["throttling requests"]),
        ),
        (Effect::Aadsts(123456), Refused("EntraRefused", &["AADSTS123456"])),
        // What is not Entra's.
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
                &["login.microsoftonline.com could not be reached"],
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
        // Right answers, oddly written.
        (Effect::ExpiresIn(ExpiresIn::Quoted), Fine),
        (Effect::ExpiresIn(ExpiresIn::Missing), Fine),
        (Effect::Delay(Duration::from_secs(1)), Fine),
        // The last one: the application is not asked again for so long.
        (throttled, Warned("EntraThrottled", &["throttling requests"])),
    ]
    .into_iter()
    .enumerate()
    {
        set_fault(&site, Endpoint::EntraToken, odd.clone());
        // A generator of its own, so that no earlier try is remembered.
        let generator = format!("odd-{number}");
        site.generator(namespace, &generator, serde_json::json!({})).await;
        let answer = answer(&site, &generator).await;
        let response = &answer["response"];
        let (text, reason, words) = match &becomes {
            Fine => {
                assert_eq!(
                    (&response["allowed"], &response["warnings"]),
                    (&Value::Bool(true), &Value::Null),
                    "{odd:?}"
                );
                continue;
            }
            Warned(reason, words) => {
                assert_eq!(response["allowed"], true, "{odd:?}: {answer}");
                (&response["warnings"][0], reason, words)
            }
            Refused(reason, words) => {
                assert_eq!(
                    (&response["allowed"], &response["status"]["code"]),
                    (&Value::Bool(false), &403.into()),
                    "{odd:?}"
                );
                (&response["status"]["message"], reason, words)
            }
        };
        let text = text.as_str().unwrap();
        for word in words.iter().chain([reason]) {
            assert!(text.contains(word), "{odd:?}: {word:?} is missing: {text}");
        }
        assert!(
            !text.contains("Trace ID") && !text.contains('\r'),
            "{odd:?}: {text}"
        );
        if *reason == "FederatedCredentialNotFound" {
            let subject = format!("--subject system:serviceaccount:{namespace}:app ");
            assert!(
                text.contains(&subject) && text.contains(&format!("--issuer {issuer} ")),
                "{odd:?}: {text}"
            );
        }
    }
    site.assert_no_secret_was_logged();
}

#[tokio::test]
async fn what_an_application_is_asked_to_wait_stops_all_its_pull_secrets_and_no_other_application() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let throttling = Effect::Status {
        code: StatusCode::SERVICE_UNAVAILABLE,
        retry_after: Some(60),
        body: None,
    };
    let throttling = Fault::new(Endpoint::EntraToken, throttling).of_client(site.a.client_id);
    site.emulator.set_faults(&[throttling]);
    for n in 0..5 {
        let generator = format!("more-{n}");
        site.generator(namespace, &generator, serde_json::json!({})).await;
        let answer = answer(&site, &generator).await;
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(
            warning.contains("EntraUnavailable") && warning.contains("503"),
            "{warning}"
        );
    }
    assert_eq!(site.calls_of(site.a.client_id, Endpoint::EntraToken), 1);
    let other = site.create(&site.b.namespace, &pod("app", "contoso")).await;
    site.credentials(&site.b.namespace, &pull_secret_name(&other))
        .await;
}

#[tokio::test]
async fn a_token_that_opens_less_than_its_scope_is_written_and_warned_of() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let scope = format!(
        "repository:{}:pull repository:team-a/typo:pull",
        site.a.repository
    );
    site.generator(namespace, "typo", json!({"scope": scope})).await;
    let pod = pod("app", "typo");
    let warnings = site.warnings(namespace, &pod).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in [
        "ScopeNotGranted",
        "cannot pull from repository team-a/typo",
        REGISTRY,
    ] {
        assert!(warnings[0].contains(part), "{part}: {warnings:?}");
    }
    let name = pull_secret_name(&site.create(namespace, &pod).await);
    assert_eq!(
        site.opens(namespace, &name, site.a.repository).await,
        502,
        "the Secret opens what was granted"
    );
    let status = site.status(namespace, &name).await;
    let ready = &status.conditions[0];
    assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "False"));
    assert_eq!(ready.reason, "ScopeNotGranted");
    assert!(ready.message.contains("team-a/typo"), "{}", ready.message);
    assert_eq!(
        site.calls(Endpoint::AcrExchange),
        1,
        "the token is not fetched for each Pod"
    );

    let scope = format!("repository:{}:pull", site.a.repository);
    site.generator(namespace, "typo", json!({"scope": scope})).await;
    eventually("the corrected scope is used", async || {
        let review = super::review::review(namespace, &unnamed("typo"));
        super::review::post(&site, &review).await;
        let status = site.status(namespace, &name).await;
        (status.is_ready() && status.conditions.len() == 1).then_some(())
    })
    .await;
}
