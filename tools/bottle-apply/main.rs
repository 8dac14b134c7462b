//! `bottle-apply`: new rules for a bottle that runs, or an honest no.

mod args;
mod change;
mod refresh;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bottle::apply::Apply;
use bottle::docker::Docker;
use bottle::live::Live;
use bottle::plan::Plan;
use bottle::run::say;
use bottle::spawn::Group;
use bottle::state::State;
use bottle::{Document, grant, no, serve};

use args::Args;

const TOOL: &str = "bottle-apply";

/// How long another tool may hold the bottle's lock.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    bottle::run(TOOL, |args| apply(&args))
}

fn apply(args: &Args) -> Result<()> {
    let limit = Duration::from_secs(args.timeout);
    match &args.refresh_secrets {
        None => change(limit),
        Some(slug) if args.follow => refresh::follow(&State::find()?, slug, limit),
        Some(slug) => refresh::once(&State::find()?, slug, limit, Group::Ours),
    }
}

fn change(limit: Duration) -> Result<()> {
    let mut doc = Document::from_stdin()?;
    let plan: Plan = doc.need("plan")?;
    plan.check_seal()?;
    serve::check(&plan)?;
    let state = State::find()?;
    let slug = doc.name().clone();
    let away = || no(format!("change bottle '{slug}': it is not up: start it with 'bottle-up'"));
    let folder = state.bottle(&slug);
    // Taking the lock would make the folder of a bottle that never was.
    if !Live::is_up(&folder)? {
        return Err(away());
    }
    let _lock = state.lock(&slug, PATIENCE)?;
    let live = Live::read(TOOL, &folder)?.ok_or_else(away)?;
    let change = change::between(&live.plan, &plan)?;
    for what in change.restart {
        say(TOOL, &format!("warning: '{what}' differs: it changes when the bottle starts anew"));
    }
    grant::settle(&folder)?;
    let next = live.next(&plan, None)?;
    live.keeps_pipelock(&plan, &next)?;
    refresh::add(&folder, &live.plan, &plan)?;
    if let Some(said) = live.serves(&next)? {
        live.note(&plan, said.generation)?;
        return pass(&mut doc, &Apply { ms: 0, generation: said.generation, sha256: said.sha256 });
    }
    let docker = Docker::find()?;
    let section = live.put(&docker, &next, limit)?;
    let done = live.note(&plan, section.generation).and_then(|()| pass(&mut doc, &section));
    done.inspect_err(|_| live.back(&docker, limit))?;
    // The rules are in force: that a value is left which none of them adds is no failure of theirs.
    if let Err(error) = refresh::drop_unused(&folder, &plan) {
        say(TOOL, &format!("warning: {error:#}"));
    }
    Ok(())
}

/// Passes the document on. A section that says the same already stays as it is.
fn pass(doc: &mut Document, section: &Apply) -> Result<()> {
    let same = |old: &Apply| old.sha256 == section.sha256 && section.ms == 0;
    if !doc.get::<Apply>("apply")?.is_some_and(|old| same(&old)) {
        doc.set("apply", section)?;
    }
    doc.to_stdout()
}
