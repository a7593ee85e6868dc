use super::*;
use serde_json::json;

fn resolver() -> Resolver {
    Resolver {
        suffixes: "azurecr.io".parse().unwrap(),
        tenant_id: None,
        token_audience: "api://AzureADTokenExchange".to_owned(),
    }
}

fn generator(spec: serde_json::Value) -> ACRAccessToken {
    serde_json::from_value(json!({
        "apiVersion": "generators.external-secrets.io/v1alpha1",
        "kind": "ACRAccessToken",
        "metadata": {"name": "contoso", "namespace": "team-a"},
        "spec": spec,
    }))
    .unwrap()
}

fn own_identity() -> ACRAccessToken {
    generator(json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {}}}))
}

fn annotations(pairs: &[(&str, &str)]) -> ServiceAccountView {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn resolve(generator: &ACRAccessToken, account: &ServiceAccountView) -> Result<Resolved, Problem> {
    let resolver = resolver();
    resolver.resolve(generator, resolver.account(generator, "app")?, account)
}

const BOTH: &[(&str, &str)] = &[
    (
        "azure.workload.identity/client-id",
        "11111111-0000-0000-0000-000000000001",
    ),
    (
        "azure.workload.identity/tenant-id",
        "22222222-0000-0000-0000-000000000002",
    ),
];

#[test]
fn the_pods_own_service_account_is_the_identity() {
    let resolved = resolve(&own_identity(), &annotations(BOTH)).unwrap();
    assert_eq!(resolved.identity.subject(), "system:serviceaccount:team-a:app");
    assert_eq!(
        resolved.identity.client_id,
        "11111111-0000-0000-0000-000000000001"
    );
    assert_eq!(
        resolved.identity.tenant_id,
        "22222222-0000-0000-0000-000000000002"
    );
    assert_eq!(resolved.registry.as_str(), "contoso.azurecr.io");
}

#[test]
fn a_named_service_account_of_the_same_namespace_replaces_the_pods() {
    for namespace in [json!(null), json!("team-a")] {
        let generator = generator(json!({
            "registry": "contoso.azurecr.io",
            "auth": {"workloadIdentity": {"serviceAccountRef": {"name": "puller", "namespace": namespace}}},
        }));
        assert_eq!(
            resolver().account(&generator, "app"),
            Ok(Account::Generators("puller"))
        );
    }
}

#[test]
fn the_nearest_client_and_tenant_ids_win() {
    let mut generator = own_identity();
    generator.spec.tenant_id = Some("contoso.onmicrosoft.com".to_owned());
    let only_client = annotations(&[(
        "azure.workload.identity/client-id",
        "11111111-0000-0000-0000-000000000001",
    )]);
    assert_eq!(
        resolve(&generator, &only_client).unwrap().identity.tenant_id,
        "contoso.onmicrosoft.com"
    );
    let all = annotations(&[
        BOTH[0],
        BOTH[1],
        (
            "kubernetes.azure.com/acr-client-id",
            "33333333-0000-0000-0000-000000000003",
        ),
        (
            "kubernetes.azure.com/acr-tenant-id",
            "44444444-0000-0000-0000-000000000004",
        ),
    ]);
    let identity = resolve(&generator, &all).unwrap().identity;
    assert_eq!(
        (identity.client_id.as_str(), identity.tenant_id.as_str()),
        (
            "33333333-0000-0000-0000-000000000003",
            "44444444-0000-0000-0000-000000000004"
        )
    );
}

#[test]
fn each_refusal_names_its_reason() {
    let spec = |s: serde_json::Value| generator(s);
    let own = json!({"workloadIdentity": {}});
    let reference = |r: serde_json::Value| json!({"workloadIdentity": {"serviceAccountRef": r}});
    let registry = "contoso.azurecr.io";
    for (generator, account, reason) in [
        (
            spec(json!({"registry": registry, "auth": {}})),
            BOTH,
            Reason::GeneratorInvalid,
        ),
        (
            spec(json!({"registry": registry, "auth": {"managedIdentity": {}}})),
            BOTH,
            Reason::GeneratorInvalid,
        ),
        (
            spec(
                json!({"registry": registry, "auth": {"servicePrincipal": {"secretRef": {}}, "workloadIdentity": {}}}),
            ),
            BOTH,
            Reason::GeneratorInvalid,
        ),
        (
            spec(
                json!({"registry": registry, "auth": reference(json!({"name": "x", "namespace": "team-b"}))}),
            ),
            BOTH,
            Reason::CrossNamespaceNotAllowed,
        ),
        (
            spec(
                json!({"registry": registry, "auth": reference(json!({"name": "x", "audiences": ["https://evil"]}))}),
            ),
            BOTH,
            Reason::GeneratorInvalid,
        ),
        (
            spec(json!({"registry": "evil.example.com", "auth": own})),
            BOTH,
            Reason::RegistryNotAllowed,
        ),
        (
            spec(json!({"registry": registry, "auth": own, "scope": "repository:*:pull"})),
            BOTH,
            Reason::ScopeInvalid,
        ),
        (
            spec(json!({"registry": registry, "auth": own, "environmentType": "AzureStackCloud"})),
            BOTH,
            Reason::GeneratorInvalid,
        ),
        (own_identity(), &[][..], Reason::ClientIdMissing),
        (own_identity(), &BOTH[..1], Reason::TenantIdMissing),
        (
            own_identity(),
            &[(BOTH[0].0, "not-a-guid"), BOTH[1]],
            Reason::IdentityInvalid,
        ),
        (
            own_identity(),
            &[BOTH[0], (BOTH[1].0, "../common")],
            Reason::IdentityInvalid,
        ),
        (
            own_identity(),
            &[BOTH[0], (BOTH[1].0, "common")],
            Reason::IdentityInvalid,
        ),
    ] {
        let problem = resolve(&generator, &annotations(account)).unwrap_err();
        assert_eq!(problem.reason, reason, "{problem}");
    }
}

#[test]
fn the_fingerprint_changes_with_each_input_and_with_nothing_else() {
    let base = resolve(&own_identity(), &annotations(BOTH)).unwrap();
    assert_eq!(base.fingerprint(), base.clone().fingerprint());
    let mut seen = vec![base.fingerprint()];
    let mut change = |edit: fn(&mut Resolved)| {
        let mut changed = base.clone();
        edit(&mut changed);
        assert!(!seen.contains(&changed.fingerprint()));
        seen.push(changed.fingerprint());
    };
    change(|r| r.identity.client_id = "other".to_owned());
    change(|r| r.identity.tenant_id = "other".to_owned());
    change(|r| r.identity.service_account = "other".to_owned());
    change(|r| r.identity.namespace = "other".to_owned());
    change(|r| r.identity.cloud = Cloud::China);
    change(|r| r.scope = Scope::parse("repository:a:pull").ok());
    change(|r| {
        r.registry = "azurecr.io"
            .parse::<RegistrySuffixes>()
            .unwrap()
            .permit("other.azurecr.io")
            .unwrap()
    });
}
