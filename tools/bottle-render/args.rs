use clap::Parser;

/// Write the files of a bottle: compose file, policy, certificates, environment
///
/// Reads a document with the sections 'plan' and 'net' on stdin, writes the bottle's folder below
/// the state folder, and writes the document with the section 'render' to stdout. This is
/// plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-render", version)]
pub(crate) struct Args {
    /// Print one file and write nothing
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "dry_run",
        value_parser = ["docker-compose.yml", "routes.yaml", "pipelock.yaml", "gate.json", "gitconfig", "plan.json"]
    )]
    pub(crate) print: Option<String>,

    /// Check everything that needs no engine, pass the document on and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
