//! Service principals and managed identities: what each needs, and each refusal.

use super::{
    control_plane::{self, apply},
    site::{Site, TENANT, eventually, from, pod, pull_secret_name, unnamed},
};
use azure_emulator::{Effect, Endpoint, Fault, StatusCode};
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::Api;
use serde_json::{Value, json};

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
pub async fn secret(site: &Site, namespace: &str, name: &str, client_secret: &str) {
    let data = json!({"clientid": format!("{PRINCIPAL}\n"), "clientsecret": client_secret});
    let secret = from(json!({"metadata": {"name": name}, "stringData": data}));
    apply(
        &Api::<Secret>::namespaced(site.client.clone(), namespace),
        &secret,
    )
    .await;
}

/// Lets the webhook read one Secret.
pub async fn permit(site: &Site, namespace: &str, secret: &str) {
    let name = format!("reads-{secret}");
    let rules =
        json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}]);
    let role = from(json!({"metadata": {"name": name}, "rules": rules}));
    apply(&Api::<Role>::namespaced(site.client.clone(), namespace), &role).await;
    let account = control_plane::NAMESPACE;
    let binding = from(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account}],
    }));
    apply(
        &Api::<RoleBinding>::namespaced(site.client.clone(), namespace),
        &binding,
    )
    .await;
}

/// Waits until a Pod of this generator is refused for this reason, and returns the message.
async fn refused(site: &Site, generator: &str, code: u16, reason: &str) -> String {
    // The webhook remembers a refusal for a second, and the API server a Role for a moment.
    eventually(reason, async || {
        let status = site.refused(&site.a.namespace, &unnamed(generator)).await;
        (status.code == code && status.message.contains(reason)).then_some(status.message)
    })
    .await
}

#[tokio::test]
async fn a_secret_is_read_only_where_a_role_allows_it_and_the_refusal_holds_that_role() {
    let site = Site::with(&[], add).await;
    let namespace = &site.a.namespace;
    site.generator(namespace, "sp", json!({"auth": auth("the-sp")}))
        .await;
    secret(&site, namespace, "the-sp", SECRET).await;
    let message = refused(&site, "sp", 403, "SecretReadForbidden").await;
    assert_eq!(site.calls(Endpoint::EntraToken), 0);

    // What the message says to do, done as it says.
    let (_, command) = message.split_once("allow that: ").unwrap();
    let done = control_plane::shared().shell(command).await;
    assert!(
        done.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let made = eventually("with the Role, a Pod is admitted", async || {
        site.pods(namespace)
            .create(&Default::default(), &unnamed("sp"))
            .await
            .ok()
    })
    .await;
    let name = pull_secret_name(&made);
    assert_eq!(
        site.opens(namespace, &name, "team-a/app").await,
        502,
        "authorised; no registry is behind it"
    );
    let owner = site.pull_secrets(namespace).get(&name).await.unwrap();
    assert_eq!(owner.spec.service_account_name, None);
    let status = owner.status.unwrap();
    assert_eq!(status.identity.as_deref(), Some("ServicePrincipal"));
    assert_eq!(
        (status.client_id.as_deref(), status.subject),
        (Some(PRINCIPAL), None)
    );
    // No other Secret of the namespace became readable.
    let others = Api::<Secret>::namespaced(control_plane::shared().as_webhook().await, namespace);
    assert!(others.get(&name).await.is_err());
    site.assert_no_secret_was_logged();
}

#[tokio::test]
async fn pods_of_all_service_accounts_share_the_one_pull_secret_of_a_service_principal() {
    let site = Site::with(&[], add).await;
    let namespace = &site.a.namespace;
    site.generator(namespace, "sp", json!({"auth": auth("the-sp")}))
        .await;
    secret(&site, namespace, "the-sp", SECRET).await;
    permit(&site, namespace, "the-sp").await;
    let mut other = pod("other", "sp");
    other.spec.as_mut().unwrap().service_account_name = Some("default".to_owned());
    let first = pull_secret_name(&site.create(namespace, &pod("app", "sp")).await);
    assert_eq!(pull_secret_name(&site.create(namespace, &other).await), first);
    assert_eq!(site.calls(Endpoint::EntraToken), 1);
}

#[tokio::test]
async fn what_is_wrong_with_the_secret_is_told_by_its_key_and_never_by_its_value() {
    let site = Site::with(&[], add).await;
    let namespace = &site.a.namespace;
    permit(&site, namespace, "missing").await;
    permit(&site, namespace, "swapped").await;
    permit(&site, namespace, "wrong").await;
    for name in ["missing", "swapped", "wrong"] {
        site.generator(namespace, name, json!({"auth": auth(name)})).await;
    }
    let message = refused(&site, "missing", 422, "SecretNotFound").await;
    assert!(
        message.contains("\"missing\"") && message.contains(namespace),
        "{message}"
    );

    let swapped = json!({"clientid": SECRET, "clientsecret": PRINCIPAL});
    let swapped = from(json!({"metadata": {"name": "swapped"}, "stringData": swapped}));
    apply(
        &Api::<Secret>::namespaced(site.client.clone(), namespace),
        &swapped,
    )
    .await;
    let message = refused(&site, "swapped", 422, "SecretInvalid").await;
    assert!(message.contains("key \"clientid\""), "{message}");
    assert!(!message.contains(SECRET), "a secret is told: {message}");

    secret(&site, namespace, "wrong", "not~the-secret").await;
    let message = refused(&site, "wrong", 403, "EntraRefused").await;
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
    secret(&site, namespace, "wrong", SECRET).await;
    eventually("with the right secret, a Pod is admitted", async || {
        site.pods(namespace)
            .create(&Default::default(), &unnamed("wrong"))
            .await
            .ok()
    })
    .await;
    let log = site.webhook.log();
    for value in [SECRET, "not~the-secret"] {
        assert!(
            !log.iter().any(|line| line.contains(value)),
            "a client secret was logged"
        );
    }
    site.assert_no_secret_was_logged();
}

#[tokio::test]
async fn client_id_and_client_secret_may_be_in_two_secrets_each_with_its_own_role() {
    let site = Site::with(&[], add).await;
    let namespace = &site.a.namespace;
    let mut two = auth("the-id");
    two["servicePrincipal"]["secretRef"]["clientSecret"]["name"] = json!("the-secret");
    site.generator(namespace, "two", json!({"auth": two})).await;
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
        apply(
            &Api::<Secret>::namespaced(site.client.clone(), namespace),
            &secret,
        )
        .await;
    }
    for missing in ["the-secret", "the-id"] {
        let message = refused(&site, "two", 403, &format!("--resource-name={missing} ")).await;
        assert!(message.contains("SecretReadForbidden"), "{message}");
        permit(&site, namespace, missing).await;
    }
    let made = eventually("with both, a Pod is admitted", async || {
        site.pods(namespace)
            .create(&Default::default(), &unnamed("two"))
            .await
            .ok()
    })
    .await;
    assert_eq!(
        site.opens(namespace, &pull_secret_name(&made), "team-a/app")
            .await,
        502
    );
}

#[tokio::test]
async fn a_secret_of_another_namespace_is_for_cluster_generators_alone() {
    let site = Site::with(&[], add).await;
    let (own, central) = (&site.a.namespace, &site.b.namespace);
    let mut elsewhere = auth("the-sp");
    for field in ["clientId", "clientSecret"] {
        elsewhere["servicePrincipal"]["secretRef"][field]["namespace"] = json!(central);
    }
    site.generator(own, "sp", json!({"auth": elsewhere})).await;
    refused(&site, "sp", 403, "CrossNamespaceNotAllowed").await;

    secret(&site, central, "the-sp", SECRET).await;
    permit(&site, central, "the-sp").await;
    let spec = json!({"registry": super::site::REGISTRY, "tenantId": TENANT, "auth": elsewhere});
    let reference = site
        .cluster_generator(json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}}))
        .await;
    let name = pull_secret_name(&site.create(own, &pod("app", &reference)).await);
    assert_eq!(site.opens(own, &name, "team-a/app").await, 502);
}

#[tokio::test]
async fn a_managed_identity_is_for_the_named_namespaces_alone() {
    let site = Site::with(&["--managed-identity-namespaces=TEAM_A"], add_machine).await;
    let auth = json!({"managedIdentity": {}});
    let spec = json!({"registry": super::site::REGISTRY, "auth": auth});
    let reference = site
        .cluster_generator(json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}}))
        .await;
    let status = site.refused(&site.b.namespace, &pod("app", &reference)).await;
    assert_eq!(status.code, 403);
    assert!(
        status.message.contains("ManagedIdentityNotAllowed"),
        "{}",
        status.message
    );
    assert_eq!(site.calls(Endpoint::AppServiceToken), 0);
    let name = pull_secret_name(&site.create(&site.a.namespace, &pod("app", &reference)).await);
    assert_eq!(site.opens(&site.a.namespace, &name, "team-a/app").await, 502);

    // One that the machine does not have.
    let stranger = json!({"managedIdentity": {"identityId": "99999999-9999-9999-9999-999999999999"}});
    site.generator(&site.a.namespace, "stranger", json!({"auth": stranger}))
        .await;
    let message = refused(&site, "stranger", 403, "ManagedIdentityRefused").await;
    assert!(message.contains("az vmss identity assign"), "{message}");
}

#[tokio::test]
async fn a_machine_in_trouble_delays_a_pod_and_does_not_lose_it() {
    let site = Site::with(&["--managed-identity-namespaces=*"], add_machine).await;
    let namespace = &site.a.namespace;
    for (number, status) in [404, 429, 500, 503].into_iter().enumerate() {
        let effect = Effect::status(StatusCode::from_u16(status).unwrap());
        let fault = Fault::new(Endpoint::AppServiceToken, effect);
        site.emulator.set_faults(&[fault]);
        let generator = format!("machine-{number}");
        site.generator(namespace, &generator, json!({"auth": {"managedIdentity": {}}}))
            .await;
        let warnings = site.warnings(namespace, &pod("app", &generator)).await;
        assert!(warnings[0].contains("ManagedIdentityUnavailable"), "{warnings:?}");
        site.emulator.set_faults(&[]);
        let name = pull_secret_name(&site.create(namespace, &unnamed(&generator)).await);
        eventually("the Secret follows by itself", async || {
            site.secrets(namespace).get_opt(&name).await.unwrap()
        })
        .await;
    }
}

#[tokio::test]
async fn of_several_identities_one_is_used_and_a_warning_says_which() {
    let site = Site::with(&["--managed-identity-namespaces=TEAM_A"], add).await;
    let namespace = &site.a.namespace;
    let mut all = auth("the-sp");
    all["managedIdentity"] = json!({});
    all["workloadIdentity"] = json!({});
    site.generator(namespace, "all", json!({"auth": all})).await;
    secret(&site, namespace, "the-sp", SECRET).await;
    permit(&site, namespace, "the-sp").await;
    let warnings = site.warnings(namespace, &pod("app", "all")).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("servicePrincipal is used"), "{warnings:?}");
    let asked = site.records(Endpoint::EntraToken).remove(0);
    assert_eq!(asked.client_id.as_deref(), Some(PRINCIPAL));
}
