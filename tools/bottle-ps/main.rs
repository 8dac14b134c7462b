//! `bottle-ps`: lists the bottles of this state folder. Reads the records, the leases and the
//! engine's labels, and changes nothing.

mod args;
mod row;
mod table;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use bottle::docker::Docker;
use bottle::inventory::Inventory;
use bottle::record::{Phase, Record};
use bottle::run::say;
use bottle::state::State;
use bottle::{Slug, lease, no};

use args::Args;
use row::Row;

/// The name that messages begin with.
const TOOL: &str = "bottle-ps";

fn main() -> ExitCode {
    bottle::run(TOOL, |args: Args| list(&args))
}

fn list(args: &Args) -> Result<()> {
    let state = State::find()?;
    if args.quiet {
        return table::print(&agents(&state, &args.slugs)?);
    }
    let leases = lease::taken(&state)?;
    let found = match Docker::find().and_then(|docker| Inventory::of(&docker, None)) {
        Ok(found) => Some(found),
        Err(error) => {
            say(TOOL, &format!("{error:#}: the states are unknown"));
            None
        }
    };
    let mut slugs: BTreeSet<Slug> = state.slugs()?.into_iter().collect();
    slugs.extend(leases.iter().map(|(_, slug)| slug.clone()));
    slugs.extend(found.iter().flat_map(|found| found.slugs(&state)));
    if let Some(missing) = args.slugs.iter().find(|slug| !slugs.contains(slug)) {
        return Err(no(format!("list '{missing}': there is no such bottle")));
    }
    if !args.slugs.is_empty() {
        slugs.retain(|slug| args.slugs.contains(slug));
    }
    let rows: Vec<Row> =
        slugs.iter().filter_map(|slug| Row::of(&state, slug, &leases, found.as_ref())).collect();
    table::print(&if args.json { table::json(&rows)? } else { table::text(&rows) })
}

/// The agents' containers, one a line, by the records alone.
fn agents(state: &State, slugs: &[Slug]) -> Result<String> {
    let wanted = if slugs.is_empty() { state.slugs()? } else { slugs.to_vec() };
    let mut out = String::new();
    for slug in wanted {
        match Record::read(&state.bottle(&slug))? {
            Some(record) if record.phase == Phase::Up => out = out + &record.agent + "\n",
            _ if slugs.is_empty() => {}
            Some(_) => return Err(no(format!("bottle '{slug}' is not up yet: see 'bottle ps'"))),
            None => {
                return Err(no(format!(
                    "bottle '{slug}' is not there: see 'bottle ps', or start it with 'bottle start'"
                )));
            }
        }
    }
    Ok(out)
}
