//! `bottle-trust`: the operator's word that a manifest is the owner's, although an agent can write
//! it. What it prints is for a person.

mod args;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use args::Args;
use bottle::error::visible;
use bottle::manifest::Manifest;
use bottle::source::Source;
use bottle::state::State;
use bottle::{Blame, no, path, strict, trust};

fn main() -> ExitCode {
    bottle::run("bottle-trust", |args: Args| {
        let state = State::find()?;
        if args.list {
            return list(&state);
        }
        if args.forget {
            return args.files.iter().try_for_each(|file| forget(&state, file));
        }
        // All of them are read before the first one is trusted.
        let sources = match &args.files[..] {
            [] => {
                vec![Source::nearest(&std::env::current_dir().world("find the current folder")?)?]
            }
            files => files.iter().map(|file| Source::open(file)).collect::<Result<_>>()?,
        };
        for source in &sources {
            strict::yaml::<Manifest>(&source.text, &source.label)?;
        }
        sources.iter().try_for_each(|source| add(&state, source))
    })
}

/// Shows what is new in a manifest, and trusts it as it was shown.
fn add(state: &State, source: &Source) -> Result<()> {
    let path = source.path.display();
    let text = match trust::of(state, &source.path)? {
        Some(old) if old.sha256 == source.sha256() => {
            return print(&format!("{path}: trusted already\n"));
        }
        Some(old) => {
            let lines = trust::difference(&old.text, &source.text);
            format!(
                "{path}: trusted, with these changes since {}\n{}",
                old.trusted_at,
                shown(&lines)
            )
        }
        None => {
            let lines: Vec<String> = source.text.lines().map(|line| format!(" {line}")).collect();
            format!("{path}: trusted as it is\n{}", shown(&lines))
        }
    };
    print(&text)?;
    trust::add(state, source)
}

/// Lines that an agent may have written, for a terminal.
fn shown(lines: &[String]) -> String {
    lines.iter().map(|line| visible(line) + "\n").collect()
}

fn forget(state: &State, file: &Path) -> Result<()> {
    let given = std::path::absolute(file).caller(format!("find '{}'", file.display()))?;
    // A manifest that is gone can be forgotten too.
    let found = path::follow(&given).map_or_else(|_| path::plain(&given), |found| found.path);
    if trust::forget(state, &found)? {
        return Ok(());
    }
    Err(no(format!("forget '{}': it is not trusted: see 'bottle trust --list'", found.display())))
}

fn list(state: &State) -> Result<()> {
    let trusted = trust::all(state)?;
    let trusted =
        trusted.iter().map(|it| format!("{}  {}  {}", it.sha256, it.trusted_at, it.path.display()));
    let written = trust::written(state)?;
    let written = written.iter().map(|folder| format!("written  -  {}", folder.display()));
    let lines: Vec<String> = trusted.chain(written).collect();
    print(&shown(&lines))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).world("write to stdout")
}
