//! Signals to the processes of tests.

/// Sends a process a signal by name.
pub async fn signal(process: u32, name: &str) {
    let process = process.to_string();
    let sent = tokio::process::Command::new("kill")
        .args(["-s", name, &process])
        .status()
        .await;
    assert!(sent.unwrap().success());
}
