//! `acr-pull-webhook check`, as an administrator would run it.

use testkit::{env::TestEnv, namespace::TestNamespace};

#[testkit::test]
async fn it_succeeds_where_the_webhook_is_called_and_says_why_not_where_it_is_not() {
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
    let (code, sentence) = check("default").await;
    assert_eq!(code, Some(1));
    assert!(
        sentence.starts_with(
            "acr-pull-webhook: the API server did not call the webhook for a Pod in namespace default"
        ),
        "{sentence}"
    );
}
