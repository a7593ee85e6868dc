//! What strangers try: users of one namespace, Pods without rights, objects that no webhook expects. While they try, each
//! replica is ready, stays small, and admits the Pods of another namespace.

mod fairness;
mod objects;
mod others;
mod port;
mod restored;
mod tenants;
mod upkeep;
mod writes;

use others::Others;
use testkit::{env::TestEnv, webhook::Webhook};

/// Does what somebody tries, to its end; others notice nothing of it, neither meanwhile nor afterwards.
async fn bears<T>(env: &TestEnv, replicas: &[&Webhook], attempt: impl Future<Output = T>) -> T {
    Others::of(env, replicas).await.bear(attempt).await
}
