//! Tokens of managed identities from IMDS and App Service, with Microsoft's client and with single requests.

use crate::{microsoft_clients::read_manifest_with, skopeo::Skopeo, support::*, tokens::claims_of};
use azure_emulator::{Effect, Endpoint, Fault, StatusCode, World};
use reqwest::Client;
use serde_json::json;

const RESOURCE: &str = "resource=https%3A%2F%2Fcontainerregistry.azure.net";

impl Azure {
    fn imds_url(&self) -> String {
        format!("http://{}", self.emulator.imds_addr().unwrap())
    }

    /// Requests a token for ACR with these further parameters.
    async fn imds(&self, parameters: &str) -> Reply {
        let base = self.imds_url();
        let url =
            format!("{base}/metadata/identity/oauth2/token?api-version=2018-02-01&{RESOURCE}{parameters}");
        request(&url, Some(("Metadata", "true"))).await
    }

    /// Requests a token for ACR with these further parameters.
    async fn app_service(&self, parameters: &str) -> Reply {
        let endpoint = self.emulator.identity_endpoint().unwrap();
        let url = format!("{endpoint}?api-version=2019-08-01&{RESOURCE}{parameters}");
        request(&url, Some(("X-IDENTITY-HEADER", IDENTITY_HEADER))).await
    }
}

async fn request(url: &str, header: Option<(&str, &str)>) -> Reply {
    let client = Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(url);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    Reply::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn microsofts_client_reads_a_manifest_with_each_managed_identity() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let image = format!("{CONTOSO}/shop/web:v1");
    Skopeo::new(&azure).push(&azure, &image).await;
    let endpoint = azure.emulator.identity_endpoint().unwrap();
    let app_service = [
        ("IDENTITY_ENDPOINT", endpoint.as_str()),
        ("IDENTITY_HEADER", IDENTITY_HEADER),
    ];
    let imds_url = azure.imds_url();
    // The only variable that changes the client's address of IMDS.
    let machine = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds_url.as_str())];
    for (environment, endpoint) in [
        (&app_service[..], Endpoint::AppServiceToken),
        (&machine[..], Endpoint::ImdsToken),
    ] {
        for (arguments, client_id) in [
            (json!({}), MACHINE),
            (json!({"client_id": PULLER}), PULLER),
            (
                json!({"identity_config": {"resource_id": PULLER_RESOURCE}}),
                PULLER,
            ),
        ] {
            azure.emulator.clear_requests();
            let task = json!({"managedIdentity": arguments, "registry": CONTOSO, "repository": "shop/web", "tag": "v1"});
            let result = read_manifest_with(&azure, &task, environment);
            assert!(result["digest"].is_string(), "{arguments}: {result}");
            for endpoint in [endpoint, Endpoint::AcrExchange] {
                let requests = azure.emulator.requests();
                let record = requests.iter().find(|record| record.endpoint == Some(endpoint));
                assert_eq!(
                    record.unwrap().client_id.as_deref(),
                    Some(client_id),
                    "{endpoint:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn microsofts_client_reports_the_refusal_of_an_unknown_identity() {
    let azure = Azure::start();
    let endpoint = azure.emulator.identity_endpoint().unwrap();
    let imds_url = azure.imds_url();
    let task = json!({"managedIdentity": {"client_id": STRANGER}, "registry": CONTOSO, "repository": "a", "tag": "v1"});
    let app_service = [
        ("IDENTITY_ENDPOINT", endpoint.as_str()),
        ("IDENTITY_HEADER", IDENTITY_HEADER),
    ];
    let machine = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds_url.as_str())];
    for (environment, text) in [
        (&app_service[..], "No User Assigned or Delegated Managed Identity"),
        (&machine[..], "Identity not found"),
    ] {
        let result = read_manifest_with(&azure, &task, environment);
        assert!(result["error"].as_str().unwrap().contains(text), "{result}");
    }
}

#[tokio::test]
async fn both_endpoints_issue_entra_tokens_for_the_exchange() {
    let azure = Azure::start();
    let mut documents = [azure.imds("").await.ok(), azure.app_service("").await.ok()];
    let expires_in = documents[0].as_object_mut().unwrap().remove("expires_in");
    assert_eq!(expires_in, Some(json!("86399")));
    for document in documents {
        let token = document["access_token"].as_str().unwrap();
        let claims = claims_of(token);
        let expected = json!({
            "access_token": token,
            "client_id": MACHINE,
            "expires_on": claims["exp"].to_string(),
            "resource": ACR,
            "token_type": "Bearer",
        });
        assert_eq!(document, expected);
        assert_eq!(
            (claims["appid"].as_str(), claims["tid"].as_str()),
            (Some(MACHINE), Some(TENANT))
        );
        azure.exchange(CONTOSO, token).await.ok();
    }
}

#[tokio::test]
async fn both_endpoints_require_their_header() {
    let azure = Azure::start();
    let imds = format!(
        "{}/metadata/identity/oauth2/token?api-version=2018-02-01&{RESOURCE}",
        azure.imds_url()
    );
    let app_service = format!(
        "{}?api-version=2019-08-01&{RESOURCE}",
        azure.emulator.identity_endpoint().unwrap()
    );
    for (url, header, status) in [
        (&imds, None, 400),
        (&imds, Some(("Metadata", "True")), 400),
        (&app_service, None, 403),
        (&app_service, Some(("X-IDENTITY-HEADER", "wrong")), 403),
    ] {
        assert_eq!(request(url, header).await.status, status, "{header:?}");
    }
}

#[tokio::test]
async fn imds_requires_a_resource_and_a_version_of_microsofts_clients() {
    let azure = Azure::start();
    let url = format!("{}/metadata/identity/oauth2/token", azure.imds_url());
    for version in ["2018-02-01", "2019-08-01"] {
        let url = format!("{url}?api-version={version}&{RESOURCE}");
        request(&url, Some(("Metadata", "true"))).await.ok();
    }
    for query in [
        "api-version=2018-02-01",
        "api-version=2017-01-01&resource=x",
        RESOURCE,
    ] {
        let url = format!("{url}?{query}");
        assert_eq!(
            request(&url, Some(("Metadata", "true"))).await.status,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn app_services_endpoint_exists_only_in_a_world_with_app_service() {
    let azure = Azure::start();
    let without = world().replace("appService:", "#");
    azure.emulator.apply(World::parse(&without).unwrap());
    assert_eq!(azure.app_service("").await.status, 404);
    azure.imds("").await.ok();
}

#[tokio::test]
async fn a_fault_has_the_error_document_of_its_endpoint() {
    let azure = Azure::start();
    let unavailable = Effect::status(StatusCode::SERVICE_UNAVAILABLE);
    let imds = Fault::new(Endpoint::ImdsToken, unavailable.clone());
    let app_service = Fault::new(Endpoint::AppServiceToken, unavailable).of_client(PULLER);
    azure.emulator.set_faults(&[imds, app_service]);
    let reply = azure.imds("").await;
    assert_eq!(reply.status, 503);
    assert!(reply.json()["error"].is_string(), "{}", reply.text);
    let reply = azure.app_service(&format!("&mi_res_id={PULLER_RESOURCE}")).await;
    assert_eq!(reply.json()["statusCode"], 503, "{}", reply.text);
    azure.app_service("").await.ok();
}
