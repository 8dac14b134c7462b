//! `make bench`: what bottle costs, each figure a ratio of two sides measured in turn in one run.
//!
//! The two sides alternate, and the order turns round every time, so that what else the machine does
//! meets both. A figure is the median of the paired ratios, with the lowest and the highest beside it.
//! Writes `target/bench/bench.json`, prints a table. `BENCH_QUICK=1` takes fewer rounds; arguments name
//! the groups to run. Everything stays on this machine: loopback, and networks of its own.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a table is what this is for")]
#![expect(
    clippy::disallowed_methods,
    reason = "this is no tool: it starts the peers and writes a report"
)]

mod dlp;
mod egress;
mod engine;
mod load;
mod origin;
mod peers;
mod pipeline;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::report::Report;

/// Where things are, and how long to measure.
pub(crate) struct Bench {
    /// Folder of the release binaries.
    pub(crate) bins: PathBuf,
    /// `target/bench`.
    pub(crate) out: PathBuf,
    /// Rounds are few.
    pub(crate) quick: bool,
}

impl Bench {
    /// Rounds to take: `full`, or the fewest that still have a median.
    pub(crate) fn rounds(&self, full: usize) -> usize {
        if self.quick { full.min(3) } else { full }
    }

    /// A program of the suite.
    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.bins.join(name)
    }
}

/// Measures one group of figures.
type Measure = fn(&Bench, &mut Report) -> Result<()>;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let bins = std::env::current_exe()?.parent().context("find the binaries")?.to_owned();
    let quick = std::env::var_os("BENCH_QUICK").is_some_and(|value| value == "1");
    let bench = Bench { bins, out: root.join("target/bench"), quick };
    std::fs::create_dir_all(&bench.out)?;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut report = Report::default();
    let groups: [(&str, Measure); 4] = [
        ("pipeline", pipeline::measure),
        ("dlp", dlp::measure),
        ("egress", egress::measure),
        ("engine", engine::measure),
    ];
    for (name, measure) in groups {
        if wanted.is_empty() || wanted.iter().any(|group| group == name) {
            measure(&bench, &mut report).with_context(|| format!("measure {name}"))?;
        }
    }
    print!("{}", report.table());
    std::fs::write(bench.out.join("bench.json"), report.json()?)?;
    println!("written to target/bench/bench.json");
    Ok(())
}
