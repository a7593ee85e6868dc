//! The Azure that the tests meet: every team an application of its own, and hops as
//! slow as Azure's. It is told to the emulator once, through the API server's proxy.

use crate::{
    script,
    team::{MACHINES, TEAMS},
};
use azure_emulator::{Credentials, Endpoint, RequestRecord};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client, api::Patch};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, resume_unwind};
use tokio::sync::OnceCell;

pub const TENANT: &str = "72f988bf-0000-4000-8000-000000000001";
pub const REGISTRY: &str = "contoso.azurecr.io";
/// The system-assigned managed identity of every machine of the cluster.
pub const MACHINE: &str = "55555555-0000-4000-8000-000000000001";
/// A user-assigned one, and its resource id.
pub const PULLER: &str = "66666666-0000-4000-8000-000000000001";
pub const PULLER_RESOURCE: &str = "/subscriptions/5ab/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller";
const CONTROL: &str = "/api/v1/namespaces/azure-emulator/services/azure-emulator:control/proxy";

/// Makes sure, once a run, that Azure knows the teams and holds their images.
pub async fn ready(client: &Client) {
    ready_with_tokens_of(client, "3h").await;
}

/// The same, with tokens of another life where nothing in this run was before it.
pub async fn ready_with_tokens_of(client: &Client, life: &str) {
    static READY: OnceCell<()> = OnceCell::const_new();
    READY
        .get_or_init(|| async {
            push_images(TEAMS.map(|team| format!("{}:1", team.repository()))).await;
            let world = world(client, life).await;
            put(client, "/world", world)
                .await
                .expect("the emulator takes the world");
            // Those of an earlier run are nobody's concern.
            let forget = http::Request::delete(format!("{CONTROL}/requests"));
            let forget = forget.body(Vec::new()).unwrap();
            client.request_text(forget).await.expect("the emulator forgets");
        })
        .await;
}

/// Puts small private images of these names, REPOSITORY:TAG, into the registry.
pub async fn push_images(images: impl IntoIterator<Item = String>) {
    script("push-image.sh", images).await;
}

/// Takes Azure from webhook and kubelets while `during` lasts, and gives it back however that ends.
pub async fn outage<T>(client: &Client, during: impl Future<Output = T>) -> T {
    // A connection that is open outlives the Service's change.
    let endpoints = [
        "entra.token",
        "acr.challenge",
        "acr.exchange",
        "acr.token",
        "acr.registry",
    ];
    let resets = endpoints.map(|endpoint| json!({"endpoint": endpoint, "effect": "reset"}));
    put(client, "/faults", json!(resets)).await.unwrap();
    lead_to(client, json!(1)).await;
    let ended = AssertUnwindSafe(during).catch_unwind().await;
    lead_to(client, json!("https")).await;
    put(client, "/faults", slowness()).await.unwrap();
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Azure's names lead to this port of the emulator's Pod; where none listens, they are refused. Another deployment
/// mends what an interrupted run has left.
async fn lead_to(client: &Client, port: Value) {
    let services = Api::<Service>::namespaced(client.clone(), "azure-emulator");
    let ports = json!({"spec": {"ports": [{"port": 443, "targetPort": port}]}});
    services
        .patch("azure-emulator", &Default::default(), &Patch::Strategic(ports))
        .await
        .unwrap();
}

/// Every request that the machine's endpoint for managed identities got.
pub async fn requests_of_machines(client: &Client) -> Vec<RequestRecord> {
    let all: Vec<RequestRecord> = get(client, "/requests").await;
    all.into_iter()
        .filter(|r| matches!(r.endpoint, Some(Endpoint::ImdsToken | Endpoint::AppServiceToken)))
        .collect()
}

/// Every request that Azure got from this subject.
pub async fn requests_of(client: &Client, subject: &str) -> Vec<RequestRecord> {
    let all: Vec<RequestRecord> = get(client, "/requests").await;
    all.into_iter()
        .filter(|r| r.subject.as_deref() == Some(subject))
        .collect()
}

/// Every token issued and every credential presented since the emulator started.
pub async fn credentials(client: &Client) -> Credentials {
    get(client, "/credentials").await
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> T {
    let request = http::Request::get(format!("{CONTROL}{path}"))
        .body(Vec::new())
        .unwrap();
    client
        .request(request)
        .await
        .expect("the emulator answers through the API server")
}

async fn put(client: &Client, path: &str, what: Value) -> kube::Result<String> {
    let request = http::Request::put(format!("{CONTROL}{path}"))
        .body(what.to_string().into_bytes())
        .unwrap();
    client.request_text(request).await
}

async fn world(client: &Client, token_life: &str) -> Value {
    let raw = async |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        client.request::<Value>(request).await.unwrap()
    };
    let issuer = raw("/.well-known/openid-configuration").await["issuer"].clone();
    let applications: Vec<_> = TEAMS
        .iter()
        .map(|team| json!({"clientId": team.client_id(), "federatedCredentials": [{"issuer": issuer, "subject": team.subject()}]}))
        .collect();
    let right = |client: &str, repository: String| json!({"clientId": client, "repositories": [repository], "actions": ["pull"]});
    let of_machines = MACHINES.repository();
    let rights: Vec<_> = TEAMS
        .iter()
        .map(|team| right(&team.client_id(), team.repository()))
        .chain([MACHINE, PULLER].map(|identity| right(identity, of_machines.clone())))
        .collect();
    json!({
        "tenants": [{"id": TENANT, "applications": applications}],
        "managedIdentities": [
            {"clientId": MACHINE, "tenant": TENANT, "systemAssigned": true},
            {"clientId": PULLER, "tenant": TENANT, "resourceId": PULLER_RESOURCE},
        ],
        // As deploy.sh tells the webhook on a cluster that is neither kind nor local.
        "appService": {"identityHeader": "of-the-end-to-end-tests"},
        "issuers": [{"issuer": issuer, "jwks": raw("/openid/v1/jwks").await}],
        "registries": [{"host": REGISTRY, "tenant": TENANT, "upstream": "http://127.0.0.1:5000", "rights": rights}],
        "tokens": {"acrRefreshLifetime": token_life},
        "faults": slowness(),
    })
}

fn slowness() -> Value {
    json!([
        {"endpoint": "entra.token", "effect": {"delay": "300ms"}},
        {"endpoint": "acr.exchange", "effect": {"delay": "150ms"}},
        {"endpoint": "acr.token", "effect": {"delay": "100ms"}},
    ])
}
