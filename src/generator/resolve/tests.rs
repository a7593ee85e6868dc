use super::*;
use crate::generator::namespaces::ALLOWED_NAMESPACES;
use crate::{
    foreign::hostile,
    identity::{ManagedIdentityId, SecretKey, WorkloadIdentity},
};
use proptest::prelude::*;
use serde_json::json;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const OTHER_AUDIENCE: &str = "api://other";

fn rules() -> ResolveRules {
    ResolveRules {
        registry_suffixes: "azurecr.io,azurecr.us,azurecr.cn,azurecr.de".parse().unwrap(),
        tenant_id: None,
        token_audiences: vec![AUDIENCE.to_owned(), OTHER_AUDIENCE.to_owned()],
        clouds: Clouds::default(),
        managed_identity_namespaces: NamespaceList::default(),
        excluded: Excluded::new(None, &["infra".to_owned()]).unwrap(),
    }
}

fn spec(json: serde_json::Value) -> ACRAccessTokenSpec {
    serde_json::from_value(json).unwrap()
}

/// A spec with this `serviceAccountRef`.
fn spec_with_service_account(reference: serde_json::Value) -> ACRAccessTokenSpec {
    spec(
        json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {"serviceAccountRef": reference}}}),
    )
}

/// A spec that uses the service account of the Pod.
fn spec_with_pod_identity() -> ACRAccessTokenSpec {
    spec(json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {}}}))
}

/// A generator with this spec, referenced by a Pod in namespace team-a.
fn in_namespace(kind: Kind, spec: &ACRAccessTokenSpec) -> GeneratorInNamespace<'_> {
    GeneratorInNamespace {
        reference: Reference {
            kind,
            name: "contoso",
        },
        namespace: "team-a",
        spec,
    }
}

fn annotations(pairs: &[(&str, &str)]) -> ServiceAccountAnnotations {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn resolve_as(
    kind: Kind,
    spec: &ACRAccessTokenSpec,
    account: &ServiceAccountAnnotations,
) -> Result<TokenInputs, Problem> {
    let rules = rules();
    let generator = in_namespace(kind, spec);
    rules.resolve(generator, rules.service_account(generator, "app")?, account)
}

/// The workload identity of a resolved generator.
fn workload(resolved: Result<TokenInputs, Problem>) -> Result<WorkloadIdentity, Problem> {
    resolved.map(|resolved| resolved.identity.workload().expect("a workload identity").clone())
}

fn resolve(spec: &ACRAccessTokenSpec, account: &ServiceAccountAnnotations) -> Result<TokenInputs, Problem> {
    resolve_as(Kind::AccessToken, spec, account)
}

/// The annotations of a service account with a client id and a tenant id.
const IDS: &[(&str, &str)] = &[
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
fn the_service_account_of_the_pod_is_used_by_default() {
    let resolved = resolve(&spec_with_pod_identity(), &annotations(IDS)).unwrap();
    assert_eq!(resolved.registry.as_str(), "contoso.azurecr.io");
    let identity = workload(Ok(resolved)).unwrap();
    assert_eq!(identity.subject(), "system:serviceaccount:team-a:app");
    assert_eq!(identity.client_id, "11111111-0000-0000-0000-000000000001");
    assert_eq!(identity.tenant_id, "22222222-0000-0000-0000-000000000002");
}

#[test]
fn a_named_service_account_replaces_that_of_the_pod() {
    for reference in [
        json!({"name": "puller"}),
        json!({"name": "puller", "namespace": "team-a"}),
    ] {
        let identity = workload(resolve(&spec_with_service_account(reference), &annotations(IDS))).unwrap();
        assert_eq!(identity.subject(), "system:serviceaccount:team-a:puller");
    }
}

#[test]
fn a_cluster_generator_may_use_a_service_account_that_allows_the_namespace() {
    let central = spec_with_service_account(json!({"name": "puller", "namespace": "central"}));
    for (allowed, permitted) in [
        ("team-a", true),
        ("x, team-a", true),
        ("*", true),
        ("team", false),
        ("team-*", false),
        ("", false),
    ] {
        let mut account = annotations(IDS);
        account.insert(ALLOWED_NAMESPACES.to_owned(), allowed.to_owned());
        match workload(resolve_as(Kind::ClusterGenerator, &central, &account)) {
            Ok(identity) => assert_eq!(identity.subject(), "system:serviceaccount:central:puller"),
            Err(problem) => {
                assert_eq!(problem.reason, Reason::CrossNamespaceNotAllowed);
                // The message does not disclose which other namespaces are allowed.
                let list = if allowed.is_empty() {
                    "team-a"
                } else {
                    "PRESENT,team-a"
                };
                let command = format!(
                    "kubectl annotate serviceaccount --overwrite --namespace central puller {ALLOWED_NAMESPACES}={list}"
                );
                assert!(problem.message.contains(&command), "{problem}");
            }
        }
        assert_eq!(
            resolve_as(Kind::ClusterGenerator, &central, &account).is_ok(),
            permitted,
            "{allowed:?}"
        );
    }
}

#[test]
fn a_service_account_of_an_excluded_namespace_is_never_used() {
    for namespace in ["kube-system", "infra"] {
        let elsewhere = spec_with_service_account(json!({"name": "puller", "namespace": namespace}));
        let mut account = annotations(IDS);
        account.insert(ALLOWED_NAMESPACES.to_owned(), "*".to_owned());
        let problem = resolve_as(Kind::ClusterGenerator, &elsewhere, &account).unwrap_err();
        assert_eq!(problem.reason, Reason::NamespaceExcluded, "{problem}");
    }
}

#[test]
fn a_cluster_generator_uses_the_service_account_of_the_pod_by_default() {
    let resolved = resolve_as(
        Kind::ClusterGenerator,
        &spec_with_pod_identity(),
        &annotations(IDS),
    );
    assert_eq!(
        workload(resolved).unwrap().subject(),
        "system:serviceaccount:team-a:app"
    );
}

#[test]
fn permitted_audiences_are_added_to_the_default_audience() {
    let audiences = |requested: &[&str]| {
        let spec = spec_with_service_account(json!({"name": "puller", "audiences": requested}));
        workload(resolve(&spec, &annotations(IDS))).map(|identity| identity.audiences)
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
fn each_cloud_has_its_own_entra_and_registries() {
    let mut spec = spec_with_pod_identity();
    for (environment, registry, host) in [
        ("PublicCloud", "contoso.azurecr.io", "login.microsoftonline.com"),
        (
            "USGovernmentCloud",
            "contoso.azurecr.us",
            "login.microsoftonline.us",
        ),
        ("ChinaCloud", "contoso.azurecr.cn", "login.chinacloudapi.cn"),
        ("GermanCloud", "contoso.azurecr.de", "login.microsoftonline.de"),
    ] {
        spec.environment_type = serde_json::from_value(json!(environment)).unwrap();
        spec.registry = registry.to_owned();
        let identity = workload(resolve(&spec, &annotations(IDS))).unwrap();
        assert_eq!(identity.cloud.authority_host, host);
        // A token of one cloud is not sent to a registry of another cloud.
        for other in ["io", "us", "cn", "de"].map(|suffix| format!("contoso.azurecr.{suffix}")) {
            spec.registry = other;
            let refused = resolve(&spec, &annotations(IDS)).err();
            assert_eq!(refused.is_none(), spec.registry == registry);
            assert!(
                refused.is_none_or(|problem| problem.reason == Reason::RegistryNotAllowed
                    && problem.message.contains("spec.environmentType"))
            );
        }
    }
    spec.environment_type = EnvironmentType::AzureStackCloud;
    let problem = resolve(&spec, &annotations(IDS)).unwrap_err();
    assert!(problem.message.contains("--authority-host"), "{problem}");
}

#[test]
fn the_most_specific_client_and_tenant_ids_win() {
    let mut generator = spec_with_pod_identity();
    generator.tenant_id = Some("contoso.onmicrosoft.com".to_owned());
    let client_id_only = annotations(&[(
        "azure.workload.identity/client-id",
        "11111111-0000-0000-0000-000000000001",
    )]);
    let identity = workload(resolve(&generator, &client_id_only)).unwrap();
    assert_eq!(
        (identity.tenant_id.as_str(), identity.tenant_from),
        (
            "contoso.onmicrosoft.com",
            TenantFrom::Generator {
                command: "kubectl patch acraccesstoken contoso --namespace team-a --type merge --patch \
                          '{\"spec\":{\"tenantId\":\"TENANT_ID\"}}'"
                    .to_owned()
            }
        )
    );
    generator.tenant_id = None;
    let with_default = ResolveRules {
        tenant_id: Some("44444444-0000-0000-0000-000000000004".to_owned()),
        ..rules()
    };
    let referenced = in_namespace(Kind::AccessToken, &generator);
    let account = with_default.service_account(referenced, "app").unwrap();
    let identity = workload(with_default.resolve(referenced, account, &client_id_only)).unwrap();
    assert_eq!(
        (identity.tenant_id.as_str(), identity.tenant_from),
        ("44444444-0000-0000-0000-000000000004", TenantFrom::Flag)
    );
    let all = annotations(&[
        IDS[0],
        IDS[1],
        (
            "kubernetes.azure.com/acr-client-id",
            "33333333-0000-0000-0000-000000000003",
        ),
        (
            "kubernetes.azure.com/acr-tenant-id",
            "44444444-0000-0000-0000-000000000004",
        ),
    ]);
    let identity = workload(resolve(&generator, &all)).unwrap();
    assert_eq!(
        identity.tenant_from,
        TenantFrom::Annotation("kubernetes.azure.com/acr-tenant-id")
    );
    assert_eq!(
        identity.client_id_annotation,
        "kubernetes.azure.com/acr-client-id"
    );
    assert_eq!(
        (identity.client_id.as_str(), identity.tenant_id.as_str()),
        (
            "33333333-0000-0000-0000-000000000003",
            "44444444-0000-0000-0000-000000000004"
        )
    );
}

#[test]
fn each_invalid_generator_is_refused_with_its_reason() {
    let own = json!({"workloadIdentity": {}});
    let reference = |r: serde_json::Value| json!({"workloadIdentity": {"serviceAccountRef": r}});
    let registry = "contoso.azurecr.io";
    for (generator, account, reason) in [
        (
            spec(json!({"registry": registry, "auth": {}})),
            IDS,
            Reason::GeneratorInvalid,
        ),
        (
            spec(json!({"registry": registry, "auth": {"managedIdentity": {}}})),
            IDS,
            Reason::ManagedIdentityNotAllowed,
        ),
        (
            spec(
                json!({"registry": registry, "auth": {"servicePrincipal": {"secretRef": {}}, "workloadIdentity": {}}}),
            ),
            IDS,
            Reason::GeneratorInvalid,
        ),
        (
            spec(
                json!({"registry": registry, "auth": reference(json!({"name": "x", "namespace": "team-b"}))}),
            ),
            IDS,
            Reason::CrossNamespaceNotAllowed,
        ),
        (
            spec(
                json!({"registry": registry, "auth": reference(json!({"name": "x", "audiences": ["https://evil"]}))}),
            ),
            IDS,
            Reason::GeneratorInvalid,
        ),
        (
            spec(json!({"registry": "evil.example.com", "auth": own})),
            IDS,
            Reason::RegistryNotAllowed,
        ),
        (
            spec(json!({"registry": registry, "auth": own, "scope": "repository:*:pull"})),
            IDS,
            Reason::ScopeInvalid,
        ),
        (
            spec(json!({"registry": registry, "auth": own, "environmentType": "AzureStackCloud"})),
            IDS,
            Reason::GeneratorInvalid,
        ),
        (spec_with_pod_identity(), &[][..], Reason::ClientIdMissing),
        (spec_with_pod_identity(), &IDS[..1], Reason::TenantIdMissing),
        (
            spec_with_pod_identity(),
            &[(IDS[0].0, "not-a-guid"), IDS[1]],
            Reason::IdentityInvalid,
        ),
        (
            spec_with_pod_identity(),
            &[IDS[0], (IDS[1].0, "../common")],
            Reason::IdentityInvalid,
        ),
        (
            spec_with_pod_identity(),
            &[IDS[0], (IDS[1].0, "common")],
            Reason::IdentityInvalid,
        ),
    ] {
        let problem = resolve(&generator, &annotations(account)).unwrap_err();
        assert_eq!(problem.reason, reason, "{problem}");
    }
}

/// A spec with this `secretRef` of a service principal.
fn spec_with_secret_ref(secret_ref: serde_json::Value) -> ACRAccessTokenSpec {
    let auth = json!({"servicePrincipal": {"secretRef": secret_ref}});
    spec(json!({"registry": "contoso.azurecr.io", "tenantId": IDS[1].1, "auth": auth}))
}

#[test]
fn a_service_principal_uses_secrets_of_the_pods_namespace() {
    let secret_ref =
        json!({"clientId": {"name": "sp", "key": "id"}, "clientSecret": {"name": "sp", "key": "secret"}});
    let spec = spec_with_secret_ref(secret_ref);
    let account = rules()
        .service_account(in_namespace(Kind::AccessToken, &spec), "app")
        .unwrap();
    assert_eq!(
        (account, account.namespace_and_name("team-a")),
        (ServiceAccount::NotNeeded, None)
    );
    let Identity::ServicePrincipal(found) = resolve(&spec, &annotations(&[])).unwrap().identity else {
        panic!("a service principal");
    };
    let key = |key: &str| SecretKey {
        namespace: "team-a".to_owned(),
        name: "sp".to_owned(),
        key: key.to_owned(),
    };
    assert_eq!((found.client_id, found.client_secret), (key("id"), key("secret")));
    assert_eq!(found.tenant_id, IDS[1].1);
}

#[test]
fn only_a_cluster_generator_may_use_a_secret_of_another_namespace() {
    let secret_ref = json!({
        "clientId": {"name": "sp", "key": "id", "namespace": "central"},
        "clientSecret": {"name": "sp", "key": "secret", "namespace": "central"},
    });
    let spec = spec_with_secret_ref(secret_ref);
    let Identity::ServicePrincipal(found) = resolve_as(Kind::ClusterGenerator, &spec, &annotations(&[]))
        .unwrap()
        .identity
    else {
        panic!("a service principal");
    };
    assert_eq!(found.client_secret.namespace, "central");
    let problem = resolve(&spec, &annotations(&[])).unwrap_err();
    assert_eq!(problem.reason, Reason::CrossNamespaceNotAllowed);
    assert!(
        problem.message.contains("secretRef.clientId.namespace"),
        "{problem}"
    );
}

#[test]
fn a_missing_field_of_a_service_principal_is_named() {
    let id = json!({"name": "sp", "key": "id"});
    for (secret_ref, field) in [
        (json!({}), "secretRef.clientId.name"),
        (json!({"clientId": {"name": "sp"}}), "secretRef.clientId.key"),
        (json!({"clientId": id}), "secretRef.clientSecret.name"),
        (
            json!({"clientId": id, "clientSecret": {"name": "", "key": "x"}}),
            "secretRef.clientSecret.name",
        ),
    ] {
        let problem = resolve(&spec_with_secret_ref(secret_ref), &annotations(&[])).unwrap_err();
        assert_eq!(problem.reason, Reason::GeneratorInvalid);
        assert!(problem.message.contains(field), "{problem}");
    }
    let mut without_tenant = spec_with_secret_ref(json!({"clientId": id, "clientSecret": id}));
    without_tenant.tenant_id = None;
    let problem = resolve(&without_tenant, &annotations(IDS)).unwrap_err();
    assert_eq!(
        problem.reason,
        Reason::TenantIdMissing,
        "annotations do not apply to a service principal"
    );
}

#[test]
fn invalid_object_names_are_refused() {
    let key = |name: &str, key: &str| json!({"clientId": {"name": name, "key": key}, "clientSecret": {"name": "sp", "key": "secret"}});
    for invalid in [
        spec_with_secret_ref(key("x;id", "id")),
        spec_with_secret_ref(key("../x", "id")),
        spec_with_secret_ref(key("sp", "a'b")),
        spec_with_service_account(json!({"name": ""})),
        spec_with_service_account(json!({"name": "a/b"})),
    ] {
        let problem = resolve(&invalid, &annotations(IDS)).unwrap_err();
        assert_eq!(problem.reason, Reason::GeneratorInvalid, "{problem}");
    }
    let elsewhere = spec_with_service_account(json!({"name": "x", "namespace": "../kube-system"}));
    let problem = resolve_as(Kind::ClusterGenerator, &elsewhere, &annotations(IDS)).unwrap_err();
    assert_eq!(problem.reason, Reason::GeneratorInvalid, "{problem}");
}

#[test]
fn managed_identities_are_for_permitted_namespaces_only() {
    let permissive = ResolveRules {
        managed_identity_namespaces: "team-a".parse().unwrap(),
        tenant_id: Some("common.example".to_owned()),
        ..rules()
    };
    let resource =
        "/subscriptions/5ab/resourcegroups/x/providers/Microsoft.ManagedIdentity/userAssignedIdentities/y";
    let managed = |kind, namespace: &str, id: serde_json::Value| {
        let spec =
            spec(json!({"registry": "contoso.azurecr.io", "auth": {"managedIdentity": {"identityId": id}}}));
        let generator = GeneratorInNamespace {
            namespace,
            ..in_namespace(kind, &spec)
        };
        let account = permissive.service_account(generator, "app")?;
        assert_eq!(account, ServiceAccount::NotNeeded);
        permissive
            .resolve(generator, account, &annotations(&[]))
            .map(|resolved| match resolved.identity {
                Identity::Managed(managed) => managed,
                other => panic!("{other:?}"),
            })
    };
    for (id, expected) in [
        (json!(null), ManagedIdentityId::SystemAssigned),
        (json!(""), ManagedIdentityId::SystemAssigned),
        (json!(IDS[0].1), ManagedIdentityId::ClientId(IDS[0].1.to_owned())),
        (
            json!(resource),
            ManagedIdentityId::ResourceId(resource.to_owned()),
        ),
    ] {
        let found = managed(Kind::AccessToken, "team-a", id).unwrap();
        assert_eq!(
            (found.id, found.tenant_id),
            (expected, None),
            "--tenant-id does not apply to managed identities"
        );
    }
    for (id, reason) in [
        ("kubelet", Reason::IdentityInvalid),
        ("groups/x", Reason::GeneratorInvalid),
    ] {
        assert_eq!(
            managed(Kind::AccessToken, "team-a", json!(id))
                .unwrap_err()
                .reason,
            reason
        );
    }
    for kind in [Kind::AccessToken, Kind::ClusterGenerator] {
        let problem = managed(kind, "team-b", json!(null)).unwrap_err();
        assert_eq!(problem.reason, Reason::ManagedIdentityNotAllowed);
        assert!(
            problem.message.contains("--managed-identity-namespaces"),
            "{problem}"
        );
    }
}

#[test]
fn several_identities_cause_a_warning_and_the_first_is_used() {
    let principal = json!({"secretRef": {"clientId": {"name": "sp", "key": "id"}, "clientSecret": {"name": "sp", "key": "secret"}}});
    let several = |auth: serde_json::Value| {
        let spec = spec(json!({"registry": "contoso.azurecr.io", "tenantId": IDS[1].1, "auth": auth}));
        let permissive = ResolveRules {
            managed_identity_namespaces: "*".parse().unwrap(),
            ..rules()
        };
        let generator = in_namespace(Kind::AccessToken, &spec);
        let account = permissive.service_account(generator, "app").unwrap();
        let resolved = permissive.resolve(generator, account, &annotations(IDS)).unwrap();
        (resolved.identity.kind(), generator.multiple_identities_warning())
    };
    let (used, warning) =
        several(json!({"servicePrincipal": principal, "managedIdentity": {}, "workloadIdentity": {}}));
    assert_eq!(used, "ServicePrincipal");
    assert_eq!(
        warning.as_deref(),
        Some(
            "ACRAccessToken contoso sets several identities in spec.auth (servicePrincipal, managedIdentity, workloadIdentity): servicePrincipal is used"
        )
    );
    let (used, warning) = several(json!({"managedIdentity": {}, "workloadIdentity": {}}));
    assert_eq!(used, "ManagedIdentity");
    assert!(warning.unwrap().ends_with("managedIdentity is used"));
    assert_eq!(
        several(json!({"workloadIdentity": {}})),
        ("WorkloadIdentity", None)
    );
}

#[test]
fn the_fingerprint_depends_on_every_input_and_on_nothing_else() {
    let base = resolve(&spec_with_pod_identity(), &annotations(IDS)).unwrap();
    assert_eq!(base.fingerprint(), base.clone().fingerprint());
    let mut seen = vec![base.fingerprint()];
    let mut change = |edit: &dyn Fn(&mut TokenInputs)| {
        let mut changed = base.clone();
        edit(&mut changed);
        assert!(!seen.contains(&changed.fingerprint()));
        seen.push(changed.fingerprint());
    };
    let edits: [fn(&mut WorkloadIdentity); 7] = [
        |w| w.client_id = "other".to_owned(),
        |w| w.tenant_id = "other".to_owned(),
        |w| w.service_account = "other".to_owned(),
        |w| w.namespace = "other".to_owned(),
        |w| w.cloud.authority_host = "login.example".to_owned(),
        |w| w.cloud.acr_audience = "https://other".to_owned(),
        |w| w.audiences = vec!["other".to_owned()],
    ];
    for edit in edits {
        change(&|resolved| match &mut resolved.identity {
            Identity::Workload(identity) => edit(identity),
            other => panic!("{other:?}"),
        });
    }
    change(&|r| r.scope = Scope::parse("repository:a:pull").ok());
    change(&|r| {
        r.registry = "azurecr.io"
            .parse::<RegistrySuffixes>()
            .unwrap()
            .permit("other.azurecr.io")
            .unwrap()
    });
    let secret_ref =
        json!({"clientId": {"name": "sp", "key": "id"}, "clientSecret": {"name": "sp", "key": "secret"}});
    let by_secret = resolve(&spec_with_secret_ref(secret_ref), &annotations(&[]))
        .unwrap()
        .identity;
    change(&|r| r.identity = by_secret.clone());
    // The source of an id is not an input, because the token does not depend on it.
    let mut moved = base.clone();
    if let Identity::Workload(identity) = &mut moved.identity {
        identity.tenant_from = TenantFrom::Flag;
        identity.client_id_annotation = "elsewhere";
    }
    assert_eq!(moved.fingerprint(), base.fingerprint());
}

#[test]
fn values_above_a_limit_are_refused_with_the_reason_of_their_field() {
    let (long, registry) = ("a".repeat(5000), "contoso.azurecr.io");
    let own = json!({"workloadIdentity": {}});
    let principal_key = json!({"name": "sp", "key": long});
    let reference = |r: serde_json::Value| json!({"workloadIdentity": {"serviceAccountRef": r}});
    for (generator, reason) in [
        (
            json!({"registry": registry, "auth": own, "scope": "repository:app:pull ".repeat(1000)}),
            Reason::ScopeInvalid,
        ),
        (
            json!({"registry": registry, "auth": own, "scope": " ".repeat(5000)}),
            Reason::ScopeInvalid,
        ),
        (
            json!({"registry": format!("{long}.azurecr.io"), "auth": own}),
            Reason::RegistryNotAllowed,
        ),
        (
            json!({"registry": registry, "auth": reference(json!({"name": long}))}),
            Reason::GeneratorInvalid,
        ),
        (
            json!({"registry": registry, "auth": reference(json!({"name": "app", "audiences": vec![AUDIENCE; 9]}))}),
            Reason::GeneratorInvalid,
        ),
        (
            json!({"registry": registry, "auth": reference(json!({"name": "app", "audiences": [long]}))}),
            Reason::GeneratorInvalid,
        ),
        (
            json!({"registry": registry, "tenantId": IDS[1].1, "auth": {"servicePrincipal": {"secretRef": {"clientId": principal_key, "clientSecret": principal_key}}}}),
            Reason::GeneratorInvalid,
        ),
        (
            json!({"registry": registry, "tenantId": format!("{}{}", " ".repeat(5000), IDS[1].1), "auth": own}),
            Reason::IdentityInvalid,
        ),
        (
            json!({"registry": registry, "auth": {"managedIdentity": {"identityId": format!("/subscriptions/{long}")}}}),
            Reason::GeneratorInvalid,
        ),
        (
            json!({"registry": registry, "auth": {"managedIdentity": {"identityId": "/subscriptions/a/$(id)"}}}),
            Reason::GeneratorInvalid,
        ),
    ] {
        let permissive = ResolveRules {
            managed_identity_namespaces: "*".parse().unwrap(),
            ..rules()
        };
        let spec = spec(generator);
        let account_annotations = if spec.tenant_id.is_some() { &IDS[..1] } else { IDS };
        let generator = in_namespace(Kind::AccessToken, &spec);
        let resolved = permissive
            .service_account(generator, "app")
            .and_then(|account| permissive.resolve(generator, account, &annotations(account_annotations)));
        let problem = resolved.unwrap_err();
        assert_eq!(problem.reason, reason, "{problem}");
        assert!(problem.message.len() < 1000, "{problem}");
    }
    let central = spec_with_service_account(json!({"name": "puller", "namespace": "central"}));
    let mut account = annotations(IDS);
    account.insert(
        ALLOWED_NAMESPACES.to_owned(),
        format!("team-a,{}", "x,".repeat(5000)),
    );
    let problem = resolve_as(Kind::ClusterGenerator, &central, &account).unwrap_err();
    assert_eq!(problem.reason, Reason::CrossNamespaceNotAllowed);
    assert!(problem.message.contains("shorten it"), "{problem}");
    let problem = resolve(
        &spec_with_pod_identity(),
        &annotations(&[(IDS[0].0, &long), IDS[1]]),
    )
    .unwrap_err();
    assert_eq!(problem.reason, Reason::IdentityInvalid);
}

/// A JSON pointer to each field of a generator and each annotation.
const POINTERS: &[&str] = &[
    "/spec/registry",
    "/spec/tenantId",
    "/spec/scope",
    "/spec/auth/servicePrincipal/secretRef/clientId/name",
    "/spec/auth/servicePrincipal/secretRef/clientId/key",
    "/spec/auth/servicePrincipal/secretRef/clientId/namespace",
    "/spec/auth/managedIdentity/identityId",
    "/spec/auth/workloadIdentity/serviceAccountRef/name",
    "/spec/auth/workloadIdentity/serviceAccountRef/namespace",
    "/spec/auth/workloadIdentity/serviceAccountRef/audiences/0",
    "/annotations/azure.workload.identity~1client-id",
    "/annotations/azure.workload.identity~1tenant-id",
    "/annotations/kubernetes.azure.com~1acr-client-id",
    "/annotations/kubernetes.azure.com~1acr-tenant-id",
    "/annotations/acr-pull.dev~1allowed-namespaces",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn no_message_contains_a_command_with_text_of_a_user(
        pointer in prop::sample::select(POINTERS),
        text in hostile::text(),
        auth in 0usize..3,
        cluster in any::<bool>(),
    ) {
        let auths = ["servicePrincipal", "managedIdentity", "workloadIdentity"];
        let mut all = json!({
            "spec": {
                "registry": "contoso.azurecr.io",
                "tenantId": IDS[1].1,
                "scope": "repository:a:pull",
                "auth": {
                    "servicePrincipal": {"secretRef": {
                        "clientId": {"name": "sp", "key": "id", "namespace": "team-a"},
                        "clientSecret": {"name": "sp", "key": "secret", "namespace": "team-a"},
                    }},
                    "managedIdentity": {"identityId": "/subscriptions/a"},
                    "workloadIdentity": {"serviceAccountRef": {"name": "puller", "namespace": "central", "audiences": [AUDIENCE]}},
                },
            },
            "annotations": {"azure.workload.identity/client-id": IDS[0].1, "azure.workload.identity/tenant-id": "",
                "kubernetes.azure.com/acr-client-id": "", "kubernetes.azure.com/acr-tenant-id": "",
                "acr-pull.dev/allowed-namespaces": "team-b"},
        });
        *all.pointer_mut(pointer).unwrap() = json!(text);
        let chosen = &mut all["spec"]["auth"];
        let kept = chosen[auths[auth]].clone();
        *chosen = json!({auths[auth]: kept});
        let kind = if cluster { Kind::ClusterGenerator } else { Kind::AccessToken };
        let permissive = ResolveRules { managed_identity_namespaces: "*".parse().unwrap(), ..rules() };
        let (spec, account) = (spec(all["spec"].clone()), serde_json::from_value(all["annotations"].clone()).unwrap());
        let generator = in_namespace(kind, &spec);
        let resolved = permissive.service_account(generator, "app").and_then(|used| permissive.resolve(generator, used, &account));
        match resolved {
            Err(problem) => hostile::check(&problem.message),
            // Valid values become part of messages about refusals of Entra and of the managed identity endpoint.
            Ok(resolved) => hostile::check(&format!("kubectl {} {:?}", resolved.identity, resolved.identity.tenant_id()).replace('"', "")),
        }
    }
}
