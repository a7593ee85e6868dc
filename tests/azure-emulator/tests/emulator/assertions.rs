//! Client assertions: what Entra accepts, and the error of each thing that it does not.

use serde_json::{Value, json};

use crate::support::*;
use azure_emulator::{AssertionIssuer, Endpoint, World};

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The claims of a good assertion.
fn claims() -> Value {
    json!({"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now(), "nbf": now(), "exp": now() + 600})
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// Entra's error, with everything that its body must hold.
#[track_caller]
fn assert_refused(reply: &Reply, status: u16, error: &str, code: u32, part_of_text: &str) {
    assert_eq!(reply.status, status, "{}", reply.text);
    assert!(reply.header("content-type").starts_with("application/json"));
    let body = reply.json();
    assert_eq!(
        (body["error"].as_str(), &body["error_codes"]),
        (Some(error), &json!([code])),
        "{body}"
    );
    let description = body["error_description"].as_str().unwrap();
    assert!(
        description.starts_with(&format!("AADSTS{code}: ")) && description.contains(part_of_text),
        "{description}"
    );
    let (trace, correlation) = (
        body["trace_id"].as_str().unwrap(),
        body["correlation_id"].as_str().unwrap(),
    );
    let timestamp = body["timestamp"].as_str().unwrap();
    assert!(description.ends_with(&format!(
        "\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {timestamp}"
    )));
    if code != 90061 {
        assert_eq!(
            body["error_uri"],
            format!("https://login.microsoftonline.com/error?code={code}")
        );
    }
}

#[tokio::test]
async fn a_good_assertion_gets_a_token_with_entras_claims_and_leaves_its_trace() {
    let azure = Azure::start();
    let body = azure
        .entra_by_assertion(WEB, &azure.issuer.sign(&claims()))
        .await
        .ok();
    assert_eq!(
        (body["token_type"].as_str(), body["expires_in"].as_u64()),
        (Some("Bearer"), Some(3599))
    );
    let token = crate::tokens::claims_of(body["access_token"].as_str().unwrap());
    for (claim, value) in [
        ("aud", ACR),
        ("appid", WEB),
        ("tid", TENANT),
        ("appidacr", "2"),
        ("ver", "1.0"),
    ] {
        assert_eq!(token[claim], value, "{claim}");
    }
    assert_eq!(token["iss"], format!("https://sts.windows.net/{TENANT}/"));

    let record = &azure.emulator.requests()[0];
    assert_eq!(
        (record.endpoint, record.status),
        (Some(Endpoint::EntraToken), Some(200))
    );
    let seen = [
        &record.tenant,
        &record.client_id,
        &record.subject,
        &record.issuer,
        &record.audience,
    ];
    assert_eq!(
        seen.map(|field| field.as_deref().unwrap()),
        [TENANT, WEB, SUBJECT, ISSUER, AUDIENCE]
    );
    assert_eq!(
        record.form_keys,
        [
            "client_assertion",
            "client_assertion_type",
            "client_id",
            "grant_type",
            "scope"
        ]
    );
}

#[tokio::test]
async fn issuer_subject_and_audience_must_match_exactly_and_with_case() {
    let azure = Azure::start();
    for (claim, value, code, part) in [
        (
            "iss",
            ISSUER.trim_end_matches('/'),
            700211,
            "presented assertion issuer 'https://oidc.example.com/cluster'",
        ),
        (
            "sub",
            "system:serviceaccount:shop:other",
            700213,
            "presented assertion subject 'system:serviceaccount:shop:other'",
        ),
        (
            "sub",
            "system:serviceaccount:Shop:web",
            7002138,
            "but not with case-sensitive comparison",
        ),
        (
            "aud",
            "api://azureadtokenexchange",
            700212,
            "presented assertion audience 'api://azureadtokenexchange'",
        ),
    ] {
        let assertion = azure.issuer.sign(&claims_with(claim, value.into()));
        let reply = azure.entra_by_assertion(WEB, &assertion).await;
        assert_refused(&reply, 401, "invalid_client", code, part);
        assert_eq!(azure.emulator.requests().last().unwrap().aadsts, Some(code));
    }
}

#[tokio::test]
async fn an_assertion_must_be_signed_by_the_issuers_published_key() {
    let azure = Azure::start();
    let pem = include_bytes!("../../keys/acr.pem");
    let other_key = AssertionIssuer::with_key(ISSUER, "another", pem).unwrap();
    let reply = azure.entra_by_assertion(WEB, &other_key.sign(&claims())).await;
    assert_refused(&reply, 401, "invalid_client", 7000272, "identifier another");

    let same_key_id = AssertionIssuer::with_key(ISSUER, "azure-emulator-issuer", pem).unwrap();
    let reply = azure.entra_by_assertion(WEB, &same_key_id.sign(&claims())).await;
    assert_refused(&reply, 401, "invalid_client", 700027, "invalid signature");
}

#[tokio::test]
async fn what_is_no_rs256_token_is_refused() {
    let azure = Azure::start();
    let reply = azure.entra_by_assertion(WEB, "no.jwt").await;
    assert_refused(
        &reply,
        400,
        "invalid_request",
        50027,
        "JWT token is invalid or malformed",
    );

    use base64::Engine as _;
    let encode = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", encode(json!({"alg": "none"})), encode(claims()));
    let reply = azure.entra_by_assertion(WEB, &unsigned).await;
    assert_refused(&reply, 400, "invalid_request", 5002730, "Unsupported key");
}

#[tokio::test]
async fn an_assertion_is_valid_from_nbf_to_exp_give_or_take_five_minutes() {
    let azure = Azure::start();
    let between = |begins: i64, ends: i64| {
        let mut claims = claims();
        claims["nbf"] = (now() + begins).into();
        claims["exp"] = (now() + ends).into();
        azure.issuer.sign(&claims)
    };
    for (begins, ends) in [(-600, -330), (330, 600)] {
        let reply = azure.entra_by_assertion(WEB, &between(begins, ends)).await;
        assert_refused(
            &reply,
            401,
            "invalid_client",
            700024,
            "not within its valid time range. Current time: ",
        );
    }
    for (begins, ends) in [(-600, -270), (270, 600)] {
        azure.entra_by_assertion(WEB, &between(begins, ends)).await.ok();
    }
}

#[tokio::test]
async fn the_clock_of_the_world_can_run_ahead() {
    let azure = Azure::with(&format!(
        "{}clock: {{offset: 1h, tolerance: 0s}}\n",
        world_yaml("http://127.0.0.1:9")
    ));
    let reply = azure.entra_by_assertion(WEB, &azure.issuer.sign(&claims())).await;
    assert_refused(&reply, 401, "invalid_client", 700024, "valid time range");
}

#[tokio::test]
async fn an_application_without_federated_credentials_takes_no_assertion() {
    let azure = Azure::start();
    let reply = azure
        .entra_by_assertion(WRITER, &azure.issuer.sign(&claims()))
        .await;
    assert_refused(
        &reply,
        401,
        "invalid_client",
        70025,
        "no configured federated identity credentials",
    );
}

#[tokio::test]
async fn tenant_application_secret_scope_and_fields_each_have_their_error() {
    let azure = Azure::start();
    let scope = format!("{ACR}/.default");
    let good = [
        ("client_id", WEB),
        ("client_secret", SECRET),
        ("grant_type", "client_credentials"),
        ("scope", &scope),
    ];
    azure.entra(TENANT, &good).await.ok();
    azure.entra("contoso.onmicrosoft.com", &good).await.ok();

    let with =
        |name: &str, value: &'static str| good.map(|(key, old)| (key, if key == name { value } else { old }));
    let without = |name: &str| {
        good.into_iter()
            .filter(|(key, _)| *key != name)
            .collect::<Vec<_>>()
    };
    let unknown = "99999999-9999-9999-9999-999999999999";
    let reply = azure.entra(unknown, &good).await;
    assert_refused(
        &reply,
        400,
        "invalid_request",
        90002,
        &format!("Tenant '{unknown}' not found"),
    );
    let reply = azure.entra(OTHER_TENANT, &good).await;
    assert_refused(
        &reply,
        400,
        "unauthorized_client",
        700016,
        &format!("Application with identifier '{WEB}' was not found"),
    );
    for (form, status, error, code) in [
        (
            with("client_id", unknown).to_vec(),
            400,
            "unauthorized_client",
            700016,
        ),
        (
            with("client_secret", "wrong").to_vec(),
            401,
            "invalid_client",
            7000215,
        ),
        (without("client_secret"), 401, "invalid_client", 7000218),
        (without("client_id"), 400, "invalid_request", 900144),
        (without("grant_type"), 400, "invalid_request", 900144),
        (without("scope"), 400, "invalid_request", 900144),
        (with("client_id", "").to_vec(), 400, "invalid_request", 90014),
        (
            with("grant_type", "password").to_vec(),
            400,
            "unsupported_grant_type",
            70003,
        ),
        (
            with("scope", "https://contoso.azurecr.io/.default").to_vec(),
            400,
            "invalid_resource",
            500011,
        ),
        (with("scope", "User.Read").to_vec(), 400, "invalid_scope", 1002012),
    ] {
        assert_refused(&azure.entra(TENANT, &form).await, status, error, code, "");
    }
}

#[tokio::test]
async fn issuer_keys_are_fetched_over_tls_with_a_ca_and_a_bearer_token_and_anew_for_a_new_key() {
    let server = KeyServer::start("cluster-token").await;
    let folder = fresh_folder("issuer");
    std::fs::write(folder.join("ca.crt"), &server.ca_pem).unwrap();
    std::fs::write(folder.join("token"), "cluster-token\n").unwrap();
    let yaml = |token_file: &str| {
        let jwks = issuer().jwks();
        let source = format!(
            "jwksUrl: '{}', caFile: '{}', bearerTokenFile: '{}'",
            server.url,
            folder.join("ca.crt").display(),
            folder.join(token_file).display()
        );
        world_yaml("http://127.0.0.1:9").replace(&format!("jwks: {jwks}"), &source)
    };
    let azure = Azure::with(&yaml("token"));
    let reply = azure.entra_by_assertion(WEB, &azure.issuer.sign(&claims())).await;
    assert_refused(&reply, 401, "invalid_client", 7000272, "azure-emulator-issuer");

    server.publish(&issuer().jwks());
    azure
        .entra_by_assertion(WEB, &azure.issuer.sign(&claims()))
        .await
        .ok();

    std::fs::write(folder.join("wrong"), "another").unwrap();
    azure.emulator.apply(World::parse(&yaml("wrong")).unwrap());
    let reply = azure.entra_by_assertion(WEB, &azure.issuer.sign(&claims())).await;
    assert_refused(
        &reply,
        400,
        "invalid_request",
        90061,
        "Request to External OIDC endpoint failed",
    );
}
