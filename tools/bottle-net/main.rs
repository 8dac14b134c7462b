//! `bottle-net`: leases two subnets and makes the internal and the bridge network of a bottle on
//! them. Whatever it made before it failed is undone.

mod args;
mod choice;
mod engine;
mod host;
mod pair;

use std::process::ExitCode;

use anyhow::Result;
use bottle::net::Net;
use bottle::plan::Plan;
use bottle::state::State;
use bottle::{Document, lease};

use args::Args;
use host::Host;
use pair::Pair;

/// The name that messages begin with.
const TOOL: &str = "bottle-net";

fn main() -> ExitCode {
    bottle::run(TOOL, |args: Args| net(&args))
}

fn net(args: &Args) -> Result<()> {
    let mut doc = Document::from_stdin()?;
    let plan: Plan = doc.need("plan")?;
    plan.check_seal()?;
    let state = State::find()?;
    if let Some(net) = doc.get::<Net>("net")?.filter(|net| !net.dry_run || args.dry_run) {
        if !args.dry_run {
            engine::verify(&net, &state, doc.name())?;
        }
        return doc.to_stdout();
    }
    let pool = lease::pool()?;
    let host = Host::read(&pool)?;
    if args.dry_run {
        doc.set("net", &choice::dry(&state, doc.name(), &pool, host)?)?;
        return doc.to_stdout();
    }
    let mut pair = Pair::new(state, doc.name(), &plan.digest, pool, host)?;
    pair.make()
        .and_then(|net| doc.set("net", &net))
        .and_then(|()| doc.to_stdout())
        .inspect_err(|_| pair.undo())
}
