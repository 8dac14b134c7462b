//! Which bottles are meant.

use std::collections::BTreeSet;

use anyhow::Result;
use bottle::docker::Docker;
use bottle::inventory::Inventory;
use bottle::net::Net;
use bottle::state::State;
use bottle::{Document, Slug, caller, lease};

/// The bottle of a document, which has to be one that this state folder could have.
pub(crate) fn of(doc: &Document, state: &State) -> Result<Slug> {
    let slug = doc.name().clone();
    let Some(net) = doc.get::<Net>("net")? else { return Ok(slug) };
    if net.dry_run {
        return Err(caller(format!(
            "reap '{slug}': the document is of a dry run, which started nothing: name the bottle if you mean another, 'bottle-reap {slug}'"
        )));
    }
    let project = state.project(&slug);
    if net.project == project {
        return Ok(slug);
    }
    Err(caller(format!(
        "reap '{}': this state folder calls the project '{project}': set BOTTLE_STATE as it was when it was started",
        net.project
    )))
}

/// Every bottle of this state folder, by its folders, its leases and the labels in the engine.
pub(crate) fn all(state: &State, docker: &Docker) -> Result<Vec<Slug>> {
    let mut slugs: BTreeSet<Slug> = state.slugs()?.into_iter().collect();
    if state.leases().is_dir() {
        // Taking the lock sweeps what tools left that were killed over a lease.
        lease::lock(state)?;
    }
    slugs.extend(lease::taken(state)?.into_iter().map(|(_, slug)| slug));
    slugs.extend(Inventory::of(docker, None)?.slugs(state));
    Ok(slugs.into_iter().collect())
}
