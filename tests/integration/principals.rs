//! Service principals and managed identities: what each needs, and each refusal.

use azure_emulator::{Endpoint, Fault};
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::Api;
use serde_json::{Value, json};
use testkit::{
    azure::{REGISTRY, TENANT},
    control_plane::{self, apply},
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{from, pod, pull_secret_name, unnamed_pod, with_account},
};

/// The client id of the service principal.
pub const PRINCIPAL: &str = "dddddddd-dddd-dddd-dddd-dddddddddddd";
/// Its secret.
pub const SECRET: &str = "Kq8~correct-horse-battery-staple";

/// The machine's system-assigned managed identity.
pub const MACHINE: &str = "55555555-5555-5555-5555-555555555555";
/// A user-assigned one, and its resource id.
pub const PULLER: &str = "66666666-6666-6666-6666-666666666666";
pub const PULLER_RESOURCE: &str = "/subscriptions/5ab/resourcegroups/shop/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller";

/// Adds the two managed identities to the tenant.
pub fn add_machine(world: &mut Value) {
    world["managedIdentities"] = json!([
        {"clientId": MACHINE, "tenant": TENANT, "systemAssigned": true},
        {"clientId": PULLER, "tenant": TENANT, "resourceId": PULLER_RESOURCE},
    ]);
    let rights = world["registries"][0]["rights"].as_array_mut().unwrap();
    for identity in [MACHINE, PULLER] {
        rights.push(json!({"clientId": identity, "repositories": ["team-a/app"], "actions": ["pull"]}));
    }
}

/// Adds the service principal to the tenant.
pub fn add(world: &mut Value) {
    let applications = world["tenants"][0]["applications"].as_array_mut().unwrap();
    applications.push(json!({"clientId": PRINCIPAL, "secrets": [SECRET]}));
    let rights = world["registries"][0]["rights"].as_array_mut().unwrap();
    rights.push(json!({"clientId": PRINCIPAL, "repositories": ["team-a/app"], "actions": ["pull"]}));
}

/// The `auth` of a generator that keeps its service principal in this Secret.
pub fn auth(secret: &str) -> Value {
    json!({"servicePrincipal": {"secretRef": {
        "clientId": {"name": secret, "key": "clientid"},
        "clientSecret": {"name": secret, "key": "clientsecret"},
    }}})
}

/// A Secret with the client id and this client secret.
pub async fn secret(env: &TestEnv, namespace: &TestNamespace, name: &str, client_secret: &str) {
    let data = json!({"clientid": format!("{PRINCIPAL}\n"), "clientsecret": client_secret});
    let secret = from(json!({"metadata": {"name": name}, "stringData": data}));
    apply(&namespace.api::<Secret>(), &secret).await;
}

/// Lets the webhook read one Secret.
pub async fn permit(env: &TestEnv, namespace: &TestNamespace, secret: &str) {
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
async fn refused(env: &TestEnv, generator: &str, code: u16, reason: &str) -> String {
    // The webhook remembers a refusal for a second, and the API server a Role for a moment.
    eventually(reason, async || {
        let status = env.team_a.namespace.refused_pod(&unnamed_pod(generator)).await;
        (status.code == code && status.message.contains(reason)).then_some(status.message)
    })
    .await
}

#[testkit::test]
async fn a_secret_is_read_only_where_a_role_allows_it_and_the_refusal_holds_that_role() {
    let env = TestEnv::with(&[], add).await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("sp", json!({"auth": auth("the-sp")}))
        .await;
    secret(&env, namespace, "the-sp", SECRET).await;
    let message = refused(&env, "sp", 403, "SecretReadForbidden").await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 0);

    // What the message says to do, done as it says.
    let (_, command) = message.split_once("allow that: ").unwrap();
    let done = control_plane::shared().shell(command).await;
    assert!(
        done.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let made = eventually("with the Role, a Pod is admitted", async || {
        namespace.try_create_pod(&unnamed_pod("sp")).await.ok()
    })
    .await;
    let name = pull_secret_name(&made);
    env.assert_pulls(namespace, &name, "team-a/app").await;
    let owner = namespace.pull_secret(&name).await;
    assert_eq!(owner.spec.service_account_name, None);
    let status = owner.status.unwrap();
    assert_eq!(status.identity.as_deref(), Some("ServicePrincipal"));
    assert_eq!(
        (status.client_id.as_deref(), status.subject),
        (Some(PRINCIPAL), None)
    );
    // No other Secret of the namespace became readable.
    let others = Api::<Secret>::namespaced(control_plane::shared().as_webhook().await, namespace.name());
    assert!(others.get(&name).await.is_err());
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn pods_of_all_service_accounts_share_the_one_pull_secret_of_a_service_principal() {
    let env = TestEnv::with(&[], add).await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("sp", json!({"auth": auth("the-sp")}))
        .await;
    secret(&env, namespace, "the-sp", SECRET).await;
    permit(&env, namespace, "the-sp").await;
    let other = with_account(pod("other", "sp"), "default");
    let first = pull_secret_name(&namespace.create_pod(&pod("app", "sp")).await);
    assert_eq!(pull_secret_name(&namespace.create_pod(&other).await), first);
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}

#[testkit::test]
async fn what_is_wrong_with_the_secret_is_told_by_its_key_and_never_by_its_value() {
    let env = TestEnv::with(&[], add).await;
    let namespace = &env.team_a.namespace;
    permit(&env, namespace, "missing").await;
    permit(&env, namespace, "swapped").await;
    permit(&env, namespace, "wrong").await;
    for name in ["missing", "swapped", "wrong"] {
        namespace.apply_generator(name, json!({"auth": auth(name)})).await;
    }
    let message = refused(&env, "missing", 422, "SecretNotFound").await;
    assert!(
        message.contains("\"missing\"") && message.contains(namespace.name()),
        "{message}"
    );

    let swapped = json!({"clientid": SECRET, "clientsecret": PRINCIPAL});
    let swapped = from(json!({"metadata": {"name": "swapped"}, "stringData": swapped}));
    apply(&namespace.api::<Secret>(), &swapped).await;
    let message = refused(&env, "swapped", 422, "SecretInvalid").await;
    assert!(message.contains("key \"clientid\""), "{message}");
    assert!(!message.contains(SECRET), "a secret is told: {message}");

    secret(&env, namespace, "wrong", "not~the-secret").await;
    let message = refused(&env, "wrong", 403, "EntraRefused").await;
    for part in [
        "AADSTS7000215",
        PRINCIPAL,
        "kubectl patch secret",
        "key \"clientsecret\"",
    ] {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
    assert!(!message.contains("not~the-secret"), "a secret is told: {message}");

    // Mended, the next Pod is admitted.
    secret(&env, namespace, "wrong", SECRET).await;
    eventually("with the right secret, a Pod is admitted", async || {
        namespace.try_create_pod(&unnamed_pod("wrong")).await.ok()
    })
    .await;
    let log = env.webhook.log();
    for value in [SECRET, "not~the-secret"] {
        assert!(
            !log.iter().any(|line| line.contains(value)),
            "a client secret was logged"
        );
    }
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn client_id_and_client_secret_may_be_in_two_secrets_each_with_its_own_role() {
    let env = TestEnv::with(&[], add).await;
    let namespace = &env.team_a.namespace;
    let mut two = auth("the-id");
    two["servicePrincipal"]["secretRef"]["clientSecret"]["name"] = json!("the-secret");
    namespace.apply_generator("two", json!({"auth": two})).await;
    for (name, data) in [
        (
            "the-id",
            json!({"clientid": PRINCIPAL, "clientsecret": "not this one"}),
        ),
        (
            "the-secret",
            json!({"clientid": "nor this one", "clientsecret": SECRET}),
        ),
    ] {
        let secret = from(json!({"metadata": {"name": name}, "stringData": data}));
        apply(&namespace.api::<Secret>(), &secret).await;
    }
    for missing in ["the-secret", "the-id"] {
        let message = refused(&env, "two", 403, &format!("--resource-name={missing} ")).await;
        assert!(message.contains("SecretReadForbidden"), "{message}");
        permit(&env, namespace, missing).await;
    }
    let made = eventually("with both, a Pod is admitted", async || {
        namespace.try_create_pod(&unnamed_pod("two")).await.ok()
    })
    .await;
    env.assert_pulls(namespace, &pull_secret_name(&made), "team-a/app")
        .await;
}

#[testkit::test]
async fn a_secret_of_another_namespace_is_for_cluster_generators_alone() {
    let env = TestEnv::with(&[], add).await;
    let (own, central) = (&env.team_a.namespace, &env.team_b.namespace);
    let mut elsewhere = auth("the-sp");
    for field in ["clientId", "clientSecret"] {
        elsewhere["servicePrincipal"]["secretRef"][field]["namespace"] = json!(central);
    }
    own.apply_generator("sp", json!({"auth": elsewhere})).await;
    refused(&env, "sp", 403, "CrossNamespaceNotAllowed").await;

    secret(&env, central, "the-sp", SECRET).await;
    permit(&env, central, "the-sp").await;
    let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": elsewhere});
    let reference = env
        .cluster_generator(json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}}))
        .await;
    let name = pull_secret_name(&own.create_pod(&pod("app", &reference)).await);
    env.assert_pulls(own, &name, "team-a/app").await;
}

#[testkit::test]
async fn a_managed_identity_is_for_the_named_namespaces_alone() {
    let env = TestEnv::with(&["--managed-identity-namespaces=TEAM_A"], add_machine).await;
    let auth = json!({"managedIdentity": {}});
    let spec = json!({"registry": REGISTRY, "auth": auth});
    let reference = env
        .cluster_generator(json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}}))
        .await;
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

    // One that the machine does not have.
    let stranger = json!({"managedIdentity": {"identityId": "99999999-9999-9999-9999-999999999999"}});
    env.team_a
        .namespace
        .apply_generator("stranger", json!({"auth": stranger}))
        .await;
    let message = refused(&env, "stranger", 403, "ManagedIdentityRefused").await;
    assert!(message.contains("az vmss identity assign"), "{message}");
}

#[testkit::test]
async fn a_machine_in_trouble_delays_a_pod_and_does_not_lose_it() {
    let env = TestEnv::with(&["--managed-identity-namespaces=*"], add_machine).await;
    let namespace = &env.team_a.namespace;
    for (number, status) in [404, 429, 500, 503].into_iter().enumerate() {
        let mut fault = Fault::on(Endpoint::AppServiceToken);
        fault.status = Some(status);
        env.azure.set_faults(&[fault]);
        let generator = format!("machine-{number}");
        namespace
            .apply_generator(&generator, json!({"auth": {"managedIdentity": {}}}))
            .await;
        let warnings = env.warnings(namespace, &pod("app", &generator)).await;
        assert!(warnings[0].contains("ManagedIdentityUnavailable"), "{warnings:?}");
        env.azure.clear_faults();
        let name = pull_secret_name(&namespace.create_pod(&unnamed_pod(&generator)).await);
        eventually("the Secret follows by itself", async || {
            namespace.secrets().get_opt(&name).await.unwrap()
        })
        .await;
    }
}

#[testkit::test]
async fn of_several_identities_one_is_used_and_a_warning_says_which() {
    let env = TestEnv::with(&["--managed-identity-namespaces=TEAM_A"], add).await;
    let namespace = &env.team_a.namespace;
    let mut all = auth("the-sp");
    all["managedIdentity"] = json!({});
    all["workloadIdentity"] = json!({});
    namespace.apply_generator("all", json!({"auth": all})).await;
    secret(&env, namespace, "the-sp", SECRET).await;
    permit(&env, namespace, "the-sp").await;
    let warnings = env.warnings(namespace, &pod("app", "all")).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("servicePrincipal is used"), "{warnings:?}");
    let asked = env.azure.records(Endpoint::EntraToken).remove(0);
    assert_eq!(asked.client_id.as_deref(), Some(PRINCIPAL));
}
