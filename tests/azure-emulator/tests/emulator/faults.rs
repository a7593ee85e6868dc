//! Faults happen as asked, where asked, as often as asked; then all is well again.

use std::error::Error as _;
use std::time::{Duration, Instant};

use azure_emulator::{BadBody, Endpoint, ExpiresIn, Fault, World};

use crate::support::*;

const SCOPE: &str = "repository:shop/web:pull";

fn set(azure: &Azure, fault: Fault) {
    azure.emulator.set_faults(&[fault]).unwrap();
}

async fn ask_entra(azure: &Azure) -> Reply {
    azure
        .entra_by_assertion(WEB, &azure.issuer.assertion(SUBJECT, AUDIENCE))
        .await
}

#[tokio::test]
async fn a_status_comes_twice_with_its_retry_after_and_then_no_more() {
    let azure = Azure::start();
    let fault = Fault {
        status: Some(429),
        retry_after: Some(60),
        times: Some(2),
        ..Fault::on(Endpoint::EntraToken)
    };
    set(&azure, fault);
    for _ in 0..2 {
        let reply = ask_entra(&azure).await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, "60"));
        assert_eq!(reply.json()["error_codes"][0], 90055);
    }
    ask_entra(&azure).await.ok();
    let log = azure.emulator.requests();
    assert_eq!(
        log.iter()
            .map(|request| request.fault.as_deref().unwrap_or(""))
            .collect::<Vec<_>>(),
        ["status 429", "status 429", ""]
    );
}

#[tokio::test]
async fn acr_endpoints_fail_with_acrs_bodies() {
    let azure = Azure::start();
    let entra = azure.entra_token(TENANT, WEB, ACR).await;
    set(
        &azure,
        Fault {
            status: Some(429),
            ..Fault::on(Endpoint::AcrExchange)
        },
    );
    let reply = azure.exchange(CONTOSO, &entra).await;
    assert_eq!(
        (
            reply.status,
            reply.acr_code().as_str(),
            reply.header("retry-after")
        ),
        (429, "TOOMANYREQUESTS", "")
    );
    set(
        &azure,
        Fault {
            status: Some(403),
            ..Fault::on(Endpoint::AcrChallenge)
        },
    );
    let reply = azure.get(&format!("https://{CONTOSO}/v2/")).await;
    assert_eq!((reply.status, reply.acr_code().as_str()), (403, "DENIED"));
}

#[tokio::test]
async fn an_aadsts_error_comes_with_escapes_or_with_blanks() {
    let azure = Azure::start();
    for (escapes, separator) in [(true, "\r\nTrace ID: "), (false, " Trace ID: ")] {
        set(
            &azure,
            Fault {
                aadsts: Some(70021),
                escapes: Some(escapes),
                times: Some(1),
                ..Fault::on(Endpoint::EntraToken)
            },
        );
        let reply = ask_entra(&azure).await;
        assert_eq!(
            (reply.status, reply.json()["error"].as_str()),
            (401, Some("invalid_client"))
        );
        assert!(
            reply.json()["error_description"]
                .as_str()
                .unwrap()
                .contains(separator)
        );
        assert_eq!(reply.text.contains("\\r\\n"), escapes);
        ask_entra(&azure).await.ok();
    }
}

#[tokio::test]
async fn any_aadsts_number_may_be_had_with_its_own_status_and_text_or_those_asked_for() {
    let azure = Azure::start();
    for (code, status, expected, error, text) in [
        (7000222, None, 401, "invalid_client", "are expired"),
        (53003, None, 400, "invalid_grant", "blocked by Conditional Access"),
        (7000112, None, 400, "unauthorized_client", "is disabled"),
        (90061, None, 400, "invalid_request", "External OIDC endpoint"),
        (
            70021,
            Some(400),
            400,
            "invalid_client",
            "No matching federated identity record",
        ),
        (999_999, Some(403), 403, "invalid_request", "asked for by a fault"),
    ] {
        set(
            &azure,
            Fault {
                aadsts: Some(code),
                status,
                retry_after: Some(5),
                ..Fault::on(Endpoint::EntraToken)
            },
        );
        let reply = ask_entra(&azure).await;
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (expected, "5"),
            "{code}"
        );
        assert_eq!(reply.json()["error"], error, "{code}");
        assert_eq!(reply.json()["error_codes"][0], code);
        let description = reply.json()["error_description"].as_str().unwrap().to_owned();
        assert!(
            description.starts_with(&format!("AADSTS{code}: ")) && description.contains(text),
            "{description}"
        );
    }
}

#[tokio::test]
async fn bodies_are_spoilt() {
    let azure = Azure::start();
    set(
        &azure,
        Fault {
            status: Some(502),
            body: Some(BadBody::Html),
            ..Fault::on(Endpoint::EntraToken)
        },
    );
    let reply = ask_entra(&azure).await;
    assert_eq!((reply.status, reply.header("content-type")), (502, "text/html"));
    assert!(reply.text.starts_with("<html>"));

    set(
        &azure,
        Fault {
            body: Some(BadBody::Truncated),
            ..Fault::on(Endpoint::EntraToken)
        },
    );
    let reply = ask_entra(&azure).await;
    assert!(reply.status == 200 && reply.text.starts_with('{') && !reply.text.ends_with('}'));

    set(
        &azure,
        Fault {
            body: Some(BadBody::Empty),
            ..Fault::on(Endpoint::EntraToken)
        },
    );
    let reply = ask_entra(&azure).await;
    assert_eq!((reply.status, reply.text.as_str()), (200, ""));
}

#[tokio::test]
async fn expires_in_is_quoted_or_missing_and_numbers_are_added() {
    let azure = Azure::start();
    set(
        &azure,
        Fault {
            expires_in: Some(ExpiresIn::Quoted),
            ..Fault::on(Endpoint::EntraToken)
        },
    );
    assert_eq!(ask_entra(&azure).await.ok()["expires_in"], "3599");
    set(
        &azure,
        Fault {
            expires_in: Some(ExpiresIn::Missing),
            ..Fault::on(Endpoint::EntraToken)
        },
    );
    let reply = ask_entra(&azure).await.ok();
    assert!(reply.get("expires_in").is_none() && reply["access_token"].is_string());

    set(
        &azure,
        Fault {
            extra_numbers: true,
            ..Fault::on(Endpoint::AcrToken)
        },
    );
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    let reply = azure.token(CONTOSO, &refresh, SCOPE).await.ok();
    assert!(reply["expires_in"].is_number() && reply["access_token"].is_string());
}

#[tokio::test]
async fn the_exchange_redirects_and_the_challenge_names_another_realm() {
    let azure = Azure::start();
    let elsewhere = "https://evil.example.com/oauth2/exchange";
    set(
        &azure,
        Fault {
            redirect: Some(elsewhere.to_owned()),
            ..Fault::on(Endpoint::AcrExchange)
        },
    );
    let reply = azure.exchange(CONTOSO, "any").await;
    assert_eq!((reply.status, reply.header("location")), (307, elsewhere));

    set(
        &azure,
        Fault {
            realm: Some("https://evil.example.com/oauth2/token".to_owned()),
            ..Fault::on(Endpoint::AcrChallenge)
        },
    );
    let reply = azure.get(&format!("https://{CONTOSO}/v2/")).await;
    let expected = format!("Bearer realm=\"https://evil.example.com/oauth2/token\",service=\"{CONTOSO}\"");
    assert_eq!(
        (reply.status, reply.header("www-authenticate")),
        (401, expected.as_str())
    );
}

#[tokio::test]
async fn a_delayed_reply_is_late_and_right() {
    let azure = Azure::start();
    set(
        &azure,
        Fault {
            delay: Some(Duration::from_millis(300)),
            ..Fault::on(Endpoint::EntraToken)
        },
    );
    let started = Instant::now();
    ask_entra(&azure).await.ok();
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_slow_body_begins_at_once_and_comes_whole_at_last() {
    let azure = Azure::start();
    let slow = |time| Fault {
        slow: Some(time),
        ..Fault::on(Endpoint::EntraDiscovery)
    };
    let url = format!("https://login.microsoftonline.com/{TENANT}/v2.0/.well-known/openid-configuration");
    let right = azure.get(&url).await;
    set(&azure, slow(Duration::from_secs(3600)));
    let mut reply = azure.http.get(&url).send().await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.headers().get("content-type")),
        (right.status, right.headers.get("content-type"))
    );
    assert_eq!(reply.content_length(), Some(right.text.len() as u64));
    let first = reply.chunk().await.unwrap().unwrap();
    assert!(right.text.starts_with(std::str::from_utf8(&first).unwrap()));
    // The hour is not over.
    let rest = tokio::time::timeout(Duration::from_millis(300), reply.bytes()).await;
    assert!(rest.is_err(), "{rest:?}");

    set(&azure, slow(Duration::from_millis(300)));
    assert_eq!(azure.get(&url).await.text, right.text);
    assert_eq!(
        azure.emulator.requests()[1].fault.as_deref(),
        Some("slow 3600000ms")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_request_gets_nothing_and_is_logged_when_the_client_gives_up() {
    let azure = Azure::start();
    set(
        &azure,
        Fault {
            hang: true,
            ..Fault::on(Endpoint::EntraToken)
        },
    );
    let url = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
    let request = azure
        .http
        .post(url)
        .form(&[("client_id", WEB)])
        .timeout(Duration::from_millis(300));
    assert!(request.send().await.unwrap_err().is_timeout());
    await_condition("the hung request in the log", || {
        !azure.emulator.requests().is_empty()
    });
    let record = &azure.emulator.requests()[0];
    assert_eq!(
        (
            record.status,
            record.fault.as_deref(),
            record.client_id.as_deref()
        ),
        (None, Some("hang"), Some(WEB))
    );
}

#[tokio::test]
async fn a_reset_connection_is_reset_not_closed() {
    let azure = Azure::start();
    set(
        &azure,
        Fault {
            reset: true,
            ..Fault::on(Endpoint::AcrChallenge)
        },
    );
    let error = azure
        .http
        .get(format!("https://{CONTOSO}/v2/"))
        .send()
        .await
        .unwrap_err();
    let mut cause = error.source();
    let kinds = std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this.downcast_ref::<std::io::Error>().map(std::io::Error::kind))
    });
    assert!(
        kinds
            .flatten()
            .any(|kind| kind == std::io::ErrorKind::ConnectionReset),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_fault_for_one_application_leaves_the_others_alone() {
    let azure = Azure::start();
    let fault = |endpoint| Fault {
        status: Some(500),
        client_id: Some(WEB.to_owned()),
        ..Fault::on(endpoint)
    };
    let (web, writer) = (
        azure.entra_token(TENANT, WEB, ACR).await,
        azure.entra_token(TENANT, WRITER, ACR).await,
    );
    azure
        .emulator
        .set_faults(&[fault(Endpoint::EntraToken), fault(Endpoint::AcrExchange)])
        .unwrap();
    assert_eq!(ask_entra(&azure).await.status, 500);
    azure.entra_token(TENANT, WRITER, ACR).await;
    assert_eq!(azure.exchange(CONTOSO, &web).await.status, 500);
    azure.exchange(CONTOSO, &writer).await.ok();
}

#[tokio::test]
async fn a_world_brings_its_own_faults_and_another_world_ends_them() {
    let calm = world_yaml("http://127.0.0.1:9");
    let azure = Azure::with(&format!(
        "{calm}faults: [{{endpoint: entra.token, status: 503}}]\n"
    ));
    assert_eq!(ask_entra(&azure).await.status, 503);
    azure.emulator.apply(World::parse(&calm).unwrap());
    ask_entra(&azure).await.ok();
}

#[test]
fn a_contradictory_fault_is_refused() {
    let azure = Azure::start();
    let fault = Fault {
        hang: true,
        reset: true,
        ..Fault::on(Endpoint::AcrToken)
    };
    assert!(
        azure
            .emulator
            .set_faults(&[fault])
            .unwrap_err()
            .to_string()
            .contains("exclude one another")
    );
}
