//! What the webhook itself and others may do.

use super::{
    HERE,
    attempt::{
        assert_allowed, assert_denied, certificates, get, owner, post, pull_secret, put, registration_path,
        secret_path, server_side_apply, token, token_path, url_patch, with,
    },
    cluster_registration, thief,
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    control_plane::{self, NAMESPACE},
    objects::from,
};

#[testkit::test]
async fn the_webhook_may_create_and_renew_a_pull_secret() {
    let thief = thief().await;
    let owners = format!("/apis/acr-pull.dev/v1alpha1/namespaces/{HERE}/acrpullsecrets");
    let object = json!({
        "apiVersion": "acr-pull.dev/v1alpha1",
        "kind": "ACRPullSecret",
        "metadata": {"name": "acr-pull-own"},
        "spec": {"generator": {"kind": "ACRAccessToken", "name": "contoso"}},
    });
    let path = format!("{owners}/acr-pull-own?fieldManager=x&force=true");
    let created = assert_allowed(&thief, server_side_apply("its object", path, object)).await;
    let reference = owner("acr-pull-own", created["metadata"]["uid"].as_str().unwrap());
    let secret = pull_secret("acr-pull-own");
    let secret = with(secret, "/metadata/ownerReferences", json!([reference]));
    let secrets = format!("/api/v1/namespaces/{HERE}/secrets");
    let first = assert_allowed(&thief, post("the pull secret", secrets, secret.clone())).await;
    let own = || secret_path(HERE, "acr-pull-own");
    let dry_run = format!("{}?dryRun=All", own());
    assert_allowed(&thief, put("a dry run", dry_run, secret.clone())).await;
    let bound = with(secret.clone(), "/metadata/uid", first["metadata"]["uid"].clone());
    let renewed = with(bound, "/data", json!({".dockerconfigjson": "e30="}));
    assert_allowed(&thief, put("its renewal", own(), renewed.clone())).await;
    // Labels and annotations of others do not prevent a renewal. The replacement removes them.
    let admin = Api::<Secret>::namespaced(control_plane::for_stolen_credentials().admin().await, HERE);
    let others = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}});
    let params = PatchParams::default();
    let patched = admin.patch("acr-pull-own", &params, &Patch::Merge(others)).await;
    patched.unwrap();
    let renewal = put("its renewal after others wrote to it", own(), renewed);
    assert_allowed(&thief, renewal).await;
    let kept = admin.get("acr-pull-own").await.unwrap();
    assert_eq!((kept.labels().len(), kept.annotations().len()), (1, 0));
    let orphaned = with(secret, "/metadata/ownerReferences", json!([]));
    assert_denied(&thief, vec![put("the removal of its owner", own(), orphaned)]).await;

    let spec = json!({"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 600});
    assert_allowed(&thief, post("an assertion", token_path(), token(&spec))).await;
}

#[testkit::test]
async fn the_webhook_may_write_and_publish_its_certificates() {
    let thief = thief().await;
    let own = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    assert_allowed(&thief, post("its certificates", own, certificates("Opaque"))).await;
    let path = secret_path(NAMESPACE, "acr-pull-webhook-certificates");
    assert_allowed(&thief, get("to read them", path.clone())).await;
    assert_allowed(&thief, put("to renew them", path, certificates("Opaque"))).await;

    let registered = cluster_registration().await;
    let hooks = registered.webhooks.as_ref().unwrap().iter().map(|hook| {
        let mut config = json!({"caBundle": certificate_authority()});
        if hook.client_config.service.is_some() {
            config["service"] = json!({"name": NAMESPACE, "namespace": NAMESPACE, "path": "/mutate/x"});
        }
        json!({"name": hook.name, "clientConfig": config})
    });
    let patch = json!({"webhooks": hooks.collect::<Vec<_>>()});
    let path = registration_path(&registered.name_any());
    let strategic = "application/strategic-merge-patch+json";
    let publication = ("its authority and path", "PATCH", path, strategic, patch);
    assert_allowed(&thief, publication).await;
    let url = "https://webhook.example.com:8443/mutate/x";
    assert_allowed(&thief, url_patch("its path in a URL", url)).await;
}

#[testkit::test]
async fn the_policies_do_not_apply_to_other_accounts() {
    drop(thief().await);
    let admin = control_plane::for_stolen_credentials().admin().await;
    let secrets = Api::<Secret>::namespaced(admin, HERE);
    let own: Secret = from(json!({"metadata": {"generateName": "any-"}, "type": "Opaque"}));
    secrets.create(&PostParams::default(), &own).await.unwrap();
}

/// A new authority in base64.
fn certificate_authority() -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    serde_json::to_value(ByteString(certificate.pem().into_bytes())).unwrap()
}
