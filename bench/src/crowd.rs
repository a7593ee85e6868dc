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

pub struct Crowd {
    pub env: TestEnv,
}

/// Sends reviews of the identities' Pods to one webhook.
pub struct Asker {
    /// Used in turn. If there are several, each has one connection.
    clients: Vec<reqwest::Client>,
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

    /// A client of this webhook, which opens connections when they are needed.
    pub fn asker(&self, webhook: &Webhook) -> Asker {
        Asker {
            clients: vec![webhook.client()],
            url: webhook.url(),
            namespace: self.env.team_a.namespace.clone(),
        }
    }

    /// A client with this many open connections. They are opened one after the other, because the webhook closes new
    /// connections of a busy client that sends no request on them within a second.
    pub async fn connected_asker(&self, webhook: &Webhook, connections: usize) -> Asker {
        let asker = Asker {
            clients: (0..connections).map(|_| webhook.client()).collect(),
            ..self.asker(webhook)
        };
        let mut review = asker.review(0);
        review["request"]["dryRun"] = true.into();
        for client in &asker.clients {
            asker.send(client, &review).await;
        }
        asker
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
        let client = &self.clients[n % self.clients.len()];
        self.send(client, &self.review(n)).await
    }

    async fn send(&self, client: &reqwest::Client, review: &Value) -> Answer {
        let request = client.post(format!("{}?timeout=10s", self.url)).json(review);
        let began = Instant::now();
        let reply = request.send().await.expect("the webhook answers");
        let answer: Value = reply.json().await.expect("the answer is JSON");
        let took = began.elapsed();
        let response = &answer["response"];
        assert_eq!(response["allowed"], true, "{answer}");
        assert!(response["patch"].is_string(), "{answer}");
        Answer {
            took,
            complete: response["warnings"].as_array().is_none_or(Vec::is_empty),
        }
    }
}
