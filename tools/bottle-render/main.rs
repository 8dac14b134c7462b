//! `bottle-render`: plan and networks in, the folder of a bottle out. What it writes is a pure
//! function of the document and of a few facts: who calls, where the state folder lies, what the
//! agent's image has in its passwd.

mod args;
mod authority;
mod environment;
mod images;
mod make;
mod model;
mod mounts;
mod passwd;
mod roots;
mod ssh;
mod truststore;
mod who;
mod write;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use bottle::net::Net;
use bottle::plan::Plan;
use bottle::state::State;
use bottle::{Document, gate, no, pipelock, secret, strict, world};

use args::Args;
use model::Facts;
use who::Caller;
use write::Content;

const TOOL: &str = "bottle-render";

fn main() -> ExitCode {
    bottle::run(TOOL, |args| render(&args))
}

fn render(args: &Args) -> Result<()> {
    let mut doc = Document::from_stdin()?;
    let plan: Plan = doc.need("plan")?;
    plan.check_seal()?;
    let net: Net = doc.need("net")?;
    let state = State::find()?;
    let folder = state.bottle(doc.name());
    let caller = Caller::here(net.engine.as_ref().is_some_and(|engine| engine.rootless));
    let holder = plan.workspace.as_ref().map(who::Holder::of).transpose()?;
    let who = who::decide(&plan, caller, holder)?;
    let mounts = mounts::all(&plan, &folder)?;
    let slug = doc.name().clone();
    let facts =
        Facts { slug: &slug, plan: &plan, net: &net, folder: &folder, who: &who, mounts: &mounts };
    if let Some(file) = &args.print {
        return print(&facts, file);
    }
    mounts::check(&plan)?;
    secret::check(&plan)?;
    let keys = bottle::ssh::read(&plan)?;
    gate::files::check(&plan)?;
    let further = roots::of_plan(&plan)?;
    if args.dry_run {
        return doc.to_stdout();
    }
    let made = make::make(&state, &facts, &Content { caller, further, keys })?;
    doc.set("render", &made.section)?;
    doc.to_stdout().inspect_err(|_| made.undo())
}

/// Prints one file as it would be written.
fn print(facts: &Facts, file: &str) -> Result<()> {
    let text = match file {
        "docker-compose.yml" => strict::to_yaml(&model::compose(facts)?)?,
        "routes.yaml" => model::routes(facts, write::generation(facts))?.to_yaml()?,
        gate::FILE => model::gate_file(facts, write::generation(facts))?.ok_or_else(|| {
            no(format!("print '{file}': bottle '{}' has no git remotes", facts.plan.bottle))
        })?,
        "gitconfig" => gate::forms::gitconfig(&facts.plan.git, facts.net.internal.git_gate)?,
        pipelock::FILE => model::pipelock_file(facts)?.ok_or_else(|| {
            no(format!("print '{file}': bottle '{}' has no pipelock", facts.plan.bottle))
        })?,
        _ => model::plan_file(facts.plan)?,
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|e| world(format!("write '{file}' to stdout: {e}")))
}
