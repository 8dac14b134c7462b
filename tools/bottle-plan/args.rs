use std::path::PathBuf;

use clap::Parser;

/// Resolve a manifest to the plan of one bottle
///
/// Reads bottle.yaml from the current folder, or the nearest one above it, and writes a document
/// with the section 'plan' to stdout: what the bottle is and what may leave it, absolute and
/// spelled out. Calls no engine and changes nothing. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-plan", version)]
pub(crate) struct Args {
    /// Agent of the manifest to plan for
    #[arg(required_unless_present_any = ["seal", "print"])]
    pub(crate) agent: Option<String>,

    /// Read this manifest ('-' for stdin)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Name the bottle NAME instead of after its agent
    #[arg(long, value_name = "NAME")]
    pub(crate) slug: Option<bottle::Slug>,

    /// Work on DIR instead of the manifest's workspace
    #[arg(long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,

    /// Check the plan of a document on stdin again and set its digest, after an edit by hand
    #[arg(long, conflicts_with_all = ["agent", "file", "slug", "workspace"])]
    pub(crate) seal: bool,

    /// Print the document on stdin for another reader: as YAML for a person, or its plan's command
    /// as words for a shell
    #[arg(
        long,
        value_name = "FORMAT",
        value_parser = ["yaml", "command"],
        conflicts_with_all = ["agent", "file", "slug", "workspace", "seal"]
    )]
    pub(crate) print: Option<String>,
}
