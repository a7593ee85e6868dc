//! The results of a run: a table for each part, and curves.

use std::{
    fmt::{self, Write},
    time::Duration,
};

/// One part of the benchmark.
pub struct Part {
    pub title: &'static str,
    /// The method of the measurement.
    pub how: String,
    pub rows: Vec<Row>,
    pub curves: Vec<Curves>,
}

/// One figure and the figure that it is compared with, both of this run.
pub struct Row {
    pub what: String,
    pub webhook: String,
    pub reference: String,
    pub ratio: f64,
    pub target: Option<Target>,
}

#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// A plot.
pub struct Curves {
    pub file: &'static str,
    pub title: String,
    pub x: &'static str,
    pub y: &'static str,
    pub curves: Vec<Curve>,
}

pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Row {
    pub fn met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtMost(most) => self.ratio <= most,
            Target::AtLeast(least) => self.ratio >= least,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

impl Part {
    /// The part in Markdown, without its plots.
    pub fn table(&self) -> String {
        let mut text = format!("### {}\n\n{}\n\n", self.title, self.how);
        text.push_str("| what | webhook | reference | ratio | target | |\n|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let target = row.target.map(|t| t.to_string()).unwrap_or_default();
            let met = match row.met() {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "",
            };
            let Row {
                what,
                webhook,
                reference,
                ratio,
                ..
            } = row;
            let _ = writeln!(
                text,
                "| {what} | {webhook} | {reference} | {ratio:.2} | {target} | {met} |"
            );
        }
        text
    }
}

/// A duration in a suitable unit.
pub fn time(duration: Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    match us {
        ..1_000.0 => format!("{us:.1} µs"),
        ..1_000_000.0 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

/// A number of bytes in a suitable unit.
pub fn bytes(bytes: f64) -> String {
    match bytes {
        ..10_240.0 => format!("{bytes:.0} B"),
        ..10_485_760.0 => format!("{:.1} KiB", bytes / 1024.0),
        _ => format!("{:.1} MiB", bytes / 1_048_576.0),
    }
}

/// The median.
pub fn median<T: PartialOrd + Copy>(values: impl IntoIterator<Item = T>) -> T {
    let mut all: Vec<_> = values.into_iter().collect();
    all.sort_by(|a, b| a.partial_cmp(b).expect("no figure is NaN"));
    all[all.len() / 2]
}
