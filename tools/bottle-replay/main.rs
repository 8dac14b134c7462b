//! `bottle-replay`: recorded decisions and a plan in, what that plan would decide otherwise out. Reads
//! its files line by line, in constant memory, and changes nothing.

mod args;
mod learn;
mod paths;
mod record;
mod source;
mod tally;

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use bottle::error::visible;
use bottle::plan::Plan;
use bottle::policy::{Policy, Routes};
use bottle::run::say;
use bottle::{Blame, Document, net};

use args::Args;
use learn::Learned;
use tally::Tally;

/// The name that messages begin with.
const TOOL: &str = "bottle-replay";

fn main() -> ExitCode {
    bottle::run(TOOL, |args: Args| if args.learn { learn(&args) } else { replay(&args) })
}

fn replay(args: &Args) -> Result<ExitCode> {
    let doc = Document::from_stdin()?;
    let plan: Plan = doc.need("plan")?;
    plan.check_seal()?;
    let policy = policy(&plan)?;
    let mut tally = Tally::default();
    for file in files(args)? {
        source::lines(&file, |line| tally.add(line, &policy))?;
    }
    let text = if args.json {
        tally.to_json(args.examples).world("write the difference")?
    } else {
        tally.to_text(args.examples)
    };
    print(&text)?;
    Ok(if tally.differs() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn learn(args: &Args) -> Result<ExitCode> {
    let mut learned = Learned::default();
    for file in files(args)? {
        source::lines(&file, |line| learned.add(line, args.denied, args.max_widen))?;
    }
    print(&learned.write(args.max_widen)?)?;
    for what in learned.left_out.iter().take(args.examples) {
        say(TOOL, &format!("left out {what}"));
    }
    if let more @ 1.. = learned.left_out.len().saturating_sub(args.examples) {
        say(TOOL, &format!("and left out {more} more"));
    }
    Ok(ExitCode::SUCCESS)
}

fn files(args: &Args) -> Result<Vec<PathBuf>> {
    let files: Result<Vec<_>> = args.decisions.iter().map(|name| source::files(name)).collect();
    Ok(files?.concat())
}

/// The policy of a plan, in a bottle that is nowhere.
fn policy(plan: &Plan) -> Result<Policy> {
    let names = net::PLACES.map(|(name, at)| (name.to_owned(), Ipv4Addr::from_bits(at)));
    Policy::new(Routes {
        version: 1,
        generation: 1,
        plan: plan.digest.clone(),
        bottle: String::new(),
        names: names.into(),
        closed: Vec::new(),
        parent: None,
        audit: plan.egress.audit,
        private_data: plan.egress.private_data,
        routes: plan.rules()?,
    })
    .caller("check the rules of the plan")
}

/// What an agent asked for may hold anything.
fn print(text: &str) -> Result<()> {
    let text: String = text.lines().map(|line| visible(line) + "\n").collect();
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).world("write to stdout")
}
