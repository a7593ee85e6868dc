//! The chain of tokens: Entra token, ACR refresh token, ACR access token, and what each is refused for.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::*;

/// The claims of a token, its signature unchecked.
pub fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(payload)
            .unwrap(),
    )
    .unwrap()
}

fn lifetime(claims: &Value) -> i64 {
    claims["exp"].as_i64().unwrap() - jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn without_a_credential_the_registry_says_where_to_get_one_and_for_what() {
    let azure = Azure::start();
    let base = format!("Bearer realm=\"https://{CONTOSO}/oauth2/token\",service=\"{CONTOSO}\"");
    for (path, scope) in [
        ("/v2/", ""),
        ("/v2/shop/web/manifests/v1", ",scope=\"repository:shop/web:pull\""),
        ("/v2/_catalog", ",scope=\"registry:catalog:*\""),
        ("/acr/v1/_catalog", ",scope=\"registry:catalog:*\""),
        (
            "/acr/v1/shop/web/_tags",
            ",scope=\"repository:shop/web:metadata_read\"",
        ),
    ] {
        let reply = azure.get(&format!("https://{CONTOSO}{path}")).await;
        assert_eq!(
            (reply.status, reply.acr_code().as_str()),
            (401, "UNAUTHORIZED"),
            "{path}"
        );
        assert_eq!(
            reply.header("www-authenticate"),
            format!("{base}{scope}"),
            "{path}"
        );
        assert!(!reply.header("x-ms-correlation-request-id").is_empty());
    }
}

#[tokio::test]
async fn the_chain_ends_in_an_access_token_for_what_was_asked_and_granted() {
    let azure = Azure::start();
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    let claims = claims_of(&refresh);
    assert_eq!(
        (claims["aud"].as_str(), claims["grant_type"].as_str()),
        (Some(CONTOSO), Some("refresh_token"))
    );
    assert!((10_790..=10_800).contains(&lifetime(&claims)), "three hours");

    let scope = "repository:shop/web:pull,push repository:other:pull registry:catalog:*";
    let reply = azure.token(CONTOSO, &refresh, scope).await.ok();
    assert_eq!(reply.as_object().unwrap().len(), 1, "nothing but the token");
    let claims = claims_of(reply["access_token"].as_str().unwrap());
    assert_eq!(
        claims["access"],
        json!([
            {"type": "repository", "name": "shop/web", "actions": ["pull"]},
            {"type": "registry", "name": "catalog", "actions": ["*"]},
        ])
    );
    assert!((4_490..=4_500).contains(&lifetime(&claims)), "75 minutes");
}

#[tokio::test]
async fn the_exchange_takes_only_a_genuine_entra_token_for_this_registry() {
    let azure = Azure::start();
    let good = azure.entra_token(TENANT, WEB, ACR).await;
    azure.exchange(CONTOSO, &good).await.ok();

    let (start, end) = good.split_at(good.len() - 8);
    let forged = format!("{start}{}", end.chars().rev().collect::<String>());
    let of_another_tenant = azure.entra_token(OTHER_TENANT, STRANGER, ACR).await;
    let without_a_role = azure.entra_token(TENANT, NOBODY, ACR).await;
    let an_acr_token = azure.refresh_token(CONTOSO, WEB).await;
    for token in [
        &forged,
        &of_another_tenant,
        &without_a_role,
        &an_acr_token,
        "not a token",
    ] {
        let reply = azure.exchange(CONTOSO, token).await;
        assert_eq!(
            (reply.status, reply.acr_code().as_str()),
            (401, "UNAUTHORIZED"),
            "{}",
            reply.text
        );
    }
}

#[tokio::test]
async fn arm_tokens_open_only_registries_that_accept_them() {
    let azure = Azure::start();
    for resource in [
        "https://management.azure.com",
        "https://management.core.windows.net/",
    ] {
        let arm = azure.entra_token(TENANT, WEB, resource).await;
        azure.exchange(CONTOSO, &arm).await.ok();
        let reply = azure.exchange(FABRIKAM, &arm).await;
        assert_eq!(reply.status, 401);
        assert!(reply.text.contains("token validation failed"), "{}", reply.text);
    }
}

#[tokio::test]
async fn expired_tokens_are_refused_at_each_step() {
    let short = "tokens: {entraLifetime: 0s, acrRefreshLifetime: 0s, acrAccessLifetime: 0s}\n";
    let azure = Azure::start();
    let entra = azure.entra_token(TENANT, WEB, ACR).await;
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    azure
        .emulator
        .apply(azure_emulator::World::parse(&(world_yaml("http://127.0.0.1:9") + short)).unwrap());

    let expired = azure.entra_token(TENANT, WEB, ACR).await;
    assert_eq!(azure.exchange(CONTOSO, &expired).await.status, 401);
    let expired = azure.exchange(CONTOSO, &entra).await.ok()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        azure
            .token(CONTOSO, &expired, "repository:shop/web:pull")
            .await
            .status,
        401
    );
    let expired = azure
        .token(CONTOSO, &refresh, "repository:shop/web:pull")
        .await
        .ok();
    let url = format!("https://{CONTOSO}/v2/shop/web/manifests/v1");
    let reply = azure
        .get_with(&url, expired["access_token"].as_str().unwrap())
        .await;
    assert_eq!(reply.status, 401);
    assert!(
        reply
            .header("www-authenticate")
            .ends_with("error=\"invalid_token\"")
    );
}

#[tokio::test]
async fn the_exchange_answers_post_only_and_checks_its_form() {
    let azure = Azure::start();
    assert_eq!(
        azure
            .get(&format!("https://{CONTOSO}/oauth2/exchange"))
            .await
            .status,
        404
    );
    let token = azure.entra_token(TENANT, WEB, ACR).await;
    let post = |grant: &'static str, service: &'static str, tenant: &'static str| {
        let form = [
            ("grant_type", grant),
            ("service", service),
            ("tenant", tenant),
            ("access_token", &token),
        ];
        Reply::of(
            azure
                .http
                .post(format!("https://{CONTOSO}/oauth2/exchange"))
                .form(&form),
        )
    };
    assert_eq!(post("access_token", CONTOSO, "").await.status, 200);
    assert_eq!(post("access_token", CONTOSO, TENANT).await.status, 200);
    assert_eq!(
        post("access_token_refresh_token", CONTOSO, "contoso.onmicrosoft.com")
            .await
            .status,
        200
    );
    assert_eq!(post("access_token", CONTOSO, OTHER_TENANT).await.status, 401);
    assert_eq!(post("access_token", FABRIKAM, TENANT).await.status, 400);
    assert_eq!(post("password", CONTOSO, TENANT).await.status, 400);
}

#[tokio::test]
async fn a_wildcard_scope_is_refused() {
    let azure = Azure::start();
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    for scope in ["repository:*:pull", "repository:shop/*:pull"] {
        let reply = azure.token(CONTOSO, &refresh, scope).await;
        assert_eq!(reply.status, 400);
        assert!(reply.text.contains("wildcards"), "{}", reply.text);
    }
}

#[tokio::test]
async fn docker_clients_log_in_with_either_token_as_password_of_the_zero_guid() {
    let azure = Azure::start();
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    let access = azure.access_token(CONTOSO, WEB, "repository:shop/web:pull").await;
    let get = |user: &'static str, password: &str, scope: &'static str| {
        let url = format!("https://{CONTOSO}/oauth2/token?service={CONTOSO}&scope={scope}");
        Reply::of(azure.http.get(url).basic_auth(user, Some(password)))
    };
    for password in [&refresh, &access] {
        let reply = get(TOKEN_USER, password, "repository:shop/web:pull").await.ok();
        let claims = claims_of(reply["access_token"].as_str().unwrap());
        assert_eq!(
            claims["access"],
            json!([{"type": "repository", "name": "shop/web", "actions": ["pull"]}])
        );
    }
    let more = get(TOKEN_USER, &access, "repository:shop/api:pull").await.ok();
    assert_eq!(
        claims_of(more["access_token"].as_str().unwrap())["access"],
        json!([]),
        "no more than it held"
    );
    assert_eq!(
        get("someone", &refresh, "repository:shop/web:pull").await.status,
        401
    );
    assert_eq!(
        get(TOKEN_USER, "wrong", "repository:shop/web:pull").await.status,
        401
    );
    assert_eq!(
        azure
            .get(&format!("https://{CONTOSO}/oauth2/token?service={CONTOSO}"))
            .await
            .status,
        401,
        "anonymous"
    );
}

#[tokio::test]
async fn an_abac_registry_refuses_the_token_itself_where_the_role_is_missing() {
    let azure =
        Azure::with(&world_yaml("http://127.0.0.1:9").replace("acceptArmTokens: false", "abac: true"));
    let refresh = azure.refresh_token(FABRIKAM, NOBODY).await;
    assert_eq!(
        azure
            .token(FABRIKAM, &refresh, "repository:shop/web:pull")
            .await
            .status,
        401
    );
    let refresh = azure.refresh_token(FABRIKAM, WEB).await;
    azure
        .token(FABRIKAM, &refresh, "repository:shop/web:pull")
        .await
        .ok();

    // There, roles are not asked for at the exchange; the tenant still is.
    let stranger = azure.entra_token(OTHER_TENANT, STRANGER, ACR).await;
    assert_eq!(azure.exchange(FABRIKAM, &stranger).await.status, 401);
}
