//! `bottle-plan`: from a manifest to a sealed plan. It reads files and the environment, and touches
//! nothing: no engine, no writes, no clock, no randomness.

mod args;
mod facts;
mod git;
mod guard;
mod kept;
mod paths;
mod print;
mod resolve;
mod trusted;

use std::process::ExitCode;

use args::Args;
use bottle::plan::Plan;
use bottle::{Document, caller, strict};
use facts::{Facts, World};

fn main() -> ExitCode {
    bottle::run("bottle-plan", |args: Args| match args.print.as_deref() {
        Some("command") => print::command(),
        Some(_) => print::yaml(),
        None if args.seal => seal(),
        None => plan(&args),
    })
}

/// The plan of a manifest.
fn plan(args: &Args) -> anyhow::Result<()> {
    let agent = args.agent.as_deref().unwrap_or_default();
    let mut world = World::look()?;
    let facts = Facts::gather(args, &world)?;
    let manifest = strict::yaml(&facts.source.text, &facts.source.label)?;
    world.writable.extend(facts.writable(&manifest));
    trusted::check(&facts.source, &world)?;
    let placed = |error| facts.source.placed(error);
    let mut plan = resolve::resolve(&manifest, agent, &facts).map_err(placed)?;
    guard::check_links(&facts.base.links.borrow(), &world).map_err(placed)?;
    guard::check(&mut plan, &world).map_err(placed)?;
    plan.seal().map_err(placed)?;
    let slug = match &args.slug {
        Some(slug) => slug.clone(),
        None => agent
            .parse()
            .map_err(|why| caller(format!("name the bottle after its agent: {why}: use --slug")))?,
    };
    let mut document = Document::new(slug);
    document.set("plan", &plan)?;
    document.to_stdout()
}

/// The document on stdin with its plan sealed anew.
fn seal() -> anyhow::Result<()> {
    let mut document = Document::from_stdin()?;
    let mut plan: Plan = document.need("plan")?;
    let mut world = World::look()?;
    world.add(&plan);
    guard::check(&mut plan, &world)?;
    plan.seal()?;
    document.set("plan", &plan)?;
    document.to_stdout()
}
