//! The values of secrets, read again for a bottle that runs. What is read is what the host's own
//! copy of the plan says; a sidecar can tell that it is time, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::credentials::{self, Credentials, Standing, Told, Value};
use bottle::docker::Docker;
use bottle::error::visible;
use bottle::live::{self, Live};
use bottle::plan::{Plan, Secret};
use bottle::render::EGRESS;
use bottle::run::say;
use bottle::spawn::Group;
use bottle::state::State;
use bottle::{Slug, no, report, secret, world};

use crate::{PATIENCE, TOOL};

/// How often it is looked whether egress has said something, while it is waited for.
const TICK: Duration = Duration::from_millis(5);

/// How often it is looked whether a secret has ended, and how long one that was read is left alone:
/// whatever a sidecar claims, commands are not run more often. A source may give the old value until
/// the last moment, so that one that expires within the minute is asked for more than once.
const LOOK: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_secs(15);

/// Reads the secrets of a bottle again, and waits until egress uses them.
pub(crate) fn once(state: &State, slug: &Slug, limit: Duration, group: Group) -> Result<()> {
    let away = || no(format!("refresh the secrets of '{slug}': it is not up"));
    let folder = state.bottle(slug);
    let asked = Live::read(TOOL, &folder)?.ok_or_else(away)?;
    asked.check_plan()?;
    let named = credentials::injected(&asked.plan);
    if named.is_empty() {
        return Err(no(format!("refresh the secrets of '{slug}': no route of it adds one")));
    }
    let old = secret::written(&folder)?;
    let held = old.as_ref().map(|old| &old.secrets);
    // What came by a variable of another process cannot be read here, and stays.
    let (stay, again): (Vec<_>, Vec<_>) = named
        .into_iter()
        .partition(|(name, from)| is_away(from) && held.is_some_and(|h| h.contains_key(*name)));
    if let ([(name, Secret { from_env: Some(variable), .. }), ..], []) = (&*stay, &*again) {
        return Err(no(format!(
            "refresh the secrets of '{slug}': secret '{name}' comes from variable '{variable}', which is not set here: export it"
        )));
    }
    let mut values = secret::read(again, group)?;
    values.extend(stay.iter().filter_map(|(name, _)| {
        held.and_then(|held| held.get(*name)).map(|value| ((*name).to_owned(), value.clone()))
    }));

    let _lock = state.lock(slug, PATIENCE)?;
    // Reading may have taken minutes.
    let now = Live::read(TOOL, &folder)?.filter(|now| now.plan.digest == asked.plan.digest);
    let Some(now) = now else {
        state.forget(slug)?;
        return Err(away());
    };
    let told = put(&now, &folder, values, limit)?;
    let ended = told
        .secrets
        .iter()
        .find(|(_, standing)| matches!(standing, Standing::Expired | Standing::Missing));
    match ended {
        Some((name, _)) => Err(no(format!(
            "refresh the secrets of '{slug}': what the source of '{name}' gives has expired too: renew it there"
        ))),
        None => Ok(()),
    }
}

/// Reads them again whenever egress says that one has ended, until the bottle is down or whoever
/// started this has ended.
pub(crate) fn follow(state: &State, slug: &Slug, limit: Duration) -> Result<()> {
    let starter = parent();
    let folder = state.bottle(slug);
    let mut last: Option<Instant> = None;
    while Live::is_up(&folder)? && parent() == starter {
        // A claim that cannot be read is none.
        let is_due = report::secrets(&folder).ok().flatten().is_some_and(|told| told.is_due());
        if is_due && last.is_none_or(|last| last.elapsed() > PAUSE) {
            last = Some(Instant::now());
            // In a group of its own a command cannot take the agent's terminal.
            if let Err(error) = once(state, slug, limit, Group::Own) {
                say(TOOL, &format!("{error:#}"));
            }
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// The process that started this one, as long as it lives.
fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

/// Whether a secret comes from a variable that this process does not have.
fn is_away(secret: &Secret) -> bool {
    let variable = secret.from_env.as_ref();
    variable.is_some_and(|name| std::env::var_os(name).is_none_or(|value| value.is_empty()))
}

/// Gives egress the values that a new plan needs beside those that it has; before it gets the rules.
pub(crate) fn add(folder: &Path, old: &Plan, new: &Plan) -> Result<()> {
    let held = secret::written(folder)?.unwrap_or_else(|| Credentials::new(0, BTreeMap::new()));
    let is_held = |name: &str, from: &Secret| {
        held.secrets.contains_key(name) && old.secrets.get(name) == Some(from)
    };
    let needed: Vec<_> = credentials::injected(new)
        .into_iter()
        .filter(|(name, from)| !is_held(name, from))
        .collect();
    if needed.is_empty() {
        return Ok(());
    }
    let mut values = held.secrets;
    values.extend(secret::read(needed, Group::Ours)?);
    secret::write(folder, &Credentials::new(held.generation + 1, values))
}

/// Takes away those that no rule adds any more; after egress has the rules.
pub(crate) fn drop_unused(folder: &Path, plan: &Plan) -> Result<()> {
    let Some(held) = secret::written(folder)? else { return Ok(()) };
    let named = credentials::injected(plan);
    let mut values = held.secrets;
    let before = values.len();
    values.retain(|name, _| named.contains_key(name.as_str()));
    if values.len() == before {
        return Ok(());
    }
    secret::write(folder, &Credentials::new(held.generation + 1, values))
}

/// Writes the values and waits until egress says that it uses them.
fn put(
    live: &Live,
    folder: &Path,
    values: BTreeMap<String, Value>,
    limit: Duration,
) -> Result<Told> {
    // Counted here, and not by what a sidecar says.
    let generation = secret::written(folder)?.map_or(0, |old| old.generation) + 1;
    secret::write(folder, &Credentials::new(generation, values))?;
    live.wake(&Docker::find()?)?;
    let end = Instant::now() + limit;
    loop {
        let told = report::secrets(folder)?;
        if let Some(told) = told {
            if told.generation == generation {
                return Ok(told);
            }
            if let Some(why) = told.refused {
                let why = visible(&why);
                return Err(world(format!("egress refused its new secrets: {why}")));
            }
        }
        if Instant::now() > end {
            return Err(live::silent(live, EGRESS, "uses its new secrets", limit));
        }
        std::thread::sleep(TICK);
    }
}
