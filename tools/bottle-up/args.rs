use clap::Parser;

/// Start a rendered bottle, wait until its sidecars serve, and test it from inside
///
/// Reads a document with the sections 'plan', 'net' and 'render' on stdin and writes it to stdout
/// with the section 'up'. Of a bottle that is up with the same plan it changes nothing. What it
/// started it takes down again where anything fails. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-up", version)]
pub(crate) struct Args {
    /// Leave what was started as it is where something fails, to look into it
    #[arg(long)]
    pub(crate) keep: bool,

    /// Process that owns the bottle from now on: once it has ended, the bottle is an orphan;
    /// without this nobody owns it, and it stays until it is reaped
    #[arg(long, value_name = "PID")]
    pub(crate) owner: Option<u32>,

    /// Start one sidecar alone and leave it running, to see that its image works; 'bottle-reap
    /// --only' stops it
    #[arg(long, value_name = "SERVICE")]
    pub(crate) only: Option<String>,

    /// How long a sidecar may take until it says that it serves
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,

    /// Only check that this version can serve the plan and that its secrets are there, and pass the
    /// document on
    #[arg(long, conflicts_with_all = ["keep", "owner", "only"])]
    pub(crate) check: bool,
}
