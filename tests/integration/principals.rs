//! Service principals and managed identities: their requirements and their refusals.

use azure_emulator::{Effect, Endpoint, Fault, StatusCode};
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::Api;
use serde_json::{Value, json};
use testkit::{
    azure::{PRINCIPAL, PRINCIPAL_SECRET, add_managed_identities, add_service_principal},
    control_plane::{self, apply},
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{from, pod, pull_secret_name, unnamed_pod, with_account},
};

fn add_both_identities(world: &mut Value) {
    add_managed_identities(world, "team-a/app");
}

/// The `auth` of a generator whose service principal is in this Secret.
pub fn auth(secret: &str) -> Value {
    json!({"servicePrincipal": {"secretRef": {
        "clientId": {"name": secret, "key": "clientid"},
        "clientSecret": {"name": secret, "key": "clientsecret"},
    }}})
}

/// Creates a Secret with the client id and this client secret.
pub async fn create_secret(namespace: &TestNamespace, name: &str, client_secret: &str) {
    let data = json!({"clientid": format!("{PRINCIPAL}\n"), "clientsecret": client_secret});
    let secret = from(json!({"metadata": {"name": name}, "stringData": data}));
    apply(&namespace.api::<Secret>(), &secret).await;
}

/// Permits the webhook to read one Secret.
pub async fn permit_reading(namespace: &TestNamespace, secret: &str) {
    let name = format!("reads-{secret}");
    let rules =
        json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}]);
    let role = from(json!({"metadata": {"name": name}, "rules": rules}));
    apply(&namespace.api::<Role>(), &role).await;
    let account = control_plane::NAMESPACE;
    let binding = from(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account}],
    }));
    apply(&namespace.api::<RoleBinding>(), &binding).await;
}

/// Waits until a Pod of this generator is refused for this reason, and returns the message.
async fn wait_for_refusal(env: &TestEnv, generator: &str, code: u16, reason: &str) -> String {
    // The webhook caches a refusal for a second, and the API server caches Roles.
    eventually(reason, async || {
        let status = env.team_a.namespace.refused_pod(&unnamed_pod(generator)).await;
        (status.code == code && status.message.contains(reason)).then_some(status.message)
    })
    .await
}

#[testkit::test]
async fn the_refusal_contains_the_role_that_permits_reading_a_secret() {
    let env = TestEnv::with(&[], add_service_principal).await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("sp", json!({"auth": auth("the-sp")}))
        .await;
    create_secret(namespace, "the-sp", PRINCIPAL_SECRET).await;
    let message = wait_for_refusal(&env, "sp", 403, "SecretReadForbidden").await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 0);

    // The command of the message permits reading.
    let command = message.lines().nth(1).unwrap();
    let done = control_plane::shared().shell(command).await;
    assert!(
        done.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let created = namespace.retry_create_pod(&unnamed_pod("sp")).await;
    let name = pull_secret_name(&created);
    env.assert_pulls(namespace, &name, "team-a/app").await;
    let owner = namespace.pull_secret(&name).await;
    assert_eq!(owner.spec.service_account_name, None);
    let status = owner.status.unwrap();
    assert_eq!(status.identity.as_deref(), Some("ServicePrincipal"));
    assert_eq!(
        (status.client_id.as_deref(), status.subject),
        (Some(PRINCIPAL), None)
    );
    // The Role permits no other Secret of the namespace.
    let others = Api::<Secret>::namespaced(control_plane::shared().as_webhook().await, namespace.name());
    assert!(others.get(&name).await.is_err());
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn all_pods_share_the_pull_secret_of_a_service_principal() {
    let env = TestEnv::with(&[], add_service_principal).await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("sp", json!({"auth": auth("the-sp")}))
        .await;
    create_secret(namespace, "the-sp", PRINCIPAL_SECRET).await;
    permit_reading(namespace, "the-sp").await;
    let other = with_account(pod("other", "sp"), "default");
    let first = pull_secret_name(&namespace.create_pod(&pod("app", "sp")).await);
    assert_eq!(pull_secret_name(&namespace.create_pod(&other).await), first);
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}

#[testkit::test]
async fn an_invalid_secret_is_reported_by_its_key_without_its_value() {
    let env = TestEnv::with(&[], add_service_principal).await;
    let namespace = &env.team_a.namespace;
    permit_reading(namespace, "missing").await;
    permit_reading(namespace, "swapped").await;
    permit_reading(namespace, "wrong").await;
    for name in ["missing", "swapped", "wrong"] {
        namespace.apply_generator(name, json!({"auth": auth(name)})).await;
    }
    let message = wait_for_refusal(&env, "missing", 422, "SecretNotFound").await;
    assert!(
        message.contains("\"missing\"") && message.contains(namespace.name()),
        "{message}"
    );

    let swapped = json!({"clientid": PRINCIPAL_SECRET, "clientsecret": PRINCIPAL});
    let swapped = from(json!({"metadata": {"name": "swapped"}, "stringData": swapped}));
    apply(&namespace.api::<Secret>(), &swapped).await;
    let message = wait_for_refusal(&env, "swapped", 422, "SecretInvalid").await;
    assert!(message.contains("key \"clientid\""), "{message}");
    assert!(
        !message.contains(PRINCIPAL_SECRET),
        "the message contains a secret: {message}"
    );

    create_secret(namespace, "wrong", "not~the-secret").await;
    let message = wait_for_refusal(&env, "wrong", 403, "EntraRefused").await;
    for part in [
        "AADSTS7000215",
        PRINCIPAL,
        "kubectl patch secret",
        "key \"clientsecret\"",
    ] {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
    assert!(
        !message.contains("not~the-secret"),
        "the message contains a secret: {message}"
    );

    // With the correct secret, the next Pod is admitted.
    create_secret(namespace, "wrong", PRINCIPAL_SECRET).await;
    namespace.retry_create_pod(&unnamed_pod("wrong")).await;
    let log = env.webhook.log();
    for value in [PRINCIPAL_SECRET, "not~the-secret"] {
        assert!(
            !log.iter().any(|line| line.contains(value)),
            "a client secret was logged"
        );
    }
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn client_id_and_client_secret_may_be_in_two_secrets() {
    let env = TestEnv::with(&[], add_service_principal).await;
    let namespace = &env.team_a.namespace;
    let mut two = auth("the-id");
    two["servicePrincipal"]["secretRef"]["clientSecret"]["name"] = json!("the-secret");
    namespace.apply_generator("two", json!({"auth": two})).await;
    for (name, data) in [
        ("the-id", json!({"clientid": PRINCIPAL, "clientsecret": "unused"})),
        (
            "the-secret",
            json!({"clientid": "unused", "clientsecret": PRINCIPAL_SECRET}),
        ),
    ] {
        let secret = from(json!({"metadata": {"name": name}, "stringData": data}));
        apply(&namespace.api::<Secret>(), &secret).await;
    }
    for missing in ["the-secret", "the-id"] {
        let message = wait_for_refusal(&env, "two", 403, &format!("--resource-name={missing} ")).await;
        assert!(message.contains("SecretReadForbidden"), "{message}");
        permit_reading(namespace, missing).await;
    }
    let created = namespace.retry_create_pod(&unnamed_pod("two")).await;
    env.assert_pulls(namespace, &pull_secret_name(&created), "team-a/app")
        .await;
}

#[testkit::test]
async fn only_cluster_generators_use_secrets_of_other_namespaces() {
    let env = TestEnv::with(&[], add_service_principal).await;
    let (own, central) = (&env.team_a.namespace, &env.team_b.namespace);
    let mut elsewhere = auth("the-sp");
    for field in ["clientId", "clientSecret"] {
        elsewhere["servicePrincipal"]["secretRef"][field]["namespace"] = json!(central);
    }
    own.apply_generator("sp", json!({"auth": elsewhere})).await;
    wait_for_refusal(&env, "sp", 403, "CrossNamespaceNotAllowed").await;

    create_secret(central, "the-sp", PRINCIPAL_SECRET).await;
    permit_reading(central, "the-sp").await;
    let reference = env.cluster_generator(json!({"auth": elsewhere})).await;
    let name = pull_secret_name(&own.create_pod(&pod("app", &reference)).await);
    env.assert_pulls(own, &name, "team-a/app").await;
}

#[testkit::test]
async fn only_permitted_namespaces_use_managed_identities() {
    let env = TestEnv::with(&["--managed-identity-namespaces=TEAM_A"], add_both_identities).await;
    let overrides = json!({"tenantId": null, "auth": {"managedIdentity": {}}});
    let reference = env.cluster_generator(overrides).await;
    let status = env.team_b.namespace.refused_pod(&pod("app", &reference)).await;
    assert_eq!(status.code, 403);
    assert!(
        status.message.contains("ManagedIdentityNotAllowed"),
        "{}",
        status.message
    );
    assert_eq!(env.azure.calls(Endpoint::AppServiceToken), 0);
    let name = pull_secret_name(&env.team_a.namespace.create_pod(&pod("app", &reference)).await);
    env.assert_pulls(&env.team_a.namespace, &name, "team-a/app").await;

    // The machine does not have this identity.
    let stranger = json!({"managedIdentity": {"identityId": "99999999-9999-9999-9999-999999999999"}});
    env.team_a
        .namespace
        .apply_generator("stranger", json!({"auth": stranger}))
        .await;
    let message = wait_for_refusal(&env, "stranger", 403, "ManagedIdentityRefused").await;
    assert!(message.contains("az vmss identity assign"), "{message}");
}

#[testkit::test]
async fn a_failing_identity_endpoint_delays_the_token() {
    let env = TestEnv::with(&["--managed-identity-namespaces=*"], add_both_identities).await;
    let namespace = &env.team_a.namespace;
    for (number, status) in [404, 429, 500, 503].into_iter().enumerate() {
        let effect = Effect::status(StatusCode::from_u16(status).unwrap());
        let fault = Fault::new(Endpoint::AppServiceToken, effect);
        env.azure.set_faults(&[fault]);
        let generator = format!("machine-{number}");
        namespace
            .apply_generator(&generator, json!({"auth": {"managedIdentity": {}}}))
            .await;
        let warnings = env.warnings(namespace, &pod("app", &generator)).await;
        assert!(warnings[0].contains("ManagedIdentityUnavailable"), "{warnings:?}");
        env.azure.clear_faults();
        let name = pull_secret_name(&namespace.create_pod(&unnamed_pod(&generator)).await);
        eventually("the Secret is written without another review", async || {
            namespace.secrets().get_opt(&name).await.unwrap()
        })
        .await;
    }
}

#[testkit::test]
async fn one_of_several_identities_is_used_and_named_in_a_warning() {
    let env = TestEnv::with(&["--managed-identity-namespaces=TEAM_A"], add_service_principal).await;
    let namespace = &env.team_a.namespace;
    let mut all = auth("the-sp");
    all["managedIdentity"] = json!({});
    all["workloadIdentity"] = json!({});
    namespace.apply_generator("all", json!({"auth": all})).await;
    create_secret(namespace, "the-sp", PRINCIPAL_SECRET).await;
    permit_reading(namespace, "the-sp").await;
    let warnings = env.warnings(namespace, &pod("app", "all")).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("servicePrincipal is used"), "{warnings:?}");
    let request = env.azure.records(Endpoint::EntraToken).remove(0);
    assert_eq!(request.client_id.as_deref(), Some(PRINCIPAL));
}
