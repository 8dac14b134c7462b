use clap::Parser;

/// Show what one plan can do that another one cannot
///
/// Compares the capabilities of two plans: hosts with methods, paths and ports, mounts, secrets and
/// where they may go, git refs, ssh hosts, resources, what holds the agent back. One line each: '+'
/// gained, '-' lost, '~' other, but neither more nor less. Says nothing where the two are the same.
/// Whatever it does not call gained, the old plan allowed too: a rule is compared by what it covers,
/// not by how it is written.
#[derive(Debug, Parser)]
#[command(name = "bottle-diff", version)]
pub(crate) struct Args {
    /// The old plan: a file that holds a document, '-' for one on stdin, or the name of a bottle that
    /// runs. What has a '/' in it is a file
    #[arg(value_name = "OLD")]
    pub(crate) old: String,

    /// The new plan, named in the same way
    #[arg(value_name = "NEW")]
    pub(crate) new: String,

    /// Exit with 1 only where something was gained, so that a widening can be refused
    #[arg(long)]
    pub(crate) gained: bool,

    /// Print one JSON object: 'gained', 'lost' and 'changed'
    #[arg(long)]
    pub(crate) json: bool,
}
