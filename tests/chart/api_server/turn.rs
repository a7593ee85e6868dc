//! Tests that use the same objects run one after the other.

use std::time::Instant;
use tokio::sync::{Mutex, MutexGuard};

/// Waits until the tests before this one have ended. The wait does not shorten the time that this test may take.
pub async fn wait_for(turn: &'static Mutex<()>) -> MutexGuard<'static, ()> {
    let _waiting = testkit::waiting_for("the turn of this test");
    let asked = Instant::now();
    let guard = testkit::wait_for_another_test(turn.lock()).await;
    testkit::allow_more_time(asked.elapsed());
    guard
}
