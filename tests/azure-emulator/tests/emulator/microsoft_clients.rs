//! Microsoft's own clients, azure-identity and azure-containerregistry from PyPI, accept the emulator as Azure.

use crate::{skopeo::Skopeo, support::*};
use azure_emulator::Endpoint;
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Command, Stdio},
    sync::LazyLock,
};

/// Reads a manifest with Microsoft's clients.
fn read_manifest(azure: &Azure, task: &Value) -> Value {
    read_manifest_with(azure, task, &[])
}

/// Reads a manifest with Microsoft's clients and further environment variables.
pub fn read_manifest_with(azure: &Azure, task: &Value, environment: &[(&str, &str)]) -> Value {
    static PYTHON: LazyLock<String> = LazyLock::new(|| script("tests/azure-emulator/python/setup.sh", &[]));
    let mut process = Command::new(PYTHON.as_str())
        .arg(repository().join("tests/azure-emulator/python/read_manifest.py"))
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
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(task.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// A task for the application with a `secret` or an `assertion`.
fn task(credential: &str, value: &str) -> Value {
    json!({
        "tenant": TENANT,
        "client": WEB,
        credential: value,
        "registry": CONTOSO,
        "repository": "shop/web",
        "tag": "v1",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn they_read_a_manifest_with_a_secret_and_with_an_assertion() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let image = format!("{CONTOSO}/shop/web:v1");
    Skopeo::new(&azure).push(&azure, &image).await;
    let assertion = azure.issuer.assertion(SUBJECT, AUDIENCE);
    azure.emulator.clear_requests();
    for task in [task("secret", SECRET), task("assertion", &assertion)] {
        let result = read_manifest(&azure, &task);
        assert!(
            result["digest"]
                .as_str()
                .unwrap_or_default()
                .starts_with("sha256:"),
            "{result}"
        );
        assert_eq!(result["layers"], 1);
    }
    let requests = azure.emulator.requests();
    for endpoint in [
        Endpoint::EntraDiscovery,
        Endpoint::EntraToken,
        Endpoint::AcrChallenge,
        Endpoint::AcrExchange,
        Endpoint::AcrToken,
        Endpoint::AcrRegistry,
    ] {
        assert!(
            requests.iter().any(|record| record.endpoint == Some(endpoint)),
            "there is no request to {endpoint:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_report_the_refusals() {
    let azure = Azure::start();
    let other = azure
        .issuer
        .assertion("system:serviceaccount:shop:other", AUDIENCE);
    for (task, code) in [
        (task("secret", "wrong"), "AADSTS7000215"),
        (task("assertion", &other), "AADSTS700213"),
    ] {
        let result = read_manifest(&azure, &task);
        assert!(result["error"].as_str().unwrap().contains(code), "{result}");
    }
    for (field, value) in [
        ("tenant", "99999999-9999-9999-9999-999999999999"),
        ("client", NOBODY),
    ] {
        let mut task = task("secret", SECRET);
        task[field] = value.into();
        let result = read_manifest(&azure, &task);
        assert_eq!(result["type"], "ClientAuthenticationError", "{result}");
    }
}
