//! Many identities: service accounts with an application each, in one namespace, and the reviews of their Pods.

use crate::ground::pod;
use azure_emulator::{Effect, Endpoint, Fault};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testbed::{
    review::review,
    site::{Site, add_application, from},
    webhook::Webhook,
};

/// Calls of ours to the API server at the same time, while something is prepared.
pub const PREPARING: usize = 32;

/// A log as a cluster's.
pub const FLAGS: [&str; 2] = ["--log-level=info", "--max-pull-secrets-per-namespace=1000000"];

pub struct Crowd {
    pub site: Site,
}

/// Asks one webhook about Pods of the crowd.
pub struct Asker {
    client: reqwest::Client,
    url: String,
    namespace: String,
}

/// What a webhook answered about one Pod.
pub struct Answer {
    pub took: Duration,
    /// Whether its pull secret was in place when it was admitted.
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

// === impl Crowd ===

impl Crowd {
    /// A site with so many identities, where nobody leads: what is there stays as it is.
    pub async fn new(number: usize) -> Self {
        Self::with_flags(number, &[]).await
    }

    /// The same, whose webhook has further flags.
    pub async fn with_flags(number: usize, flags: &[&str]) -> Self {
        let site = Site::with(&[&FLAGS, flags].concat(), |world| add(world, number)).await;
        Self::settle(site, number).await
    }

    /// A site whose webhook leads, with further flags, and where the tokens last so long.
    pub async fn led(number: usize, lifetime: &str, flags: &[&str]) -> Self {
        let flags = [&FLAGS, flags].concat();
        let site = Site::leading(&flags, |world| {
            world["tokens"] = json!({"acrRefreshLifetime": lifetime});
            add(world, number);
        });
        Self::settle(site.await, number).await
    }

    async fn settle(site: Site, number: usize) -> Self {
        let accounts = Api::<ServiceAccount>::namespaced(site.client.clone(), &site.a.namespace);
        let create = |n| {
            let object: ServiceAccount = from(json!({"metadata": {
                "name": account(n),
                "annotations": {"azure.workload.identity/client-id": client_id(n)},
            }}));
            let accounts = accounts.clone();
            async move { accounts.create(&PostParams::default(), &object).await }
        };
        let mut created = stream::iter(0..number).map(create).buffer_unordered(PREPARING);
        while let Some(created) = created.next().await {
            created.expect("a service account can be created");
        }
        Self { site }
    }

    /// Azure answers so much later at each hop.
    pub fn set_delay(&self, delay: Duration) {
        let slow = |endpoint| Fault::new(endpoint, Effect::Delay(delay));
        let faults = [Endpoint::EntraToken, Endpoint::AcrExchange].map(slow);
        self.site.emulator.set_faults(&faults);
    }

    /// Asks this webhook.
    pub fn asker(&self, webhook: &Webhook) -> Asker {
        Asker {
            client: webhook.client(),
            url: webhook.url(),
            namespace: self.site.a.namespace.clone(),
        }
    }

    /// How often Entra was asked as the identity of this number.
    pub fn sequences(&self, n: usize) -> usize {
        self.site.calls_of(&client_id(n), Endpoint::EntraToken)
    }
}

// === impl Asker ===

impl Asker {
    /// The review of a Pod of this identity.
    pub fn review(&self, n: usize) -> Value {
        let mut pod = pod();
        pod.spec.as_mut().expect("it has a spec").service_account_name = Some(account(n));
        review(&self.namespace, &pod)
    }

    /// Asks about a Pod of this identity.
    pub async fn ask(&self, n: usize) -> Answer {
        self.send(self.review(n)).await
    }

    /// Opens so many connections, for later.
    pub async fn connect(&self, connections: usize) {
        let dry_run = |n| {
            let mut review = self.review(n);
            review["request"]["dryRun"] = true.into();
            self.send(review)
        };
        futures::future::join_all((0..connections).map(|_| dry_run(0))).await;
    }

    async fn send(&self, review: Value) -> Answer {
        let request = self
            .client
            .post(format!("{}?timeout=10s", self.url))
            .json(&review);
        let began = Instant::now();
        let reply = request.send().await.expect("the webhook answers");
        let answer: Value = reply.json().await.expect("it answers in JSON");
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
