//! The webhook as an HTTP server, called by another client than the API server.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::{
    api_proxy::{Lost, Write},
    env::TestEnv,
    objects::pod,
    review::review,
};

async fn send(env: &TestEnv, method: Method, content_type: &str, body: Vec<u8>) -> (StatusCode, Value) {
    let request = env.webhook.client().request(method, env.webhook.url());
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

#[testkit::test]
async fn an_unreadable_request_is_answered_with_a_reason() {
    let env = TestEnv::start().await;
    let json = "application/json";
    let whole = review(&env.team_a.namespace, &pod("app", "contoso"))
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
        let (actual, answer) = send(&env, Method::POST, content_type, body).await;
        assert_eq!(actual, status);
        assert_eq!(answer["kind"], "Status");
        assert_eq!(answer["code"], status.as_u16());
        assert!(
            answer["message"].as_str().unwrap().starts_with("InvalidReview: "),
            "{answer}"
        );
    }
}

#[testkit::test]
async fn an_invalid_review_is_refused_with_its_uid() {
    let env = TestEnv::start().await;
    let mut wrong = review(&env.team_a.namespace, &pod("app", "contoso"));
    wrong["request"]["object"]["spec"]["imagePullSecrets"] = json!("none");
    let (status, answer) = send(
        &env,
        Method::POST,
        "application/json",
        wrong.to_string().into_bytes(),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["response"]["uid"], wrong["request"]["uid"]);
    assert_eq!(answer["response"]["status"]["code"], 400);
}

#[testkit::test]
async fn the_lists_of_a_pod_are_limited() {
    let env = TestEnv::start().await;
    for (list, limit, text) in [
        ("containers", 1000, "more than 1000 containers of one kind"),
        ("initContainers", 1000, "more than 1000 containers of one kind"),
        (
            "ephemeralContainers",
            1000,
            "more than 1000 containers of one kind",
        ),
        ("imagePullSecrets", 128, "more than 128 imagePullSecrets"),
    ] {
        let mut review = review(&env.team_a.namespace, &pod("app", "contoso"));
        for (more, allowed) in [(0, true), (1, false)] {
            review["request"]["object"]["spec"][list] = vec![json!({}); limit + more].into();
            let body = review.to_string().into_bytes();
            let (status, answer) = send(&env, Method::POST, "application/json", body).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(answer["response"]["allowed"], allowed, "{list}: {answer}");
            if !allowed {
                let message = answer["response"]["status"]["message"].as_str().unwrap();
                assert!(message.contains(text), "{message}");
            }
        }
    }
}

/// The webhook decodes small, medium and large reviews in different ways.
#[testkit::test]
async fn large_pods_get_the_same_patch_and_warnings_as_small_ones() {
    let env = TestEnv::start().await;
    env.team_a.namespace.create_pod(&pod("app", "contoso")).await;
    let mut answers = Vec::new();
    for size in [0, 20 * 1024, 300 * 1024, 2 * 1024 * 1024] {
        for image in ["contoso.azurecr.io/team-a/app", "elsewhere.example.com/app"] {
            let mut review = review(&env.team_a.namespace, &pod("app", "contoso"));
            let object = &mut review["request"]["object"];
            object["metadata"]["labels"] = json!({"acr-pull.dev/injected": "true"});
            object["metadata"]["annotations"]["large"] = "x".repeat(size).into();
            object["spec"]["imagePullSecrets"] = json!([{"name": "mine"}, {}]);
            object["spec"]["containers"][0]["image"] = image.into();
            let body = review.to_string().into_bytes();
            let (status, mut answer) = send(&env, Method::POST, "application/json", body).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            let warnings = answer["response"]["warnings"].take();
            assert_eq!(warnings.is_null(), image.starts_with("contoso"), "{warnings}");
            answers.push(answer);
        }
    }
    assert!(answers[0]["response"]["patch"].is_string(), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[testkit::test]
async fn only_a_post_to_the_secret_path_is_served() {
    let env = TestEnv::start().await;
    let secret = env.webhook.url();
    let elsewhere = format!("https://{}", env.webhook.address);
    for (method, url) in [
        (Method::GET, secret.clone()),
        (Method::PUT, secret.clone()),
        (Method::DELETE, secret.clone()),
        (Method::POST, format!("{secret}/")),
        (Method::POST, secret[..secret.len() - 1].to_owned()),
        (Method::POST, format!("{elsewhere}/mutate")),
        (Method::POST, format!("{elsewhere}/other")),
    ] {
        let request = env.webhook.client().request(method.clone(), &url);
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::NOT_FOUND, "{method} {url}");
        assert_eq!(reply.headers()["connection"], "close", "{method} {url}");
    }
}

/// The API server passes a Status on, and reports `an error on the server ("unknown")` for any other body.
#[testkit::test]
async fn the_client_receives_the_message_of_a_failed_call() {
    let env = TestEnv::leading_through_proxy(&[], |_| ()).await;
    env.proxy().cut_at(Write::Owner, Lost::Request);
    let refused = env.team_a.namespace.refused_pod(&pod("app", "contoso")).await;
    let message = &refused.message;
    assert!(message.contains("ApiServerUnavailable: "), "{message}");
    assert!(!message.contains("unknown"), "{message}");
    env.proxy().restore();
}

#[testkit::test]
async fn health_and_metrics_are_served_in_plain_http() {
    let env = TestEnv::start().await;
    assert_eq!(env.webhook.admin_get("/livez").await, (200, "ok".to_owned()));
    assert_eq!(env.webhook.admin_get("/readyz").await.0, 200);
    env.team_a.namespace.create_pod(&pod("app", "contoso")).await;
    env.team_a
        .namespace
        .refused_pod(&pod("bad", "no such generator"))
        .await;
    let (_, metrics) = env.webhook.admin_get("/metrics").await;
    for line in [
        r#"acr_pull_webhook_admissions_total{outcome="patched",reason="Ok"} 1"#,
        r#"acr_pull_webhook_upstream_requests_total{hop="Entra",reason="Ok"} 1"#,
        r#"outcome="denied",reason="InvalidAnnotation""#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}
