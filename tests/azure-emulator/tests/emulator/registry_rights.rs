//! What an ACR access token opens: its own registry, its own repositories, its own actions, and nothing else.

use crate::skopeo::Skopeo;
use crate::support::*;

fn manifest(registry: &str, repository: &str) -> String {
    format!("https://{registry}/v2/{repository}/manifests/v1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_its_own_repository_and_no_other_and_no_other_registry() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let skopeo = Skopeo::new(&azure);
    skopeo.push(&azure, "contoso.azurecr.io/shop/web:v1").await;
    skopeo.push(&azure, "contoso.azurecr.io/shop/api:v1").await;

    let token = azure.access_token(CONTOSO, WEB, "repository:shop/web:pull").await;
    let reply = azure.get_with(&manifest(CONTOSO, "shop/web"), &token).await;
    assert_eq!(reply.ok()["schemaVersion"], 2);
    assert!(!reply.header("docker-content-digest").is_empty());

    let reply = azure.get_with(&manifest(CONTOSO, "shop/api"), &token).await;
    assert_eq!((reply.status, reply.acr_code().as_str()), (401, "UNAUTHORIZED"));
    let challenge = reply.header("www-authenticate");
    assert!(
        challenge.ends_with("scope=\"repository:shop/api:pull\",error=\"insufficient_scope\""),
        "{challenge}"
    );

    // The other registry holds the very same image, and the application may pull it there; not with this token.
    let reply = azure.get_with(&manifest(FABRIKAM, "shop/web"), &token).await;
    assert_eq!(reply.status, 401);
    assert!(
        reply
            .header("www-authenticate")
            .ends_with("error=\"invalid_token\"")
    );
    let own = azure
        .access_token(FABRIKAM, WEB, "repository:shop/web:pull")
        .await;
    azure.get_with(&manifest(FABRIKAM, "shop/web"), &own).await.ok();
}

#[tokio::test]
async fn a_refresh_token_of_one_registry_is_refused_by_another() {
    let azure = Azure::start();
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    assert_eq!(
        azure
            .token(FABRIKAM, &refresh, "repository:shop/web:pull")
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn neither_a_refresh_token_nor_an_entra_token_nor_a_forged_one_is_an_access_token() {
    let azure = Azure::start();
    let access = azure.access_token(CONTOSO, WEB, "repository:shop/web:pull").await;
    let (start, end) = access.split_at(access.len() - 8);
    let forged = format!("{start}{}", end.chars().rev().collect::<String>());
    let refresh = azure.refresh_token(CONTOSO, WEB).await;
    let entra = azure.entra_token(TENANT, WEB, ACR).await;
    for token in [&forged, &refresh, &entra, "nonsense"] {
        assert_eq!(
            azure
                .get_with(&format!("https://{CONTOSO}/v2/"), token)
                .await
                .status,
            401
        );
    }
    let basic = azure
        .http
        .get(format!("https://{CONTOSO}/v2/"))
        .basic_auth(TOKEN_USER, Some(&access));
    assert_eq!(
        Reply::of(basic).await.status,
        401,
        "Basic is for the token endpoint"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pulling_gives_no_right_to_push_delete_or_list() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let skopeo = Skopeo::new(&azure);
    skopeo.push(&azure, "contoso.azurecr.io/shop/web:v1").await;

    let token = azure
        .access_token(CONTOSO, WEB, "repository:shop/web:pull,push,delete")
        .await;
    let upload = azure
        .http
        .post(format!("https://{CONTOSO}/v2/shop/web/blobs/uploads/"))
        .bearer_auth(&token);
    assert_eq!(Reply::of(upload).await.status, 401);
    let delete = azure
        .http
        .delete(manifest(CONTOSO, "shop/web"))
        .bearer_auth(&token);
    assert_eq!(Reply::of(delete).await.status, 401);
    assert_eq!(
        azure
            .get_with(&format!("https://{CONTOSO}/v2/_catalog"), &token)
            .await
            .status,
        401
    );
    azure.get_with(&manifest(CONTOSO, "shop/web"), &token).await.ok();

    let catalog = azure.access_token(CONTOSO, WEB, "registry:catalog:*").await;
    let list = azure
        .get_with(&format!("https://{CONTOSO}/v2/_catalog"), &catalog)
        .await
        .ok();
    assert_eq!(list["repositories"], serde_json::json!(["shop/web"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_sent_on_to_the_registrys_public_name() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let token = azure
        .access_token(CONTOSO, WRITER, "repository:shop/web:pull,push")
        .await;
    let upload = azure
        .http
        .post(format!("https://{CONTOSO}/v2/shop/web/blobs/uploads/"))
        .bearer_auth(&token);
    let reply = Reply::of(upload).await;
    assert_eq!(reply.status, 202);
    assert!(
        reply
            .header("location")
            .starts_with(&format!("https://{CONTOSO}/v2/shop/web/blobs/uploads/"))
    );
}

#[tokio::test]
async fn a_registry_that_is_down_is_told_of_as_such() {
    let azure = Azure::start();
    let token = azure.access_token(CONTOSO, WEB, "repository:shop/web:pull").await;
    let reply = azure.get_with(&manifest(CONTOSO, "shop/web"), &token).await;
    assert_eq!(reply.status, 502);
    assert!(
        reply
            .text
            .contains("http://127.0.0.1:9 behind contoso.azurecr.io does not answer"),
        "{}",
        reply.text
    );
}
