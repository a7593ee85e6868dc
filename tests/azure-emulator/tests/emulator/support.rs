//! A small Azure to test against: two tenants with applications and managed identities, and two registries.

use azure_emulator::{AssertionIssuer, Emulator, Options, World};
use reqwest::{Certificate, Client, Proxy, RequestBuilder, header::HeaderMap, redirect::Policy};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

mod registry;

pub use registry::{Registry, fresh_folder, repository, script};

pub const TENANT: &str = "72f988bf-86f1-41af-91ab-000000000001";
/// A domain of that tenant.
pub const DOMAIN: &str = "contoso.onmicrosoft.com";
pub const OTHER_TENANT: &str = "72f988bf-86f1-41af-91ab-000000000002";
/// May pull `shop/*`. Has a federated credential and a secret.
pub const WEB: &str = "11111111-1111-1111-1111-111111111111";
/// May pull and push everything. Has a secret.
pub const WRITER: &str = "22222222-2222-2222-2222-222222222222";
/// Has no rights.
pub const NOBODY: &str = "33333333-3333-3333-3333-333333333333";
/// Belongs to the other tenant, which has no registry.
pub const STRANGER: &str = "44444444-4444-4444-4444-444444444444";

/// The system-assigned managed identity. May pull `shop/*`.
pub const MACHINE: &str = "55555555-5555-5555-5555-555555555555";
/// A user-assigned managed identity. May pull `shop/*`.
pub const PULLER: &str = "66666666-6666-6666-6666-666666666666";
pub const PULLER_RESOURCE: &str = "/subscriptions/5ab/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller";
/// The value of `IDENTITY_HEADER`.
pub const IDENTITY_HEADER: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";

pub const SECRET: &str = "Kq8~correct-horse-battery-staple";
pub const ISSUER: &str = "https://oidc.example.com/cluster/";
pub const SUBJECT: &str = "system:serviceaccount:shop:web";
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub const AUDIENCE: &str = "api://AzureADTokenExchange";
pub const ACR: &str = "https://containerregistry.azure.net";
pub const CONTOSO: &str = "contoso.azurecr.io";
pub const FABRIKAM: &str = "fabrikam.azurecr.io";
/// The user name whose password is a token.
pub const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

/// The world of these tests. Its registries forward requests to `upstream`.
pub fn world_yaml(upstream: &str) -> String {
    let jwks = issuer().jwks();
    format!(
        "
tenants:
  - id: {TENANT}
    domains: [{DOMAIN}]
    applications:
      - clientId: {WEB}
        secrets: [{SECRET}]
        federatedCredentials: [{{issuer: '{ISSUER}', subject: '{SUBJECT}'}}]
      - {{clientId: {WRITER}, secrets: [{SECRET}]}}
      - {{clientId: {NOBODY}, secrets: [{SECRET}]}}
  - id: {OTHER_TENANT}
    applications:
      - {{clientId: {STRANGER}, secrets: [{SECRET}]}}
managedIdentities:
  - {{clientId: {MACHINE}, tenant: {TENANT}, systemAssigned: true}}
  - {{clientId: {PULLER}, tenant: {TENANT}, resourceId: {PULLER_RESOURCE}}}
appService: {{identityHeader: {IDENTITY_HEADER}}}
issuers:
  - {{issuer: '{ISSUER}', jwks: {jwks}}}
registries:
  - host: {CONTOSO}
    tenant: {TENANT}
    upstream: {upstream}
    rights:
      - {{clientId: {WEB}, repositories: ['shop/*'], actions: [pull]}}
      - {{clientId: {WRITER}, repositories: ['*'], actions: [pull, push]}}
      - {{clientId: {MACHINE}, repositories: ['shop/*'], actions: [pull]}}
      - {{clientId: {PULLER}, repositories: ['shop/*'], actions: [pull]}}
  - host: {FABRIKAM}
    tenant: {TENANT}
    upstream: {upstream}
    rights:
      - {{clientId: {WEB}, repositories: ['*'], actions: [pull]}}
"
    )
}

/// The world of these tests, without a registry behind the emulator.
pub fn world() -> String {
    world_yaml("http://127.0.0.1:9")
}

pub fn issuer() -> AssertionIssuer {
    AssertionIssuer::new(ISSUER).unwrap()
}

/// An emulator with an HTTP client that reaches it as programs in production reach Azure.
pub struct Azure {
    pub emulator: Emulator,
    pub issuer: AssertionIssuer,
    pub http: Client,
}

impl Azure {
    /// An emulator without a registry behind it.
    pub fn start() -> Self {
        Self::with(&world())
    }

    pub fn with(yaml: &str) -> Self {
        let emulator = Emulator::start(World::parse(yaml).unwrap(), Options::default()).unwrap();
        let http = client(&emulator.proxy_url().unwrap(), emulator.ca_pem());
        Self {
            emulator,
            issuer: issuer(),
            http,
        }
    }

    pub async fn get(&self, url: &str) -> Reply {
        Reply::of(self.http.get(url)).await
    }

    pub async fn get_with(&self, url: &str, token: &str) -> Reply {
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        Reply::of(self.http.get(url).bearer_auth(token).header("accept", manifest)).await
    }

    /// Sends these form fields to Entra.
    pub async fn entra(&self, tenant: &str, form: &[(&str, &str)]) -> Reply {
        let url = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
        Reply::of(self.http.post(url).form(form)).await
    }

    /// Requests a token from Entra with a valid assertion.
    pub async fn entra_by_valid_assertion(&self) -> Reply {
        let assertion = self.issuer.assertion(SUBJECT, AUDIENCE);
        self.entra_by_assertion(WEB, &assertion).await
    }

    pub async fn entra_by_assertion(&self, client_id: &str, assertion: &str) -> Reply {
        self.entra(
            TENANT,
            &[
                ("client_assertion", assertion),
                ("client_assertion_type", JWT_BEARER),
                ("client_id", client_id),
                ("grant_type", "client_credentials"),
                ("scope", &format!("{ACR}/.default")),
            ],
        )
        .await
    }

    /// An Entra token of the application with the secret.
    pub async fn entra_token(&self, tenant: &str, client_id: &str) -> String {
        let scope = format!("{ACR}/.default");
        let form = [
            ("client_id", client_id),
            ("client_secret", SECRET),
            ("grant_type", "client_credentials"),
            ("scope", &scope),
        ];
        self.entra(tenant, &form).await.token("access_token")
    }

    pub async fn exchange(&self, registry: &str, entra_token: &str) -> Reply {
        let form = [
            ("grant_type", "access_token"),
            ("service", registry),
            ("access_token", entra_token),
        ];
        Reply::of(
            self.http
                .post(format!("https://{registry}/oauth2/exchange"))
                .form(&form),
        )
        .await
    }

    /// An ACR refresh token of the application.
    pub async fn refresh_token(&self, registry: &str, client_id: &str) -> String {
        let entra = self.entra_token(TENANT, client_id).await;
        self.exchange(registry, &entra).await.token("refresh_token")
    }

    pub async fn token(&self, registry: &str, refresh_token: &str, scope: &str) -> Reply {
        let form = [
            ("grant_type", "refresh_token"),
            ("service", registry),
            ("scope", scope),
            ("refresh_token", refresh_token),
        ];
        Reply::of(
            self.http
                .post(format!("https://{registry}/oauth2/token"))
                .form(&form),
        )
        .await
    }

    /// An ACR access token of the application.
    pub async fn access_token(&self, registry: &str, client_id: &str, scope: &str) -> String {
        let refresh = self.refresh_token(registry, client_id).await;
        self.token(registry, &refresh, scope).await.token("access_token")
    }

    /// The certificate authority in a file, in a new folder.
    pub fn ca_file(&self, name: &str) -> PathBuf {
        let file = fresh_folder(name).join("ca.crt");
        fs::write(&file, self.emulator.ca_pem()).unwrap();
        file
    }
}

/// A client that uses the proxy, trusts only this certificate authority, and follows no redirect.
pub fn client(proxy: &str, ca_pem: &str) -> Client {
    let ca = Certificate::from_pem(ca_pem.as_bytes()).unwrap();
    Client::builder()
        .proxy(Proxy::https(proxy).unwrap())
        .tls_certs_only([ca])
        .redirect(Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

/// A response with its whole body.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self {
            status,
            headers,
            text: response.text().await.unwrap(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// A field of a successful response.
    pub fn token(&self, field: &str) -> String {
        self.ok()[field].as_str().unwrap().to_owned()
    }

    /// The document of a successful response.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of ACR's first error.
    pub fn acr_code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Waits until the condition holds, at most ten seconds.
pub fn await_condition(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "after ten seconds there is still not: {what}"
        );
        sleep(Duration::from_millis(10));
    }
}
