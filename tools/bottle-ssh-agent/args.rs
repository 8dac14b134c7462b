use std::path::PathBuf;

use clap::Parser;

/// Lend out keys of ssh, each for its hosts alone
///
/// Starts a real ssh-agent, gives it the keys with the hosts that they are for, and serves a socket
/// on which keys can be listed and used, and nothing else. 'bottle-render' writes its configuration,
/// and 'bottle-up' starts it in a container without a network. This is plumbing: people use
/// bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-ssh-agent", version)]
pub(crate) struct Args {
    /// The socket to serve
    #[arg(long, value_name = "SOCKET", default_value = "/etc/bottle-ssh/agent.sock")]
    pub(crate) listen: PathBuf,
    /// Folder with the lists of keys and of the keys that hosts prove themselves by
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle")]
    pub(crate) conf: PathBuf,
    /// Folder with the private keys
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle-secrets")]
    pub(crate) keys: PathBuf,
    /// Folder for loaded.json
    #[arg(long, value_name = "FOLDER", default_value = "/run/bottle")]
    pub(crate) run: PathBuf,
    /// Folder for the socket of the ssh-agent, which nobody else may reach
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    pub(crate) private: PathBuf,
}
