use bottle::Slug;
use clap::Parser;

/// List the bottles of this state folder
///
/// One line a bottle: its name, how it is, its agent and image, whether its owner lives, since when
/// it is up, and its subnets. Where the engine does not answer, the state of each is 'unknown'.
#[derive(Debug, Parser)]
#[command(name = "bottle-ps", version)]
pub(crate) struct Args {
    /// Bottles to list [default: all]
    #[arg(value_name = "SLUG")]
    pub(crate) slugs: Vec<Slug>,

    /// Print only the names of the agents' containers, of those that are up by their records; does
    /// not ask the engine
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,

    /// Print a JSON array
    #[arg(long)]
    pub(crate) json: bool,
}
