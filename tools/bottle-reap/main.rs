//! `bottle-reap`: takes bottles down, keeps their logs, and goes on past every error, to report all
//! of them at its end.

mod archive;
mod args;
mod logs;
mod orphan;
mod reaper;
mod trouble;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use bottle::docker::Docker;
use bottle::inventory::Inventory;
use bottle::net::Net;
use bottle::owner::Owner;
use bottle::reap::Reap;
use bottle::run::{progress, say};
use bottle::state::State;
use bottle::{Document, Slug, caller, lease};

use args::Args;
use reaper::{End, Reaper, What};
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
    if let Some(doc) = &doc {
        check(doc, &state)?;
    }
    let docker = Docker::find()?;
    let slugs = match &doc {
        Some(doc) => vec![doc.name().clone()],
        None if args.slugs.is_empty() => all(&state, &docker)?,
        None => args.slugs.clone(),
    };
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
    for slug in &slugs {
        match Reaper::new(&state, &docker, slug, &mut trouble).reap(&what) {
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

/// Whether the document tells of something that this state folder could have.
fn check(doc: &Document, state: &State) -> Result<()> {
    let Some(net) = doc.get::<Net>("net")? else { return Ok(()) };
    if net.dry_run {
        return Err(caller(format!(
            "reap '{slug}': the document is of a dry run, which started nothing: name the bottle if you mean another, 'bottle-reap {slug}'",
            slug = doc.name()
        )));
    }
    let project = state.project(doc.name());
    if net.project == project {
        return Ok(());
    }
    Err(caller(format!(
        "reap '{}': this state folder calls the project '{project}': set BOTTLE_STATE as it was when it was started",
        net.project
    )))
}

/// Every bottle of this state folder, by its folders, its leases and the labels in the engine.
fn all(state: &State, docker: &Docker) -> Result<Vec<Slug>> {
    let mut slugs: BTreeSet<Slug> = state.slugs()?.into_iter().collect();
    if state.leases().is_dir() {
        // Taking the lock sweeps what tools left that were killed over a lease.
        lease::lock(state)?;
    }
    slugs.extend(lease::taken(state)?.into_iter().map(|(_, slug)| slug));
    slugs.extend(Inventory::of(docker, None)?.slugs(state));
    Ok(slugs.into_iter().collect())
}
