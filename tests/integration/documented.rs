//! Generators in every form that External Secrets Operator documents, applied with kubectl as its users have them.

use super::principals::{self, PULLER, PULLER_RESOURCE, SECRET};
use testkit::{
    azure::{REGISTRY, TENANT},
    control_plane,
    env::TestEnv,
    objects::{pod, pull_secret_name},
};

/// What is documented, the `spec` of it, and which identity it means.
fn forms() -> [(&'static str, String, &'static str); 14] {
    let head = format!("tenantId: {TENANT}\nregistry: {REGISTRY}\n");
    let secret_ref = "secretRef: {clientSecret: {name: az-secret, key: clientsecret}, clientId: {name: az-secret, key: clientid}}";
    [
        (
            "a service principal, with all optional fields",
            format!(
                "{head}scope: \"repository:team-a/app:pull,push\"\nenvironmentType: \"PublicCloud\"\nauth: {{servicePrincipal: {{{secret_ref}}}}}\n"
            ),
            "ServicePrincipal",
        ),
        (
            "a service principal, with none",
            format!("{head}auth: {{servicePrincipal: {{{secret_ref}}}}}\n"),
            "ServicePrincipal",
        ),
        (
            "the page's own example, which shows all three identities in one object",
            format!(
                "{head}auth:\n  servicePrincipal: {{{secret_ref}}}\n  managedIdentity: {{identityId: \"xxxxx\"}}\n  workloadIdentity: {{serviceAccountRef: {{name: \"my-service-account\", audiences: []}}}}\n"
            ),
            "ServicePrincipal",
        ),
        (
            "the system-assigned managed identity",
            format!("{head}auth: {{managedIdentity: {{}}}}\n"),
            "ManagedIdentity",
        ),
        (
            "the same with an empty id",
            format!("{head}auth: {{managedIdentity: {{identityId: \"\"}}}}\n"),
            "ManagedIdentity",
        ),
        (
            "a managed identity by its client id, as with the kubelet's",
            format!("{head}auth: {{managedIdentity: {{identityId: \"{PULLER}\"}}}}\n"),
            "ManagedIdentity",
        ),
        (
            "a managed identity by its resource id",
            format!("{head}auth: {{managedIdentity: {{identityId: \"{PULLER_RESOURCE}\"}}}}\n"),
            "ManagedIdentity",
        ),
        (
            "a workload identity without a service account",
            format!("{head}auth: {{workloadIdentity: {{}}}}\n"),
            "WorkloadIdentity",
        ),
        (
            "a workload identity with one",
            format!(
                "{head}auth: {{workloadIdentity: {{serviceAccountRef: {{name: puller, audiences: []}}}}}}\n"
            ),
            "WorkloadIdentity",
        ),
        (
            "the same with an audience",
            format!(
                "{head}auth: {{workloadIdentity: {{serviceAccountRef: {{name: puller, audiences: [\"api://AzureADTokenExchange\"]}}}}}}\n"
            ),
            "WorkloadIdentity",
        ),
        (
            "empty texts, as some templates leave them",
            format!(
                "{head}scope: \"\"\nauth: {{workloadIdentity: {{serviceAccountRef: {{name: puller}}}}}}\n"
            ),
            "WorkloadIdentity",
        ),
        (
            "all empty texts that a template can leave",
            format!(
                "tenantId: \"\"\nregistry: {REGISTRY}\nscope: \"\"\nauth: {{managedIdentity: {{identityId: \"\"}}}}\n"
            ),
            "ManagedIdentity",
        ),
        (
            "fields of a version that is still to come, at each level",
            format!(
                "{head}retry: {{times: 3}}\nauth: {{hint: x, workloadIdentity: {{hint: x, serviceAccountRef: {{name: puller, hint: x}}}}}}\n"
            ),
            "WorkloadIdentity",
        ),
        (
            "one scope of several repositories",
            format!(
                "{head}scope: \"repository:team-a/app:pull repository:team-a/tools/one:pull\"\nauth: {{workloadIdentity: {{}}}}\n"
            ),
            "WorkloadIdentity",
        ),
    ]
}

/// Indents each line.
fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

#[testkit::test]
async fn every_documented_form_works_unchanged_as_namespaced_and_as_cluster_generator() {
    let env = TestEnv::with(&["--managed-identity-namespaces=TEAM_A"], |world| {
        principals::add(world);
        principals::add_machine(world);
    })
    .await;
    let namespace = &env.team_a.namespace;
    let client_id = ("azure.workload.identity/client-id", env.team_a.client_id);
    namespace.apply_service_account("puller", &[client_id]).await;
    principals::secret(&env, namespace, "az-secret", SECRET).await;
    principals::permit(&env, namespace, "az-secret").await;
    // As that version's schema would let them through.
    super::refusals::loosen(&env).await;
    for (number, (what, spec, identity)) in forms().into_iter().enumerate() {
        let cluster_name = format!("{namespace}-form-{number}");
        let manifests = format!(
            "apiVersion: generators.external-secrets.io/v1alpha1\nkind: ACRAccessToken\nmetadata:\n  name: form-{number}\n  \
             namespace: {namespace}\n  labels: {{team: a}}\nspec:\n{}---\napiVersion: generators.external-secrets.io/v1alpha1\n\
             kind: ClusterGenerator\nmetadata:\n  name: {cluster_name}\nspec:\n  kind: ACRAccessToken\n  generator:\n    \
             acrAccessTokenSpec:\n{}",
            indented(&spec, 2),
            indented(&spec, 6),
        );
        let applied = control_plane::shared()
            .shell(&format!(
                "kubectl apply --validate=ignore --filename - <<'YAML'\n{manifests}YAML\n"
            ))
            .await;
        assert!(
            applied.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&applied.stderr)
        );
        for (kind, reference) in [
            ("own", format!("form-{number}")),
            ("cluster", format!("ClusterGenerator/{cluster_name}")),
        ] {
            let made = namespace
                .create_pod(&pod(&format!("form-{number}-{kind}"), &reference))
                .await;
            let name = pull_secret_name(&made);
            env.assert_pulls(namespace, &name, "team-a/app").await;
            let status = namespace.status(&name).await;
            assert_eq!(status.identity.as_deref(), Some(identity), "{what}");
        }
    }
}
