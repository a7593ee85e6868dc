//! Tokens of service accounts that the webhook may request.

use super::{
    attempt::{assert_allowed, assert_denied, post, token, token_path, token_path_of},
    thief,
};
use serde_json::json;
use testkit::control_plane::{self, NAMESPACE};

/// A token of a system account with the permitted audience.
#[testkit::test]
async fn no_token_is_issued_for_accounts_of_unserved_namespaces() {
    let thief = thief().await;
    let specs = [
        json!({"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 600}),
        json!({"audiences": ["api://AzureADTokenExchange", "api://AzureADTokenExchange"]}),
    ];
    let mut attempts = Vec::new();
    for (namespace, account) in [
        ("kube-system", "default"),
        (NAMESPACE, NAMESPACE),
        (NAMESPACE, "default"),
    ] {
        for spec in &specs {
            let path = token_path_of(namespace, account);
            attempts.push(post("a token", path.clone(), token(spec)));
            attempts.push(post("a dry run", format!("{path}?dryRun=All"), token(spec)));
        }
    }
    assert_denied(&thief, attempts).await;
    // A list that contains the permitted audience twice is permitted.
    let twice = &specs[1];
    assert_allowed(
        &thief,
        post("the same audience twice", token_path(), token(twice)),
    )
    .await;
}

#[testkit::test]
async fn no_token_is_issued_for_other_audiences_or_a_long_lifetime() {
    let thief = thief().await;
    let issuer = &control_plane::for_stolen_credentials().prepared().await.issuer;
    let attempts = [
        ("no audience", json!({})),
        ("an empty list", json!({"audiences": []})),
        ("the API server", json!({"audiences": [issuer]})),
        ("another audience", json!({"audiences": ["api://elsewhere"]})),
        (
            "a permitted audience and another one",
            json!({"audiences": ["api://AzureADTokenExchange", issuer]}),
        ),
        (
            "a day",
            json!({"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 86400}),
        ),
    ];
    let attempts = attempts.map(|(what, spec)| post(what, token_path(), token(&spec)));
    assert_denied(&thief, attempts.into()).await;
}
