//! The chain of tokens: Entra token, ACR refresh token, ACR access token, and the reasons to refuse each.

use crate::support::*;
use azure_emulator::World;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

const SCOPE: &str = "repository:shop/web:pull";

/// The claims of a token, without verifying the signature.
pub fn claims_of(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

fn lifetime(claims: &Value) -> i64 {
    claims["exp"].as_i64().unwrap() - Timestamp::now().as_second()
}

/// The token with another signature.
pub fn forged(token: &str) -> String {
    let (start, end) = token.split_at(token.len() - 8);
    format!("{start}{}", end.chars().rev().collect::<String>())
}

#[tokio::test]
async fn without_a_credential_the_registry_returns_a_challenge_with_the_scope() {
    let azure = Azure::start();
    let base = format!("Bearer realm=\"https://{CONTOSO}/oauth2/token\",service=\"{CONTOSO}\"");
    for (path, scope) in [
        ("/v2/", ""),
        ("/v2/shop/web/manifests/v1", ",scope=\"repository:shop/web:pull\""),
    ] {
        let reply = azure.get(&format!("https://{CONTOSO}{path}")).await;
        assert_eq!(
            (reply.status, reply.acr_code().as_str()),
            (401, "UNAUTHORIZED"),
            "{path}"
        );
        assert_eq!(reply.header("www-authenticate"), format!("{base}{scope}"));
    }
}

#[tokio::test]
async fn an_access_token_grants_what_was_requested_and_permitted() {
    let azure = Azure::start();
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    let claims = claims_of(&refresh);
    assert_eq!(
        (claims["aud"].as_str(), claims["grant_type"].as_str()),
        (Some(CONTOSO), Some("refresh_token"))
    );
    assert!((10_790..=10_800).contains(&lifetime(&claims)), "three hours");

    let scope = "repository:shop/web:pull,push repository:other:pull";
    let document = azure.token(CONTOSO, &refresh, scope).await.ok();
    assert_eq!(document.as_object().unwrap().len(), 1, "only the token");
    let claims = claims_of(document["access_token"].as_str().unwrap());
    assert_eq!(
        claims["access"],
        json!([{"type": "repository", "name": "shop/web", "actions": ["pull"]}])
    );
    assert!((4_490..=4_500).contains(&lifetime(&claims)), "75 minutes");
}

#[tokio::test]
async fn the_exchange_accepts_only_an_entra_token_for_this_registry() {
    let azure = Azure::start();
    let valid = azure.entra_token(TENANT, WEB).await;
    azure.exchange(CONTOSO, &valid).await.ok();
    for token in [
        forged(&valid),
        azure.entra_token(OTHER_TENANT, STRANGER).await,
        azure.entra_token(TENANT, NOBODY).await,
        azure.refresh_token(CONTOSO, WEB).await,
        "not a token".to_owned(),
    ] {
        let reply = azure.exchange(CONTOSO, &token).await;
        assert_eq!(
            (reply.status, reply.acr_code().as_str()),
            (401, "UNAUTHORIZED"),
            "{}",
            reply.text
        );
    }
}

#[tokio::test]
async fn expired_tokens_are_refused_at_each_step() {
    let azure = Azure::start();
    let entra = azure.entra_token(TENANT, WEB).await;
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    let access = azure.access_token(CONTOSO, WEB, SCOPE).await;
    let later = World::parse(&(world() + "clock: {offset: 24h}\n")).unwrap();
    azure.emulator.apply(later);
    assert_eq!(azure.exchange(CONTOSO, &entra).await.status, 401);
    assert_eq!(azure.token(CONTOSO, &refresh, SCOPE).await.status, 401);
    let url = format!("https://{CONTOSO}/v2/shop/web/manifests/v1");
    let reply = azure.get_with(&url, &access).await;
    let challenge = reply.header("www-authenticate");
    assert!(challenge.ends_with("error=\"invalid_token\""), "{challenge}");
}

#[tokio::test]
async fn a_world_can_shorten_the_lifetime_of_refresh_tokens() {
    let azure = Azure::with(&(world() + "tokens: {acrRefreshLifetime: 12s}\n"));
    let lifetime = lifetime(&claims_of(&azure.refresh_token(CONTOSO, WEB).await));
    assert!((10..=12).contains(&lifetime), "{lifetime} s");
}

#[tokio::test]
async fn the_exchange_accepts_only_post_and_checks_its_form() {
    let azure = Azure::start();
    let url = format!("https://{CONTOSO}/oauth2/exchange");
    assert_eq!(azure.get(&url).await.status, 404);
    let token = azure.entra_token(TENANT, WEB).await;
    for (grant, service, tenant, status) in [
        ("access_token", CONTOSO, "", 200),
        ("access_token", CONTOSO, TENANT, 200),
        ("access_token", CONTOSO, DOMAIN, 200),
        ("access_token", CONTOSO, OTHER_TENANT, 401),
        ("access_token", FABRIKAM, TENANT, 400),
        ("password", CONTOSO, TENANT, 400),
    ] {
        let form = [
            ("grant_type", grant),
            ("service", service),
            ("tenant", tenant),
            ("access_token", &token),
        ];
        let reply = Reply::of(azure.http.post(&url).form(&form)).await;
        assert_eq!(reply.status, status, "{grant} {service} {tenant}");
    }
}

#[tokio::test]
async fn a_domain_of_a_tenant_stands_for_its_id() {
    let azure = Azure::start();
    let token = azure.entra_token(&DOMAIN.to_uppercase(), WEB).await;
    assert_eq!(claims_of(&token)["tid"], TENANT);
}

#[tokio::test]
async fn a_wildcard_scope_is_refused() {
    let azure = Azure::start();
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    for scope in ["repository:*:pull", "repository:shop/*:pull"] {
        assert_eq!(azure.token(CONTOSO, &refresh, scope).await.status, 400, "{scope}");
    }
}

#[tokio::test]
async fn either_token_is_a_password_of_the_token_user() {
    let azure = Azure::start();
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    let access = azure.access_token(CONTOSO, WEB, SCOPE).await;
    let get = |user: &'static str, password: &str, scope: &str| {
        let url = format!("https://{CONTOSO}/oauth2/token?service={CONTOSO}&scope={scope}");
        Reply::of(azure.http.get(url).basic_auth(user, Some(password)))
    };
    for password in [&refresh, &access] {
        let token = get(TOKEN_USER, password, SCOPE).await.token("access_token");
        assert_eq!(
            claims_of(&token)["access"],
            json!([{"type": "repository", "name": "shop/web", "actions": ["pull"]}])
        );
    }
    let other = get(TOKEN_USER, &access, "repository:shop/api:pull").await;
    let claims = claims_of(&other.token("access_token"));
    assert_eq!(
        claims["access"],
        json!([]),
        "no more than the access token grants"
    );
    for (user, password) in [("someone", refresh.as_str()), (TOKEN_USER, "wrong")] {
        assert_eq!(get(user, password, SCOPE).await.status, 401, "{user}");
    }
    let url = format!("https://{CONTOSO}/oauth2/token?service={CONTOSO}");
    assert_eq!(azure.get(&url).await.status, 401, "without a user");
}
