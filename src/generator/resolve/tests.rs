use super::*;
use crate::generator::namespaces::ALLOWED_NAMESPACES;
use crate::{
    identity::{ManagedIdentityId, SecretKey, WorkloadIdentity},
    untrusted::hostile,
};
use proptest::prelude::*;
use serde_json::json;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const OTHER_AUDIENCE: &str = "api://other";

fn resolver() -> Resolver {
    Resolver {
        suffixes: "azurecr.io,azurecr.us,azurecr.cn,azurecr.de".parse().unwrap(),
        tenant_id: None,
        token_audiences: vec![AUDIENCE.to_owned(), OTHER_AUDIENCE.to_owned()],
        clouds: Clouds::default(),
        managed_identity_namespaces: NamespaceList::default(),
        excluded: ExcludedNamespaces::new(None, &["infra".to_owned()]).unwrap(),
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

/// The workload identity that a generator resolves to.
fn workload(resolved: Result<Resolved, Problem>) -> Result<WorkloadIdentity, Problem> {
    resolved.map(|resolved| resolved.identity.workload().expect("a workload identity").clone())
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
    assert_eq!(resolved.registry.as_str(), "contoso.azurecr.io");
    let identity = workload(Ok(resolved)).unwrap();
    assert_eq!(identity.subject(), "system:serviceaccount:team-a:app");
    assert_eq!(identity.client_id, "11111111-0000-0000-0000-000000000001");
    assert_eq!(identity.tenant_id, "22222222-0000-0000-0000-000000000002");
}

#[test]
fn a_named_service_account_of_the_same_namespace_replaces_the_pods() {
    for reference in [
        json!({"name": "puller"}),
        json!({"name": "puller", "namespace": "team-a"}),
    ] {
        let identity = workload(resolve(&referring(reference), &annotations(BOTH))).unwrap();
        assert_eq!(identity.subject(), "system:serviceaccount:team-a:puller");
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
        match workload(resolve_as(Kind::ClusterGenerator, &central, &account)) {
            Ok(identity) => assert_eq!(identity.subject(), "system:serviceaccount:central:puller"),
            Err(problem) => {
                assert_eq!(problem.reason, Reason::CrossNamespaceNotAllowed);
                // Whom else it allows is no matter of this Pod's.
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
            may,
            "{allowed:?}"
        );
    }
}

#[test]
fn an_account_of_an_excluded_namespace_is_not_used_even_where_it_allows_that() {
    for namespace in ["kube-system", "infra"] {
        let elsewhere = referring(json!({"name": "puller", "namespace": namespace}));
        let mut account = annotations(BOTH);
        account.insert(ALLOWED_NAMESPACES.to_owned(), "*".to_owned());
        let problem = resolve_as(Kind::ClusterGenerator, &elsewhere, &account).unwrap_err();
        assert_eq!(problem.reason, Reason::NamespaceExcluded, "{problem}");
    }
}

#[test]
fn a_cluster_generator_uses_the_pods_own_account_in_its_own_namespace() {
    let resolved = resolve_as(Kind::ClusterGenerator, &own_identity(), &annotations(BOTH));
    assert_eq!(
        workload(resolved).unwrap().subject(),
        "system:serviceaccount:team-a:app"
    );
}

#[test]
fn audiences_are_added_to_the_default_one_where_permitted() {
    let audiences = |asked: &[&str]| {
        let spec = referring(json!({"name": "puller", "audiences": asked}));
        workload(resolve(&spec, &annotations(BOTH))).map(|identity| identity.audiences)
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
        let identity = workload(resolve(&spec, &annotations(BOTH))).unwrap();
        assert_eq!(identity.cloud.authority_host, host);
        // A token of this cloud has no business at another one's registries.
        for other in ["io", "us", "cn", "de"].map(|end| format!("contoso.azurecr.{end}")) {
            spec.registry = other;
            let refused = resolve(&spec, &annotations(BOTH)).err();
            assert_eq!(refused.is_none(), spec.registry == registry);
            assert!(
                refused.is_none_or(|problem| problem.reason == Reason::RegistryNotAllowed
                    && problem.message.contains("spec.environmentType"))
            );
        }
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
    let identity = workload(resolve(&generator, &only_client)).unwrap();
    assert_eq!(
        (identity.tenant_id.as_str(), identity.tenant_id_source),
        (
            "contoso.onmicrosoft.com",
            TenantIdSource::Generator {
                command: "kubectl patch acraccesstoken contoso --namespace team-a --type merge --patch \
                          '{\"spec\":{\"tenantId\":\"TENANT_ID\"}}'"
                    .to_owned()
            }
        )
    );
    generator.tenant_id = None;
    let flagged = Resolver {
        tenant_id: Some("44444444-0000-0000-0000-000000000004".to_owned()),
        ..resolver()
    };
    let referenced = super::tests::generator(Kind::AccessToken, &generator);
    let account = flagged.account(referenced, "app").unwrap();
    let identity = workload(flagged.resolve(referenced, account, &only_client)).unwrap();
    assert_eq!(
        (identity.tenant_id.as_str(), identity.tenant_id_source),
        ("44444444-0000-0000-0000-000000000004", TenantIdSource::Flag)
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
    let identity = workload(resolve(&generator, &all)).unwrap();
    assert_eq!(
        identity.tenant_id_source,
        TenantIdSource::Annotation("kubernetes.azure.com/acr-tenant-id")
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
            Reason::ManagedIdentityNotAllowed,
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

/// A spec with this `secretRef` of a service principal.
fn principal(secret_ref: serde_json::Value) -> ACRAccessTokenSpec {
    let auth = json!({"servicePrincipal": {"secretRef": secret_ref}});
    spec(json!({"registry": "contoso.azurecr.io", "tenantId": BOTH[1].1, "auth": auth}))
}

#[test]
fn a_service_principal_is_found_in_secrets_of_the_pods_namespace_and_asks_for_no_service_account() {
    let secret_ref =
        json!({"clientId": {"name": "sp", "key": "id"}, "clientSecret": {"name": "sp", "key": "secret"}});
    let spec = principal(secret_ref);
    let account = resolver()
        .account(generator(Kind::AccessToken, &spec), "app")
        .unwrap();
    assert_eq!(
        (account, account.service_account("team-a")),
        (Account::None, None)
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
    assert_eq!(found.tenant_id, BOTH[1].1);
}

#[test]
fn only_a_cluster_generator_takes_a_secret_of_another_namespace() {
    let secret_ref = json!({
        "clientId": {"name": "sp", "key": "id", "namespace": "central"},
        "clientSecret": {"name": "sp", "key": "secret", "namespace": "central"},
    });
    let spec = principal(secret_ref);
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
fn what_a_service_principal_lacks_is_named() {
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
        let problem = resolve(&principal(secret_ref), &annotations(&[])).unwrap_err();
        assert_eq!(problem.reason, Reason::GeneratorInvalid);
        assert!(problem.message.contains(field), "{problem}");
    }
    let mut homeless = principal(json!({"clientId": id, "clientSecret": id}));
    homeless.tenant_id = None;
    let problem = resolve(&homeless, &annotations(BOTH)).unwrap_err();
    assert_eq!(
        problem.reason,
        Reason::TenantIdMissing,
        "annotations are not a service principal's"
    );
}

#[test]
fn a_name_that_is_none_is_refused_before_it_gets_into_a_path_or_a_command() {
    let key = |name: &str, key: &str| json!({"clientId": {"name": name, "key": key}, "clientSecret": {"name": "sp", "key": "secret"}});
    for bad in [
        principal(key("x;id", "id")),
        principal(key("../x", "id")),
        principal(key("sp", "a'b")),
        referring(json!({"name": ""})),
        referring(json!({"name": "a/b"})),
    ] {
        let problem = resolve(&bad, &annotations(BOTH)).unwrap_err();
        assert_eq!(problem.reason, Reason::GeneratorInvalid, "{problem}");
    }
    let elsewhere = referring(json!({"name": "x", "namespace": "../kube-system"}));
    let problem = resolve_as(Kind::ClusterGenerator, &elsewhere, &annotations(BOTH)).unwrap_err();
    assert_eq!(problem.reason, Reason::GeneratorInvalid, "{problem}");
}

#[test]
fn a_managed_identity_is_told_by_its_form_and_only_for_permitted_namespaces() {
    let permitting = Resolver {
        managed_identity_namespaces: "team-a".parse().unwrap(),
        tenant_id: Some("common.example".to_owned()),
        ..resolver()
    };
    let resource =
        "/subscriptions/5ab/resourcegroups/x/providers/Microsoft.ManagedIdentity/userAssignedIdentities/y";
    let managed = |kind, namespace: &str, id: serde_json::Value| {
        let spec =
            spec(json!({"registry": "contoso.azurecr.io", "auth": {"managedIdentity": {"identityId": id}}}));
        let generator = Referenced {
            namespace,
            ..generator(kind, &spec)
        };
        let account = permitting.account(generator, "app")?;
        assert_eq!(account, Account::None);
        permitting
            .resolve(generator, account, &annotations(&[]))
            .map(|resolved| match resolved.identity {
                Identity::Managed(managed) => managed,
                other => panic!("{other:?}"),
            })
    };
    for (id, expected) in [
        (json!(null), ManagedIdentityId::SystemAssigned),
        (json!(""), ManagedIdentityId::SystemAssigned),
        (
            json!(BOTH[0].1),
            ManagedIdentityId::ClientId(BOTH[0].1.to_owned()),
        ),
        (
            json!(resource),
            ManagedIdentityId::ResourceId(resource.to_owned()),
        ),
    ] {
        let found = managed(Kind::AccessToken, "team-a", id).unwrap();
        assert_eq!(
            (found.id, found.tenant_id),
            (expected, None),
            "--tenant-id is not the machine's"
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
fn of_several_identities_external_secrets_operators_first_is_used_and_told() {
    let principal = json!({"secretRef": {"clientId": {"name": "sp", "key": "id"}, "clientSecret": {"name": "sp", "key": "secret"}}});
    let several = |auth: serde_json::Value| {
        let spec = spec(json!({"registry": "contoso.azurecr.io", "tenantId": BOTH[1].1, "auth": auth}));
        let permitting = Resolver {
            managed_identity_namespaces: "*".parse().unwrap(),
            ..resolver()
        };
        let generator = generator(Kind::AccessToken, &spec);
        let account = permitting.account(generator, "app").unwrap();
        let resolved = permitting
            .resolve(generator, account, &annotations(BOTH))
            .unwrap();
        (resolved.identity.kind(), generator.several_identities())
    };
    let (used, note) =
        several(json!({"servicePrincipal": principal, "managedIdentity": {}, "workloadIdentity": {}}));
    assert_eq!(used, "ServicePrincipal");
    assert_eq!(
        note.as_deref(),
        Some(
            "ACRAccessToken contoso names several identities in spec.auth (servicePrincipal, managedIdentity, workloadIdentity): servicePrincipal is used"
        )
    );
    let (used, note) = several(json!({"managedIdentity": {}, "workloadIdentity": {}}));
    assert_eq!(used, "ManagedIdentity");
    assert!(note.unwrap().ends_with("managedIdentity is used"));
    assert_eq!(
        several(json!({"workloadIdentity": {}})),
        ("WorkloadIdentity", None)
    );
}

#[test]
fn the_fingerprint_changes_with_each_input_and_with_nothing_else() {
    let base = resolve(&own_identity(), &annotations(BOTH)).unwrap();
    assert_eq!(base.fingerprint(), base.clone().fingerprint());
    let mut seen = vec![base.fingerprint()];
    let mut change = |edit: &dyn Fn(&mut Resolved)| {
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
    let by_secret = resolve(&principal(secret_ref), &annotations(&[]))
        .unwrap()
        .identity;
    change(&|r| r.identity = by_secret.clone());
    // Where an id stands is no input: the token is the same.
    let mut moved = base.clone();
    if let Identity::Workload(identity) = &mut moved.identity {
        identity.tenant_id_source = TenantIdSource::Flag;
        identity.client_id_annotation = "elsewhere";
    }
    assert_eq!(moved.fingerprint(), base.fingerprint());
}

#[test]
fn what_is_longer_than_it_may_be_is_refused_with_the_reason_of_its_field() {
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
            json!({"registry": registry, "tenantId": BOTH[1].1, "auth": {"servicePrincipal": {"secretRef": {"clientId": principal_key, "clientSecret": principal_key}}}}),
            Reason::GeneratorInvalid,
        ),
        (
            json!({"registry": registry, "tenantId": format!("{}{}", " ".repeat(5000), BOTH[1].1), "auth": own}),
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
        let permitting = Resolver {
            managed_identity_namespaces: "*".parse().unwrap(),
            ..resolver()
        };
        let spec = spec(generator);
        let account_says = if spec.tenant_id.is_some() {
            &BOTH[..1]
        } else {
            BOTH
        };
        let generator = super::tests::generator(Kind::AccessToken, &spec);
        let resolved = permitting
            .account(generator, "app")
            .and_then(|account| permitting.resolve(generator, account, &annotations(account_says)));
        let problem = resolved.unwrap_err();
        assert_eq!(problem.reason, reason, "{problem}");
        assert!(problem.message.len() < 1000, "{problem}");
    }
    let central = referring(json!({"name": "puller", "namespace": "central"}));
    let mut account = annotations(BOTH);
    account.insert(
        ALLOWED_NAMESPACES.to_owned(),
        format!("team-a,{}", "x,".repeat(5000)),
    );
    let problem = resolve_as(Kind::ClusterGenerator, &central, &account).unwrap_err();
    assert_eq!(problem.reason, Reason::CrossNamespaceNotAllowed);
    assert!(problem.message.contains("shorten it"), "{problem}");
    let problem = resolve(&own_identity(), &annotations(&[(BOTH[0].0, &long), BOTH[1]])).unwrap_err();
    assert_eq!(problem.reason, Reason::IdentityInvalid);
}

/// Each field of a generator and each annotation, as a place in JSON.
const PLACES: &[&str] = &[
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
    fn no_message_holds_a_command_with_text_of_a_user_in_it(
        place in prop::sample::select(PLACES),
        text in hostile::text(),
        auth in 0usize..3,
        cluster in any::<bool>(),
    ) {
        let auths = ["servicePrincipal", "managedIdentity", "workloadIdentity"];
        let mut all = json!({
            "spec": {
                "registry": "contoso.azurecr.io",
                "tenantId": BOTH[1].1,
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
            "annotations": {"azure.workload.identity/client-id": BOTH[0].1, "azure.workload.identity/tenant-id": "",
                "kubernetes.azure.com/acr-client-id": "", "kubernetes.azure.com/acr-tenant-id": "",
                "acr-pull.dev/allowed-namespaces": "team-b"},
        });
        *all.pointer_mut(place).unwrap() = json!(text);
        let chosen = &mut all["spec"]["auth"];
        let kept = chosen[auths[auth]].clone();
        *chosen = json!({auths[auth]: kept});
        let kind = if cluster { Kind::ClusterGenerator } else { Kind::AccessToken };
        let permitting = Resolver { managed_identity_namespaces: "*".parse().unwrap(), ..resolver() };
        let (spec, account) = (spec(all["spec"].clone()), serde_json::from_value(all["annotations"].clone()).unwrap());
        let generator = generator(kind, &spec);
        let resolved = permitting.account(generator, "app").and_then(|used| permitting.resolve(generator, used, &account));
        match resolved {
            Err(problem) => hostile::check(&problem.message),
            // What is valid goes into the messages of Entra's refusals and of the machine's.
            Ok(resolved) => hostile::check(&format!("kubectl {} {:?}", resolved.identity, resolved.identity.tenant_id()).replace('"', "")),
        }
    }
}
