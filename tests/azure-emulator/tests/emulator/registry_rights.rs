//! An ACR access token grants access to its registry, its repositories and its actions, and to nothing else.

use crate::{skopeo::Skopeo, support::*, tokens::forged};

const PULL_WEB: &str = "repository:shop/web:pull";

fn manifest(registry: &str, repository: &str) -> String {
    format!("https://{registry}/v2/{repository}/manifests/v1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_grants_its_own_repository_in_its_own_registry() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let skopeo = Skopeo::new(&azure);
    skopeo.push(&azure, "contoso.azurecr.io/shop/web:v1").await;
    skopeo.push(&azure, "contoso.azurecr.io/shop/api:v1").await;

    let token = azure.access_token(CONTOSO, WEB, PULL_WEB).await;
    let reply = azure.get_with(&manifest(CONTOSO, "shop/web"), &token).await;
    assert_eq!(reply.ok()["schemaVersion"], 2);

    let reply = azure.get_with(&manifest(CONTOSO, "shop/api"), &token).await;
    assert_eq!((reply.status, reply.acr_code().as_str()), (401, "UNAUTHORIZED"));
    let challenge = reply.header("www-authenticate");
    assert!(
        challenge.ends_with("scope=\"repository:shop/api:pull\",error=\"insufficient_scope\""),
        "{challenge}"
    );

    // The other registry contains the same image, and the application may pull it, but not with this token.
    let reply = azure.get_with(&manifest(FABRIKAM, "shop/web"), &token).await;
    let challenge = reply.header("www-authenticate");
    assert!(challenge.ends_with("error=\"invalid_token\""), "{challenge}");
    let token = azure.access_token(FABRIKAM, WEB, PULL_WEB).await;
    azure.get_with(&manifest(FABRIKAM, "shop/web"), &token).await.ok();
}

#[tokio::test]
async fn a_refresh_token_of_one_registry_is_refused_by_another() {
    let azure = Azure::start();
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    assert_eq!(azure.token(FABRIKAM, &refresh, PULL_WEB).await.status, 401);
}

#[tokio::test]
async fn only_an_access_token_grants_access() {
    let azure = Azure::start();
    let url = format!("https://{CONTOSO}/v2/");
    let access = azure.access_token(CONTOSO, WEB, PULL_WEB).await;
    for token in [
        forged(&access),
        azure.refresh_token(CONTOSO, WEB).await,
        azure.entra_token(TENANT, WEB).await,
        "nonsense".to_owned(),
    ] {
        assert_eq!(azure.get_with(&url, &token).await.status, 401);
    }
    let basic = azure.http.get(&url).basic_auth(TOKEN_USER, Some(&access));
    assert_eq!(Reply::of(basic).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_requires_the_right_to_push_and_returns_a_public_location() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let url = format!("https://{CONTOSO}/v2/shop/web/blobs/uploads/");
    let upload = async |client_id: &str| {
        let scope = "repository:shop/web:pull,push";
        let token = azure.access_token(CONTOSO, client_id, scope).await;
        Reply::of(azure.http.post(&url).bearer_auth(token)).await
    };
    assert_eq!(upload(WEB).await.status, 401);
    let reply = upload(WRITER).await;
    assert_eq!(reply.status, 202);
    let location = reply.header("location");
    assert!(location.starts_with(&url), "{location}");
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_reported() {
    let azure = Azure::start();
    let token = azure.access_token(CONTOSO, WEB, PULL_WEB).await;
    let reply = azure.get_with(&manifest(CONTOSO, "shop/web"), &token).await;
    assert_eq!(reply.status, 502);
    let expected = "http://127.0.0.1:9 behind contoso.azurecr.io does not answer";
    assert!(reply.text.contains(expected), "{}", reply.text);
}
