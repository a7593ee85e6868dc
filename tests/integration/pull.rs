//! Images in a real registry behind the emulator. skopeo, an independent client, pulls them with the webhook's Secrets.

use super::registry::{Registry, fresh_folder, repository, script};
use std::{os::unix::fs::PermissionsExt, path::Path, process::Stdio, sync::LazyLock};
use testkit::{env::TestEnv, namespace::TestNamespace};
use tokio::process::Command;

static SKOPEO: LazyLock<()> = LazyLock::new(|| drop(script("deploy/packages.sh", &["skopeo"])));

/// Pushes a small image to the registry without the emulator.
pub async fn push(registry: &Registry, image: &str) {
    LazyLock::force(&SKOPEO);
    let folder = fresh_folder("image");
    // The image is pulled and never run.
    let program = folder.join("app");
    std::fs::write(&program, image).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let archive = folder.join("image.tar");
    let written = Command::new(repository().join("tests/cluster/image-archive.sh"))
        .arg(image)
        .arg(&program)
        .stdout(std::fs::File::create(&archive).unwrap())
        .status()
        .await
        .unwrap();
    assert!(written.success());
    let target = format!("docker://{}/{image}", registry.url.trim_start_matches("http://"));
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(target))
    .await
    .unwrap();
}

/// Pulls an image with the credentials in a Secret, as a kubelet does; an error contains the output of skopeo.
pub async fn pull(env: &TestEnv, namespace: &TestNamespace, secret: &str, image: &str) -> Result<(), String> {
    LazyLock::force(&SKOPEO);
    let folder = fresh_folder("pull");
    let found = namespace.secrets().get(secret).await.unwrap();
    let config = &found.data.as_ref().unwrap()[".dockerconfigjson"].0;
    std::fs::write(folder.join("auth.json"), config).unwrap();
    std::fs::write(folder.join("ca.crt"), env.azure.ca_pem()).unwrap();
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--authfile"])
        .arg(folder.join("auth.json"))
        .arg(format!("docker://{image}"))
        .arg(format!("dir:{}", folder.join("image").display()))
        .env("HTTPS_PROXY", env.azure.emulator.proxy_url().unwrap())
        .env("SSL_CERT_FILE", folder.join("ca.crt"))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy"))
    .await?;
    assert!(Path::new(&folder).join("image/manifest.json").exists());
    Ok(())
}

async fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .expect("skopeo was just installed");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
