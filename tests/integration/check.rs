//! The subcommands `check` and `explain`, run by an administrator: broken set-ups, the reasons that are found, and the
//! printed commands, which correct them.

mod explained;
mod installation;
mod installations;
mod pulls;
mod replicas;
mod table;

use testkit::env::TestEnv;

/// Runs `check --only=round-trip`, as `helm test` does; returns the exit status and the report.
async fn round_trip(env: &TestEnv, more: &str) -> (Option<i32>, String) {
    let program = env!("CARGO_BIN_EXE_acr-pull-webhook");
    let line = format!("{program} check --only=round-trip {more}");
    let output = env.cluster.shell(&line).await;
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[testkit::test]
async fn the_round_trip_fails_where_the_webhook_is_not_called() {
    let env = TestEnv::start().await;
    let namespace = env.team_a.namespace.name();
    let (code, report) = round_trip(&env, &format!("--namespace={namespace}")).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(
        report.contains("✔ round trip: the API server calls the webhook"),
        "{report}"
    );
    let (code, report) = round_trip(&env, "").await;
    assert_eq!(code, Some(1), "{report}");
    assert!(
        report.contains("✘ round trip: NotCalled: the API server did not call the webhook"),
        "{report}"
    );
    assert!(
        report.contains("\n    https://acr-pull.dev/reasons.html#notcalled\n"),
        "{report}"
    );
}

#[testkit::test]
async fn missing_permissions_of_the_caller_are_no_failure_of_the_webhook() {
    let env = TestEnv::start().await;
    let program = env!("CARGO_BIN_EXE_acr-pull-webhook");
    let kubeconfig = env.cluster.kubeconfig().with_file_name("jane.kubeconfig");
    let line = format!(
        "kubectl create serviceaccount jane
         TOKEN=$(kubectl create token jane)
         cp \"$KUBECONFIG\" {0}
         export KUBECONFIG={0}
         kubectl config set-credentials jane --token=\"$TOKEN\" > /dev/null
         kubectl config set-context --current --user=jane > /dev/null
         {program} check --namespace={1} contoso",
        kubeconfig.display(),
        env.team_a.namespace
    );
    let output = env.cluster.shell(&line).await;
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "{report}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!report.contains('✘'), "{report}");
    for part in [
        "Deployment",
        "registration",
        "permissions",
        "round trip",
        "generator",
    ] {
        assert!(
            report.contains(&format!("? {part}: NotPermitted: ")),
            "{part} is not in {report}"
        );
    }
}

#[testkit::test]
async fn an_api_server_that_cannot_be_reached_gives_exit_status_2() {
    let env = TestEnv::start().await;
    let program = env!("CARGO_BIN_EXE_acr-pull-webhook");
    let line = format!(
        "kubectl config view --raw | sed 's|server: .*|server: https://127.0.0.1:1|' > $KUBECONFIG.unreachable
         KUBECONFIG=$KUBECONFIG.unreachable {program} check"
    );
    let output = env.cluster.shell(&line).await;
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{report}");
    assert!(
        report.contains("? API server: ApiServerUnreachable: "),
        "{report}"
    );
}

#[testkit::test]
async fn the_program_is_a_plugin_of_kubectl_by_its_name() {
    let env = TestEnv::start().await;
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-acr_pull");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_acr-pull-webhook"), &plugin).unwrap();
    let path = folder.path().display();
    let namespace = &env.team_a.namespace;
    let line = format!("PATH={path}:$PATH kubectl acr-pull check --only=round-trip --namespace={namespace}");
    let output = env.cluster.shell(&line).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let line = format!("PATH={path}:$PATH kubectl acr-pull check --context=nowhere");
    let output = env.cluster.shell(&line).await;
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(
        report.contains("the context \"nowhere\" of the kubeconfig cannot be used"),
        "{report}"
    );
    let help = env
        .cluster
        .shell(&format!("PATH={path}:$PATH kubectl acr-pull check --help"))
        .await;
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("Usage: kubectl acr-pull check"), "{help}");
}
