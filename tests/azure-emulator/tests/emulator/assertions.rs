//! Entra's token endpoint: what it accepts, and the error for each thing that it does not accept.

use crate::{support::*, tokens::claims_of};
use azure_emulator::{AssertionIssuer, Endpoint};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

fn now() -> i64 {
    Timestamp::now().as_second()
}

/// The claims of a valid assertion.
fn claims() -> Value {
    json!({"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now(), "nbf": now(), "exp": now() + 600})
}

/// Checks that the response is Entra's error with this number.
#[track_caller]
fn assert_refused(reply: &Reply, status: u16, error: &str, code: u32) {
    assert_eq!(reply.status, status, "{}", reply.text);
    let document = reply.json();
    assert_eq!(
        (document["error"].as_str(), &document["error_codes"]),
        (Some(error), &json!([code])),
        "{document}"
    );
    let description = document["error_description"].as_str().unwrap();
    assert!(
        description.starts_with(&format!("AADSTS{code}: ")),
        "{description}"
    );
}

#[tokio::test]
async fn a_valid_assertion_yields_a_token_with_entras_claims() {
    let azure = Azure::start();
    let assertion = azure.issuer.sign(&claims());
    let document = azure.entra_by_assertion(WEB, &assertion).await.ok();
    assert_eq!(
        (document["token_type"].as_str(), document["expires_in"].as_u64()),
        (Some("Bearer"), Some(3599))
    );
    let token = claims_of(document["access_token"].as_str().unwrap());
    for (claim, value) in [("aud", ACR), ("appid", WEB), ("tid", TENANT), ("idtyp", "app")] {
        assert_eq!(token[claim], value, "{claim}");
    }
    let record = &azure.emulator.requests()[0];
    assert_eq!(
        (record.endpoint, record.status),
        (Some(Endpoint::EntraToken), Some(200))
    );
    let scope = format!("{ACR}/.default");
    for (field, expected) in [
        (&record.client_id, WEB),
        (&record.subject, SUBJECT),
        (&record.audience, AUDIENCE),
        (&record.scope, &scope),
    ] {
        assert_eq!(field.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn issuer_subject_and_audience_must_match_including_case() {
    let azure = Azure::start();
    for (claim, value, code) in [
        ("iss", ISSUER.trim_end_matches('/'), 700211),
        ("sub", "system:serviceaccount:shop:other", 700213),
        ("sub", "system:serviceaccount:Shop:web", 700213),
        ("aud", "api://azureadtokenexchange", 700212),
    ] {
        let mut claims = claims();
        claims[claim] = value.into();
        let reply = azure.entra_by_assertion(WEB, &azure.issuer.sign(&claims)).await;
        assert_refused(&reply, 401, "invalid_client", code);
    }
    let assertion = azure.issuer.sign(&claims());
    let reply = azure.entra_by_assertion(WRITER, &assertion).await;
    assert_refused(&reply, 401, "invalid_client", 700211);
}

#[tokio::test]
async fn an_assertion_must_be_signed_with_the_issuers_key() {
    let pem = include_bytes!("../../keys/acr.pem");
    let azure = Azure::start();
    for (key_id, code) in [("another", 7000272), ("azure-emulator-issuer", 700027)] {
        let forger = AssertionIssuer::with_key(ISSUER, key_id, pem).unwrap();
        let reply = azure.entra_by_assertion(WEB, &forger.sign(&claims())).await;
        assert_refused(&reply, 401, "invalid_client", code);
    }
    let without_keys = world().replace(&format!("issuer: '{ISSUER}', jwks"), "issuer: other, jwks");
    let reply = Azure::with(&without_keys).entra_by_valid_assertion().await;
    assert_refused(&reply, 400, "invalid_request", 90061);
}

#[tokio::test]
async fn an_assertion_must_be_an_rs256_token() {
    let azure = Azure::start();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", encode(json!({"alg": "none"})), encode(claims()));
    for token in ["no.jwt", &unsigned] {
        let reply = azure.entra_by_assertion(WEB, token).await;
        assert_refused(&reply, 400, "invalid_request", 50027);
    }
}

#[tokio::test]
async fn an_assertion_is_valid_from_nbf_to_exp_with_five_minutes_tolerance() {
    let azure = Azure::start();
    for (begins, ends, is_valid) in [
        (-600, -330, false),
        (330, 600, false),
        (-600, -270, true),
        (270, 600, true),
    ] {
        let mut claims = claims();
        claims["nbf"] = (now() + begins).into();
        claims["exp"] = (now() + ends).into();
        let reply = azure.entra_by_assertion(WEB, &azure.issuer.sign(&claims)).await;
        if is_valid {
            reply.ok();
        } else {
            assert_refused(&reply, 401, "invalid_client", 700024);
        }
    }
}

#[tokio::test]
async fn the_clock_of_the_world_can_be_ahead() {
    let azure = Azure::with(&(world() + "clock: {offset: 1h}\n"));
    let reply = azure.entra_by_valid_assertion().await;
    assert_refused(&reply, 401, "invalid_client", 700024);
}

#[tokio::test]
async fn each_field_of_the_form_has_its_error() {
    let azure = Azure::start();
    let scope = format!("{ACR}/.default");
    let valid = [
        ("client_id", WEB),
        ("client_secret", SECRET),
        ("grant_type", "client_credentials"),
        ("scope", &scope),
    ];
    azure.entra(TENANT, &valid).await.ok();
    let unknown = "99999999-9999-9999-9999-999999999999";
    let reply = azure.entra(unknown, &valid).await;
    assert_refused(&reply, 400, "invalid_request", 90002);
    let reply = azure.entra(OTHER_TENANT, &valid).await;
    assert_refused(&reply, 400, "unauthorized_client", 700016);
    for (field, value, status, error, code) in [
        ("client_id", unknown, 400, "unauthorized_client", 700016),
        ("client_secret", "wrong", 401, "invalid_client", 7000215),
        ("client_secret", "", 400, "invalid_request", 900144),
        ("client_id", "", 400, "invalid_request", 900144),
        ("grant_type", "", 400, "invalid_request", 900144),
        ("scope", "", 400, "invalid_request", 900144),
        ("grant_type", "password", 400, "unsupported_grant_type", 70003),
        (
            "scope",
            "https://contoso.azurecr.io/.default",
            400,
            "invalid_resource",
            500011,
        ),
        ("scope", "User.Read", 400, "invalid_scope", 1002012),
    ] {
        let form = valid.map(|(name, old)| (name, if name == field { value } else { old }));
        let reply = azure.entra(TENANT, &form).await;
        assert_refused(&reply, status, error, code);
    }
}
