//! What is open, for people and for scripts.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;
use bottle::error::visible;
use bottle::live::Live;
use bottle::proposal::{self, Id, Proposal};
use bottle::record::unix_now;
use bottle::run::say;
use bottle::state::State;
use bottle::strict::ascii_json as json;
use bottle::{Slug, grant, no, story};

use crate::TOOL;
use crate::decide::PATIENCE;
use crate::show::{Shown, print};

/// How much of a reason is shown among others.
pub(crate) const OVERVIEW: usize = 200;

/// How often it is looked for new ones.
const LOOK: Duration = Duration::from_millis(300);

/// The proposals of one bottle that are open, or of all bottles that are up.
pub(crate) fn open(state: &State, slug: Option<&Slug>) -> Result<Vec<(Slug, Proposal, Shown)>> {
    let slugs = match slug {
        Some(slug) => vec![slug.clone()],
        None => state.slugs()?,
    };
    let mut all = Vec::new();
    for slug in slugs {
        match of(state, &slug) {
            Ok(found) => all.extend(found.into_iter().map(|(it, shown)| (slug.clone(), it, shown))),
            // One bottle must not hide the others.
            Err(error) => say(TOOL, &format!("read the proposals of '{slug}': {error:#}")),
        }
    }
    Ok(all)
}

fn of(state: &State, slug: &Slug) -> Result<Vec<(Proposal, Shown)>> {
    let folder = state.bottle(slug);
    let Some(live) = Live::read(TOOL, &folder)? else { return Ok(Vec::new()) };
    if live.plan.supervised().is_none() {
        return Ok(Vec::new());
    }
    let (found, trouble) = proposal::written(&folder)?;
    for trouble in trouble {
        say(TOOL, &format!("read the proposals of '{slug}': {trouble}"));
    }
    let rules = grant::rules(&folder, &live.plan, None)?;
    let remotes = grant::remotes(&folder, &live.plan, None)?;
    let now = unix_now();
    let mut open = Vec::new();
    for proposal in found {
        if !proposal.is_stale(now) && proposal::answer(&folder, &proposal.id)?.is_none() {
            let shown = Shown::of(slug, &proposal, &live.plan, &rules, &remotes);
            open.push((proposal, shown));
        }
    }
    Ok(open)
}

/// Lists them.
pub(crate) fn all(state: &State, slug: Option<&Slug>, as_json: bool) -> Result<()> {
    let shown: Vec<Shown> = open(state, slug)?.into_iter().map(|(_, _, shown)| shown).collect();
    if as_json {
        return print(&(json(&shown)? + "\n"));
    }
    let texts: Vec<String> = shown.iter().map(|it| it.text(OVERVIEW)).collect();
    print(&texts.join("\n"))
}

/// Shows one.
pub(crate) fn one(state: &State, slug: &Slug, id: &Id, as_json: bool) -> Result<()> {
    let found = open(state, Some(slug))?.into_iter().find(|(_, proposal, _)| proposal.id == *id);
    let (_, _, shown) = found.ok_or_else(|| {
        no(format!("show proposal '{id}' of '{slug}': none such is open: see --list and --story"))
    })?;
    if as_json { print(&(json(&[shown])? + "\n")) } else { print(&shown.text(usize::MAX)) }
}

/// Tells each one once, as it comes; of one bottle, until it is down.
pub(crate) fn watch(state: &State, slug: Option<&Slug>, as_json: bool) -> Result<()> {
    let mut told = BTreeSet::new();
    loop {
        let open = open(state, slug)?;
        // What is decided is forgotten, so that this stays small.
        told.retain(|id| open.iter().any(|(_, proposal, _)| proposal.id == *id));
        for (_, proposal, shown) in open {
            if told.insert(proposal.id) {
                print(&if as_json { json(&shown)? + "\n" } else { shown.text(OVERVIEW) + "\n" })?;
            }
        }
        if let Some(slug) = slug
            && !Live::is_up(&state.bottle(slug))?
        {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// Tells what happened in a bottle.
pub(crate) fn story(state: &State, slug: &Slug, as_json: bool) -> Result<()> {
    let mut text = String::new();
    {
        // What has ended since the last look is noted first.
        let _lock = state.lock(slug, PATIENCE)?;
        grant::settle(&state.bottle(slug))?;
    }
    for event in story::all(&state.bottle(slug))? {
        if as_json {
            text += &(json(&event)? + "\n");
            continue;
        }
        let kind = json(&event.event)?;
        // Writing to a string cannot fail.
        let _ = write!(text, "{} {}", visible(&event.time), kind.trim_matches('"'));
        if let Some(count) = event.count {
            let _ = write!(text, " {count}");
        }
        for part in event.proposal.iter().map(ToString::to_string).chain(event.allows) {
            let _ = write!(text, " {}", visible(&part));
        }
        if let Some(words) = event.words {
            let _ = write!(text, ": {}", visible(&words));
        }
        text.push('\n');
    }
    print(&text)
}
