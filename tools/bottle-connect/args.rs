use std::net::SocketAddr;

use clap::Parser;

/// Be ssh's way through the proxy of a bottle
///
/// Asks the proxy for a tunnel to a host and port, and carries bytes between it and stdin and
/// stdout, each direction until its own end. It is how ssh in the agent reaches its hosts, as
/// 'bottle-render' has it configured. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-connect", version)]
pub(crate) struct Args {
    /// The proxy
    #[arg(value_name = "PROXY")]
    pub(crate) proxy: SocketAddr,

    /// The host, a name or an address; ssh's %h
    #[arg(value_name = "HOST")]
    pub(crate) host: String,

    /// The port; ssh's %p
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
}
