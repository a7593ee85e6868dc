//! Each identity pulls in each cloud, with and without a scope, by both kinds of reference.

use super::{principals, pull, registry::Registry};
use acr_pull_webhook::pull_secret::ACRPullSecretStatus;
use azure_emulator::Endpoint;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::{
    azure::{
        PRINCIPAL, PRINCIPAL_SECRET, SYSTEM_IDENTITY, TENANT, USER_IDENTITY, USER_IDENTITY_RESOURCE,
        add_managed_identities, add_service_principal,
    },
    env::TestEnv,
    namespace::TestNamespace,
    objects::{CLIENT_ID, cluster_generator_spec, pod, pull_secret_name},
};

/// The name, the registry and the Entra host of a cloud.
struct Cloud {
    name: &'static str,
    registry: &'static str,
    login: &'static str,
}

const CLOUDS: [Cloud; 5] = [
    Cloud {
        name: "PublicCloud",
        registry: "contoso.azurecr.io",
        login: "login.microsoftonline.com",
    },
    Cloud {
        name: "USGovernmentCloud",
        registry: "contoso.azurecr.us",
        login: "login.microsoftonline.us",
    },
    Cloud {
        name: "ChinaCloud",
        registry: "contoso.azurecr.cn",
        login: "login.chinacloudapi.cn",
    },
    Cloud {
        name: "GermanCloud",
        registry: "contoso.azurecr.de",
        login: "login.microsoftonline.de",
    },
    Cloud {
        name: "AzureStackCloud",
        registry: "contoso.registry.stack.example",
        login: "login.stack.example",
    },
];

/// Adds all identities. Each may pull the same image in each cloud.
fn world(world: &mut Value, upstream: &str) {
    add_service_principal(world);
    add_managed_identities(world, "team-a/app");
    world["authorityHosts"] = json!(["login.stack.example"]);
    let clients = [
        "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
        "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb",
        PRINCIPAL,
        SYSTEM_IDENTITY,
        USER_IDENTITY,
    ];
    let rights = clients
        .map(|client| json!({"clientId": client, "repositories": ["team-a/app"], "actions": ["pull"]}));
    let registries = CLOUDS.map(
        |cloud| json!({"host": cloud.registry, "tenant": TENANT, "upstream": upstream, "rights": rights}),
    );
    world["registries"] = json!(registries);
}

/// One identity of a generator.
struct Case {
    identity: &'static str,
    auth: Value,
    /// The subject of the service account, unless the identity has none.
    subject: Option<String>,
    /// The endpoint that issues the token.
    endpoint: Endpoint,
    client_id: &'static str,
    cluster_only: bool,
}

fn cases(env: &TestEnv) -> Vec<Case> {
    let (a, b) = (&env.team_a, &env.team_b);
    let subject =
        |namespace: &TestNamespace, name: &str| Some(format!("system:serviceaccount:{namespace}:{name}"));
    let workload = |identity, auth, subject, client_id, cluster_only| Case {
        identity,
        auth: json!({"workloadIdentity": auth}),
        subject,
        endpoint: Endpoint::EntraToken,
        client_id,
        cluster_only,
    };
    let managed = |identity, auth, client_id| Case {
        identity,
        auth: json!({"managedIdentity": auth}),
        subject: None,
        endpoint: Endpoint::AppServiceToken,
        client_id,
        cluster_only: false,
    };
    vec![
        workload("own", json!({}), subject(&a.namespace, "app"), a.client_id, false),
        workload(
            "named",
            json!({"serviceAccountRef": {"name": "puller"}}),
            subject(&a.namespace, "puller"),
            a.client_id,
            false,
        ),
        workload(
            "elsewhere",
            json!({"serviceAccountRef": {"name": "puller", "namespace": b.namespace}}),
            subject(&b.namespace, "puller"),
            b.client_id,
            true,
        ),
        Case {
            identity: "principal",
            auth: principals::auth("sp"),
            subject: None,
            endpoint: Endpoint::EntraToken,
            client_id: PRINCIPAL,
            cluster_only: false,
        },
        managed("system", json!({}), SYSTEM_IDENTITY),
        managed(
            "by-client-id",
            json!({"identityId": USER_IDENTITY}),
            USER_IDENTITY,
        ),
        managed(
            "by-resource-id",
            json!({"identityId": USER_IDENTITY_RESOURCE}),
            USER_IDENTITY,
        ),
    ]
}

/// A generator, and what it was created for.
struct Variant {
    reference: String,
    identity: &'static str,
    cloud: &'static Cloud,
    scope: Option<&'static str>,
}

/// Creates the service accounts and the Secret of the identities.
async fn create_accounts(env: &TestEnv) {
    let (a, b) = (&env.team_a, &env.team_b);
    a.namespace
        .apply_service_account("puller", &[(CLIENT_ID, a.client_id)])
        .await;
    let allowed = ("acr-pull.dev/allowed-namespaces", a.namespace.name());
    b.namespace
        .apply_service_account("puller", &[(CLIENT_ID, b.client_id), allowed])
        .await;
    principals::create_secret(&a.namespace, "sp", PRINCIPAL_SECRET).await;
    principals::permit_reading(&a.namespace, "sp").await;
}

/// Creates a generator and a ClusterGenerator of each identity in each cloud, with and without a scope.
async fn create_generators(env: &TestEnv) -> Vec<Variant> {
    let mut variants = Vec::new();
    for case in cases(env) {
        for cloud in &CLOUDS {
            for scope in [None, Some("repository:team-a/app:pull")] {
                let spec = json!({"registry": cloud.registry, "environmentType": cloud.name,
                    "scope": scope.unwrap_or_default(), "auth": case.auth});
                let kind = if scope.is_some() { "scoped" } else { "whole" };
                let name = format!("{}-{}-{kind}", case.identity, cloud.name.to_lowercase());
                let mut add = |reference| {
                    variants.push(Variant {
                        reference,
                        identity: case.identity,
                        cloud,
                        scope,
                    });
                };
                let cluster_spec = cluster_generator_spec(spec.clone());
                add(env.cluster_generator_of(&name, cluster_spec).await);
                if !case.cluster_only {
                    env.team_a.namespace.apply_generator(&name, spec).await;
                    add(name);
                }
            }
        }
    }
    variants
}

/// Creates a Pod with a generator, and pulls its image; returns the status of its pull secret.
async fn pull_with(env: &TestEnv, variant: &Variant) -> ACRPullSecretStatus {
    let (namespace, reference) = (&env.team_a.namespace, &variant.reference);
    let name = format!("{}-app", reference.to_lowercase().replace('/', "-"));
    let mut pod = pod(&name, reference);
    let image = format!("{}/team-a/app:1", variant.cloud.registry);
    pod.spec.as_mut().unwrap().containers[0].image = Some(image.clone());
    let secret = pull_secret_name(&namespace.create_pod(&pod).await);
    let pulled = pull::pull(env, namespace, &secret, &image).await;
    assert_eq!(pulled, Ok(()), "{reference}");
    namespace.status(&secret).await
}

fn assert_status(env: &TestEnv, case: &Case, variant: &Variant, status: &ACRPullSecretStatus) {
    let cloud = variant.cloud;
    let what = format!("{} in {}", case.identity, cloud.name);
    assert_eq!(status.registry.as_deref(), Some(cloud.registry), "{what}");
    assert_eq!(status.scope.as_deref(), variant.scope, "{what}");
    assert_eq!(status.subject, case.subject, "{what}");
    let kind = status.identity.as_deref().unwrap();
    match case.endpoint {
        Endpoint::AppServiceToken => assert_eq!(kind, "ManagedIdentity", "{what}"),
        _ => assert_eq!(status.client_id.as_deref(), Some(case.client_id), "{what}"),
    }
    // The request went to the Entra of the cloud, with the client id and the subject of the case.
    let was_requested = env.azure.records(case.endpoint).into_iter().any(|record| {
        record.client_id.as_deref() == Some(case.client_id)
            && record.subject == case.subject
            && (case.endpoint == Endpoint::AppServiceToken || record.host == cloud.login)
    });
    assert!(was_requested, "{what}");
}

#[testkit::test]
async fn each_identity_pulls_in_each_cloud_by_each_kind_of_reference() {
    let registry = Registry::start();
    pull::push(&registry, "team-a/app:1").await;
    let flags = [
        "--managed-identity-namespaces=TEAM_A",
        "--authority-host=https://login.stack.example",
        "--registry-suffixes=azurecr.io,azurecr.us,azurecr.cn,azurecr.de,registry.stack.example",
    ];
    let env = TestEnv::with(&flags, |azure| world(azure, &registry.url)).await;
    create_accounts(&env).await;
    let variants = create_generators(&env).await;
    assert_eq!(variants.len(), 7 * 5 * 2 * 2 - 5 * 2);
    let statuses = stream::iter(&variants)
        .map(async |variant| (variant, pull_with(&env, variant).await))
        .buffer_unordered(4)
        .collect::<Vec<_>>()
        .await;
    for case in cases(&env) {
        for (variant, status) in &statuses {
            if variant.identity == case.identity {
                assert_status(&env, &case, variant, status);
            }
        }
    }
    env.assert_no_secret_was_logged();
}
