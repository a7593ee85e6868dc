//! The webhook as an HTTP server, asked by a client that is not the API server.

use super::{
    review::review,
    site::{Site, pod},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

async fn send(site: &Site, method: Method, content_type: &str, body: Vec<u8>) -> (StatusCode, Value) {
    let request = site.webhook.client().request(method, site.webhook.url());
    let reply = request
        .header("content-type", content_type)
        .body(body)
        .send()
        .await
        .unwrap();
    let status = reply.status();
    let text = reply.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_with_a_review_that_says_why() {
    let site = Site::start().await;
    let json = "application/json";
    let whole = review(&site.a.namespace, &pod("app", "contoso"))
        .to_string()
        .into_bytes();
    let cut = whole[..whole.len() / 2].to_vec();
    let huge = vec![b' '; 4 * 1024 * 1024];
    for (content_type, body, status) in [
        (json, Vec::new(), StatusCode::BAD_REQUEST),
        (json, b"not json".to_vec(), StatusCode::BAD_REQUEST),
        (json, cut, StatusCode::BAD_REQUEST),
        (json, b"{}".to_vec(), StatusCode::BAD_REQUEST),
        (json, huge, StatusCode::PAYLOAD_TOO_LARGE),
        ("text/plain", whole, StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let (got, answer) = send(&site, Method::POST, content_type, body).await;
        assert_eq!(got, status);
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["allowed"], false);
        assert!(
            answer["response"]["status"]["message"]
                .as_str()
                .unwrap()
                .starts_with("InvalidReview: ")
        );
    }
}

#[tokio::test]
async fn a_review_whose_uid_can_be_read_is_refused_under_that_uid() {
    let site = Site::start().await;
    let mut wrong = review(&site.a.namespace, &pod("app", "contoso"));
    wrong["request"]["object"]["spec"]["imagePullSecrets"] = json!("none");
    let (status, answer) = send(
        &site,
        Method::POST,
        "application/json",
        wrong.to_string().into_bytes(),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["response"]["uid"], wrong["request"]["uid"]);
    assert_eq!(answer["response"]["status"]["code"], 400);
}

#[tokio::test]
async fn only_post_on_the_one_path_is_served() {
    let site = Site::start().await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let (status, words) = send(&site, method, "application/json", Vec::new()).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(words.as_str().unwrap().contains("POST"));
    }
    let elsewhere = format!("https://{}/other", site.webhook.address);
    assert_eq!(
        site.webhook
            .client()
            .post(elsewhere)
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn health_and_metrics_are_told_in_plain_http() {
    let site = Site::start().await;
    assert_eq!(site.webhook.admin_get("/livez").await, (200, "ok".to_owned()));
    assert_eq!(site.webhook.admin_get("/readyz").await.0, 200);
    site.create(&site.a.namespace, &pod("app", "contoso")).await;
    site.refused(&site.a.namespace, &pod("bad", "no such generator"))
        .await;
    let (_, metrics) = site.webhook.admin_get("/metrics").await;
    for line in [
        r#"acr_pull_webhook_admissions_total{outcome="patched",reason="Ok"} 1"#,
        r#"acr_pull_webhook_upstream_requests_total{hop="Entra",reason="Ok"} 1"#,
        r#"outcome="denied",reason="InvalidAnnotation""#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}
