use bottle::Slug;
use bottle::proposal::Id;
use bottle::scalar::Span;
use clap::Parser;

/// Decide about what the agents in bottles ask for
///
/// Without arguments, in a terminal, goes through all proposals that are open, one key each;
/// elsewhere lists them. With a bottle and the id of a proposal shows that one, beside what it would
/// open, and decides about it where an option says how. An approval is a grant, which holds beside
/// the plan until it ends, and is reported only once every sidecar serves by it; where that fails,
/// it is taken back, and the proposal stays open.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
#[command(name = "bottle-approve", version)]
pub(crate) struct Args {
    /// Bottle [default: all]
    #[arg(value_name = "SLUG")]
    pub(crate) slug: Option<Slug>,

    /// Proposal, by its id
    #[arg(value_name = "ID")]
    pub(crate) id: Option<Id>,

    /// Approve it for that long: a number and s, m, h or d, as in '30m'
    #[arg(long = "for", value_name = "TIME", requires = "id")]
    pub(crate) span: Option<Span>,

    /// Approve it for that many requests, or pushes that upstream takes; with '--for', until the first
    /// of both ends it
    #[arg(long, value_name = "N", requires = "id",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) uses: Option<u64>,

    /// Approve it for as long as the bottle lives
    #[arg(long, requires = "id", conflicts_with_all = ["span", "uses"])]
    pub(crate) forever: bool,

    /// Approve a git ref until upstream has taken a push by it; with '--for', no longer than that
    #[arg(long, requires = "id", conflicts_with_all = ["uses", "forever"])]
    pub(crate) until_push: bool,

    /// Approve less: for this host, which lies within the one that was asked for
    #[arg(long, value_name = "HOST", requires = "id")]
    pub(crate) host: Option<String>,

    /// Approve less: this method only; may be repeated
    #[arg(long = "method", value_name = "METHOD", requires = "id")]
    pub(crate) methods: Vec<String>,

    /// Approve less: this glob of paths only; may be repeated
    #[arg(long = "path", value_name = "GLOB", requires = "id")]
    pub(crate) paths: Vec<String>,

    /// Approve less: this ref, which is one of those that were asked for
    #[arg(long = "ref", value_name = "REF", requires = "id",
          conflicts_with_all = ["host", "methods", "paths"])]
    pub(crate) refs: Option<String>,

    /// Reject it, in words that the agent reads
    #[arg(long, value_name = "WORDS", requires = "id",
          conflicts_with_all = ["span", "uses", "forever", "until_push", "host", "methods", "paths", "refs"])]
    pub(crate) reject: Option<String>,

    /// Take back what was approved of it
    #[arg(long, requires = "id",
          conflicts_with_all = ["span", "uses", "forever", "until_push", "host", "methods", "paths", "refs", "reject"])]
    pub(crate) revoke: bool,

    /// List in a terminal too
    #[arg(long, conflicts_with = "id")]
    pub(crate) list: bool,

    /// Print JSON: an array, with '--watch' and '--story' an object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Go on and tell each proposal once it is made, until the bottle is down
    #[arg(long, conflicts_with = "id")]
    pub(crate) watch: bool,

    /// Tell what was asked for, decided and ended in a bottle, in order
    #[arg(long, requires = "slug", conflicts_with_all = ["id", "watch", "list"])]
    pub(crate) story: bool,

    /// How long a sidecar may take until it says that it serves by a decision
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,
}
