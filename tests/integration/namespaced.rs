//! A webhook that looks after some namespaces alone, by Roles.

use super::{
    control_plane::apply,
    site::{Site, eventually, pod, pull_secret_name},
};
use azure_emulator::Endpoint;
use kube::{Api, api::DeleteParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn by_roles_alone_pods_are_admitted_and_their_pull_secrets_renewed_and_collected() {
    let flags = ["--namespaces=TEAM_A", "--unused-grace=3s", "--unused-notice=3s"];
    let mut site = Site::leading(&flags, |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "12s"})
    })
    .await;
    let namespace = site.a.namespace.clone();
    let binding = site.roles_alone().await;
    apply(&Api::namespaced(site.client.clone(), &namespace), &binding).await;
    site.restart_webhook().await;

    let name = pull_secret_name(&site.create(&namespace, &pod("app", "contoso")).await);
    let renewed = site.status(&namespace, &name).await.last_renewal_time;
    eventually("it is renewed", async || {
        (site.status(&namespace, &name).await.last_renewal_time != renewed).then_some(())
    })
    .await;
    site.pods(&namespace)
        .delete("app", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    site.secret_is_collected(&namespace, &name).await;

    let calls = site.calls(Endpoint::EntraToken);
    let refused = site
        .refused(&namespace, &pod("other", "ClusterGenerator/contoso"))
        .await;
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("--namespaces"), "{}", refused.message);
    assert_eq!(site.calls(Endpoint::EntraToken), calls);
    let forbidden = site
        .webhook
        .log()
        .iter()
        .filter(|line| line.contains("forbidden"))
        .count();
    assert_eq!(forbidden, 0, "it asks for nothing that it may not");
}
