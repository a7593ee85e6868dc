//! Many identities: service accounts with an application each, in one namespace, and the reviews of their Pods.

use crate::request::{FLAGS, pod};
use azure_emulator::{Effect, Endpoint, Fault};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::{
    azure::{add_application, set_token_lifetime},
    env::TestEnv,
    namespace::TestNamespace,
    objects::{CLIENT_ID, from, with_account},
    review::review,
    webhook::Webhook,
};

/// Concurrent calls of the benchmark to the API server during preparations.
pub const PREPARING: usize = 32;
const CONNECTION_ATTEMPTS: usize = 10;

pub struct Crowd {
    pub env: TestEnv,
}

/// Sends reviews of the identities' Pods to one webhook.
pub struct Asker {
    client: reqwest::Client,
    url: String,
    namespace: TestNamespace,
}

/// The answer of a webhook to one review.
pub struct Answer {
    pub took: Duration,
    /// Whether the pull secret had a token at the admission.
    pub complete: bool,
}

fn add(world: &mut Value, number: usize) {
    for n in 0..number {
        add_application(world, &account(n), &client_id(n));
    }
}

/// The service account of this number.
pub fn account(n: usize) -> String {
    format!("app-{n:05}")
}

/// The client id of its application.
pub fn client_id(n: usize) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

impl Crowd {
    /// An environment with this many identities and without a leader.
    pub async fn new(number: usize) -> Self {
        Self::with_flags(number, &[]).await
    }

    /// The same with more flags of the webhook.
    pub async fn with_flags(number: usize, flags: &[&str]) -> Self {
        let env = TestEnv::with(&[&FLAGS, flags].concat(), |world| add(world, number)).await;
        Self::settle(env, number).await
    }

    /// An environment whose webhook leads, with more flags and with this lifetime of tokens.
    pub async fn led(number: usize, lifetime: &str, flags: &[&str]) -> Self {
        let flags = [&FLAGS, flags].concat();
        let env = TestEnv::leading(&flags, |world| {
            set_token_lifetime(world, lifetime);
            add(world, number);
        });
        Self::settle(env.await, number).await
    }

    async fn settle(env: TestEnv, number: usize) -> Self {
        let accounts = env.team_a.namespace.api::<ServiceAccount>();
        let create = |n| {
            let object: ServiceAccount = from(json!({"metadata": {
                "name": account(n),
                "annotations": {CLIENT_ID: client_id(n)},
            }}));
            let accounts = accounts.clone();
            async move { accounts.create(&PostParams::default(), &object).await }
        };
        let mut created = stream::iter(0..number).map(create).buffer_unordered(PREPARING);
        while let Some(created) = created.next().await {
            created.expect("a service account can be created");
        }
        Self { env }
    }

    /// Delays each hop to Azure.
    pub fn set_delay(&self, delay: Duration) {
        let slow = |endpoint| Fault::new(endpoint, Effect::Delay(delay));
        let faults = [Endpoint::EntraToken, Endpoint::AcrExchange].map(slow);
        self.env.azure.set_faults(&faults);
    }

    /// A client of this webhook.
    pub fn asker(&self, webhook: &Webhook) -> Asker {
        Asker {
            client: webhook.client(),
            url: webhook.url(),
            namespace: self.env.team_a.namespace.clone(),
        }
    }

    /// The number of calls to Entra of the identity with this number.
    pub fn sequences(&self, n: usize) -> usize {
        self.env.azure.calls_of(&client_id(n), Endpoint::EntraToken)
    }
}

impl Asker {
    /// The review of a Pod of this identity.
    pub fn review(&self, n: usize) -> Value {
        let pod = with_account(pod(), &account(n));
        review(&self.namespace, &pod)
    }

    /// Sends the review of a Pod of this identity.
    pub async fn ask(&self, n: usize) -> Answer {
        self.send(self.review(n)).await
    }

    /// Opens this many connections before a measurement.
    pub async fn connect(&self, connections: usize) {
        let dry_run = |n| {
            let mut review = self.review(n);
            review["request"]["dryRun"] = true.into();
            // On a busy machine, the webhook closes connections whose handshake takes longer than a second.
            async move {
                for _ in 0..CONNECTION_ATTEMPTS {
                    if self.try_send(&review).await.is_ok() {
                        return;
                    }
                }
                panic!("a connection cannot be opened in {CONNECTION_ATTEMPTS} attempts");
            }
        };
        futures::future::join_all((0..connections).map(|_| dry_run(0))).await;
    }

    async fn send(&self, review: Value) -> Answer {
        self.try_send(&review).await.expect("the webhook answers")
    }

    async fn try_send(&self, review: &Value) -> reqwest::Result<Answer> {
        let request = self.client.post(format!("{}?timeout=10s", self.url)).json(review);
        let began = Instant::now();
        let reply = request.send().await?;
        let answer: Value = reply.json().await?;
        let took = began.elapsed();
        let response = &answer["response"];
        assert_eq!(response["allowed"], true, "{answer}");
        assert!(response["patch"].is_string(), "{answer}");
        Ok(Answer {
            took,
            complete: response["warnings"].as_array().is_none_or(Vec::is_empty),
        })
    }
}
