//! Two replicas write the same objects, objects are deleted during a write, and the API server is slow.

use super::unaffected_by;
use azure_emulator::{Effect, Endpoint, Fault};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Value, json};
use testkit::{
    api_proxy::{Held, Write},
    azure::add_registry,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{pod, pull_secret_name, unnamed_pod},
    review::{post, review, short_timeout},
    webhook::Webhook,
};

const OTHER_REGISTRY: &str = "other.azurecr.io";

/// The hosts in the docker config of a Secret.
fn hosts(secret: &Secret) -> Vec<String> {
    let config = &secret.data.as_ref().unwrap()[".dockerconfigjson"].0;
    let config: Value = serde_json::from_slice(config).unwrap();
    config["auths"].as_object().unwrap().keys().cloned().collect()
}

/// Sends a review to a replica as an API server with this time-out; returns status and body of the answer.
async fn ask(replica: &Webhook, review: &Value, seconds: u64) -> (u16, String) {
    let url = format!("{}?timeout={seconds}s", replica.url());
    let request = replica.client().post(url).json(review);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn uid(namespace: &TestNamespace, name: &str) -> Option<String> {
    let found = namespace.pull_secrets().get_opt(name).await.unwrap();
    found.map(|owner| owner.uid().unwrap())
}

/// The uids of the owners of a Secret.
fn owners(secret: &Secret) -> Vec<String> {
    let owners = secret.metadata.owner_references.iter().flatten();
    owners.map(|owner| owner.uid.clone()).collect()
}

/// Asserts that the existing pull secret owns the Secret.
async fn assert_owned(namespace: &TestNamespace, name: &str) {
    let owner = uid(namespace, name).await.unwrap();
    let secret = namespace.secrets().get(name).await.unwrap();
    assert_eq!(owners(&secret), [owner], "{name}");
}

/// The name of the pull secret of the generator `contoso` and the service account `app`.
async fn name_of_contoso(namespace: &TestNamespace) -> String {
    pull_secret_name(&namespace.dry_run_pod(&unnamed_pod("contoso")).await.unwrap())
}

/// A generator changes while one replica is between its two writes; another replica makes both writes in
/// between.
#[testkit::test]
async fn a_status_describes_the_token_in_the_secret() {
    let env = TestEnv::leading_through_proxy(&[], |world| add_registry(world, OTHER_REGISTRY)).await;
    let namespace = &env.team_a.namespace;
    let name = name_of_contoso(namespace).await;
    let second = env.replica().await;
    let review = review(namespace, &pod("app", "contoso"));
    let attempt = async {
        env.proxy().hold(Held::Write(Write::Status));
        let (first, inputs_hash) = tokio::join!(ask(&env.webhook, &review, 10), async {
            env.proxy().wait_until_holding().await;
            let registry = json!({"registry": OTHER_REGISTRY});
            namespace.apply_generator("contoso", registry).await;
            let inputs_hash = eventually("the other replica has written both objects", async || {
                ask(&second, &review, 10).await;
                let secret = namespace.secrets().get_opt(&name).await.unwrap()?;
                (hosts(&secret) == [OTHER_REGISTRY]).then_some(())?;
                namespace.status(&name).await.inputs_hash
            })
            .await;
            env.proxy().release();
            inputs_hash
        });
        // The generator of the first review has changed: the client has to create its Pod again.
        assert!(first.0 == 200 || first.1.contains("try again"), "{}", first.1);
        env.webhook.wait_until_issued().await;
        let secret = namespace.secrets().get(&name).await.unwrap();
        let status = namespace.status(&name).await;
        assert_eq!(hosts(&secret), [OTHER_REGISTRY]);
        assert_eq!(status.inputs_hash, Some(inputs_hash), "{status:?}");
        assert_eq!(status.registry.as_deref(), Some(OTHER_REGISTRY));
    };
    unaffected_by(&env, &[&env.webhook, &second], attempt).await;
}

/// An `ACRPullSecret` is deleted before its Secret is written, and another replica creates both again.
#[testkit::test]
async fn a_secret_belongs_to_the_existing_pull_secret() {
    let env = TestEnv::leading_through_proxy(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    let name = name_of_contoso(namespace).await;
    let second = env.replica().await;
    let review = review(namespace, &pod("app", "contoso"));
    let attempt = async {
        env.proxy().hold(Held::Write(Write::Secret));
        tokio::join!(ask(&env.webhook, &review, 10), async {
            env.proxy().wait_until_holding().await;
            let before = uid(namespace, &name).await.unwrap();
            namespace.delete_pull_secret(&name).await;
            eventually("the other replica has created both objects", async || {
                ask(&second, &review, 10).await;
                let owner = namespace.pull_secrets().get_opt(&name).await.unwrap()?;
                let secret = namespace.secrets().get_opt(&name).await.unwrap()?;
                let is_new = owner.uid()? != before && owner.status.as_ref()?.is_ready();
                (is_new && owners(&secret) == [owner.uid()?]).then_some(())
            })
            .await;
            env.proxy().release();
        });
        env.webhook.wait_until_issued().await;
        assert_owned(namespace, &name).await;
    };
    unaffected_by(&env, &[&env.webhook, &second], attempt).await;
}

/// Creates a pull secret without Pods, and waits until its collection is announced; returns its name.
async fn create_unused(namespace: &TestNamespace, generator: &str) -> String {
    namespace.apply_generator(generator, json!({})).await;
    let name = pull_secret_name(&namespace.create_pod(&pod(generator, generator)).await);
    namespace.delete_pod(generator).await;
    eventually("the collection is announced", async || {
        namespace.status(&name).await.unused_since
    })
    .await;
    name
}

/// A Pod needs a pull secret whose collection was announced and which was deleted or replaced since.
#[testkit::test]
async fn a_pod_is_admitted_while_its_unused_pull_secret_is_deleted() {
    let flags = ["--unused-grace=2s", "--unused-notice=60s"];
    let env = TestEnv::leading_through_proxy(&flags, |_| ()).await;
    let namespace = &env.team_a.namespace;
    let second = env.replica().await;
    let attempt = async {
        for (generator, is_recreated) in [("deleted", false), ("recreated", true)] {
            let name = create_unused(namespace, generator).await;
            // After the announcement for another pull secret, the leader has seen the first announcement.
            create_unused(namespace, &format!("after-{generator}")).await;
            env.proxy().hold(Held::Watch("acrpullsecrets".to_owned()));
            namespace.delete_pull_secret(&name).await;
            namespace.wait_until_secret_is_gone(&name).await;
            let review = review(namespace, &pod("app", generator));
            if is_recreated {
                eventually("the other replica has recreated the pull secret", async || {
                    ask(&second, &review, 10).await;
                    namespace.secrets().get_opt(&name).await.unwrap()
                })
                .await;
            }
            let answer = post(&env, &review).await;
            assert_eq!(answer["response"]["allowed"], true, "{generator}: {answer}");
            assert_eq!(answer["response"]["warnings"], Value::Null, "{generator}");
            assert_owned(namespace, &name).await;
            env.proxy().release();
        }
    };
    unaffected_by(&env, &[&env.webhook, &second], attempt).await;
}

/// Asserts that a slow API server makes the call of the webhook fail with a message that does not mention Azure.
async fn check_slow_api_server(env: &TestEnv) {
    env.proxy().hold(Held::Write(Write::Secret));
    let late = review(&env.team_a.namespace, &pod("app", "contoso"));
    let (status, answer) = ask(&env.webhook, &late, short_timeout()).await;
    env.proxy().release();
    assert_eq!(status, 500, "failurePolicy decides: {answer}");
    assert!(
        answer.contains("ApiServerUnavailable") && !answer.contains("microsoftonline"),
        "{answer}"
    );
    env.webhook.wait_until_issued().await;
}

/// Asserts that each Pod is admitted with a warning that Entra is slow or that calls to Entra are queued.
async fn check_queue(env: &TestEnv) {
    const HOST: &str = "login.microsoftonline.com";
    let namespace = &env.team_a.namespace;
    let hang = Fault::new(Endpoint::EntraToken, Effect::Hang).of_client(env.team_a.client_id);
    env.azure.set_faults(&[hang]);
    let generators: Vec<_> = (0..4).map(|n| format!("late-{n}")).collect();
    for generator in &generators {
        namespace.apply_generator(generator, json!({})).await;
    }
    let answers = generators.iter().map(async |generator| {
        let review = review(namespace, &pod("app", generator));
        let (status, answer) = ask(&env.webhook, &review, short_timeout()).await;
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        answer["response"]["warnings"][0].as_str().unwrap().to_owned()
    });
    let warnings = join_all(answers).await;
    let count = |text: &str| warnings.iter().filter(|warning| warning.contains(text)).count();
    let slow = count(&format!("{HOST} did not respond"));
    let queued = count(&format!("the call to {HOST} waited"));
    assert!(
        slow > 0 && queued > 0 && slow + queued == warnings.len(),
        "{warnings:?}"
    );
    assert!(env.azure.calls_of(env.team_a.client_id, Endpoint::EntraToken) <= 3);
    env.azure.clear_faults();
}

/// Only a delay that Azure causes admits the Pod.
#[testkit::test]
async fn a_slow_api_server_and_a_long_queue_are_reported_as_such() {
    let env = TestEnv::leading_through_proxy(&["--issue-concurrency=2"], |_| ()).await;
    let attempt = async {
        check_slow_api_server(&env).await;
        check_queue(&env).await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
}
