//! Spellings of a registry, and references to other namespaces, that could send a token to another host.

use super::{texts::assert_known_hosts, unaffected_by};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use testkit::{env::TestEnv, namespace::TestNamespace, objects::unnamed_pod};

const SPELLINGS: [&str; 22] = [
    "contoso.azurecr.io.",
    "contoso.azurecr.io:443",
    "user@contoso.azurecr.io",
    "contoso.azurecr.io%00.evil.example",
    "contoso.azurecr.io\u{0}.evil.example",
    "https://contoso.azurecr.io",
    "//contoso.azurecr.io",
    "contoso.azurecr.io/v2",
    "contoso.azurecr.io/../evil.example",
    "contoso.azurecr.io?x=.azurecr.io",
    "evil.example#.azurecr.io",
    "evil.example\\.azurecr.io",
    "evil.example\r\nHost: contoso.azurecr.io",
    " contoso.azurecr.io",
    "169.254.169.254",
    "[::1]",
    "localhost",
    "contoso.azurecr.io.evil.example",
    "evilazurecr.io",
    "azurecr.io",
    "*.azurecr.io",
    "c\u{43e}ntoso.azurecr.io",
];

async fn assert_refused(namespace: &TestNamespace, pod: &Pod, reason: &str) {
    let message = &namespace.refused_pod(pod).await.message;
    assert!(message.contains(reason), "{message:?}");
    assert!(
        !message.lines().any(|line| line.contains(char::is_control)),
        "{message:?}"
    );
}

#[testkit::test]
async fn no_spelling_or_reference_sends_a_token_to_another_host() {
    let env = TestEnv::start().await;
    let (namespace, other) = (&env.team_a.namespace, &env.team_b.namespace);
    let attempt = async {
        for (number, spelling) in SPELLINGS.into_iter().enumerate() {
            let name = format!("spelling-{number}");
            namespace
                .apply_generator(&name, json!({"registry": spelling}))
                .await;
            assert_refused(namespace, &unnamed_pod(&name), "RegistryNotAllowed").await;
        }
        // Upper case is another spelling of the same host, and some portals copy it.
        let capitals = json!({"registry": "CONTOSO.azurecr.io"});
        namespace.apply_generator("capitals", capitals).await;
        namespace.create_pod(&unnamed_pod("capitals")).await;

        let account = json!({"workloadIdentity": {"serviceAccountRef": {"name": "app", "namespace": other}}});
        let key = json!({"name": "sp", "key": "id", "namespace": other});
        let secret = json!({"servicePrincipal": {"secretRef": {"clientId": key, "clientSecret": key}}});
        for (name, auth) in [("account-of-b", &account), ("secret-of-b", &secret)] {
            namespace.apply_generator(name, json!({"auth": auth})).await;
            assert_refused(namespace, &unnamed_pod(name), "CrossNamespaceNotAllowed").await;
        }
        let reference = env.cluster_generator(json!({"auth": account})).await;
        assert_refused(namespace, &unnamed_pod(&reference), "CrossNamespaceNotAllowed").await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
    assert_known_hosts(&env);
}
