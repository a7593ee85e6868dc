//! The program: its ready line, its end, its certificate authority, its control port, and what it must never print.

use crate::support::*;
use reqwest::Client;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_azure-emulator");

/// `azure-emulator serve`, until dropped or terminated.
struct Program {
    process: Child,
    ready: Value,
}

impl Program {
    fn start(folder: &Path, world: &str) -> Self {
        let file = folder.join("world.yaml");
        fs::write(&file, world).unwrap();
        let mut process = Command::new(PROGRAM)
            .args(["serve", "--proxy=127.0.0.1:0", "--imds=127.0.0.1:0"])
            .arg("--world")
            .arg(file)
            .arg("--data")
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(process.stdout.as_mut().unwrap());
        stdout.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line}"));
        Self { process, ready }
    }

    fn url(&self, listener: &str) -> String {
        format!("http://{}", self.ready[listener].as_str().unwrap())
    }

    fn ca(&self) -> String {
        fs::read_to_string(self.ready["ca"].as_str().unwrap()).unwrap()
    }

    fn http(&self) -> Client {
        client(&self.url("proxy"), &self.ca())
    }

    /// The status of the registry's answer to a client without a credential.
    async fn status_of(&self, registry: &str) -> u16 {
        let request = self.http().get(format!("https://{registry}/v2/"));
        Reply::of(request).await.status
    }

    async fn get(&self, path: &str) -> Reply {
        Reply::of(Client::new().get(self.url("control") + path)).await
    }

    async fn put(&self, path: &str, body: &str) -> Reply {
        let request = Client::new().put(self.url("control") + path);
        Reply::of(request.body(body.to_owned())).await
    }

    /// Sends SIGTERM, and returns the program's standard error.
    fn terminate(mut self) -> String {
        let pid = self.process.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(kill.success());
        await_condition("the end of the program", || {
            self.process.try_wait().unwrap().is_some()
        });
        assert!(
            self.process.wait().unwrap().success(),
            "SIGTERM is an orderly end"
        );
        let mut text = String::new();
        let mut stderr = self.process.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_restart_keeps_the_authority_and_its_key_is_private() {
    let folder = fresh_folder("data");
    let first = Program::start(&folder, &world());
    let ca = first.ca();
    let key = fs::metadata(folder.join("ca.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    first.terminate();
    assert_eq!(Program::start(&folder, &world()).ca(), ca);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_in_the_folder_is_used() {
    script("deploy/packages.sh", &["openssl"]);
    let folder = fresh_folder("own-ca");
    let create = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=Our own CA' -days 2 \
        -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt";
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", create]).current_dir(&folder).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let ca = fs::read_to_string(folder.join("ca.crt")).unwrap();
    let program = Program::start(&folder, &world());
    assert_eq!(program.ca(), ca);
    assert_eq!(program.status_of(CONTOSO).await, 401, "a client that trusts it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_world_behaves_as_the_readme_shows() {
    let example = repository().join("tests/azure-emulator/example.yaml");
    let program = Program::start(&fresh_folder("example"), &fs::read_to_string(example).unwrap());
    let http = program.http();
    let url = "https://login.microsoftonline.com/11111111-0000-4000-8000-000000000000/oauth2/v2.0/token";
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "22222222-0000-4000-8000-000000000000"),
        ("client_secret", "not-a-secret"),
        ("scope", "https://containerregistry.azure.net/.default"),
    ];
    let token = Reply::of(http.post(url).form(&form)).await.token("access_token");
    let form = [
        ("grant_type", "access_token"),
        ("service", CONTOSO),
        ("access_token", &token),
    ];
    let url = format!("https://{CONTOSO}/oauth2/exchange");
    Reply::of(http.post(url).form(&form)).await.token("refresh_token");

    let base = program.url("imds");
    let url = format!("{base}/msi/token?api-version=2019-08-01&resource={ACR}");
    let request = Client::new().get(url);
    let request = request.header("X-IDENTITY-HEADER", "not-a-secret-either");
    let system_assigned = "33333333-0000-4000-8000-000000000000";
    assert_eq!(Reply::of(request).await.ok()["client_id"], system_assigned);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_program_while_a_request_hangs() {
    let fault = "faults: [{endpoint: acr.challenge, effect: hang}]\n";
    let program = Program::start(&fresh_folder("term"), &(world() + fault));
    let request = program.http().get(format!("https://{CONTOSO}/v2/"));
    let waiting = request.try_clone().unwrap();
    // A request that timed out shows that requests hang.
    let error = request
        .timeout(Duration::from_millis(200))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    let waiting = tokio::spawn(waiting.send());
    program.terminate();
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_world_is_replaced_at_run_time_and_an_invalid_one_is_refused() {
    let other = "tailspin.azurecr.io";
    let program = Program::start(&fresh_folder("apply"), &world());
    assert_eq!(program.status_of(FABRIKAM).await, 401);
    assert_eq!(program.status_of(other).await, 404);

    let next = world().replace(FABRIKAM, other);
    assert_eq!(program.put("/world", &next).await.status, 200);
    assert_eq!(program.status_of(FABRIKAM).await, 404);
    assert_eq!(program.status_of(other).await, 401);

    let refused = program.put("/world", "registries: [{hosts: x}]").await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.text.starts_with("world:1:") && refused.text.contains("hosts"),
        "{}",
        refused.text
    );
    assert_eq!(program.status_of(other).await, 401, "the previous world stays");
}

#[test]
fn the_program_does_not_start_with_an_invalid_or_missing_world() {
    let folder = fresh_folder("bad");
    fs::write(folder.join("bad.yaml"), "registries: 5\n").unwrap();
    for (file, text) in [
        ("bad.yaml", "bad.yaml:1:"),
        ("none.yaml", "none.yaml: cannot be read"),
    ] {
        let mut program = Command::new(PROGRAM);
        let program = program.args(["serve", "--world"]).arg(folder.join(file));
        let output = program.output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && message.contains(text) && message.lines().count() == 1,
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_port_sets_faults_and_returns_the_requests() {
    let program = Program::start(&fresh_folder("control"), &world());
    assert_eq!(program.get("/healthz").await.text, "ok\n");
    let refused = program.put("/faults", "[{endpoint: acr.challenge}]").await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    let fault = r#"[{"endpoint": "acr.challenge", "times": 1, "effect": {"status": {"code": 503}}}]"#;
    assert_eq!(program.put("/faults", fault).await.status, 200);
    for expected in [503, 401] {
        assert_eq!(program.status_of(CONTOSO).await, expected);
    }
    let records = program.get("/requests").await.ok();
    let logged = |i: usize| (records[i]["seq"].as_u64(), records[i]["status"].as_u64());
    assert_eq!(logged(0), (Some(1), Some(503)));
    assert_eq!(logged(1), (Some(2), Some(401)));
    let delete = Client::new().delete(program.url("control") + "/requests");
    assert_eq!(Reply::of(delete).await.status, 204);
    assert_eq!(program.get("/requests").await.text, "[]");
}

/// Presents every kind of credential, and returns all credentials.
async fn present_credentials(program: &Program) -> Vec<String> {
    let http = program.http();
    let post = async |url: &str, form: &[(&str, &str)]| Reply::of(http.post(url).form(form)).await;
    let entra = format!("https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token");
    let scope = format!("{ACR}/.default");
    let assertion = issuer().assertion(SUBJECT, AUDIENCE);
    let mut form = vec![
        ("client_secret", "a-wrong-secret"),
        ("client_id", WEB),
        ("grant_type", "client_credentials"),
        ("scope", &scope),
    ];
    assert_eq!(post(&entra, &form).await.status, 401);
    form[0].1 = SECRET;
    post(&entra, &form).await.ok();
    form[0] = ("client_assertion", &assertion);
    form.push(("client_assertion_type", JWT_BEARER));
    let token = post(&entra, &form).await.token("access_token");
    let form = [
        ("grant_type", "access_token"),
        ("service", CONTOSO),
        ("access_token", &token),
    ];
    let url = format!("https://{CONTOSO}/oauth2/exchange");
    let refresh = post(&url, &form).await.token("refresh_token");
    let url = format!("https://{CONTOSO}/oauth2/token?service={CONTOSO}&scope=repository:shop/web:pull");
    let request = http.get(url).basic_auth(TOKEN_USER, Some(&refresh));
    let access = Reply::of(request).await.token("access_token");
    let url = format!("https://{CONTOSO}/v2/shop/web/manifests/v1");
    Reply::of(http.get(url).bearer_auth(&access)).await;
    let base = program.url("imds");
    let url = format!("{base}/msi/token?api-version=2019-08-01&resource={ACR}");
    let request = Client::new()
        .get(url)
        .header("X-IDENTITY-HEADER", IDENTITY_HEADER);
    let managed = Reply::of(request).await.token("access_token");
    let secrets = ["a-wrong-secret", SECRET, IDENTITY_HEADER].map(str::to_owned);
    let tokens = [assertion, token, refresh, access, managed];
    secrets.into_iter().chain(tokens).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_the_request_log_nor_standard_error_contains_a_secret() {
    let program = Program::start(&fresh_folder("secrets"), &world());
    let all = present_credentials(&program).await;
    let logged = program.get("/credentials").await.text;
    for credential in &all {
        assert!(
            logged.contains(credential),
            "not among the credentials: {credential}"
        );
    }
    let log = program.get("/requests").await;
    assert_eq!(log.ok().as_array().unwrap().len(), 7);
    let printed = log.text + &program.terminate();
    for credential in &all {
        let signature = credential.rsplit('.').next().unwrap();
        assert!(!printed.contains(signature), "printed: {credential}");
    }
}
