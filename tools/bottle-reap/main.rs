//! `bottle-reap`: takes bottles down, keeps their logs, and goes on past every error, to report all
//! of them at its end.

mod archive;
mod args;
mod crew;
mod logs;
mod orphan;
mod reaper;
mod trouble;
mod which;

use std::process::ExitCode;

use anyhow::Result;
use bottle::Document;
use bottle::docker::Docker;
use bottle::owner::Owner;
use bottle::reap::Reap;
use bottle::run::{progress, say};
use bottle::state::State;

use args::Args;
use reaper::{End, What};
use trouble::Trouble;

/// The name that messages begin with.
const TOOL: &str = "bottle-reap";

fn main() -> ExitCode {
    bottle::run(TOOL, |args: Args| reap(&args))
}

fn reap(args: &Args) -> Result<()> {
    let mut doc = (args.slugs.is_empty() && !args.all && !args.orphans)
        .then(Document::from_stdin)
        .transpose()?;
    let state = State::find()?;
    let named = match &doc {
        Some(doc) => vec![which::of(doc, &state)?],
        None => args.slugs.clone(),
    };
    let docker = Docker::find()?;
    let slugs = if named.is_empty() { which::all(&state, &docker)? } else { named };
    let owners = match args.owner {
        Some(pid) => vec![Owner::process(pid)?, Owner::pipeline()?],
        None => Vec::new(),
    };
    let what = match &args.only {
        Some(service) => What::Service(service),
        None if args.orphans => What::Orphan,
        None if args.owner.is_some() => What::Owned(&owners),
        None => What::Bottle,
    };
    let mut trouble = Trouble::default();
    for (slug, (end, failures)) in slugs.iter().zip(crew::reap(&state, &docker, &slugs, &what)) {
        trouble.add(failures);
        match end {
            End::Nothing => {
                // What a reap before this one removed stays told.
                if let Some(doc) = doc.as_mut().filter(|doc| !doc.has("reap")) {
                    doc.set("reap", &Reap::default())?;
                }
            }
            End::Kept(why) => say(TOOL, &format!("kept '{slug}': {why}")),
            End::Reaped(section) => {
                progress(TOOL, &format!("reaped '{slug}'"));
                if let Some(doc) = &mut doc {
                    doc.set("reap", &section)?;
                }
            }
        }
    }
    trouble.report()?;
    doc.map_or(Ok(()), |doc| doc.to_stdout())
}
