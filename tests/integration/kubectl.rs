//! The commands of kubectl that create and change Pods. The webhook changes what they send, and they must not regard
//! that as a difference.

use azure_emulator::Endpoint;
use kube::ResourceExt;
use serde_json::json;
use std::path::PathBuf;
use tempfile::TempDir;
use testkit::{
    env::TestEnv,
    namespace::TestNamespace,
    objects::{ANNOTATION, pod_json, pull_secret_name},
};

const IMAGE: &str = "contoso.azurecr.io/team-a/app:1";

/// A file with the manifest of a Pod, for commands of kubectl in one namespace.
struct Manifest<'a> {
    env: &'a TestEnv,
    namespace: &'a TestNamespace,
    file: PathBuf,
    _folder: TempDir,
}

impl<'a> Manifest<'a> {
    fn new(env: &'a TestEnv, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pod.json");
        let mut pod = pod_json(name, IMAGE, json!({ANNOTATION: "contoso"}));
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        std::fs::write(&file, pod.to_string()).unwrap();
        Self {
            env,
            namespace: &env.team_a.namespace,
            file,
            _folder: folder,
        }
    }

    /// Runs a command of kubectl with the file; returns what it prints.
    async fn kubectl(&self, command: &str) -> String {
        self.run(&format!("{command} --filename {}", self.file.display()))
            .await
    }

    /// Runs a command of kubectl; returns what it prints.
    async fn run(&self, command: &str) -> String {
        let line = format!("kubectl --namespace {} {command}", self.namespace);
        let output = self.env.cluster.shell(&line).await;
        let [printed, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{line}: {printed}{error}");
        printed
    }
}

#[testkit::test]
async fn a_second_apply_and_diff_find_no_difference() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    for (name, flags) in [
        ("client-side", ""),
        ("server-side", "--server-side --field-manager argocd-controller"),
    ] {
        let manifest = Manifest::new(&env, name);
        manifest.kubectl(&format!("apply {flags}")).await;
        let pull_secret = pull_secret_name(&namespace.pods().get(name).await.unwrap());
        namespace.credentials(&pull_secret).await;
        // The scheduler changes the status meanwhile.
        let parts = async || {
            let pod = namespace.pods().get(name).await.unwrap();
            (pod.labels().clone(), pod.annotations().clone(), pod.spec)
        };
        let before = parts().await;
        manifest.kubectl(&format!("apply {flags}")).await;
        assert_eq!(parts().await, before, "{name}");
        // The exit code of `diff` is 1 if it finds a difference.
        assert_eq!(manifest.kubectl(&format!("diff {flags}")).await, "", "{name}");
    }
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}

#[testkit::test]
async fn replace_force_creates_the_pod_with_its_pull_secret() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let manifest = Manifest::new(&env, "app");
    manifest.kubectl("create").await;
    // The output of `get` names the pull secret, so the webhook finds it in the Pod.
    let get = format!("get pod app --output json >{}", manifest.file.display());
    let from_get = format!("{get} && kubectl --namespace {namespace} replace --force");
    for command in ["replace --force", &from_get] {
        let before = namespace.pods().get("app").await.unwrap();
        manifest.kubectl(command).await;
        let after = namespace.pods().get("app").await.unwrap();
        assert_ne!(after.uid(), before.uid());
        assert_eq!(pull_secret_name(&after), pull_secret_name(&before));
    }
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}

#[testkit::test]
async fn a_dry_run_of_apply_prints_the_pull_secret() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let manifest = Manifest::new(&env, "app");
    for flags in ["--dry-run=server", "--dry-run=server --server-side"] {
        let printed = manifest.kubectl(&format!("apply {flags} --output json")).await;
        let name = pull_secret_name(&serde_json::from_str(&printed).unwrap());
        assert!(name.starts_with("acr-pull-contoso-app-"), "{name}");
    }
    assert!(namespace.list_pull_secrets().await.is_empty());
    assert!(env.azure.requests().is_empty());
}

/// The API server permits no change of the pull secrets of a Pod that exists.
#[testkit::test]
async fn an_ephemeral_container_uses_the_pull_secret_of_its_pod() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let manifest = Manifest::new(&env, "app");
    manifest.kubectl("create").await;
    let before = namespace.pods().get("app").await.unwrap();
    let debug = format!("debug app --image {IMAGE} --container debugger --profile general");
    manifest.run(&debug).await;
    let after = namespace.pods().get("app").await.unwrap();
    let containers = after.spec.as_ref().unwrap().ephemeral_containers.as_ref();
    assert_eq!(containers.unwrap()[0].image.as_deref(), Some(IMAGE));
    assert_eq!(pull_secret_name(&after), pull_secret_name(&before));
    env.assert_pulls(namespace, &pull_secret_name(&after), env.team_a.repository)
        .await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}
