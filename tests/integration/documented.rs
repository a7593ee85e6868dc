//! Generators in all forms of the documentation of External Secrets Operator, applied with kubectl.

use super::principals;
use testkit::{
    azure::{
        PRINCIPAL_SECRET, REGISTRY, TENANT, USER_IDENTITY, USER_IDENTITY_RESOURCE, add_managed_identities,
        add_service_principal,
    },
    control_plane,
    env::TestEnv,
    namespace::TestNamespace,
    objects::{CLIENT_ID, pod, pull_secret_name},
};

/// The purpose of a documented form, and its `spec`.
type Form = (&'static str, String);

fn head() -> String {
    format!("tenantId: {TENANT}\nregistry: {REGISTRY}\n")
}

fn service_principals() -> Vec<Form> {
    let head = head();
    let client_id = "clientId: {name: az-secret, key: clientid}";
    let client_secret = "clientSecret: {name: az-secret, key: clientsecret}";
    let secret_ref = format!("secretRef: {{{client_secret}, {client_id}}}");
    vec![
        (
            "a service principal with all optional fields",
            format!(
                "{head}scope: \"repository:team-a/app:pull,push\"\nenvironmentType: \"PublicCloud\"\nauth: {{servicePrincipal: {{{secret_ref}}}}}\n"
            ),
        ),
        (
            "a service principal without optional fields",
            format!("{head}auth: {{servicePrincipal: {{{secret_ref}}}}}\n"),
        ),
        (
            "the example with all three identities in one object",
            format!(
                "{head}auth:\n  servicePrincipal: {{{secret_ref}}}\n  managedIdentity: {{identityId: \"xxxxx\"}}\n  workloadIdentity: {{serviceAccountRef: {{name: \"my-service-account\", audiences: []}}}}\n"
            ),
        ),
    ]
}

fn managed_identities() -> Vec<Form> {
    let head = head();
    vec![
        (
            "the system-assigned managed identity",
            format!("{head}auth: {{managedIdentity: {{}}}}\n"),
        ),
        (
            "the system-assigned managed identity with an empty id",
            format!("{head}auth: {{managedIdentity: {{identityId: \"\"}}}}\n"),
        ),
        (
            "a managed identity by its client id",
            format!("{head}auth: {{managedIdentity: {{identityId: \"{USER_IDENTITY}\"}}}}\n"),
        ),
        (
            "a managed identity by its resource id",
            format!("{head}auth: {{managedIdentity: {{identityId: \"{USER_IDENTITY_RESOURCE}\"}}}}\n"),
        ),
        (
            "all texts empty",
            format!(
                "tenantId: \"\"\nregistry: {REGISTRY}\nscope: \"\"\nauth: {{managedIdentity: {{identityId: \"\"}}}}\n"
            ),
        ),
    ]
}

fn workload_identities() -> Vec<Form> {
    let head = head();
    vec![
        (
            "a workload identity without a service account",
            format!("{head}auth: {{workloadIdentity: {{}}}}\n"),
        ),
        (
            "a workload identity with a service account",
            format!(
                "{head}auth: {{workloadIdentity: {{serviceAccountRef: {{name: puller, audiences: []}}}}}}\n"
            ),
        ),
        (
            "a workload identity with an audience",
            format!(
                "{head}auth: {{workloadIdentity: {{serviceAccountRef: {{name: puller, audiences: [\"api://AzureADTokenExchange\"]}}}}}}\n"
            ),
        ),
        (
            "empty texts of some templates",
            format!(
                "{head}scope: \"\"\nauth: {{workloadIdentity: {{serviceAccountRef: {{name: puller}}}}}}\n"
            ),
        ),
        (
            "unknown fields at each level",
            format!(
                "{head}retry: {{times: 3}}\nauth: {{hint: x, workloadIdentity: {{hint: x, serviceAccountRef: {{name: puller, hint: x}}}}}}\n"
            ),
        ),
        (
            "one scope of several repositories",
            format!(
                "{head}scope: \"repository:team-a/app:pull repository:team-a/tools/one:pull\"\nauth: {{workloadIdentity: {{}}}}\n"
            ),
        ),
    ]
}

/// All forms with their identity.
fn forms() -> Vec<(Form, &'static str)> {
    let with = |forms: Vec<Form>, identity| forms.into_iter().map(move |form| (form, identity));
    with(service_principals(), "ServicePrincipal")
        .chain(with(managed_identities(), "ManagedIdentity"))
        .chain(with(workload_identities(), "WorkloadIdentity"))
        .collect()
}

/// Indents each line.
fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// A generator and a ClusterGenerator with this spec.
fn manifests(namespace: &TestNamespace, number: usize, cluster_name: &str, spec: &str) -> String {
    let api_version = "apiVersion: generators.external-secrets.io/v1alpha1";
    let generator = format!(
        "{api_version}\nkind: ACRAccessToken\nmetadata:\n  name: form-{number}\n  namespace: {namespace}\n  \
         labels: {{team: a}}\nspec:\n{}",
        indented(spec, 2)
    );
    let cluster_generator = format!(
        "{api_version}\nkind: ClusterGenerator\nmetadata:\n  name: {cluster_name}\nspec:\n  kind: ACRAccessToken\n  \
         generator:\n    acrAccessTokenSpec:\n{}",
        indented(spec, 6)
    );
    format!("{generator}---\n{cluster_generator}")
}

#[testkit::test]
async fn each_documented_form_works_as_generator_and_cluster_generator() {
    let env = TestEnv::with(&["--managed-identity-namespaces=TEAM_A"], |world| {
        add_service_principal(world);
        add_managed_identities(world, "team-a/app");
    })
    .await;
    let namespace = &env.team_a.namespace;
    let client_id = (CLIENT_ID, env.team_a.client_id);
    namespace.apply_service_account("puller", &[client_id]).await;
    principals::create_secret(namespace, "az-secret", PRINCIPAL_SECRET).await;
    principals::permit_reading(namespace, "az-secret").await;
    // The schemas of other versions permit unknown fields.
    super::invalid_generators::loosen_schemas(&env).await;
    for (number, ((what, spec), identity)) in forms().into_iter().enumerate() {
        let cluster_name = format!("{namespace}-form-{number}");
        let manifests = manifests(namespace, number, &cluster_name, &spec);
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
