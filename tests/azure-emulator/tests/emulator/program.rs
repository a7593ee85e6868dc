//! The program: its ready line, its end, its authority on disk, its control port, and what it must never print.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use azure_emulator::{ControlClient, Endpoint, Fault};
use serde_json::Value;

use crate::support::*;

const PROGRAM: &str = env!("CARGO_BIN_EXE_azure-emulator");

/// `azure-emulator serve`, until dropped or told to end.
struct Served {
    process: Child,
    ready: Value,
    folder: PathBuf,
}

impl Served {
    fn start(folder: &Path, world: &str) -> Self {
        std::fs::write(folder.join("world.yaml"), world).unwrap();
        let mut process = Command::new(PROGRAM)
            .args([
                "serve",
                "--proxy",
                "127.0.0.1:0",
                "--imds",
                "127.0.0.1:0",
                "--world",
            ])
            .arg(folder.join("world.yaml"))
            .arg("--data")
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line}"));
        Self {
            process,
            ready,
            folder: folder.to_owned(),
        }
    }

    fn control_url(&self) -> String {
        format!("http://{}", self.ready["control"].as_str().unwrap())
    }

    fn ca(&self) -> String {
        std::fs::read_to_string(self.ready["ca"].as_str().unwrap()).unwrap()
    }

    fn http(&self) -> reqwest::Client {
        client(
            &format!("http://{}", self.ready["proxy"].as_str().unwrap()),
            &self.ca(),
        )
    }

    fn apply(&self, name: &str, world: &str) -> Output {
        let file = self.folder.join(name);
        std::fs::write(&file, world).unwrap();
        Command::new(PROGRAM)
            .args(["apply", "--control", &self.control_url(), "-f"])
            .arg(file)
            .output()
            .unwrap()
    }

    /// Sends SIGTERM; returns what the program wrote to standard error.
    fn terminate(mut self) -> String {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        await_condition("the end of the program", || {
            self.process.try_wait().unwrap().is_some()
        });
        assert!(
            self.process.wait().unwrap().success(),
            "SIGTERM is an orderly end"
        );
        let mut text = String::new();
        self.process
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn calm() -> String {
    world_yaml("http://127.0.0.1:9")
}

#[test]
fn a_restart_keeps_the_authority_and_its_key_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = fresh_folder("data");
    let first = Served::start(&folder, &calm());
    let ca = first.ca();
    assert_eq!(
        std::fs::metadata(folder.join("ca.key"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    first.terminate();
    assert_eq!(Served::start(&folder, &calm()).ca(), ca);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_made_elsewhere_is_used() {
    script("tests/cluster/packages.sh", &["openssl"]);
    let folder = fresh_folder("own-ca");
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=Our own CA' -days 2 \
        -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt";
    let output = Command::new("sh")
        .args(["-c", make])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let given = std::fs::read_to_string(folder.join("ca.crt")).unwrap();

    let served = Served::start(&folder, &calm());
    assert_eq!(served.ca(), given);
    let reply = served
        .http()
        .get(format!("https://{CONTOSO}/v2/"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        reply.status().as_u16(),
        401,
        "a client that trusts it gets through"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_world_serves_what_the_readme_shows() {
    let example = std::fs::read_to_string(repository().join("tests/azure-emulator/example.yaml")).unwrap();
    let served = Served::start(&fresh_folder("example"), &example);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "22222222-0000-4000-8000-000000000000"),
        ("client_secret", "not-a-secret"),
        ("scope", "https://containerregistry.azure.net/.default"),
    ];
    let url = "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token";
    let token = Reply::of(served.http().post(url).form(&form)).await.ok();
    let token = token["access_token"].as_str().unwrap();
    let form = [
        ("grant_type", "access_token"),
        ("service", CONTOSO),
        ("access_token", token),
    ];
    Reply::of(
        served
            .http()
            .post(format!("https://{CONTOSO}/oauth2/exchange"))
            .form(&form),
    )
    .await
    .ok();

    let url = format!(
        "http://{}/msi/token?api-version=2019-08-01&resource={ACR}",
        served.ready["imds"].as_str().unwrap()
    );
    let request = reqwest::Client::new()
        .get(url)
        .header("X-IDENTITY-HEADER", "not-a-secret-either");
    let system_assigned = "33333333-0000-4000-8000-000000000000";
    assert_eq!(Reply::of(request).await.ok()["client_id"], system_assigned);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_even_while_a_request_hangs() {
    let served = Served::start(
        &fresh_folder("term"),
        &(calm() + "faults: [{endpoint: acr.challenge, hang: true}]\n"),
    );
    // The first hangs until its client gives up, and so is in the log: then the second hangs, too, or soon will.
    let impatient = served
        .http()
        .get(format!("https://{CONTOSO}/v2/"))
        .timeout(Duration::from_millis(200));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    let patient = tokio::spawn(served.http().get(format!("https://{CONTOSO}/v2/")).send());
    served.terminate();
    assert!(patient.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_world_is_replaced_while_it_runs_and_a_bad_one_is_refused_by_line() {
    let served = Served::start(&fresh_folder("apply"), &calm());
    let (http, control) = (served.http(), ControlClient::new(&served.control_url()).unwrap());
    let status = async |registry: &str| {
        http.get(format!("https://{registry}/v2/"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(
        (status(CONTOSO).await, status("tailspin.azurecr.io").await),
        (401, 404)
    );

    let next = calm().replace(FABRIKAM, "tailspin.azurecr.io");
    let output = served.apply("next.yaml", &next);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        (status("tailspin.azurecr.io").await, status(FABRIKAM).await),
        (401, 404)
    );

    let output = served.apply(
        "bad.yaml",
        "tenants:\n  - id: 72f988bf-86f1-41af-91ab-000000000001\n    aplications: []\n",
    );
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && message.lines().count() == 1,
        "{message}"
    );
    assert!(
        message.contains("bad.yaml:3:5: ") && message.contains("aplications"),
        "{message}"
    );
    let refused = control
        .apply("registries: [{hosts: x}]")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("world:1:") && refused.contains("hosts"),
        "{refused}"
    );
    assert_eq!(status("tailspin.azurecr.io").await, 401, "the old world stays");
}

#[test]
fn a_world_that_is_bad_or_missing_keeps_it_from_starting() {
    let folder = fresh_folder("bad");
    std::fs::write(folder.join("bad.yaml"), "registries: 5\n").unwrap();
    for (file, part) in [
        ("bad.yaml", "bad.yaml:1:"),
        ("none.yaml", "none.yaml: cannot be read"),
    ] {
        let output = Command::new(PROGRAM)
            .args(["serve", "--world"])
            .arg(folder.join(file))
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && message.contains(part) && message.lines().count() == 1,
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_port_tells_health_authority_world_and_counts_requests() {
    let served = Served::start(&fresh_folder("control"), &calm());
    let control = ControlClient::new(&served.control_url()).unwrap();
    assert_eq!(
        reqwest::get(format!("{}/healthz", served.control_url()))
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "ok\n"
    );
    assert_eq!(
        reqwest::get(format!("{}/world", served.control_url()))
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        calm()
    );
    assert_eq!(control.ca_pem().await.unwrap(), served.ca());

    let fault = Fault {
        status: Some(503),
        times: Some(1),
        ..Fault::on(Endpoint::AcrChallenge)
    };
    control.set_faults(&[fault]).await.unwrap();
    for expected in [503, 401] {
        let reply = served
            .http()
            .get(format!("https://{CONTOSO}/v2/"))
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status().as_u16(), expected);
    }
    assert_eq!(
        control
            .requests()
            .await
            .unwrap()
            .iter()
            .map(|record| record.seq)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    control.clear_requests().await.unwrap();
    assert!(control.requests().await.unwrap().is_empty());
}

/// Goes the whole way, good and bad, then looks for every credential in all that the program shows without being asked.
#[tokio::test(flavor = "multi_thread")]
async fn neither_the_request_log_nor_standard_error_holds_a_secret() {
    let served = Served::start(&fresh_folder("secrets"), &calm());
    let control = ControlClient::new(&served.control_url()).unwrap();
    let http = served.http();
    let post = async |url: String, form: &[(&str, &str)]| Reply::of(http.post(url).form(form)).await;
    let entra = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
    let scope = format!("{ACR}/.default");
    let assertion = issuer().assertion(SUBJECT, AUDIENCE);
    let kind = (
        "client_assertion_type",
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    );
    let rest = [
        ("client_id", WEB),
        ("grant_type", "client_credentials"),
        ("scope", &scope),
        kind,
    ];
    post(
        entra.clone(),
        &[&[("client_secret", "a-wrong-secret")], &rest[..]].concat(),
    )
    .await;
    post(entra.clone(), &[&[("client_secret", SECRET)], &rest[..]].concat())
        .await
        .ok();
    let reply = post(
        entra,
        &[&[("client_assertion", assertion.as_str())], &rest[..]].concat(),
    )
    .await
    .ok();
    let token = reply["access_token"].as_str().unwrap();
    let form = [
        ("grant_type", "access_token"),
        ("service", CONTOSO),
        ("access_token", token),
    ];
    let reply = post(format!("https://{CONTOSO}/oauth2/exchange"), &form)
        .await
        .ok();
    let refresh = reply["refresh_token"].as_str().unwrap();
    let url = format!("https://{CONTOSO}/oauth2/token?service={CONTOSO}&scope=repository:shop/web:pull");
    let reply = Reply::of(http.get(url).basic_auth(TOKEN_USER, Some(refresh)))
        .await
        .ok();
    let access = reply["access_token"].as_str().unwrap();
    Reply::of(
        http.get(format!("https://{CONTOSO}/v2/shop/web/manifests/v1"))
            .bearer_auth(access),
    )
    .await;

    let url = format!(
        "http://{}/msi/token?api-version=2019-08-01&resource={ACR}",
        served.ready["imds"].as_str().unwrap()
    );
    let reply = Reply::of(
        reqwest::Client::new()
            .get(url)
            .header("X-IDENTITY-HEADER", IDENTITY_HEADER),
    )
    .await
    .ok();
    let managed = reply["access_token"].as_str().unwrap();

    let credentials = control.credentials().await.unwrap();
    for presented in [
        "a-wrong-secret",
        SECRET,
        &assertion,
        token,
        refresh,
        access,
        IDENTITY_HEADER,
    ] {
        assert!(
            credentials.presented.iter().any(|one| one == presented),
            "not among those presented: {presented}"
        );
    }
    for issued in [token, refresh, access, managed] {
        assert!(
            credentials.issued.iter().any(|one| one == issued),
            "not among those issued: {issued}"
        );
    }
    let log = reqwest::get(format!("{}/requests", served.control_url()))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(serde_json::from_str::<Vec<Value>>(&log).unwrap().len(), 7);
    let shown = log + &served.terminate();
    for secret in credentials.issued.iter().chain(&credentials.presented) {
        let signature = secret.rsplit('.').next().unwrap();
        assert!(!shown.contains(signature), "shown: {secret}");
    }
}
