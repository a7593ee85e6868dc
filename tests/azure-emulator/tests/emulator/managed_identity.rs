//! Tokens of managed identities, in the form of IMDS and in that of App Service: by Microsoft's client and request by request.

use azure_emulator::Endpoint;
use serde_json::{Value, json};

use crate::microsoft_clients::list_with;
use crate::skopeo::Skopeo;
use crate::support::*;
use crate::tokens::claims_of;

mod refusals;

const IMDS_QUERY: &str = "api-version=2018-02-01&resource=https%3A%2F%2Fcontainerregistry.azure.net";
const APP_SERVICE_QUERY: &str = "api-version=2019-08-01&resource=https%3A%2F%2Fcontainerregistry.azure.net";
const FORWARDED: (&str, &str) = ("X-Forwarded-For", "192.0.2.1");
const METADATA: (&str, &str) = ("Metadata", "true");
const RIGHT_HEADER: (&str, &str) = ("X-IDENTITY-HEADER", IDENTITY_HEADER);

async fn ask(url: String, headers: &[(&str, &str)]) -> Reply {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = headers.iter().fold(client.get(url), |request, (name, value)| {
        request.header(*name, *value)
    });
    Reply::of(request).await
}

async fn imds_with(azure: &Azure, query: &str, headers: &[(&str, &str)]) -> Reply {
    let base = azure.emulator.imds_url().unwrap();
    ask(format!("{base}/metadata/identity/oauth2/token?{query}"), headers).await
}

/// Asks IMDS for ACR, with these further parameters.
async fn imds(azure: &Azure, more: &str) -> Reply {
    imds_with(azure, &format!("{IMDS_QUERY}{more}"), &[METADATA]).await
}

async fn app_service_with(azure: &Azure, query: &str, headers: &[(&str, &str)]) -> Reply {
    ask(
        format!("{}?{query}", azure.emulator.identity_endpoint().unwrap()),
        headers,
    )
    .await
}

async fn app_service(azure: &Azure, more: &str) -> Reply {
    app_service_with(azure, &format!("{APP_SERVICE_QUERY}{more}"), &[RIGHT_HEADER]).await
}

fn described(reply: &Reply) -> (u16, String, String) {
    let text = |field: &str| reply.json()[field].as_str().unwrap_or_default().to_owned();
    (reply.status, text("error"), text("error_description"))
}

fn message(reply: &Reply) -> (u16, String) {
    assert_eq!(reply.json()["statusCode"], reply.status, "{}", reply.text);
    (reply.status, reply.json()["message"].as_str().unwrap().to_owned())
}

/// The whole way by clients of Microsoft's: managed identity, exchange, registry.
#[tokio::test(flavor = "multi_thread")]
async fn microsofts_client_gets_in_by_app_service_and_by_imds_system_and_user_assigned() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    Skopeo::new(&azure)
        .push(&azure, &format!("{CONTOSO}/shop/web:v1"))
        .await;
    let (endpoint, imds) = (
        azure.emulator.identity_endpoint().unwrap(),
        azure.emulator.imds_url().unwrap(),
    );
    let app_service = [
        ("IDENTITY_ENDPOINT", endpoint.as_str()),
        ("IDENTITY_HEADER", IDENTITY_HEADER),
    ];
    // The one variable by which that client's IMDS address can be changed.
    let machine = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds.as_str())];
    for (environment, asked) in [
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
            let wish = json!({"managedIdentity": arguments, "registry": CONTOSO, "audience": ACR});
            let listed = list_with(&azure, &wish, environment);
            assert_eq!(
                listed,
                json!({"repositories": {"shop/web": ["v1"]}}),
                "{asked:?} {arguments}"
            );
            let requests = azure.emulator.requests();
            let of = |endpoint| {
                requests
                    .iter()
                    .find(|one| one.endpoint == Some(endpoint))
                    .unwrap_or_else(|| panic!("never asked: {endpoint:?}"))
            };
            assert_eq!(of(asked).client_id.as_deref(), Some(client_id));
            assert_eq!(of(Endpoint::AcrExchange).client_id.as_deref(), Some(client_id));
            assert!(
                !requests
                    .iter()
                    .any(|one| one.endpoint == Some(Endpoint::EntraToken))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn microsofts_client_understands_the_refusals() {
    let azure = Azure::start();
    let endpoint = azure.emulator.identity_endpoint().unwrap();
    let imds = azure.emulator.imds_url().unwrap();
    let unknown = json!({"managedIdentity": {"client_id": STRANGER}, "registry": CONTOSO, "audience": ACR});
    let app_service = |header| {
        [
            ("IDENTITY_ENDPOINT", endpoint.as_str()),
            ("IDENTITY_HEADER", header),
        ]
    };
    for (wish, environment, part) in [
        (
            &unknown,
            &app_service(IDENTITY_HEADER)[..],
            "No User Assigned or Delegated Managed Identity",
        ),
        (&unknown, &app_service("wrong")[..], "403"),
        (
            &unknown,
            &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", imds.as_str())][..],
            "Identity not found",
        ),
    ] {
        let refused = list_with(&azure, wish, environment);
        assert!(
            refused["error"]
                .as_str()
                .is_some_and(|error| error.contains(part)),
            "{part}: {refused}"
        );
    }
}

#[tokio::test]
async fn imds_answers_in_its_own_form_and_the_token_is_entras() {
    let azure = Azure::start();
    let reply = imds(&azure, "").await;
    let document = reply.ok();
    let text = |field: &str| {
        document[field]
            .as_str()
            .unwrap_or_else(|| panic!("{field} is no string"))
    };
    let claims = claims_of(text("access_token"));
    assert_eq!(text("expires_on"), claims["exp"].to_string());
    assert_eq!(text("not_before"), claims["nbf"].to_string());
    assert_eq!((text("expires_in"), text("ext_expires_in")), ("86399", "86399"));
    assert_eq!(
        (text("resource"), text("token_type"), text("client_id")),
        (ACR, "Bearer", MACHINE)
    );
    assert_eq!(document.as_object().unwrap().len(), 8, "{document}");
    assert!(reply.header("server").starts_with("IMDS/"));
    for (claim, value) in [
        ("aud", ACR),
        ("appid", MACHINE),
        ("tid", TENANT),
        ("idtyp", "app"),
        ("xms_mirid", MACHINE_RESOURCE),
    ] {
        assert_eq!(claims[claim], value, "{claim}");
    }
    azure.exchange(CONTOSO, text("access_token")).await.ok();
}

#[tokio::test]
async fn app_service_answers_in_its_own_form_and_the_token_opens_the_exchange() {
    let azure = Azure::start();
    let document = app_service(&azure, "").await.ok();
    let token = document["access_token"].as_str().unwrap();
    let claims = claims_of(token);
    assert_eq!(
        document,
        json!({
            "access_token": token,
            "client_id": MACHINE,
            "expires_on": claims["exp"].to_string(),
            "resource": ACR,
            "token_type": "Bearer",
        })
    );
    azure.exchange(CONTOSO, token).await.ok();
}

#[tokio::test]
async fn an_identity_is_found_by_each_of_its_ids_and_recorded_as_it_was_asked_for() {
    let azure = Azure::start();
    let object_id = |document: &Value| {
        claims_of(document["access_token"].as_str().unwrap())["oid"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let oid = object_id(&imds(&azure, &format!("&client_id={PULLER}")).await.ok());
    for (at_imds, parameter, value) in [
        (true, "client_id", PULLER),
        (true, "object_id", &oid),
        (true, "msi_res_id", PULLER_RESOURCE),
        (true, "mi_res_id", PULLER_RESOURCE),
        (false, "client_id", PULLER),
        (false, "principal_id", &oid),
        (false, "object_id", &oid),
        (false, "mi_res_id", PULLER_RESOURCE),
    ] {
        azure.emulator.clear_requests();
        let more = format!("&{parameter}={value}");
        let reply = match at_imds {
            true => imds(&azure, &more).await,
            false => app_service(&azure, &more).await,
        };
        assert_eq!(reply.ok()["client_id"], PULLER, "{parameter}");
        assert_eq!(object_id(&reply.ok()), oid);
        let record = azure.emulator.requests().remove(0);
        let endpoint = if at_imds {
            Endpoint::ImdsToken
        } else {
            Endpoint::AppServiceToken
        };
        assert_eq!((record.endpoint, record.status), (Some(endpoint), Some(200)));
        assert_eq!(
            (record.client_id.as_deref(), record.tenant.as_deref()),
            (Some(PULLER), Some(TENANT))
        );
        assert_eq!(record.resource.as_deref(), Some(ACR));
        assert_eq!(record.query_keys, ["api-version", "resource", parameter]);
        assert_eq!(record.resource_id.is_some(), parameter.ends_with("res_id"));
        assert_eq!(
            record.object_id.is_some(),
            matches!(parameter, "object_id" | "principal_id")
        );
    }
}

/// As Azure Workload Identity uses them: the same identity, by assertion.
#[tokio::test]
async fn a_managed_identity_that_is_also_an_application_has_one_object_id_both_ways() {
    let machine = format!("clientId: {MACHINE}, tenant: {TENANT}");
    let object_id = "88888888-8888-8888-8888-888888888888";
    let yaml = world_yaml("http://127.0.0.1:9")
        .replace(&machine, &format!("{machine}, objectId: {object_id}"))
        .replace(NOBODY, MACHINE);
    let azure = Azure::with(&yaml);
    let by_entra = claims_of(&azure.entra_token(TENANT, MACHINE, ACR).await);
    let by_imds = imds(&azure, "").await.ok();
    let by_imds = claims_of(by_imds["access_token"].as_str().unwrap());
    for claims in [by_entra, by_imds] {
        assert_eq!(
            (claims["oid"].as_str(), claims["sub"].as_str()),
            (Some(object_id), Some(object_id))
        );
        assert_eq!(claims["xms_mirid"], MACHINE_RESOURCE);
    }
}

#[tokio::test]
async fn azures_clock_and_the_lifetime_of_the_world_hold_here_too() {
    let yaml =
        world_yaml("http://127.0.0.1:9") + "tokens: {managedIdentityLifetime: 10m}\nclock: {offset: 1h}\n";
    let azure = Azure::with(&yaml);
    let document = imds(&azure, "").await.ok();
    assert_eq!(document["expires_in"], "599");
    let expires_on: i64 = document["expires_on"].as_str().unwrap().parse().unwrap();
    let ahead = expires_on - jiff::Timestamp::now().as_second();
    assert!((4_190..=4_200).contains(&ahead), "{ahead}");
}
