use super::*;
use serde_json::json;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const OTHER_AUDIENCE: &str = "api://other";

fn resolver() -> Resolver {
    Resolver {
        suffixes: "azurecr.io".parse().unwrap(),
        tenant_id: None,
        token_audiences: vec![AUDIENCE.to_owned(), OTHER_AUDIENCE.to_owned()],
        clouds: Clouds::default(),
    }
}

fn spec(json: serde_json::Value) -> ACRAccessTokenSpec {
    serde_json::from_value(json).unwrap()
}

/// A spec with this `serviceAccountRef`.
fn referring(reference: serde_json::Value) -> ACRAccessTokenSpec {
    spec(
        json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {"serviceAccountRef": reference}}}),
    )
}

fn own_identity() -> ACRAccessTokenSpec {
    spec(json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {}}}))
}

/// The generator of this spec, as a Pod of namespace team-a sees it.
fn generator(kind: Kind, spec: &ACRAccessTokenSpec) -> Referenced<'_> {
    Referenced {
        reference: Reference {
            kind,
            name: "contoso",
        },
        namespace: "team-a",
        spec,
    }
}

fn annotations(pairs: &[(&str, &str)]) -> ServiceAccountView {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn resolve_as(
    kind: Kind,
    spec: &ACRAccessTokenSpec,
    account: &ServiceAccountView,
) -> Result<Resolved, Problem> {
    let (resolver, generator) = (resolver(), generator(kind, spec));
    resolver.resolve(generator, resolver.account(generator, "app")?, account)
}

fn resolve(spec: &ACRAccessTokenSpec, account: &ServiceAccountView) -> Result<Resolved, Problem> {
    resolve_as(Kind::AccessToken, spec, account)
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
    for reference in [
        json!({"name": "puller"}),
        json!({"name": "puller", "namespace": "team-a"}),
    ] {
        let resolved = resolve(&referring(reference), &annotations(BOTH)).unwrap();
        assert_eq!(resolved.identity.subject(), "system:serviceaccount:team-a:puller");
    }
}

#[test]
fn a_cluster_generator_uses_an_account_of_another_namespace_that_allows_it() {
    let central = referring(json!({"name": "puller", "namespace": "central"}));
    for (allowed, may) in [
        ("team-a", true),
        ("x, team-a", true),
        ("*", true),
        ("team", false),
        ("team-*", false),
        ("", false),
    ] {
        let mut account = annotations(BOTH);
        account.insert(ALLOWED_NAMESPACES.to_owned(), allowed.to_owned());
        match resolve_as(Kind::ClusterGenerator, &central, &account) {
            Ok(resolved) => assert_eq!(
                resolved.identity.subject(),
                "system:serviceaccount:central:puller"
            ),
            Err(problem) => {
                assert_eq!(problem.reason, Reason::CrossNamespaceNotAllowed);
                assert!(
                    problem.message.contains("kubectl annotate serviceaccount"),
                    "{problem}"
                );
            }
        }
        assert_eq!(
            resolve_as(Kind::ClusterGenerator, &central, &account).is_ok(),
            may,
            "{allowed:?}"
        );
    }
}

#[test]
fn a_cluster_generator_uses_the_pods_own_account_in_its_own_namespace() {
    let resolved = resolve_as(Kind::ClusterGenerator, &own_identity(), &annotations(BOTH)).unwrap();
    assert_eq!(resolved.identity.subject(), "system:serviceaccount:team-a:app");
}

#[test]
fn audiences_are_added_to_the_default_one_where_permitted() {
    let audiences = |asked: &[&str]| {
        let spec = referring(json!({"name": "puller", "audiences": asked}));
        resolve(&spec, &annotations(BOTH)).map(|r| r.identity.audiences)
    };
    assert_eq!(audiences(&[]).unwrap(), [AUDIENCE]);
    assert_eq!(
        audiences(&[OTHER_AUDIENCE, AUDIENCE]).unwrap(),
        [AUDIENCE, OTHER_AUDIENCE]
    );
    assert_eq!(
        audiences(&["https://evil"]).unwrap_err().reason,
        Reason::GeneratorInvalid
    );
}

#[test]
fn each_cloud_has_its_entra_and_azure_stack_only_where_it_was_told() {
    let mut spec = own_identity();
    for (environment, host) in [
        (EnvironmentType::PublicCloud, "login.microsoftonline.com"),
        (EnvironmentType::USGovernmentCloud, "login.microsoftonline.us"),
        (EnvironmentType::ChinaCloud, "login.chinacloudapi.cn"),
        (EnvironmentType::GermanCloud, "login.microsoftonline.de"),
    ] {
        spec.environment_type = environment;
        assert_eq!(
            resolve(&spec, &annotations(BOTH))
                .unwrap()
                .identity
                .cloud
                .authority_host,
            host
        );
    }
    spec.environment_type = EnvironmentType::AzureStackCloud;
    let problem = resolve(&spec, &annotations(BOTH)).unwrap_err();
    assert!(problem.message.contains("--authority-host"), "{problem}");
}

#[test]
fn the_nearest_client_and_tenant_ids_win() {
    let mut generator = own_identity();
    generator.tenant_id = Some("contoso.onmicrosoft.com".to_owned());
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
    change(|r| r.identity.cloud.authority_host = "login.example".to_owned());
    change(|r| r.identity.cloud.acr_audience = "https://other".to_owned());
    change(|r| r.identity.audiences = vec!["other".to_owned()]);
    change(|r| r.scope = Scope::parse("repository:a:pull").ok());
    change(|r| {
        r.registry = "azurecr.io"
            .parse::<RegistrySuffixes>()
            .unwrap()
            .permit("other.azurecr.io")
            .unwrap()
    });
}
