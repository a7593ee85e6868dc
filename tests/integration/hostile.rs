//! What users of one namespace, Pods without rights and unexpected objects can cause. Meanwhile each replica is ready,
//! uses little memory, and admits the Pods of another namespace.

mod attacker;
mod bystanders;
mod complaints;
mod excluded;
mod fairness;
mod forged;
mod large_objects;
mod limits;
mod objects;
mod port;
mod registries;
mod restored;
mod texts;
mod usage;
mod watches;
mod writes;

use bystanders::Bystanders;
use testkit::{env::TestEnv, webhook::Webhook};

/// Runs an attempt to its end, and asserts that bystanders are unaffected during the attempt and after it.
async fn unaffected_by<T>(env: &TestEnv, replicas: &[&Webhook], attempt: impl Future<Output = T>) -> T {
    Bystanders::of(env, replicas).await.check_during(attempt).await
}
