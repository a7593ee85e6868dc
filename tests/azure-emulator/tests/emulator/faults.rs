//! Each fault has its effect on the requests that it names, and on no others.

use crate::support::*;
use azure_emulator::{Effect, Endpoint, ExpiresIn, Fault, InvalidBody, StatusCode, Uri, World};
use std::{
    error::Error,
    io::{self, ErrorKind},
    time::{Duration, Instant},
};
use tokio::time::timeout;

fn azure_with(endpoint: Endpoint, effect: Effect) -> Azure {
    let azure = Azure::start();
    azure.emulator.set_faults(&[Fault::new(endpoint, effect)]);
    azure
}

#[tokio::test]
async fn a_status_comes_twice_with_its_retry_after_and_then_no_more() {
    let effect = Effect::retry_after(StatusCode::TOO_MANY_REQUESTS, 60);
    let azure = Azure::start();
    let fault = Fault::new(Endpoint::EntraToken, effect).times(2);
    azure.emulator.set_faults(&[fault]);
    for _ in 0..2 {
        let reply = azure.entra_by_valid_assertion().await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, "60"));
        assert!(reply.json()["error"].is_string());
    }
    azure.entra_by_valid_assertion().await.ok();
}

#[tokio::test]
async fn acrs_endpoints_fail_with_acrs_error_document() {
    let forbidden = Effect::status(StatusCode::FORBIDDEN);
    let azure = azure_with(Endpoint::AcrExchange, forbidden);
    let reply = azure.exchange(CONTOSO, "token").await;
    assert_eq!((reply.status, reply.acr_code().as_str()), (403, "UNKNOWN"));
}

#[tokio::test]
async fn each_aadsts_number_can_be_requested() {
    for (code, status, error) in [
        (70021, 401, "invalid_client"),
        (700016, 400, "unauthorized_client"),
        (90033, 503, "temporarily_unavailable"),
        (90055, 429, "temporarily_unavailable"),
        (999_999, 400, "invalid_request"),
    ] {
        let azure = azure_with(Endpoint::EntraToken, Effect::Aadsts(code));
        let reply = azure.entra_by_valid_assertion().await;
        let document = reply.json();
        assert_eq!(
            (reply.status, document["error"].as_str()),
            (status, Some(error)),
            "{code}"
        );
        assert_eq!(document["error_codes"][0], code);
        let description = document["error_description"].as_str().unwrap();
        assert!(
            description.starts_with(&format!("AADSTS{code}: ")),
            "{description}"
        );
        assert!(description.contains("\r\nTrace ID: "), "{description}");
    }
}

#[tokio::test]
async fn a_body_is_invalid_with_an_error_and_with_the_correct_headers() {
    let bad_gateway = Effect::Status {
        code: StatusCode::BAD_GATEWAY,
        retry_after: None,
        body: Some(InvalidBody::Html),
    };
    let azure = azure_with(Endpoint::EntraToken, bad_gateway);
    let reply = azure.entra_by_valid_assertion().await;
    assert_eq!((reply.status, reply.header("content-type")), (502, "text/html"));
    assert!(reply.text.starts_with("<html>"));

    for (body, is_expected) in [
        (
            InvalidBody::Html,
            (|text| text.starts_with("<html>")) as fn(&str) -> bool,
        ),
        (InvalidBody::Empty, str::is_empty),
        (InvalidBody::Truncated, |text| {
            text.starts_with('{') && !text.ends_with('}')
        }),
        (InvalidBody::Endless, |text| text.len() > 4 * 1024 * 1024),
        (InvalidBody::Hostile, |text| text.contains("touch /tmp/pwned")),
    ] {
        let azure = azure_with(Endpoint::EntraToken, Effect::Body(body));
        let reply = azure.entra_by_valid_assertion().await;
        assert_eq!(reply.status, 200, "{body:?}");
        assert!(is_expected(&reply.text), "{body:?}");
    }
}

#[tokio::test]
async fn expires_in_is_quoted_or_missing() {
    let azure = azure_with(Endpoint::EntraToken, Effect::ExpiresIn(ExpiresIn::Quoted));
    assert_eq!(azure.entra_by_valid_assertion().await.ok()["expires_in"], "3599");
    let azure = azure_with(Endpoint::EntraToken, Effect::ExpiresIn(ExpiresIn::Missing));
    let document = azure.entra_by_valid_assertion().await.ok();
    assert!(document.get("expires_in").is_none() && document["access_token"].is_string());
}

#[tokio::test]
async fn the_exchange_redirects() {
    let elsewhere = "https://evil.example.com/oauth2/exchange";
    let redirect = Effect::Redirect(Uri::from_static(elsewhere));
    let azure = azure_with(Endpoint::AcrExchange, redirect);
    let reply = azure.exchange(CONTOSO, "token").await;
    assert_eq!((reply.status, reply.header("location")), (307, elsewhere));
}

#[tokio::test]
async fn a_delayed_answer_is_late_and_correct() {
    let delay = Duration::from_millis(300);
    let azure = azure_with(Endpoint::EntraToken, Effect::Delay(delay));
    let started = Instant::now();
    azure.entra_by_valid_assertion().await.ok();
    assert!(started.elapsed() >= delay);
}

#[tokio::test]
async fn a_slow_body_begins_at_once_and_ends_after_the_time() {
    let azure = Azure::start();
    let slow = |time| Fault::new(Endpoint::EntraDiscovery, Effect::Slow(time));
    let url = format!("https://login.microsoftonline.com/{TENANT}/v2.0/.well-known/openid-configuration");
    let correct = azure.get(&url).await;
    azure.emulator.set_faults(&[slow(Duration::from_secs(3600))]);
    let mut response = azure.http.get(&url).send().await.unwrap();
    assert_eq!(response.status().as_u16(), correct.status);
    assert_eq!(response.content_length(), Some(correct.text.len() as u64));
    let first = response.chunk().await.unwrap().unwrap();
    assert!(correct.text.as_bytes().starts_with(&first));
    let rest = timeout(Duration::from_millis(300), response.bytes()).await;
    assert!(rest.is_err(), "the body ended within the hour: {rest:?}");

    for time in [Duration::from_millis(300), Duration::ZERO] {
        azure.emulator.set_faults(&[slow(time)]);
        assert_eq!(azure.get(&url).await.text, correct.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_request_is_logged_without_a_status() {
    let azure = azure_with(Endpoint::EntraToken, Effect::Hang);
    let url = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
    let request = azure.http.post(url).form(&[("client_id", WEB)]);
    let error = request
        .timeout(Duration::from_millis(300))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    await_condition("the request in the log", || !azure.emulator.requests().is_empty());
    let record = &azure.emulator.requests()[0];
    assert_eq!((record.status, record.client_id.as_deref()), (None, Some(WEB)));
}

#[tokio::test]
async fn a_reset_connection_is_reset_and_not_closed() {
    let azure = azure_with(Endpoint::AcrChallenge, Effect::Reset);
    let request = azure.http.get(format!("https://{CONTOSO}/v2/"));
    let error = request.send().await.unwrap_err();
    let mut cause: Option<&dyn Error> = Some(&error);
    let mut kinds = Vec::new();
    while let Some(error) = cause {
        kinds.extend(error.downcast_ref().map(io::Error::kind));
        cause = error.source();
    }
    assert!(kinds.contains(&ErrorKind::ConnectionReset), "{error:?}");
}

#[tokio::test]
async fn a_fault_of_one_application_does_not_affect_others() {
    let azure = Azure::start();
    let web = azure.entra_token(TENANT, WEB).await;
    let writer = azure.entra_token(TENANT, WRITER).await;
    let status = Effect::status(StatusCode::INTERNAL_SERVER_ERROR);
    let fault = |endpoint| Fault::new(endpoint, status.clone()).of_client(WEB);
    let faults = [Endpoint::EntraToken, Endpoint::AcrExchange].map(fault);
    azure.emulator.set_faults(&faults);
    assert_eq!(azure.entra_by_valid_assertion().await.status, 500);
    azure.entra_token(TENANT, WRITER).await;
    assert_eq!(azure.exchange(CONTOSO, &web).await.status, 500);
    azure.exchange(CONTOSO, &writer).await.ok();
}

#[tokio::test]
async fn a_world_has_its_own_faults_and_the_next_world_ends_them() {
    let fault = "faults: [{endpoint: entra.token, effect: {status: {code: 503}}}]\n";
    let azure = Azure::with(&(world() + fault));
    assert_eq!(azure.entra_by_valid_assertion().await.status, 503);
    azure.emulator.apply(World::parse(&world()).unwrap());
    azure.entra_by_valid_assertion().await.ok();
}
