use clap::Parser;

/// Change what may leave a bottle while it runs
///
/// Reads a document whose plan may differ from that of the running bottle in 'egress.routes', gives
/// the new rules to egress, and waits until egress says that it serves by them; otherwise the old
/// ones are put back. Where the plans differ in anything else, all of it is named and nothing is
/// changed. Writes the document to stdout with the section 'apply'. This is plumbing: people use
/// bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-apply", version)]
pub(crate) struct Args {
    /// How long egress may take until it says that it serves by the new rules
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,
}
