//! The subcommand `check`, run by an administrator.

use testkit::env::TestEnv;

#[testkit::test]
async fn check_fails_with_a_reason_where_the_webhook_is_not_called() {
    let env = TestEnv::start().await;
    let check = async |namespace: &str| {
        let program = env!("CARGO_BIN_EXE_acr-pull-webhook");
        let output = env
            .cluster
            .shell(&format!("{program} check --namespace={namespace}"))
            .await;
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(env.team_a.namespace.name()).await, (Some(0), String::new()));
    let (code, message) = check("default").await;
    assert_eq!(code, Some(1));
    assert!(
        message.starts_with(
            "acr-pull-webhook: the API server did not call the webhook for a Pod in namespace default"
        ),
        "{message}"
    );
}
