use std::path::PathBuf;

use clap::Parser;

/// Trust a manifest although an agent can write it
///
/// A manifest that lies below a folder which an agent can write is used only when its SHA-256 is in
/// the operator's trust record. This puts it there, with a copy, and shows what is new in it since
/// it was trusted last. People call it as 'bottle trust'.
#[derive(Debug, Parser)]
#[command(name = "bottle-trust", version)]
pub(crate) struct Args {
    /// Manifests to trust [default: the nearest bottle.yaml, upwards from here]
    #[arg(value_name = "FILE", conflicts_with = "list")]
    pub(crate) files: Vec<PathBuf>,

    /// Print what is trusted, one a line: SHA-256, time and path; and the folders that agents could
    /// once write: 'written', '-' and path
    #[arg(long)]
    pub(crate) list: bool,

    /// End the trust in these manifests, or the mistrust in folders that agents could once write
    #[arg(long, requires = "files", conflicts_with = "list")]
    pub(crate) forget: bool,
}
