//! Azure as tests see it: the emulator with two teams, what it was asked, and what a token permits.

use crate::speed;
use azure_emulator::{Credentials, Emulator, Endpoint, Fault, Options, RequestRecord, World};
use serde_json::{Value, json};

pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
pub const REGISTRY: &str = "contoso.azurecr.io";
/// The header that the endpoint of managed identities requires of the webhooks under test.
pub const IDENTITY_HEADER: &str = "853b9a84-0000-4b22-a3f3-0b9a43d9ad8a";
/// The client id of the system-assigned managed identity.
pub const SYSTEM_IDENTITY: &str = "55555555-5555-5555-5555-555555555555";
/// The client id and the resource id of the user-assigned managed identity.
pub const USER_IDENTITY: &str = "66666666-6666-6666-6666-666666666666";
pub const USER_IDENTITY_RESOURCE: &str = "/subscriptions/5ab/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller";
/// The client id and the secret of the service principal.
pub const PRINCIPAL: &str = "dddddddd-dddd-dddd-dddd-dddddddddddd";
pub const PRINCIPAL_SECRET: &str = "Kq8~correct-horse-battery-staple";

/// An emulator. It stops with this value.
pub struct Azure {
    pub emulator: Emulator,
}

impl Azure {
    pub fn start(world: &Value) -> Self {
        let world = World::parse(&world.to_string()).unwrap();
        let emulator = Emulator::start(world, Options::default()).unwrap();
        Self { emulator }
    }

    /// An Azure without a tenant, for webhooks that issue no token.
    pub fn without_tenants() -> Self {
        Self::start(&json!({"tenants": []}))
    }

    pub fn set_faults(&self, faults: &[Fault]) {
        self.emulator.set_faults(faults);
    }

    pub fn clear_faults(&self) {
        self.set_faults(&[]);
    }

    /// Replaces tenants, registries and rights.
    pub fn apply(&self, world: &Value) {
        self.emulator.apply(World::parse(&world.to_string()).unwrap());
    }

    pub fn requests(&self) -> Vec<RequestRecord> {
        self.emulator.requests()
    }

    pub fn clear_requests(&self) {
        self.emulator.clear_requests();
    }

    pub fn credentials(&self) -> Credentials {
        self.emulator.credentials()
    }

    pub fn ca_pem(&self) -> &str {
        self.emulator.ca_pem()
    }

    /// The requests to one endpoint.
    pub fn records(&self, endpoint: Endpoint) -> Vec<RequestRecord> {
        let mut records = self.requests();
        records.retain(|record| record.endpoint == Some(endpoint));
        records
    }

    /// How many requests one endpoint received.
    pub fn calls(&self, endpoint: Endpoint) -> usize {
        self.records(endpoint).len()
    }

    /// How many requests of one application one endpoint received.
    pub fn calls_of(&self, client_id: &str, endpoint: Endpoint) -> usize {
        let mut records = self.records(endpoint);
        records.retain(|record| record.client_id.as_deref() == Some(client_id));
        records.len()
    }

    /// The subjects of all requests for an Entra token.
    pub fn subjects(&self) -> Vec<String> {
        let records = self.records(Endpoint::EntraToken);
        records.into_iter().filter_map(|record| record.subject).collect()
    }

    /// A client whose requests the emulator answers.
    pub fn client(&self) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.ca_pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .proxy(reqwest::Proxy::all(self.emulator.proxy_url().unwrap()).unwrap())
            .tls_certs_only([ca])
            .build()
            .unwrap()
    }

    /// The status of a request for the manifest `1` of a repository with these credentials: 502 means authorized, as no
    /// registry is behind the emulator.
    pub async fn pull_status(&self, (user, password): (String, String), repository: &str) -> u16 {
        let client = self.client();
        let scope = format!("repository:{repository}:pull");
        let token = client
            .get(format!("https://{REGISTRY}/oauth2/token"))
            .query(&[("service", REGISTRY), ("scope", &scope)])
            .basic_auth(user, Some(password))
            .send()
            .await
            .unwrap();
        if token.status() != 200 {
            return token.status().as_u16();
        }
        let token: Value = token.json().await.unwrap();
        let manifest = client
            .get(format!("https://{REGISTRY}/v2/{repository}/manifests/1"))
            .bearer_auth(token["access_token"].as_str().unwrap())
            .send()
            .await
            .unwrap();
        manifest.status().as_u16()
    }
}

/// An application that trusts service accounts of a namespace.
pub fn application(client_id: &str, issuer: &str, namespace: &str, accounts: &[&str]) -> Value {
    let trust = |account: &&str| {
        let subject = format!("system:serviceaccount:{namespace}:{account}");
        json!({"issuer": issuer, "subject": subject})
    };
    let credentials: Vec<_> = accounts.iter().map(trust).collect();
    json!({"clientId": client_id, "federatedCredentials": credentials})
}

/// The right to pull from one repository.
pub fn pull_right(client_id: &str, repository: &str) -> Value {
    json!({"clientId": client_id, "repositories": [repository], "actions": ["pull"]})
}

/// The configuration of an emulator with one tenant and one registry.
pub fn world(
    issuer: &str,
    jwks: Value,
    applications: Vec<Value>,
    upstream: &str,
    rights: Vec<Value>,
) -> Value {
    json!({
        "tenants": [{"id": TENANT, "applications": applications}],
        "issuers": [{"issuer": issuer, "jwks": jwks}],
        "registries": [{"host": REGISTRY, "tenant": TENANT, "upstream": upstream, "rights": rights}],
        "appService": {"identityHeader": IDENTITY_HEADER},
    })
}

/// Sets how long the tokens of the registry are valid.
pub fn set_token_lifetime(world: &mut Value, lifetime: &str) {
    world["tokens"] = json!({"acrRefreshLifetime": lifetime});
}

/// A change of the configuration: tokens are valid for this many seconds, scaled with the speed of the machine.
pub fn token_lifetime(seconds: u32) -> impl FnOnce(&mut Value) {
    move |world| set_token_lifetime(world, &format!("{}s", speed::seconds(seconds.into()).as_secs()))
}

/// Adds an application with the rights of team A, for a service account of this name in the namespace of team A.
pub fn add_application(world: &mut Value, account: &str, client_id: &str) {
    let applications = world["tenants"][0]["applications"].as_array_mut().unwrap();
    let mut application = applications[0].clone();
    let mut trust = application["federatedCredentials"][0].clone();
    let subject_of_app = trust["subject"].as_str().unwrap();
    trust["subject"] = format!("{}:{account}", subject_of_app.strip_suffix(":app").unwrap()).into();
    application["federatedCredentials"] = json!([trust]);
    application["clientId"] = client_id.into();
    applications.push(application);
    let mut right = rights(world)[0].clone();
    right["clientId"] = client_id.into();
    rights(world).push(right);
}

/// Adds a registry with the rights of the first one.
pub fn add_registry(world: &mut Value, host: &str) {
    let registries = world["registries"].as_array_mut().unwrap();
    let mut registry = registries[0].clone();
    registry["host"] = host.into();
    registries.push(registry);
}

/// Adds both managed identities, which may pull from this repository.
pub fn add_managed_identities(world: &mut Value, repository: &str) {
    world["managedIdentities"] = json!([
        {"clientId": SYSTEM_IDENTITY, "tenant": TENANT, "systemAssigned": true},
        {"clientId": USER_IDENTITY, "tenant": TENANT, "resourceId": USER_IDENTITY_RESOURCE},
    ]);
    rights(world).extend([SYSTEM_IDENTITY, USER_IDENTITY].map(|identity| pull_right(identity, repository)));
}

/// Adds the service principal, which may pull the image of team A.
pub fn add_service_principal(world: &mut Value) {
    let applications = world["tenants"][0]["applications"].as_array_mut().unwrap();
    applications.push(json!({"clientId": PRINCIPAL, "secrets": [PRINCIPAL_SECRET]}));
    rights(world).push(pull_right(PRINCIPAL, "team-a/app"));
}

fn rights(world: &mut Value) -> &mut Vec<Value> {
    world["registries"][0]["rights"].as_array_mut().unwrap()
}
