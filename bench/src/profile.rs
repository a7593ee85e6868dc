//! Flame graphs of warm admissions: where webhook and baseline spend their CPU time, sampled by perf.

use crate::{
    ground::{Asked, Baseline, Ground},
    hot::CORE,
    load::{Lasts, Load, load},
    tools::{Tools, on_core},
};
use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use testkit::{process::signal, webhook::program};

const LOAD: Load = Load {
    connections: 16,
    lasts: Lasts::For(Duration::from_secs(8)),
    rate: None,
};
/// Samples per second. It is not a divisor of a second, so that no regular event is sampled each time.
const FREQUENCY: &str = "499";
/// Frames that are narrower than this percentage of the graph are not drawn.
const MIN_WIDTH: &str = "0.3";

/// Writes `flame-baseline.svg` and `flame-webhook.svg` to the folder.
pub async fn draw(tools: &Tools, ground: &Ground, out: &Path) {
    let mut baseline = Baseline::start_as(on_core(CORE, &tools.baseline)).await;
    draw_one(tools, &ground.ask_baseline(&baseline), "baseline", out).await;
    baseline.terminate().await;
    let webhook = ground.env.replica_by(on_core(CORE, program())).await;
    draw_one(tools, &ground.ask(&webhook), "webhook", out).await;
}

async fn draw_one(tools: &Tools, asked: &Asked, name: &str, out: &Path) {
    let files = TempDir::with_prefix("acr-pull-webhook-bench-").expect("a temporary folder can be made");
    let [samples, text, stacks] = ["samples", "text", "stacks"].map(|name| files.path().join(name));
    let mut perf = tokio::process::Command::new("perf")
        .args(["record", "--quiet", "--event", "cpu-clock", "--freq", FREQUENCY])
        // The program has no frame pointers.
        .args(["--call-graph", "dwarf,16384", "--pid"])
        .arg(asked.target().process.to_string())
        .arg("--output")
        .arg(&samples)
        .kill_on_drop(true)
        .spawn()
        .expect("perf can be started");
    load(tools, asked.target(), LOAD).await;
    signal(perf.id().expect("perf runs"), "INT").await;
    perf.wait().await.expect("perf ends");

    let mut script = Command::new("perf");
    script.args(["script", "--input"]).arg(&samples);
    write(script, &text);
    let mut collapse = Command::new(tools.inferno("inferno-collapse-perf"));
    collapse.arg(&text);
    write(collapse, &stacks);
    let mut draw = Command::new(tools.inferno("inferno-flamegraph"));
    draw.args(["--minwidth", MIN_WIDTH, "--title"])
        .arg(format!("CPU time of warm admissions, 16 connections: {name}"))
        .arg(&stacks);
    let picture = out.join(format!("flame-{name}.svg"));
    write(draw, &picture);
    eprintln!("bench: wrote {}", picture.display());
}

/// Writes the output of a command to a file.
fn write(mut command: Command, file: &Path) {
    let output = File::create(file).expect("a file can be written");
    let status = command.stdout(output).stderr(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
