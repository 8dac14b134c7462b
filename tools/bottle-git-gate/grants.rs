//! How often grants were used, `grants.json` in the folder that the host reads.
//!
//! A push is counted before anything leaves, and given back only where upstream has said no in so many
//! words: whatever is killed in between, no grant is ever good for more than it was for. What has
//! ended stays so.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bottle::error::Blame;
use bottle::gate::{Push, Remote};
use bottle::policy::{End, Spents};
use bottle::{state, strict};

use crate::session::seconds;

/// The file.
const FILE: &str = "grants.json";

/// How long another push may hold its lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// A remote without what has ended.
pub(crate) fn open(run: &Path, remote: &Remote) -> Result<Remote> {
    let (told, now) = (read(run)?, seconds());
    let push = remote.open_at(now).filter(|push| !is_spent(push, &told)).cloned().collect();
    Ok(Remote { push, ..remote.clone() })
}

/// Counts a push by grants of a remote; `false`, and none is counted, where one has ended.
pub(crate) fn take(run: &Path, remote: &Remote, ids: &[String]) -> Result<bool> {
    change(run, remote, ids, |told, counted| {
        if counted.iter().any(|push| is_spent(push, told)) {
            return false;
        }
        for id in counted.iter().filter_map(|push| push.grant.clone()) {
            told.grants.entry(id).or_default().used += 1;
        }
        true
    })
}

/// Says that upstream has taken the push, or may have.
pub(crate) fn settle(run: &Path, remote: &Remote, ids: &[String]) -> Result<bool> {
    change(run, remote, ids, |told, counted| {
        for push in counted.iter().filter(|push| is_spent(push, told)).collect::<Vec<_>>() {
            let Some(spent) = push.grant.as_ref().and_then(|id| told.grants.get_mut(id)) else {
                continue;
            };
            if spent.end.is_none() {
                (spent.end, spent.at) = (Some(End::Pushed), Some(seconds()));
            }
        }
        true
    })
}

/// Gives it back: upstream has refused it.
pub(crate) fn give_back(run: &Path, remote: &Remote, ids: &[String]) -> Result<bool> {
    change(run, remote, ids, |told, counted| {
        for id in counted.iter().filter_map(|push| push.grant.as_ref()) {
            if let Some(spent) = told.grants.get_mut(id) {
                spent.used = spent.used.saturating_sub(1);
            }
        }
        true
    })
}

/// Changes what is written of those grants that are counted, under the lock.
fn change(
    run: &Path,
    remote: &Remote,
    ids: &[String],
    make: impl FnOnce(&mut Spents, &[&Push]) -> bool,
) -> Result<bool> {
    let is_used = |push: &&Push| push.grant.as_ref().is_some_and(|id| ids.contains(id));
    let counted: Vec<&Push> =
        remote.push.iter().filter(is_used).filter(|push| push.uses.is_some()).collect();
    if counted.is_empty() {
        return Ok(true);
    }
    let _lock = state::lock_alone(&run.join("grants.lock"), PATIENCE)?;
    let mut told = read(run)?;
    if !make(&mut told, &counted) {
        return Ok(false);
    }
    let mut text = serde_json::to_string(&told).world("write 'grants.json'")?;
    text.push('\n');
    state::write(&run.join(FILE), text.as_bytes(), 0o600, None)?;
    Ok(true)
}

fn is_spent(push: &Push, told: &Spents) -> bool {
    let (Some(id), Some(uses)) = (&push.grant, push.uses) else { return false };
    told.grants.get(id).is_some_and(|spent| spent.end.is_some() || spent.used >= uses)
}

/// What is written; what cannot be read lets nothing through.
fn read(run: &Path) -> Result<Spents> {
    let Some(bytes) = state::read_report(&run.join(FILE))? else { return Ok(Spents::default()) };
    strict::json(&String::from_utf8_lossy(&bytes), FILE).world("read 'grants.json'")
}
