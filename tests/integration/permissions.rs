//! Rights that the deployed account does not have, checked by the real authorizer.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use testkit::{control_plane, env::TestEnv};

#[testkit::test]
async fn the_account_can_neither_read_nor_delete_a_secret() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let webhook: Client = control_plane::shared().as_webhook().await;
    let secrets: Api<Secret> = Api::namespaced(webhook.clone(), namespace.name());
    assert_forbidden("get", secrets.get("any").await.err());
    assert_forbidden("list", secrets.list(&ListParams::default()).await.err());
    assert_forbidden(
        "list",
        Api::<Secret>::all(webhook.clone())
            .list(&ListParams::default())
            .await
            .err(),
    );
    assert_forbidden(
        "delete",
        secrets.delete("any", &DeleteParams::default()).await.err(),
    );
    assert_forbidden(
        "delete",
        secrets
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .err(),
    );
    let nothing = Patch::Merge(serde_json::json!({}));
    assert_forbidden(
        "patch",
        secrets
            .patch("any", &PatchParams::default(), &nothing)
            .await
            .err(),
    );
    let pods: Api<Pod> = Api::namespaced(webhook, namespace.name());
    assert_forbidden("delete", pods.delete("any", &DeleteParams::default()).await.err());
}

fn assert_forbidden(verb: &str, error: Option<kube::Error>) {
    match error {
        Some(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{verb}: {}", status.message),
        other => panic!("{verb} was not forbidden: {other:?}"),
    }
}
