//! `bottle-approve`: the operator's side of what agents ask for. It reads proposals, which are
//! untrusted, and is the only tool that makes a grant.

mod args;
mod decide;
mod list;
mod show;
mod walk;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bottle::grant::Length;
use bottle::state::State;
use bottle::{Slug, caller, no};

use args::Args;
use bottle::proposal::Id;
use decide::{Desk, Less};

/// The name that messages begin with.
const TOOL: &str = "bottle-approve";

fn main() -> ExitCode {
    bottle::run(TOOL, |args: Args| approve(&args))
}

fn approve(args: &Args) -> Result<()> {
    let state = State::find()?;
    let limit = Duration::from_secs(args.timeout);
    if let (Some(slug), Some(id)) = (&args.slug, &args.id) {
        return one(args, &state, slug, id, limit);
    }
    let slug = args.slug.as_ref();
    if let Some(slug) = slug.filter(|slug| !state.holds(slug)) {
        return Err(no(format!("find bottle '{slug}': it is not there: see 'bottle ps'")));
    }
    let here = || std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    match slug {
        Some(slug) if args.story => list::story(&state, slug, args.json),
        _ if args.watch => list::watch(&state, slug, args.json),
        _ if args.list || args.json || !here() => list::all(&state, slug, args.json),
        _ => walk::walk(&state, slug, limit),
    }
}

/// One proposal: decides about it where that is asked for, else shows it.
fn one(args: &Args, state: &State, slug: &Slug, id: &Id, limit: Duration) -> Result<()> {
    let desk = Desk { state, slug, limit };
    let less = Less {
        host: args.host.as_deref(),
        methods: &args.methods,
        paths: &args.paths,
        refs: args.refs.as_deref(),
    };
    if let Some(words) = &args.reject {
        desk.reject(id, words)?;
        return show::print(&format!("rejected {slug} {id}\n"));
    }
    if args.revoke {
        desk.revoke(id)?;
        return show::print(&format!("revoked {slug} {id}\n"));
    }
    if args.span.is_some() || args.uses.is_some() || args.forever || args.until_push {
        let length = Length {
            seconds: args.span.map(|span| span.0),
            uses: args.uses,
            until_push: args.until_push,
        };
        let grant = desk.approve(id, &less, length)?;
        return show::print(&format!("approved {slug} {id}: {}\n", grant.to_line()));
    }
    if less.is_set() {
        return Err(caller(
            "approve it: for how long: add '--for', '--uses', '--forever' or '--until-push'",
        ));
    }
    list::one(state, slug, id, args.json)
}
