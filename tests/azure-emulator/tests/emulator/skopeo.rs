//! skopeo pushes, copies and lists with the emulator's tokens. Other tests push images with it.

use crate::{image, support::*};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Once,
};

/// Runs skopeo with Azure's host names. Only the proxy and the certificate authority are set.
pub struct Skopeo {
    proxy: String,
    ca_file: PathBuf,
    folder: PathBuf,
}

impl Skopeo {
    pub fn new(azure: &Azure) -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| drop(script("deploy/packages.sh", &["skopeo"])));
        let ca_file = azure.ca_file("skopeo");
        let folder = ca_file.parent().unwrap().to_owned();
        Self {
            proxy: azure.emulator.proxy_url().unwrap(),
            ca_file,
            folder,
        }
    }

    /// Runs skopeo with this token as the registry's password, as in a pull Secret.
    pub fn run(&self, registry: &str, token: &str, arguments: &[&str]) -> Output {
        let auth = STANDARD.encode(format!("{TOKEN_USER}:{token}"));
        let authfile = self.folder.join("auth.json");
        let config = json!({"auths": {registry: {"auth": auth}}});
        fs::write(&authfile, config.to_string()).unwrap();
        Command::new("skopeo")
            .arg("--insecure-policy")
            .args(arguments)
            .arg("--authfile")
            .arg(&authfile)
            .env("HTTPS_PROXY", &self.proxy)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .env("SSL_CERT_FILE", &self.ca_file)
            .output()
            .expect("skopeo is installed")
    }

    /// Pushes a new image, for example `contoso.azurecr.io/shop/web:v1`.
    pub async fn push(&self, azure: &Azure, image: &str) {
        let (registry, rest) = image.split_once('/').unwrap();
        let layout = self.folder.join("image");
        image::write(&layout, "latest", rest);
        let token = azure.refresh_token(registry, WRITER).await;
        let source = format!("oci:{}:latest", layout.display());
        assert_ok(&self.run(registry, &token, &["copy", &source, &format!("docker://{image}")]));
    }
}

#[track_caller]
pub fn assert_ok(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn layout(folder: &Path) -> String {
    format!("oci:{}:latest", folder.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pushes_and_then_pulls_with_refresh_and_access_token() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let skopeo = Skopeo::new(&azure);
    skopeo.push(&azure, "contoso.azurecr.io/shop/web:v1").await;

    let source = "docker://contoso.azurecr.io/shop/web:v1";
    for token in [
        azure.refresh_token(CONTOSO, WEB).await,
        azure.access_token(CONTOSO, WEB, "repository:shop/web:pull").await,
    ] {
        let folder = fresh_folder("pulled");
        assert_ok(&skopeo.run(CONTOSO, &token, &["copy", source, &layout(&folder)]));
        let blobs = |folder: &Path| {
            let mut names: Vec<_> = fs::read_dir(folder.join("blobs/sha256"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        // skopeo compresses the layer when it pushes, so the digests differ from those of the original.
        assert_eq!(blobs(&folder).len(), 3, "manifest, config and layer");
    }
    let output = skopeo.run(
        CONTOSO,
        &azure.refresh_token(CONTOSO, WEB).await,
        &["list-tags", source.trim_end_matches(":v1")],
    );
    assert_ok(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"v1\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_is_refused_another_repository_and_a_push_without_the_right() {
    let registry = Registry::start();
    let azure = Azure::with(&world_yaml(&registry.url));
    let skopeo = Skopeo::new(&azure);
    skopeo.push(&azure, "contoso.azurecr.io/shop/web:v1").await;
    skopeo.push(&azure, "contoso.azurecr.io/shop/api:v1").await;
    skopeo.push(&azure, "contoso.azurecr.io/private:v1").await;

    let only_web = azure.access_token(CONTOSO, WEB, "repository:shop/web:pull").await;
    let all_repositories = azure.refresh_token(CONTOSO, WEB).await;
    let inspect = |token: &str, image: &str| {
        skopeo.run(
            CONTOSO,
            token,
            &["inspect", &format!("docker://{CONTOSO}/{image}")],
        )
    };
    assert_ok(&inspect(&only_web, "shop/web:v1"));
    assert_ok(&inspect(&all_repositories, "shop/api:v1"));
    for (token, image) in [
        (&only_web, "shop/api:v1"),
        (&only_web, "private:v1"),
        (&all_repositories, "private:v1"),
    ] {
        let output = inspect(token, image);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && message.contains("authentication required"),
            "{image}: {message}"
        );
    }
    let folder = fresh_folder("push");
    image::write(&folder, "latest", "mine");
    let target = format!("docker://{CONTOSO}/shop/web:v2");
    let output = skopeo.run(CONTOSO, &all_repositories, &["copy", &layout(&folder), &target]);
    assert!(
        !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
