//! `bottle-diff`: two plans in, what the new one can do and the old one cannot out, and the reverse.
//! Reads documents and records, and changes nothing.

mod args;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use bottle::diff::Diff;
use bottle::document::MAX_BYTES;
use bottle::plan::Plan;
use bottle::state::State;
use bottle::{Blame, Document, Slug, caller, strict};

use args::Args;

fn main() -> ExitCode {
    bottle::run("bottle-diff", |args: Args| {
        if args.old == "-" && args.new == "-" {
            return Err(caller("read two plans: stdin holds one: name a file for the other"));
        }
        let diff = Diff::of(&plan(&args.old)?, &plan(&args.new)?);
        let mut text = if args.json {
            serde_json::to_string(&diff).world("write the difference")? + "\n"
        } else {
            diff.to_text()
        };
        // What a plan says may come from a manifest that an agent wrote.
        text = text.lines().map(|line| bottle::error::visible(line) + "\n").collect();
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).world("write to stdout")?;
        let differs = if args.gained { !diff.gained.is_empty() } else { !diff.is_empty() };
        Ok(if differs { ExitCode::from(1) } else { ExitCode::SUCCESS })
    })
}

/// The plan that an argument names.
fn plan(name: &str) -> Result<Plan> {
    if name == "-" {
        return Document::from_stdin()?.need("plan");
    }
    let file = Path::new(name);
    if !name.contains('/')
        && let Ok(slug) = name.parse::<Slug>()
        && let Some(plan) = of_bottle(&slug)?
    {
        return Ok(plan);
    }
    if !name.contains('/') && !file.exists() {
        return Err(caller(format!(
            "read a plan: '{name}' is neither a file nor a bottle: see 'bottle ps'"
        )));
    }
    of_file(file).caller(format!("'{name}'"))
}

/// The plan that a bottle was started with or had applied last.
fn of_bottle(slug: &Slug) -> Result<Option<Plan>> {
    let path = State::find()?.bottle(slug).join("plan.json");
    match fs::read_to_string(&path) {
        Ok(text) => {
            strict::json(&text, "plan.json").caller(format!("read '{}'", path.display())).map(Some)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).world(format!("read '{}'", path.display())),
    }
}

fn of_file(path: &Path) -> Result<Plan> {
    let mut text = Vec::new();
    let file = fs::File::open(path).caller("open it")?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).world("read it")?;
    if text.len() as u64 > MAX_BYTES {
        return Err(caller(format!("it is larger than {} MiB", MAX_BYTES >> 20)));
    }
    if text.is_empty() {
        return Err(caller("it is empty: did the tool that wrote it fail"));
    }
    Document::parse(&text)?.need("plan")
}
