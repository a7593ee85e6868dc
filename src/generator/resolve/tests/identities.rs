//! Service principals, managed identities, and several identities in one generator.

use super::*;
use crate::identity::{ManagedIdentityId, SecretKey};

#[test]
fn a_service_principal_uses_secrets_of_the_pods_namespace() {
    let secret_ref =
        json!({"clientId": {"name": "sp", "key": "id"}, "clientSecret": {"name": "sp", "key": "secret"}});
    let spec = spec_with_secret_ref(secret_ref);
    let account = rules()
        .service_account(in_namespace(Kind::AccessToken, &spec), Some(&APP))
        .unwrap();
    assert_eq!(account.namespaced_name(&TEAM_A), None);
    assert_eq!(account, ServiceAccount::NotNeeded);
    let Identity::ServicePrincipal(found) = resolve(&spec, &annotations(&[])).unwrap().identity else {
        panic!("a service principal");
    };
    let key = |key: &str| SecretKey {
        namespace: TEAM_A.clone(),
        name: ObjectName::new("sp").unwrap(),
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
    assert!(problem.fact.contains("secretRef.clientId.namespace"), "{problem}");
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
        assert!(problem.fact.contains(field), "{problem}");
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
        let namespace = NamespaceName::new(namespace).unwrap();
        let generator = GeneratorInNamespace {
            namespace: &namespace,
            ..in_namespace(kind, &spec)
        };
        let account = permissive.service_account(generator, Some(&APP))?;
        assert_eq!(account, ServiceAccount::NotNeeded);
        permissive
            .resolve(generator, &account, &annotations(&[]))
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
        assert!(problem.fact.contains("--managed-identity-namespaces"));
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
        let account = permissive.service_account(generator, Some(&APP)).unwrap();
        let resolved = permissive
            .resolve(generator, &account, &annotations(IDS))
            .unwrap();
        (resolved.identity.kind(), generator.multiple_identities_warning())
    };
    let (used, warning) =
        several(json!({"servicePrincipal": principal, "managedIdentity": {}, "workloadIdentity": {}}));
    assert_eq!(used, "ServicePrincipal");
    assert_eq!(
        warning.map(|problem| problem.fact).as_deref(),
        Some(
            "ACRAccessToken contoso sets several identities in spec.auth (servicePrincipal, managedIdentity, workloadIdentity): servicePrincipal is used"
        )
    );
    let (used, warning) = several(json!({"managedIdentity": {}, "workloadIdentity": {}}));
    assert_eq!(used, "ManagedIdentity");
    assert!(warning.unwrap().fact.ends_with("managedIdentity is used"));
    assert_eq!(
        several(json!({"workloadIdentity": {}})),
        ("WorkloadIdentity", None)
    );
}
