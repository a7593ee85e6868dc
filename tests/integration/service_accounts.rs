//! The ids in the annotations of service accounts and in generators, as people write them.

use crate::refusals::assert_refused;
use azure_emulator::Endpoint;
use serde_json::json;
use testkit::{
    azure::{TENANT, USER_IDENTITY_RESOURCE},
    env::TestEnv,
    objects::{CLIENT_ID, TENANT_ID, pod, pull_secret_name, with_account},
};

const DOMAIN: &str = "contoso.onmicrosoft.com";

/// At least so much of the beginning of a long value is in a message.
const SHOWN_BYTES: usize = 24;

#[testkit::test]
async fn an_id_in_quotes_or_a_placeholder_is_refused_with_its_annotation() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let id = env.team_a.client_id;
    let quoted = format!("\"{id}\"");
    let client_ids = [
        &*quoted,
        "CLIENT_ID",
        "<client-id>",
        "${AZURE_CLIENT_ID}",
        "{{ .Values.clientId }}",
        // The id of the resource in place of the id of its application.
        USER_IDENTITY_RESOURCE,
    ];
    let tenant_ids = [
        "\"contoso.onmicrosoft.com\"",
        "TENANT",
        "${AZURE_TENANT_ID}",
        "common",
    ];
    let with_client_id = client_ids.map(|id| (CLIENT_ID, id, vec![(CLIENT_ID, id)]));
    let with_tenant_id = tenant_ids.map(|tenant| {
        let annotations = vec![(CLIENT_ID, id), (TENANT_ID, tenant)];
        (TENANT_ID, tenant, annotations)
    });
    for (number, (key, value, annotations)) in with_client_id.into_iter().chain(with_tenant_id).enumerate() {
        let account = format!("account-{number}");
        namespace.apply_service_account(&account, &annotations).await;
        let pod = with_account(pod("app", "contoso"), &account);
        let location = format!("annotation {key} of service account {namespace}/{account}");
        // A message prints the value as a quoted text, and shortens a long one in its middle.
        let quoted = format!("{value:?}");
        let shown = &quoted[..quoted.len().min(SHOWN_BYTES)];
        assert_refused(&env, &pod, 422, "IdentityInvalid", &[&location, shown]).await;
    }
    assert!(env.azure.requests().is_empty());
}

#[testkit::test]
async fn blanks_and_newlines_around_an_id_are_ignored() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let client_id = format!(" {}\n", env.team_a.client_id);
    let tenant_id = format!("{TENANT}\r\n");
    let annotations = [(CLIENT_ID, &*client_id), (TENANT_ID, &*tenant_id)];
    namespace.apply_service_account("puller", &annotations).await;
    // `kubectl create --from-file` and YAML's block texts end with a newline.
    for (generator, tenant_id) in [
        ("of-account", "nowhere.example.com"),
        ("of-generator", &*tenant_id),
    ] {
        namespace
            .apply_generator(generator, json!({"tenantId": tenant_id}))
            .await;
    }
    for (account, generator) in [("puller", "of-account"), ("app", "of-generator")] {
        let pod = with_account(pod(generator, generator), account);
        let name = pull_secret_name(&namespace.create_pod(&pod).await);
        env.assert_pulls(namespace, &name, env.team_a.repository).await;
        let status = namespace.status(&name).await;
        assert_eq!(status.client_id.as_deref(), Some(env.team_a.client_id));
        assert_eq!(status.tenant_id.as_deref(), Some(TENANT));
    }
}

#[testkit::test]
async fn a_tenant_may_be_named_by_a_domain() {
    let with_domain = |world: &mut serde_json::Value| world["tenants"][0]["domains"] = json!([DOMAIN]);
    let env = TestEnv::with(&[], with_domain).await;
    let namespace = &env.team_a.namespace;
    let annotations = [(CLIENT_ID, env.team_a.client_id), (TENANT_ID, DOMAIN)];
    namespace.apply_service_account("puller", &annotations).await;
    namespace
        .apply_generator("domain", json!({"tenantId": DOMAIN}))
        .await;
    for (account, generator) in [("puller", "contoso"), ("app", "domain")] {
        let pod = with_account(pod(generator, generator), account);
        let name = pull_secret_name(&namespace.create_pod(&pod).await);
        env.assert_pulls(namespace, &name, env.team_a.repository).await;
    }
    let requests = env.azure.records(Endpoint::EntraToken);
    assert_eq!(requests.len(), 2);
    assert!(
        requests
            .iter()
            .all(|record| record.path == format!("/{DOMAIN}/oauth2/v2.0/token"))
    );
}
