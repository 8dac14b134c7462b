//! From facts to files: checks that they can be written, sees to the images, and takes back what a
//! failure or a closed stdout leaves.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use bottle::plan::Selftest;
use bottle::record::{Phase, Record};
use bottle::render::Render;
use bottle::state::{Lock, State};
use bottle::{caller, docker, no, trust};

use crate::images::Engine;
use crate::model::{Facts, images};
use crate::write::{self, Content};

/// How long another tool may hold the bottle's lock.
const PATIENCE: Duration = Duration::from_mins(1);

/// The written folder of a bottle, locked while this lives.
pub(crate) struct Made {
    pub(crate) section: Render,
    /// What to take back: nothing where the bottle had been rendered before.
    fresh: Option<PathBuf>,
    _lock: Lock,
}

impl Made {
    /// Takes back what was written.
    pub(crate) fn undo(&self) {
        if let Some(folder) = &self.fresh {
            // The error that led here is the one to tell.
            let _ = write::undo(folder);
        }
    }
}

/// Writes the folder of a bottle, or attaches to one that is up with the same plan.
pub(crate) fn make(state: &State, facts: &Facts, content: &Content) -> Result<Made> {
    ours(state, facts)?;
    let lock = state.lock(facts.slug, PATIENCE)?;
    let old = Record::read(facts.folder)?;
    let fresh = old.is_none().then(|| facts.folder.to_owned());
    let section = match old {
        Some(old) if old.phase == Phase::Up => running(&old, facts)?,
        _ => starting(state, facts, content).inspect_err(|_| {
            if fresh.is_some() {
                let _ = write::undo(facts.folder);
            }
        })?,
    };
    Ok(Made { section, fresh, _lock: lock })
}

/// Refuses to write what `bottle-up` could never start.
fn ours(state: &State, facts: &Facts) -> Result<()> {
    if facts.net.dry_run {
        return Err(caller(
            "write the files: section 'net' is of a dry run, and leases nothing: run 'bottle-net' without --dry-run, or this with it",
        ));
    }
    let project = state.project(facts.slug);
    if facts.net.project != project {
        return Err(caller(format!(
            "write the files: section 'net' is of project '{}', and here it would be '{project}': another user or state folder made it: run 'bottle-net' again",
            facts.net.project
        )));
    }
    Ok(())
}

/// A bottle that is up keeps its files: what changes in it, changes as one transaction.
fn running(old: &Record, facts: &Facts) -> Result<Render> {
    if old.plan != facts.plan.digest {
        return Err(no(format!(
            "write the files: bottle '{}' is up with another plan: change it with 'bottle-apply', or stop it with 'bottle-reap {0}'",
            facts.slug
        )));
    }
    write::running(facts)
}

/// Sees to the images, and writes everything.
fn starting(state: &State, facts: &Facts, content: &Content) -> Result<Render> {
    trust::note_written(state, facts.plan)?;
    let engine = Engine::find()?;
    // 'agent' is the first in order of names.
    let mut images: Vec<String> = images(facts.slug, facts.plan).into_values().collect();
    if facts.plan.selftest != Selftest::Off {
        images.push(docker::image("probe"));
    }
    let id = engine.ready(facts.plan, &images)?;
    let passwd = engine.passwd(state, facts.slug, facts.plan, &id)?;
    write::all(facts, content, &passwd)
}
