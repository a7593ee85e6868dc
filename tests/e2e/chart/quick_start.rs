//! The quick start of README.md, pasted into a shell. Only what needs Azure itself is replaced: `az` by azure-cli's
//! parser with azure-emulator behind it, and the push to a registry by loading the image into the nodes.

use crate::release::{Release, delete, environment, repository};
use e2e::{azure, client};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{fs, process::Command};

const NAMESPACE: &str = "demo";
const CLIENT_ID: &str = "5b8c1d3e-0000-4000-8000-000000000001";
const TOKEN: &str = "token-of-the-quick-start";

/// A shell with the programs of the quick start.
struct Shell {
    folder: PathBuf,
}

impl Shell {
    async fn new(client: &Client, mode: &str) -> Self {
        let folder = Path::new(&environment("E2E_FOLDER")).join("quick-start");
        let _ = fs::remove_dir_all(&folder).await;
        let bin = folder.join("bin");
        fs::create_dir_all(&bin).await.unwrap();
        let shell = Self { folder };
        shell
            .write("state.json", &state(client, mode).await.to_string())
            .await;
        let azure_cli = Command::new(repository("tools/azure-cli/setup.sh"))
            .output()
            .await
            .unwrap();
        let python = String::from_utf8(azure_cli.stdout).unwrap();
        // The quick start has a variable CLUSTER too, and the scripts of the tests need the real skopeo.
        let own = format!(
            "export CLUSTER={} PATH={:?}",
            environment("CLUSTER"),
            environment("PATH")
        );
        let quick_start = repository("tests/e2e/quick-start");
        let az = format!("{own}\nexec {} {quick_start}/az.py \"$@\"", python.trim());
        shell.program("az", &az).await;
        let skopeo = format!("{own}\nexec {quick_start}/skopeo.sh \"$@\"");
        shell.program("skopeo", &skopeo).await;
        // The emulator has an address of its own and a certificate that no system trusts.
        let install = format!("set -- \"$@\" --values {}", environment("CLUSTER_VALUES"));
        let helm = format!(
            "[[ $1 != install ]] || {install}\nexec {} \"$@\"",
            environment("HELM")
        );
        shell.program("helm", &helm).await;
        symlink(environment("KUBECTL"), bin.join("kubectl")).unwrap();
        shell
    }

    async fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.join(name), content).await.unwrap();
    }

    async fn program(&self, name: &str, script: &str) {
        let name = format!("bin/{name}");
        self.write(&name, &format!("#!/usr/bin/env bash\n{script}\n"))
            .await;
        let executable = std::fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.folder.join(name), executable)
            .await
            .unwrap();
    }

    /// Runs the commands as a person who pastes them, and ends at the first one that fails.
    async fn paste(&self, commands: &str) -> String {
        let path = environment("PATH");
        let mut bash = Command::new("bash");
        // These variables of `cargo test` would make `make image` compile everything again.
        let of_cargo = std::env::vars_os().map(|(name, _)| name);
        for name in of_cargo.filter(|name| is_of_package(&name.to_string_lossy())) {
            bash.env_remove(name);
        }
        let status = bash
            .args(["-euo", "pipefail", "-c", commands])
            .current_dir(repository("."))
            .env("PATH", format!("{}/bin:{path}", self.folder.display()))
            .env("QUICK_START", &self.folder)
            .env("QUICK_START_TOKEN", TOKEN)
            .stdin(Stdio::null())
            .stdout(self.file("transcript.txt"))
            .stderr(self.file("errors.txt"))
            .kill_on_drop(true)
            .status()
            .await
            .unwrap();
        let read = async |name| fs::read_to_string(self.folder.join(name)).await.unwrap();
        let transcript = read("transcript.txt").await;
        assert!(status.success(), "{transcript}\n{}", read("errors.txt").await);
        transcript
    }

    fn file(&self, name: &str) -> std::fs::File {
        std::fs::File::create(self.folder.join(name)).unwrap()
    }
}

/// Whether cargo sets this variable for one package.
fn is_of_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Azure before the quick start: a tenant, a registry without rights, and the issuer of the cluster.
async fn state(client: &Client, mode: &str) -> Value {
    json!({
        "mode": mode, "registries": ["contoso", "myplatform"], "control": azure::CONTROL, "world": azure::empty_world(client).await,
        "clientId": CLIENT_ID, "principalId": "5b8c1d3e-0000-4000-8000-000000000002", "registryToken": TOKEN,
    })
}

#[testkit::test]
async fn the_quick_start_of_the_readme_ends_with_a_running_pod() {
    let client = client().await;
    let commands = documents::quick_start::commands().unwrap();
    for mode in ["LegacyRegistryPermissions", "AbacRepositoryPermissions"] {
        let release = Release::none(&client).await;
        let shell = Shell::new(&client, mode).await;
        let output = azure::with_another_world(&client, shell.paste(commands)).await;
        assert!(
            output.contains("deployment \"app\" successfully rolled out"),
            "{output}"
        );
        let pull_secrets = output.lines().next_back().unwrap_or_default();
        assert!(
            pull_secrets.starts_with("acr-pull-contoso-app-") && pull_secrets.contains("True"),
            "{output}"
        );
        delete(&Api::<Namespace>::all(client.clone()), NAMESPACE).await;
        release.uninstall().await;
    }
}
