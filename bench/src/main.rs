//! `make bench`: compares the webhook with a minimal webhook, and prints and writes tables.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_server;
mod burst;
mod cold;
mod counts;
mod crowd;
mod ground;
mod hot;
mod identities;
mod load;
mod peer;
mod plot;
mod process;
mod profile;
mod report;
mod request;
mod scale;
mod tools;

use clap::{Parser, ValueEnum};
use ground::Ground;
use identities::Wave;
use report::Part;
use scale::Size;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tools::Tools;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    tools: Tools,
    /// Use small numbers, which only show that the benchmark works
    #[arg(long)]
    smoke: bool,
    /// The folder of results.md and the plots
    #[arg(long)]
    out: Option<PathBuf>,
    /// Draw flame graphs of warm admissions in this folder, and measure nothing
    #[arg(long)]
    profile: Option<PathBuf>,
    /// The parts to measure; all parts by default, with --smoke all but peer
    parts: Vec<Name>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Warm,
    Peer,
    Counted,
    ApiServer,
    Cold,
    Burst,
    Identities,
    Scale,
}

/// The limit in `make test` for the instructions of a warm admission in a debug build, relative to those of the baseline: a
/// tenth above the ratio that was measured. It is below 1 because the baseline decodes the review in its own crate, which is
/// not optimised in a debug build.
const MAX_DEBUG_RATIO: f64 = 0.52;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(folder) = args.profile {
        profile::draw(&args.tools, &Ground::new(&args.tools).await, &folder).await;
        return ExitCode::SUCCESS;
    }
    let mut names = args.parts;
    if names.is_empty() {
        let is_included = |name: &Name| !(args.smoke && *name == Name::Peer);
        names.extend(Name::value_variants().iter().copied().filter(is_included));
    }
    let mut parts = Vec::new();
    for name in &names {
        eprintln!(
            "bench: measuring {} ...",
            name.to_possible_value()
                .map_or_else(String::new, |n| n.get_name().to_owned())
        );
        for mut part in name.measure(&args.tools, args.smoke).await {
            // Small numbers of a debug build say nothing about time. The number of instructions is reproducible.
            if args.smoke && *name != Name::Counted {
                part.rows.iter_mut().for_each(|row| row.target = None);
            }
            println!("{}", part.table());
            parts.push(part);
        }
    }
    let has_missed = parts
        .iter()
        .flat_map(|part| &part.rows)
        .any(|row| row.met() == Some(false));
    if args.smoke && has_missed {
        eprintln!(
            "bench: a warm admission executes more instructions than the limit (the row marked missed): \
             find the cause with callgrind, or raise MAX_DEBUG_RATIO in bench/src/main.rs and say why"
        );
        return ExitCode::FAILURE;
    }
    match args.out.map(|out| write(&out, &parts)) {
        Some(Err(error)) => {
            eprintln!("bench: the results cannot be written: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn write(out: &Path, parts: &[Part]) -> Result<(), Box<dyn std::error::Error>> {
    let mut text = format!(
        "# Results\n\nWritten by `make bench` on {}, version {}; [README.md](README.md) says how to read them.\n",
        machine(),
        env!("CARGO_PKG_VERSION"),
    );
    for part in parts {
        write!(text, "\n{}", part.table())?;
        for curves in &part.curves {
            plot::draw(curves, &out.join(curves.file))?;
            write!(text, "\n![{}]({})\n", curves.title, curves.file)?;
        }
    }
    std::fs::write(out.join("results.md"), text)?;
    eprintln!("bench: wrote {}", out.join("results.md").display());
    Ok(())
}

/// The processors and the kernel of the machine.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let release = read("/proc/sys/kernel/osrelease");
    let kernel = release.split('-').next().unwrap_or_default().trim();
    format!(
        "{cores} cores of {}, Linux {kernel}",
        model.map_or("an unknown processor", |(_, model)| model)
    )
}

impl Name {
    async fn measure(self, tools: &Tools, smoke: bool) -> Vec<Part> {
        let rounds = |number| hot::Rounds {
            number: if smoke { 1 } else { number },
            each: Duration::from_millis(if smoke { 300 } else { 1_000 }),
        };
        let part = match self {
            // A ratio varies by 0.15 from one pair of processes to the next, so the number of pairs counts.
            Self::Warm => hot::measure(tools, &Ground::new(tools).await, rounds(41)).await,
            Self::Peer => peer::measure(tools, &Ground::new(tools).await, rounds(31)).await,
            Self::Counted => {
                let (requests, max_ratio) = if smoke {
                    (400, MAX_DEBUG_RATIO)
                } else {
                    (1000, 1.15)
                };
                counts::measure(tools, &Ground::new(tools).await, requests, max_ratio).await
            }
            Self::ApiServer => {
                let number = if smoke { 6 } else { 1002 };
                api_server::measure(&Ground::new(tools).await, number).await
            }
            Self::Cold => cold::measure(if smoke { 1 } else { 15 }).await,
            Self::Burst if smoke => burst::measure(tools, &[200], 1).await,
            Self::Burst => burst::measure(tools, &[500, 1_000, 5_000], 5).await,
            Self::Identities => {
                let wave = |identities, concurrency| Wave {
                    identities,
                    concurrency,
                };
                let waves = match smoke {
                    true => vec![wave(20, 16)],
                    false => vec![wave(50, 16), wave(500, 16), wave(1_000, 64)],
                };
                identities::measure(&waves).await
            }
            Self::Scale => {
                let size = |pull_secrets, life| Size {
                    pull_secrets,
                    life: Duration::from_secs(life),
                };
                let sizes = match smoke {
                    true => vec![size(10, 30)],
                    false => vec![size(100, 45), size(1_000, 90), size(10_000, 330)],
                };
                return scale::measure(tools, &sizes, if smoke { 1 } else { 15 }).await;
            }
        };
        vec![part]
    }
}
