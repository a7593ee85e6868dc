//! The Azure of the end-to-end tests: an application for each scenario, and hops as slow as those of Azure. The
//! emulator is configured once, through the API server's proxy.

use crate::{scenario::Scenario, script};
use azure_emulator::{Credentials, Endpoint, RequestRecord};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client, api::Patch};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, resume_unwind};
use testkit::azure::{add_managed_identities, application, pull_right, set_token_lifetime, world};
use tokio::sync::OnceCell;

pub use testkit::azure::{REGISTRY, SYSTEM_IDENTITY, TENANT, USER_IDENTITY, USER_IDENTITY_RESOURCE};

/// The path of the emulator's control port on the API server.
pub const CONTROL: &str = "/api/v1/namespaces/azure-emulator/services/azure-emulator:control/proxy";

/// The registry behind the emulator, in the same Pod.
const UPSTREAM: &str = "http://127.0.0.1:5000";
const TOKEN_LIFETIME: &str = "3h";

/// Configures Azure once in each test program.
pub async fn ready(client: &Client) {
    ready_with_token_lifetime(client, TOKEN_LIFETIME).await;
}

/// The same with another lifetime of tokens. The first call in a test program decides.
pub async fn ready_with_token_lifetime(client: &Client, lifetime: &str) {
    static READY: OnceCell<()> = OnceCell::const_new();
    READY
        .get_or_init(|| async {
            put(client, "/world", configuration(client, lifetime).await)
                .await
                .expect("the emulator accepts the configuration");
            // The requests of an earlier run do not count.
            let clear = http::Request::delete(format!("{CONTROL}/requests"));
            let clear = clear.body(Vec::new()).unwrap();
            client
                .request_text(clear)
                .await
                .expect("the emulator clears its log");
        })
        .await;
}

/// Pushes small private images with these names, REPOSITORY:TAG, to the registry.
pub async fn push_images(images: impl IntoIterator<Item = String>) {
    script("push-image.sh", images).await;
}

/// Makes Azure unreachable for webhook and kubelets while `during` runs. Azure is restored even after a panic.
pub async fn outage<T>(client: &Client, during: impl Future<Output = T>) -> T {
    // Open connections survive the change of the Service.
    let endpoints = [
        "entra.token",
        "acr.challenge",
        "acr.exchange",
        "acr.token",
        "acr.registry",
    ];
    let resets = endpoints.map(|endpoint| json!({"endpoint": endpoint, "effect": "reset"}));
    put(client, "/faults", json!(resets)).await.unwrap();
    set_port(client, json!(1)).await;
    finally(during, async {
        set_port(client, json!("https")).await;
        put(client, "/faults", slowness()).await.unwrap();
    })
    .await
}

/// Runs `during`, which configures another Azure. Azure is restored even after a panic.
pub async fn with_another_world<T>(client: &Client, during: impl Future<Output = T>) -> T {
    finally(during, async {
        let world = configuration(client, TOKEN_LIFETIME).await;
        put(client, "/world", world).await.unwrap();
    })
    .await
}

/// Runs `after` when `during` has ended, even by a panic.
async fn finally<T>(during: impl Future<Output = T>, after: impl Future<Output = ()>) -> T {
    let ended = AssertUnwindSafe(during).catch_unwind().await;
    after.await;
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Sets the port of the emulator's Pod for connections to Azure. Without a listener on the port, connections are
/// refused. The next deployment repairs the Service after an interrupted run.
async fn set_port(client: &Client, port: Value) {
    let services = Api::<Service>::namespaced(client.clone(), "azure-emulator");
    let ports = json!({"spec": {"ports": [{"port": 443, "targetPort": port}]}});
    services
        .patch("azure-emulator", &Default::default(), &Patch::Strategic(ports))
        .await
        .unwrap();
}

/// All requests to the endpoint of managed identities.
pub async fn managed_identity_requests(client: &Client) -> Vec<RequestRecord> {
    let all: Vec<RequestRecord> = get(client, "/requests").await;
    all.into_iter()
        .filter(|r| matches!(r.endpoint, Some(Endpoint::ImdsToken | Endpoint::AppServiceToken)))
        .collect()
}

/// All requests of this subject.
pub async fn requests_of(client: &Client, subject: &str) -> Vec<RequestRecord> {
    let all: Vec<RequestRecord> = get(client, "/requests").await;
    all.into_iter()
        .filter(|r| r.subject.as_deref() == Some(subject))
        .collect()
}

/// All tokens that were issued and all credentials that were presented since the emulator started.
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

async fn put(client: &Client, path: &str, body: Value) -> kube::Result<String> {
    let request = http::Request::put(format!("{CONTROL}{path}"))
        .body(body.to_string().into_bytes())
        .unwrap();
    client.request_text(request).await
}

/// Azure without applications and rights, which knows the issuer of the cluster.
pub async fn empty_world(client: &Client) -> Value {
    let (issuer, jwks) = issuer(client).await;
    world(&issuer, jwks, Vec::new(), UPSTREAM, Vec::new())
}

/// The issuer of the cluster, and its keys.
async fn issuer(client: &Client) -> (String, Value) {
    let raw = async |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        client.request::<Value>(request).await.unwrap()
    };
    let discovery = raw("/.well-known/openid-configuration").await;
    let issuer = discovery["issuer"].as_str().unwrap().to_owned();
    (issuer, raw("/openid/v1/jwks").await)
}

/// Azure with an application for each scenario.
async fn configuration(client: &Client, token_lifetime: &str) -> Value {
    let (issuer, jwks) = issuer(client).await;
    let all = || Scenario::ALL.iter();
    let applications = all()
        .map(|scenario| application(&scenario.client_id(), &issuer, &scenario.namespace(), &["app"]))
        .collect();
    let rights = all()
        .map(|scenario| pull_right(&scenario.client_id(), &scenario.repository()))
        .collect();
    let mut world = world(&issuer, jwks, applications, UPSTREAM, rights);
    add_managed_identities(&mut world, &Scenario::ManagedIdentity.repository());
    set_token_lifetime(&mut world, token_lifetime);
    // deploy.sh configures this header on a cluster that is neither kind nor local.
    world["appService"] = json!({"identityHeader": "of-the-end-to-end-tests"});
    world["faults"] = slowness();
    world
}

fn slowness() -> Value {
    json!([
        {"endpoint": "entra.token", "effect": {"delay": "300ms"}},
        {"endpoint": "acr.exchange", "effect": {"delay": "150ms"}},
        {"endpoint": "acr.token", "effect": {"delay": "100ms"}},
    ])
}
