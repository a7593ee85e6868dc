//! Objects that are deleted and created again under the same name, and pull secrets that are restored from a backup.

use azure_emulator::Endpoint;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use testkit::{
    env::TestEnv,
    namespace::TestNamespace,
    objects::{CLIENT_ID, pod, pull_secret_name},
};

#[testkit::test]
async fn a_recreated_service_account_is_used_at_once() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    let uid = namespace.secrets().get(&name).await.unwrap().uid();
    let accounts = namespace.api::<ServiceAccount>();
    for round in 0..5 {
        let before = accounts.get("app").await.unwrap().uid();
        accounts.delete("app", &DeleteParams::default()).await.unwrap();
        let client_id = [(CLIENT_ID, env.team_a.client_id)];
        namespace.apply_service_account("app", &client_id).await;
        assert_ne!(accounts.get("app").await.unwrap().uid(), before);
        let again = pull_secret_name(
            &namespace
                .create_pod(&pod(&format!("again-{round}"), "contoso"))
                .await,
        );
        assert_eq!(again, name);
        // A new pull secret needs a token of the new service account.
        let generator = format!("later-{round}");
        namespace.apply_generator(&generator, json!({})).await;
        let other = pull_secret_name(&namespace.create_pod(&pod(&generator, &generator)).await);
        env.assert_pulls(namespace, &other, env.team_a.repository).await;
    }
    assert_eq!(namespace.secrets().get(&name).await.unwrap().uid(), uid);
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 6);
}

/// A watch may still show the pull secret of the deleted namespace, which has the same name and inputs.
#[testkit::test]
async fn the_first_pod_of_a_recreated_namespace_has_a_new_token() {
    let env = TestEnv::start().await;
    let client_id = env.team_a.client_id;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    let before = namespace.secrets().get(&name).await.unwrap();
    namespace.delete().await;

    TestNamespace::create(&env.client, namespace.name(), json!({"test": env.label()})).await;
    namespace
        .apply_service_account("app", &[(CLIENT_ID, client_id)])
        .await;
    namespace.apply_generator("contoso", json!({})).await;
    assert_eq!(
        pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await),
        name
    );
    let after = namespace.secrets().get(&name).await.unwrap();
    assert_ne!((after.uid(), &after.data), (before.uid(), &before.data));
    env.assert_pulls(namespace, &name, env.team_a.repository).await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 2);
}

/// A backup contains an `ACRPullSecret` without its status, and a Secret without its owner.
#[testkit::test]
async fn a_restored_pull_secret_gets_a_new_token() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    for (generator, with_secret) in [("contoso", false), ("both", true)] {
        namespace.apply_generator(generator, json!({})).await;
        let name = pull_secret_name(&namespace.create_pod(&pod(generator, generator)).await);
        let mut owner = namespace.pull_secret(&name).await;
        let mut secret = namespace.secrets().get(&name).await.unwrap();
        namespace.delete_pod(generator).await;
        namespace.delete_pull_secret(&name).await;
        namespace.wait_until_secret_is_gone(&name).await;

        let without_identity = |metadata: &mut kube::core::ObjectMeta| {
            metadata.uid = None;
            metadata.resource_version = None;
            metadata.managed_fields = None;
            metadata.owner_references = None;
        };
        without_identity(&mut owner.metadata);
        without_identity(&mut secret.metadata);
        owner.status = None;
        let params = PostParams::default();
        let owner = namespace.pull_secrets().create(&params, &owner).await.unwrap();
        if with_secret {
            namespace.secrets().create(&params, &secret).await.unwrap();
        }
        let calls = env.azure.calls(Endpoint::EntraToken);
        let restored = namespace.create_pod(&pod(generator, generator)).await;
        assert_eq!(pull_secret_name(&restored), name);
        assert_eq!(env.azure.calls(Endpoint::EntraToken), calls + 1);
        let written = namespace.secrets().get(&name).await.unwrap();
        assert_eq!(written.owner_references()[0].uid, owner.uid().unwrap());
        assert_ne!(written.data, secret.data);
        let status = namespace.status(&name).await;
        assert_eq!(status.secret_uid, written.uid());
        assert!(status.is_ready());
    }
}
