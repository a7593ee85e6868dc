//! The sovereign clouds and a customer's own login host behave like the public cloud.

use crate::support::*;
use azure_emulator::{Endpoint, World};
use reqwest::{Certificate, Client};

const STACK: &str = "login.stack.example";

fn form() -> [(&'static str, String); 4] {
    [
        ("client_id", WRITER.to_owned()),
        ("client_secret", SECRET.to_owned()),
        ("grant_type", "client_credentials".to_owned()),
        ("scope", format!("{ACR}/.default")),
    ]
}

fn azure_with_stack() -> Azure {
    Azure::with(&format!("{}authorityHosts: [{STACK}]\n", world()))
}

#[tokio::test]
async fn each_login_host_issues_tokens_for_the_exchange() {
    let azure = azure_with_stack();
    for host in [
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
        "login.microsoftonline.de",
        STACK,
    ] {
        azure.emulator.clear_requests();
        let base = format!("https://{host}/{TENANT}");
        let request = azure.http.post(format!("{base}/oauth2/v2.0/token"));
        let token = Reply::of(request.form(&form())).await.token("access_token");
        azure.exchange(CONTOSO, &token).await.ok();
        let record = &azure.emulator.requests()[0];
        assert_eq!(
            (record.host.as_str(), record.endpoint),
            (host, Some(Endpoint::EntraToken))
        );
        let document = azure
            .get(&format!("{base}/v2.0/.well-known/openid-configuration"))
            .await
            .ok();
        assert_eq!(document["token_endpoint"], format!("{base}/oauth2/v2.0/token"));
    }
}

#[tokio::test]
async fn registries_of_each_cloud_accept_the_chain_of_tokens() {
    for suffix in ["azurecr.us", "azurecr.cn", "azurecr.de"] {
        let registry = format!("contoso.{suffix}");
        let azure = Azure::with(&world().replace(CONTOSO, &registry));
        let url = format!("https://{registry}/v2/");
        let challenge = azure.get(&url).await;
        let expected = format!("Bearer realm=\"https://{registry}/oauth2/token\",service=\"{registry}\"");
        assert_eq!(challenge.header("www-authenticate"), expected);
        let token = azure
            .access_token(&registry, WEB, "repository:shop/web:pull")
            .await;
        let reply = azure.get_with(&url, &token).await;
        assert_eq!(reply.status, 502, "authorized, but there is no registry behind");
    }
}

#[tokio::test]
async fn a_customers_login_host_exists_only_in_its_world() {
    let azure = azure_with_stack();
    let address = azure.emulator.https_addr();
    let ca = Certificate::from_pem(azure.emulator.ca_pem().as_bytes()).unwrap();
    let url = format!("https://{STACK}:{}/{TENANT}/oauth2/v2.0/token", address.port());
    let client = || {
        Client::builder()
            .no_proxy()
            .tls_certs_only([ca.clone()])
            .resolve(STACK, address)
            .build()
            .unwrap()
    };
    Reply::of(client().post(&url).form(&form())).await.ok();
    azure.emulator.apply(World::parse(&world()).unwrap());
    let error = client().post(&url).form(&form()).send().await.unwrap_err();
    assert!(error.is_connect(), "there is no certificate for it: {error:?}");
}
