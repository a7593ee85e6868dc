//! A small Azure to test against: two tenants, applications and managed identities in them, two registries.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use azure_emulator::{AssertionIssuer, Emulator, Options, World};
use serde_json::Value;

mod key_server;
mod registry;

pub use key_server::KeyServer;
pub use registry::{Registry, fresh_folder, repository, script};

pub const TENANT: &str = "72f988bf-86f1-41af-91ab-000000000001";
pub const OTHER_TENANT: &str = "72f988bf-86f1-41af-91ab-000000000002";
/// May pull `shop/*` and list; proves itself by assertion or secret.
pub const WEB: &str = "11111111-1111-1111-1111-111111111111";
/// May pull and push everything; proves itself by secret.
pub const WRITER: &str = "22222222-2222-2222-2222-222222222222";
/// Has no right anywhere.
pub const NOBODY: &str = "33333333-3333-3333-3333-333333333333";
/// Lives in the other tenant, which has no registry.
pub const STRANGER: &str = "44444444-4444-4444-4444-444444444444";

/// The system-assigned managed identity; may pull `shop/*` and list.
pub const MACHINE: &str = "55555555-5555-5555-5555-555555555555";
pub const MACHINE_RESOURCE: &str =
    "/subscriptions/5ab/resourcegroups/shop/providers/Microsoft.Compute/virtualMachines/machine";
/// A user-assigned managed identity; may pull `shop/*` and list.
pub const PULLER: &str = "66666666-6666-6666-6666-666666666666";
pub const PULLER_RESOURCE: &str = "/subscriptions/5ab/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller";
/// A user-assigned managed identity without any right.
pub const IDLE: &str = "77777777-7777-7777-7777-777777777777";
/// What `IDENTITY_HEADER` is.
pub const IDENTITY_HEADER: &str = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a";

pub const SECRET: &str = "Kq8~correct-horse-battery-staple";
pub const ISSUER: &str = "https://oidc.example.com/cluster/";
pub const SUBJECT: &str = "system:serviceaccount:shop:web";
pub const AUDIENCE: &str = "api://AzureADTokenExchange";
pub const ACR: &str = "https://containerregistry.azure.net";
pub const CONTOSO: &str = "contoso.azurecr.io";
pub const FABRIKAM: &str = "fabrikam.azurecr.io";
/// The user name that says "the password is a token".
pub const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

/// An emulator with an HTTP client that reaches it as programs in production reach Azure.
pub struct Azure {
    pub emulator: Emulator,
    pub issuer: AssertionIssuer,
    pub http: reqwest::Client,
}

/// A reply read to its end.
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

/// The world of these tests, its registries in front of `upstream`.
pub fn world_yaml(upstream: &str) -> String {
    let jwks = issuer().jwks();
    format!(
        "
tenants:
  - id: {TENANT}
    domains: [contoso.onmicrosoft.com]
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
  - {{clientId: {MACHINE}, tenant: {TENANT}, resourceId: {MACHINE_RESOURCE}, systemAssigned: true}}
  - {{clientId: {PULLER}, tenant: {TENANT}, resourceId: {PULLER_RESOURCE}}}
  - {{clientId: {IDLE}, tenant: {TENANT}}}
appService: {{identityHeader: {IDENTITY_HEADER}}}
issuers:
  - {{issuer: '{ISSUER}', jwks: {jwks}}}
registries:
  - host: {CONTOSO}
    tenant: {TENANT}
    upstream: {upstream}
    rights:
      - {{clientId: {WEB}, repositories: ['shop/*'], actions: [pull], catalog: true}}
      - {{clientId: {WRITER}, repositories: ['*'], actions: [pull, push, delete], catalog: true}}
      - {{clientId: {MACHINE}, repositories: ['shop/*'], actions: [pull], catalog: true}}
      - {{clientId: {PULLER}, repositories: ['shop/*'], actions: [pull], catalog: true}}
  - host: {FABRIKAM}
    tenant: {TENANT}
    upstream: {upstream}
    acceptArmTokens: false
    rights:
      - {{clientId: {WEB}, repositories: ['*'], actions: [pull]}}
"
    )
}

pub fn issuer() -> AssertionIssuer {
    AssertionIssuer::new(ISSUER).unwrap()
}

// === impl Azure ===

impl Azure {
    /// With no registry behind: for tests that end before it would be asked.
    pub fn start() -> Self {
        Self::with(&world_yaml("http://127.0.0.1:9"))
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

    /// Asks Entra with these form fields.
    pub async fn entra(&self, tenant: &str, form: &[(&str, &str)]) -> Reply {
        let url = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
        Reply::of(self.http.post(url).form(form)).await
    }

    pub async fn entra_by_assertion(&self, client_id: &str, assertion: &str) -> Reply {
        self.entra(
            TENANT,
            &[
                ("client_assertion", assertion),
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ),
                ("client_id", client_id),
                ("grant_type", "client_credentials"),
                ("scope", &format!("{ACR}/.default")),
            ],
        )
        .await
    }

    /// An Entra token of the application, by its secret.
    pub async fn entra_token(&self, tenant: &str, client_id: &str, resource: &str) -> String {
        let scope = format!("{resource}/.default");
        let form = [
            ("client_id", client_id),
            ("client_secret", SECRET),
            ("grant_type", "client_credentials"),
            ("scope", &scope),
        ];
        self.entra(tenant, &form).await.ok()["access_token"]
            .as_str()
            .unwrap()
            .to_owned()
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
        let entra = self.entra_token(TENANT, client_id, ACR).await;
        self.exchange(registry, &entra).await.ok()["refresh_token"]
            .as_str()
            .unwrap()
            .to_owned()
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
        self.token(registry, &refresh, scope).await.ok()["access_token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The CA in a file of its own, for clients that want one.
    pub fn ca_file(&self, name: &str) -> PathBuf {
        let folder = fresh_folder(name);
        std::fs::write(folder.join("ca.crt"), self.emulator.ca_pem()).unwrap();
        folder.join("ca.crt")
    }
}

/// A client that goes through the proxy, trusts this CA only, and follows nothing.
pub fn client(proxy: &str, ca_pem: &str) -> reqwest::Client {
    let ca = reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap();
    reqwest::Client::builder()
        .proxy(reqwest::Proxy::https(proxy).unwrap())
        .tls_certs_only([ca])
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

// === impl Reply ===

impl Reply {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
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

    /// The document of a good reply.
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

// === conditions ===

/// Waits until the condition holds, at most ten seconds.
pub fn await_condition(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "waited ten seconds in vain for: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
