//! `bottle-up`: starts a rendered bottle, waits until its sidecars say that they serve, and lets the
//! probe try it from inside before it is handed over.

mod args;
mod job;
mod ready;
mod selftest;
mod start;
mod sweep;
mod there;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bottle::docker::Docker;
use bottle::owner::Owner;
use bottle::plan::Plan;
use bottle::state::State;
use bottle::{Document, gate, secret, serve, ssh};

use args::Args;
use job::Job;
use start::Start;

const TOOL: &str = "bottle-up";

/// How long another tool may hold the bottle's lock.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    bottle::run(TOOL, |args| up(&args))
}

fn up(args: &Args) -> Result<()> {
    let mut doc = Document::from_stdin()?;
    let plan: Plan = doc.need("plan")?;
    plan.check_seal()?;
    serve::check(&plan)?;
    secret::check(&plan)?;
    let keys = ssh::read(&plan)?;
    gate::files::check(&plan)?;
    if args.check {
        return doc.to_stdout();
    }
    let owner = args.owner.map_or(Ok(Owner::None), Owner::process)?;
    let state = State::find()?;
    let job = Job::new(&doc, plan, &state)?;
    let docker = Docker::find()?;
    let start = Start {
        job: &job,
        compose: docker.compose()?,
        docker,
        owner,
        only: args.only.as_deref(),
        keep: args.keep,
        limit: Duration::from_secs(args.timeout),
        keys,
    };
    let _lock = state.lock(&job.slug, PATIENCE)?;
    let (section, started) = start.run()?;
    doc.set("up", &section)?;
    doc.to_stdout().inspect_err(|_| {
        if started {
            start.undo();
        }
    })
}
