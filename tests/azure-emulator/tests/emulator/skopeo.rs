//! skopeo, which nobody here wrote, pushes, copies and lists with tokens of the emulator; also the way to fill a registry.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

use base64::Engine as _;
use serde_json::json;

use crate::image;
use crate::support::*;

/// Runs skopeo against the emulator, under production names and with only the proxy and the CA set.
pub struct Skopeo {
    proxy: String,
    ca_file: PathBuf,
    folder: PathBuf,
}

impl Skopeo {
    pub fn new(azure: &Azure) -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| drop(script("tests/cluster/packages.sh", &["skopeo"])));
        let ca_file = azure.ca_file("skopeo");
        let folder = ca_file.parent().unwrap().to_owned();
        Self {
            proxy: azure.emulator.proxy_url().unwrap(),
            ca_file,
            folder,
        }
    }

    /// Runs it with this token as the registry's password, as a pull Secret would give it.
    pub fn run(&self, registry: &str, token: &str, arguments: &[&str]) -> Output {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{TOKEN_USER}:{token}"));
        let authfile = self.folder.join("auth.json");
        std::fs::write(
            &authfile,
            json!({"auths": {registry: {"auth": auth}}}).to_string(),
        )
        .unwrap();
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
            .expect("skopeo was just installed")
    }

    /// Pushes a new image, e.g. to `contoso.azurecr.io/shop/web:v1`.
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
async fn skopeo_pushes_then_pulls_the_same_image_with_refresh_and_access_token() {
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
            let mut names: Vec<_> = std::fs::read_dir(folder.join("blobs/sha256"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        // skopeo compresses the layer on its way up, so the layouts are compared by what came down twice.
        assert_eq!(blobs(&folder).len(), 3, "a manifest, a config and a layer");
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
    let all_of_web = azure.refresh_token(CONTOSO, WEB).await;
    let inspect = |token: &str, image: &str| {
        skopeo.run(
            CONTOSO,
            token,
            &["inspect", &format!("docker://{CONTOSO}/{image}")],
        )
    };
    assert_ok(&inspect(&only_web, "shop/web:v1"));
    assert_ok(&inspect(&all_of_web, "shop/api:v1"));
    for (token, image) in [
        (&only_web, "shop/api:v1"),
        (&only_web, "private:v1"),
        (&all_of_web, "private:v1"),
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
    let output = skopeo.run(CONTOSO, &all_of_web, &["copy", &layout(&folder), &target]);
    assert!(
        !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
