use bottle::Slug;
use clap::Parser;

/// Change what may leave a bottle while it runs
///
/// Reads a document whose plan may differ from that of the running bottle in 'egress.routes', gives
/// the new rules to egress, and waits until egress says that it serves by them; otherwise the old
/// ones are put back. Where the plans differ in anything else, all of it is named and nothing is
/// changed. Writes the document to stdout with the section 'apply'. With '--refresh-secrets' it reads
/// no document and writes none. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-apply", version)]
pub(crate) struct Args {
    /// How long egress may take until it says that it serves by the new rules
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,

    /// Read the secrets of a running bottle again, from the sources that its plan names, and wait
    /// until egress uses them; for cron. What came from a variable that is not set here stays
    #[arg(long, value_name = "SLUG")]
    pub(crate) refresh_secrets: Option<Slug>,

    /// Go on until the bottle is down or whoever started this has ended, and read them again
    /// whenever egress says that one has ended; at most every 15 seconds
    #[arg(long, requires = "refresh_secrets")]
    pub(crate) follow: bool,
}
