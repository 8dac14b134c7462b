//! `bottle-ssh-agent`: a real ssh-agent with the keys of a bottle's ssh hosts, each for its hosts
//! alone, behind a filter that the agent cannot get past.

mod args;
mod filter;
mod keeper;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use bottle::policy::Loaded;
use bottle::{Blame, record, state, world};

use args::Args;
use keeper::{Keeper, Listed};

fn main() -> ExitCode {
    bottle::run("bottle-ssh-agent", |args: Args| serve(&args))
}

fn serve(args: &Args) -> Result<()> {
    let text = fs::read(args.conf.join("keys")).caller("read 'keys'")?;
    let listed = Listed::parse(&text)?;
    let keeper = Keeper::start(&args.private)?;
    for key in &listed.keys {
        keeper.add(key, &args.keys, &args.conf.join("known_hosts"))?;
    }
    let listener = listen(&args.listen)?;
    let loaded = Loaded {
        sha256: state::sha256_hex(&text),
        generation: 1,
        plan: listed.plan,
        loaded_at: record::now(),
        refused: None,
    };
    let text = serde_json::to_string(&loaded).world("write 'loaded.json'")? + "\n";
    state::write_unsynced(&args.run.join("loaded.json"), text.as_bytes(), 0o644, None)?;
    let agent = keeper.socket.clone();
    std::thread::spawn(move || filter::serve(&listener, &agent));
    // What is left without it only refuses.
    Err(world(format!("keep the keys: ssh-agent ended with {}", keeper.ended()?)))
}

/// The socket that the agent connects to, whoever it runs as.
fn listen(path: &Path) -> Result<UnixListener> {
    state::remove(path)?;
    let what = || format!("listen on '{}'", path.display());
    let listener = UnixListener::bind(path).world(what())?;
    #[expect(clippy::disallowed_methods, reason = "a socket is no file of the state folder")]
    fs::set_permissions(path, Permissions::from_mode(0o666)).world(what())?;
    Ok(listener)
}
