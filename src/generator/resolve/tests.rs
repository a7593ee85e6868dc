//! Tests of service accounts, clouds, ids and fingerprints.

mod identities;
mod untrusted_values;

use super::*;
use crate::generator::namespaces::ALLOWED_NAMESPACES;
use crate::identity::{ForMessages, WorkloadIdentity};
use serde_json::json;
use std::sync::LazyLock;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const OTHER_AUDIENCE: &str = "api://other";

static TEAM_A: LazyLock<NamespaceName> = LazyLock::new(|| NamespaceName::new("team-a").unwrap());
static ACCESS_TOKEN: LazyLock<Reference> = LazyLock::new(|| contoso(Kind::AccessToken));
static CLUSTER_GENERATOR: LazyLock<Reference> = LazyLock::new(|| contoso(Kind::ClusterGenerator));
static APP: LazyLock<ObjectName> = LazyLock::new(|| ObjectName::new("app").unwrap());

fn contoso(kind: Kind) -> Reference {
    let name = ObjectName::new("contoso").unwrap();
    Reference { kind, name }
}

fn rules() -> ResolveRules {
    ResolveRules {
        registry_suffixes: "azurecr.io,azurecr.us,azurecr.cn,azurecr.de".parse().unwrap(),
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
fn spec_with_service_account(reference: serde_json::Value) -> ACRAccessTokenSpec {
    spec(
        json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {"serviceAccountRef": reference}}}),
    )
}

/// A spec that uses the service account of the Pod.
fn spec_with_pod_identity() -> ACRAccessTokenSpec {
    spec(json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {}}}))
}

/// A spec with this `secretRef` of a service principal.
fn spec_with_secret_ref(secret_ref: serde_json::Value) -> ACRAccessTokenSpec {
    let auth = json!({"servicePrincipal": {"secretRef": secret_ref}});
    spec(json!({"registry": "contoso.azurecr.io", "tenantId": IDS[1].1, "auth": auth}))
}

/// A generator with this spec, referenced by a Pod in namespace team-a.
fn in_namespace(kind: Kind, spec: &ACRAccessTokenSpec) -> GeneratorInNamespace<'_> {
    GeneratorInNamespace {
        reference: match kind {
            Kind::AccessToken => &ACCESS_TOKEN,
            Kind::ClusterGenerator => &CLUSTER_GENERATOR,
        },
        namespace: &TEAM_A,
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
    rules.resolve(generator, &rules.service_account(generator, Some(&APP))?, account)
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
                assert_eq!(problem.command.map(|c| c.to_string()), Some(command));
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
                    && problem.fact.contains("spec.environmentType"))
            );
        }
    }
    spec.environment_type = EnvironmentType::AzureStackCloud;
    let problem = resolve(&spec, &annotations(IDS)).unwrap_err();
    assert!(problem.fact.contains("--authority-host"), "{problem}");
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
        (identity.tenant_id.as_str(), identity.tenant_id_source.0),
        (
            "contoso.onmicrosoft.com",
            TenantIdSource::Generator(ACCESS_TOKEN.clone(), TEAM_A.clone())
        )
    );
    generator.tenant_id = None;
    let with_default = ResolveRules {
        tenant_id: Some("44444444-0000-0000-0000-000000000004".to_owned()),
        ..rules()
    };
    let referenced = in_namespace(Kind::AccessToken, &generator);
    let account = with_default.service_account(referenced, Some(&APP)).unwrap();
    let identity = workload(with_default.resolve(referenced, &account, &client_id_only)).unwrap();
    assert_eq!(
        (identity.tenant_id.as_str(), identity.tenant_id_source.0),
        ("44444444-0000-0000-0000-000000000004", TenantIdSource::Flag)
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
        identity.tenant_id_source.0,
        TenantIdSource::Annotation("kubernetes.azure.com/acr-tenant-id")
    );
    assert_eq!(
        identity.client_id_annotation.0,
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
        |w| w.service_account = ObjectName::new("other").unwrap(),
        |w| w.namespace = NamespaceName::new("other").unwrap(),
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
        identity.tenant_id_source = ForMessages(TenantIdSource::Flag);
        identity.client_id_annotation = ForMessages("elsewhere");
    }
    assert_eq!((moved.fingerprint(), moved), (base.fingerprint(), base));
}
