use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Let out of a bottle what its plan allows, and nothing else
///
/// An HTTP proxy that looks into TLS, and the DNS of the bottle. 'bottle-render' writes its
/// configuration, and 'bottle-up' starts it in a container. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-egress", version)]
pub(crate) struct Args {
    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What bottle-egress can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Serve as proxy and DNS of one bottle, until SIGTERM; SIGHUP reads the configuration again
    Serve(Serve),
    /// Decide for another proxy: JSON questions on stdin, verdicts on stdout, until stdin ends
    Judge(Judge),
    /// Print a new certificate authority: its SEC1 key, then its certificate, both PEM
    Ca(Ca),
    /// Check a routes.yaml and say nothing if it is valid
    Check(Check),
    /// Say what the scan of outgoing requests finds in files, a line of JSON each
    Scan(Scan),
}

/// Arguments of `serve`.
#[derive(Debug, Parser)]
pub(crate) struct Serve {
    /// Address of the proxy
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// Address of the DNS, on UDP and TCP; none without it
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) dns: Option<SocketAddr>,
    /// Folder with routes.yaml, ca.pem, ca-key.pem and perhaps roots.pem; watched
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle")]
    pub(crate) conf: PathBuf,
    /// Folder with secrets.json, the values that rules add to requests; watched
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle-secrets")]
    pub(crate) secrets: PathBuf,
    /// Folder for loaded.json, secrets.json and decisions.jsonl
    #[arg(long, value_name = "FOLDER", default_value = "/run/bottle")]
    pub(crate) run: PathBuf,
    /// Name server to ask in place of those of /etc/resolv.conf
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) resolver: Option<SocketAddr>,
}

/// Arguments of `judge`.
#[derive(Debug, Parser)]
pub(crate) struct Judge {
    /// Address of the DNS, on UDP and TCP; none without it
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) dns: Option<SocketAddr>,
    /// Folder with routes.yaml, ca.pem and ca-key.pem; watched
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle")]
    pub(crate) conf: PathBuf,
    /// Folder with secrets.json, the values that rules add to requests; watched
    #[arg(long, value_name = "FOLDER", default_value = "/etc/bottle-secrets")]
    pub(crate) secrets: PathBuf,
    /// Folder for loaded.json, secrets.json and decisions.jsonl
    #[arg(long, value_name = "FOLDER", default_value = "/run/bottle")]
    pub(crate) run: PathBuf,
    /// Name server to ask in place of those of /etc/resolv.conf
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) resolver: Option<SocketAddr>,
}

/// Arguments of `ca`.
#[derive(Debug, Parser)]
pub(crate) struct Ca {
    /// Slug of the bottle that it is for
    #[arg(long, value_name = "SLUG")]
    pub(crate) name: bottle::Slug,
    /// Days until it ends
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=365))]
    pub(crate) days: u16,
}

/// Arguments of `check`.
#[derive(Debug, Parser)]
pub(crate) struct Check {
    /// The file, '-' for stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Arguments of `scan`.
#[derive(Debug, Parser)]
pub(crate) struct Scan {
    /// Look for private data too: e-mail addresses, telephone, bank account and card numbers
    #[arg(long)]
    pub(crate) private_data: bool,
    /// Take the files for lists of URLs, one a line
    #[arg(long)]
    pub(crate) urls: bool,
    /// The files, '-' for stdin
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) files: Vec<PathBuf>,
}
