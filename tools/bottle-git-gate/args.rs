use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Let an agent fetch from its remotes, and push what its plan allows
///
/// A server of git's own protocol. It keeps a mirror of each remote, judges each push, and passes it
/// on with keys that the agent never sees. 'bottle-render' writes its configuration, and 'bottle-up'
/// starts it in a container. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-git-gate", version)]
pub(crate) struct Args {
    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What bottle-git-gate can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Serve one bottle, until SIGTERM; a gate.json that changes is read again
    Serve(Serve),
    /// Check a gate.json and say nothing if it is valid
    Check(Check),
    /// Try what the gate needs, and whether it answers
    Try(Try),
}

/// Arguments of `serve`.
#[derive(Debug, Parser)]
pub(crate) struct Serve {
    /// Address to serve at
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// Folder with gate.json and perhaps bundle.pem; watched
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle")]
    pub(crate) conf: PathBuf,
    /// Folder with each remote's files, NAME.key and the like
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle-secrets")]
    pub(crate) secrets: PathBuf,
    /// Folder for the mirrors
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/bottle")]
    pub(crate) data: PathBuf,
    /// Folder for loaded.json and decisions.jsonl
    #[arg(long, value_name = "FOLDER", default_value = "/run/bottle")]
    pub(crate) run: PathBuf,
    /// Folder with the one hook, pre-receive, which is this program by another name
    #[arg(long, value_name = "FOLDER", default_value = "/usr/lib/bottle/hooks")]
    pub(crate) hooks: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Parser)]
pub(crate) struct Check {
    /// The file, '-' for stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Arguments of `try`.
#[derive(Debug, Parser)]
pub(crate) struct Try {
    /// Address that it serves at
    #[arg(value_name = "ADDR:PORT")]
    pub(crate) address: SocketAddr,
}
