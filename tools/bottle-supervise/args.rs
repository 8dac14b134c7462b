use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Tell an agent what its bottle allows, and take its proposals for more
///
/// An MCP server (streamable HTTP, at '/mcp') on the internal network of one bottle. It writes
/// proposals into files, which 'bottle-approve' on the host decides about; nothing that it is told
/// approves anything. 'bottle-render' writes its configuration, and 'bottle-up' starts it in a
/// container. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-supervise", version)]
pub(crate) struct Args {
    /// Address to serve at
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// Folder with routes.yaml, supervise.json and answers/; read again at each question
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle")]
    pub(crate) conf: PathBuf,
    /// Folder for loaded.json, record.jsonl and proposals/
    #[arg(long, value_name = "FOLDER", default_value = "/run/bottle")]
    pub(crate) run: PathBuf,
    /// Folder in which egress tells its decisions
    #[arg(long, value_name = "FOLDER", default_value = "/run/egress")]
    pub(crate) egress: PathBuf,
}
