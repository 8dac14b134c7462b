use clap::{Parser, ValueEnum};

/// Run recorded decisions against another plan
///
/// Reads a document on stdin and decides what egress has decided before anew, by the rules of its
/// plan, with the decision function of egress itself. Says what would be refused now, what would be
/// let out newly, and how often. What was refused for another reason than the rules (a leak, a closed
/// address, a name that nobody knows) stays refused.
#[derive(Debug, Parser)]
#[command(name = "bottle-replay", version)]
pub(crate) struct Args {
    /// Where decisions were recorded: a file, the folder of a bottle or of its archive, or the name of
    /// a bottle that runs. What has a '/' in it is a file or folder
    #[arg(value_name = "DECISIONS", required = true)]
    pub(crate) decisions: Vec<String>,

    /// How many of the requests that would be decided otherwise are shown, the most frequent first
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) examples: usize,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    /// Print routes for 'egress.routes' that would allow what was allowed, in place of the difference;
    /// reads no document
    #[arg(long, conflicts_with_all = ["examples", "json"])]
    pub(crate) learn: bool,

    /// Let the routes allow what no rule allowed too. An agent may have asked for anything: read them
    #[arg(long, requires = "learn")]
    pub(crate) denied: bool,

    /// How much wider than what was recorded the paths of a route may be
    #[arg(long, value_name = "HOW", requires = "learn", default_value_t = Widen::Segment)]
    #[arg(value_enum)]
    pub(crate) max_widen: Widen,
}

/// How paths are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Widen {
    /// Not at all: each path as it was
    None,
    /// Where more than three differ in one segment, that is '*'
    Segment,
    /// Where more than eight begin alike, what follows is '**'
    Tail,
    /// Every path of a host
    Host,
}

impl std::fmt::Display for Widen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Segment => "segment",
            Self::Tail => "tail",
            Self::Host => "host",
        })
    }
}
