use clap::Parser;

/// Lease two subnets and make the two networks of a bottle on them
///
/// Reads a document with the section 'plan' on stdin, sets the section 'net', and writes the
/// document to stdout. The subnets are two /28s of the pool that no bottle, no route of this host
/// and no network of the engine uses. A document whose networks are there already passes through as
/// it came. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-net", version)]
pub(crate) struct Args {
    /// Choose the subnets and do nothing: no call of the engine, no file; 'bottle-up' refuses such
    /// a document
    #[arg(long)]
    pub(crate) dry_run: bool,
}
