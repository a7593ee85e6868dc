//! azure-identity and azure-containerregistry from PyPI: they accept the emulator for Azure.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::skopeo::Skopeo;
use crate::support::*;
use azure_emulator::Endpoint;

/// Lists the registry with Microsoft's clients.
fn list(azure: &Azure, wish: &Value) -> Value {
    list_with(azure, wish, &[])
}

/// The same, with more in the environment.
pub fn list_with(azure: &Azure, wish: &Value, environment: &[(&str, &str)]) -> Value {
    static PYTHON: LazyLock<String> = LazyLock::new(|| script("tests/azure-emulator/python/setup.sh", &[]));
    let mut process = Command::new(PYTHON.as_str())
        .arg(repository().join("tests/azure-emulator/python/list_registry.py"))
        .env("HTTPS_PROXY", azure.emulator.proxy_url().unwrap())
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .envs(environment.iter().copied())
        .env("REQUESTS_CA_BUNDLE", azure.ca_file("python"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(wish.to_string().as_bytes())
        .unwrap();
    let output = process.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn wish(by: &str, proof: &str) -> Value {
    json!({"tenant": TENANT, "client": WEB, "registry": CONTOSO, "audience": ACR, by: proof})
}

#[tokio::test(flavor = "multi_thread")]
async fn they_list_repositories_and_tags_by_secret_and_by_assertion() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let skopeo = Skopeo::new(&azure);
    for image in ["shop/api:v1", "shop/web:v1", "shop/web:v2"] {
        skopeo.push(&azure, &format!("{CONTOSO}/{image}")).await;
    }
    let expected = json!({"repositories": {"shop/api": ["v1"], "shop/web": ["v1", "v2"]}});

    azure.emulator.clear_requests();
    assert_eq!(list(&azure, &wish("secret", SECRET)), expected);
    assert_eq!(
        list(
            &azure,
            &wish("assertion", &azure.issuer.assertion(SUBJECT, AUDIENCE))
        ),
        expected
    );
    let requests = azure.emulator.requests();
    for endpoint in [
        Endpoint::EntraDiscovery,
        Endpoint::EntraToken,
        Endpoint::AcrChallenge,
        Endpoint::AcrExchange,
        Endpoint::AcrToken,
    ] {
        assert!(
            requests.iter().any(|request| request.endpoint == Some(endpoint)),
            "never asked: {endpoint:?}"
        );
    }

    let mut by_arm = wish("secret", SECRET);
    by_arm["audience"] = "https://management.azure.com".into();
    assert_eq!(list(&azure, &by_arm), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_follow_the_pages_of_a_long_list() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let skopeo = Skopeo::new(&azure);
    for name in ["a", "b", "c"] {
        skopeo.push(&azure, &format!("{CONTOSO}/shop/{name}:v1")).await;
    }
    let mut paged = wish("secret", SECRET);
    paged["page"] = 2.into();
    assert_eq!(
        list(&azure, &paged),
        json!({"repositories": {"shop/a": ["v1"], "shop/b": ["v1"], "shop/c": ["v1"]}})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn they_understand_the_refusals() {
    let azure = Azure::start();
    let error = |wish: &Value| {
        list(&azure, wish)["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert!(error(&wish("secret", "wrong")).contains("AADSTS7000215"));
    assert!(
        error(&wish(
            "assertion",
            &azure
                .issuer
                .assertion("system:serviceaccount:shop:other", AUDIENCE)
        ))
        .contains("AADSTS700213")
    );

    let mut elsewhere = wish("secret", SECRET);
    elsewhere["tenant"] = "99999999-9999-9999-9999-999999999999".into();
    let refused = list(&azure, &elsewhere);
    assert_eq!(refused["type"], "ClientAuthenticationError", "{refused}");

    let mut nobody = wish("secret", SECRET);
    nobody["client"] = NOBODY.into();
    let refused = list(&azure, &nobody);
    assert_eq!(refused["type"], "ClientAuthenticationError", "{refused}");
}
