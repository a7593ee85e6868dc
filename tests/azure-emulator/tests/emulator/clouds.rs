//! The sovereign clouds and a host of one's own are served like the public cloud, by proxy and by DNS.

use azure_emulator::Endpoint;

use crate::support::*;

const STACK: &str = "login.stack.example";

fn form() -> [(&'static str, String); 4] {
    [
        ("client_id", WRITER.to_owned()),
        ("client_secret", SECRET.to_owned()),
        ("grant_type", "client_credentials".to_owned()),
        ("scope", format!("{ACR}/.default")),
    ]
}

fn with_a_stack() -> Azure {
    Azure::with(&(world_yaml("http://127.0.0.1:9") + &format!("authorityHosts: [{STACK}]\n")))
}

#[tokio::test]
async fn every_clouds_login_host_and_a_hub_of_ones_own_give_tokens_that_open_the_exchange() {
    let azure = with_a_stack();
    for host in [
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
        "login.partner.microsoftonline.cn",
        "login.microsoftonline.de",
        STACK,
    ] {
        azure.emulator.clear_requests();
        let base = format!("https://{host}/{TENANT}");
        let reply = Reply::of(azure.http.post(format!("{base}/oauth2/v2.0/token")).form(&form())).await;
        let token = reply.ok()["access_token"].as_str().unwrap().to_owned();
        azure.exchange(CONTOSO, &token).await.ok();
        let record = &azure.emulator.requests()[0];
        assert_eq!(
            (record.host.as_str(), record.endpoint),
            (host, Some(Endpoint::EntraToken))
        );
        assert_eq!(record.client_id.as_deref(), Some(WRITER));

        let document = azure
            .get(&format!("{base}/v2.0/.well-known/openid-configuration"))
            .await
            .ok();
        assert_eq!(document["token_endpoint"], format!("{base}/oauth2/v2.0/token"));
        assert_eq!(document["jwks_uri"], format!("{base}/discovery/v2.0/keys"));
    }
}

#[tokio::test]
async fn every_clouds_registries_go_the_whole_chain() {
    for suffix in ["azurecr.us", "azurecr.cn", "azurecr.de"] {
        let registry = format!("contoso.{suffix}");
        let azure = Azure::with(&world_yaml("http://127.0.0.1:9").replace(CONTOSO, &registry));
        let challenge = azure.get(&format!("https://{registry}/v2/")).await;
        let expected = format!("Bearer realm=\"https://{registry}/oauth2/token\",service=\"{registry}\"");
        assert_eq!(challenge.header("www-authenticate"), expected);
        let scope = "repository:shop/web:pull";
        let token = azure.access_token(&registry, WEB, scope).await;
        assert_eq!(
            azure
                .get_with(&format!("https://{registry}/v2/"), &token)
                .await
                .status,
            502
        );
    }
}

#[tokio::test]
async fn a_hub_of_ones_own_is_also_reached_by_dns_and_only_in_its_world() {
    let azure = with_a_stack();
    let address = azure.emulator.https_addr();
    let ca = reqwest::Certificate::from_pem(azure.emulator.ca_pem().as_bytes()).unwrap();
    let url = format!("https://{STACK}:{}/{TENANT}/oauth2/v2.0/token", address.port());
    let client = || {
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([ca.clone()])
            .resolve(STACK, address)
            .build()
            .unwrap()
    };
    Reply::of(client().post(&url).form(&form())).await.ok();

    let calm = azure_emulator::World::parse(&world_yaml("http://127.0.0.1:9")).unwrap();
    azure.emulator.apply(calm);
    let error = client().post(&url).form(&form()).send().await.unwrap_err();
    assert!(error.is_connect(), "no certificate for it any more: {error:?}");
}

#[tokio::test]
async fn instance_discovery_knows_these_hosts_and_no_others() {
    let azure = with_a_stack();
    let discover = async |host: &str| {
        let endpoint = format!("https://{host}/{TENANT}/oauth2/v2.0/authorize");
        azure
            .get(&format!(
                "https://login.microsoftonline.com/common/discovery/instance?api-version=1.1&authorization_endpoint={endpoint}"
            ))
            .await
    };
    for host in ["login.microsoftonline.us", STACK] {
        let document = discover(host).await.ok();
        assert_eq!(
            document["tenant_discovery_endpoint"],
            format!("https://{host}/{TENANT}/v2.0/.well-known/openid-configuration")
        );
    }
    let refused = discover("login.evil.example").await;
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (400, Some("invalid_instance"))
    );
    assert_eq!(refused.json()["error_codes"][0], 50049);
}
