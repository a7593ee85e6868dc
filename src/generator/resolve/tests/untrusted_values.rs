//! Invalid and oversized values, and hostile text in messages.

use super::*;
use crate::untrusted::hostile;
use proptest::prelude::*;

#[test]
fn each_invalid_generator_is_refused_with_its_reason() {
    let own = json!({"workloadIdentity": {}});
    let reference = |r: serde_json::Value| json!({"workloadIdentity": {"serviceAccountRef": r}});
    let registry = "contoso.azurecr.io";
    for (generator, reason) in [
        (
            spec(json!({"registry": registry, "auth": {}})),
            Reason::GeneratorInvalid,
        ),
        (
            spec(json!({"registry": registry, "auth": {"managedIdentity": {}}})),
            Reason::ManagedIdentityNotAllowed,
        ),
        (
            spec(
                json!({"registry": registry, "auth": {"servicePrincipal": {"secretRef": {}}, "workloadIdentity": {}}}),
            ),
            Reason::GeneratorInvalid,
        ),
        (
            spec(
                json!({"registry": registry, "auth": reference(json!({"name": "x", "namespace": "team-b"}))}),
            ),
            Reason::CrossNamespaceNotAllowed,
        ),
        (
            spec(
                json!({"registry": registry, "auth": reference(json!({"name": "x", "audiences": ["https://evil"]}))}),
            ),
            Reason::GeneratorInvalid,
        ),
        (
            spec(json!({"registry": "evil.example.com", "auth": own})),
            Reason::RegistryNotAllowed,
        ),
        (
            spec(json!({"registry": registry, "auth": own, "scope": "repository:*:pull"})),
            Reason::ScopeInvalid,
        ),
        (
            spec(json!({"registry": registry, "auth": own, "environmentType": "AzureStackCloud"})),
            Reason::GeneratorInvalid,
        ),
    ] {
        let problem = resolve(&generator, &annotations(IDS)).unwrap_err();
        assert_eq!(problem.reason, reason, "{problem}");
    }
}

#[test]
fn each_invalid_annotation_of_a_service_account_is_refused() {
    for (account, reason) in [
        (&[][..], Reason::ClientIdMissing),
        (&IDS[..1], Reason::TenantIdMissing),
        (&[(IDS[0].0, "not-a-guid"), IDS[1]], Reason::IdentityInvalid),
        (&[IDS[0], (IDS[1].0, "../common")], Reason::IdentityInvalid),
        (&[IDS[0], (IDS[1].0, "common")], Reason::IdentityInvalid),
    ] {
        let problem = resolve(&spec_with_pod_identity(), &annotations(account)).unwrap_err();
        assert_eq!(problem.reason, reason, "{problem}");
    }
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
    for invalid in ["../kube-system", "a.b", &"a".repeat(64)] {
        let elsewhere = spec_with_service_account(json!({"name": "x", "namespace": invalid}));
        let problem = resolve_as(Kind::ClusterGenerator, &elsewhere, &annotations(IDS)).unwrap_err();
        assert_eq!(problem.reason, Reason::GeneratorInvalid, "{problem}");
        assert!(problem.fact.contains("not a valid namespace name"), "{problem}");
    }
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
        let problem = refusal(generator);
        assert_eq!(problem.reason, reason, "{problem}");
        assert!(problem.fact.len() < 1000, "{problem}");
    }
}

/// Why a generator with this spec is refused where managed identities are permitted.
fn refusal(generator: serde_json::Value) -> Problem {
    let permissive = ResolveRules {
        managed_identity_namespaces: "*".parse().unwrap(),
        ..rules()
    };
    let spec = spec(generator);
    let account_annotations = if spec.tenant_id.is_some() { &IDS[..1] } else { IDS };
    let generator = in_namespace(Kind::AccessToken, &spec);
    let account = permissive.service_account(generator, Some(&APP));
    account
        .and_then(|account| permissive.resolve(generator, &account, &annotations(account_annotations)))
        .unwrap_err()
}

#[test]
fn annotations_of_a_service_account_above_a_limit_are_refused() {
    let central = spec_with_service_account(json!({"name": "puller", "namespace": "central"}));
    let mut account = annotations(IDS);
    account.insert(
        ALLOWED_NAMESPACES.to_owned(),
        format!("team-a,{}", "x,".repeat(5000)),
    );
    let problem = resolve_as(Kind::ClusterGenerator, &central, &account).unwrap_err();
    assert_eq!(problem.reason, Reason::CrossNamespaceNotAllowed);
    assert!(problem.fact.contains("shorten it"), "{problem}");
    let problem = resolve(
        &spec_with_pod_identity(),
        &annotations(&[(IDS[0].0, &"a".repeat(5000)), IDS[1]]),
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
        let resolved = permissive.service_account(generator, Some(&APP)).and_then(|used| permissive.resolve(generator, &used, &account));
        match resolved {
            Err(problem) => hostile::check(&problem.full()),
            // Valid values become part of messages about refusals of Entra and of the managed identity endpoint.
            Ok(resolved) => hostile::check(&format!("kubectl {} {:?}", resolved.identity, resolved.identity.tenant_id()).replace('"', "")),
        }
    }
}
