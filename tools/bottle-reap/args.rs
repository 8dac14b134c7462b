use bottle::Slug;
use clap::Parser;

/// Take a bottle down and keep its log
///
/// Stops what runs, writes the log of all its containers, removes containers, networks and leases,
/// and moves log and record into the archive. Labels alone suffice: neither the state folder nor the
/// compose file need be there. What is missing is no error, and what fails does not stop the rest.
/// Without a SLUG, '--all' or '--orphans' it reads a document on stdin, sets the section 'reap', and
/// writes the document to stdout. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-reap", version)]
pub(crate) struct Args {
    /// Bottles to take down
    #[arg(value_name = "SLUG")]
    pub(crate) slugs: Vec<Slug>,

    /// Take down every bottle of this state folder
    #[arg(long, conflicts_with_all = ["slugs", "orphans"])]
    pub(crate) all: bool,

    /// Take down those whose owner is proven dead, and free what dead pipelines leased; name the
    /// ones that are kept
    #[arg(long, conflicts_with = "slugs")]
    pub(crate) orphans: bool,

    /// Take down only what belongs to this process or to a pipeline of this process group: for a
    /// script that was interrupted before it knew whether the bottle is its own
    #[arg(long, value_name = "PID", requires = "slugs", conflicts_with_all = ["all", "orphans", "only"])]
    pub(crate) owner: Option<u32>,

    /// Stop and remove the containers of one service, and leave the rest as it is
    #[arg(long, value_name = "SERVICE", conflicts_with_all = ["all", "orphans"],
          value_parser = ["agent", "egress", "pipelock", "git-gate", "supervise"])]
    pub(crate) only: Option<String>,
}
