use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Try from inside a bottle what an agent might try
///
/// One static binary that is also the smallest agent image: called as 'sleep' it sleeps, also as
/// the first process of a container. 'bottle-up' runs 'bottle-probe check' in the agent's network
/// before it hands a bottle over. This is plumbing: people use bottle(1).
#[derive(Debug, Parser)]
#[command(name = "bottle-probe", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Check(Check),
    Get(Get),
    Origin(Origin),
    Sleep(Sleep),
    #[command(hide = true)]
    Cat,
    #[command(hide = true)]
    Echo(Echo),
    #[command(hide = true)]
    Exit(Exit),
    #[command(hide = true)]
    Winsize,
}

/// Try every way out at once, and judge each
///
/// The gateways and first addresses of the own networks are tried in any case.
/// Exits with 0 if all went as it has to, with 1 if not.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Print the verdict as one line of JSON, in place of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Digest of the plan, copied into the verdict
    #[arg(long, value_name = "DIGEST")]
    pub(crate) plan: Option<String>,
    /// Proxy for the URLs, or 'none'; where it is not given, the one that the environment names
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// Certificates that servers are trusted by
    #[arg(long, value_name = "FILE", default_value = "/etc/bottle/ca.pem")]
    pub(crate) ca: PathBuf,
    /// URL that has to be answered by its server
    #[arg(long, value_name = "[METHOD=]URL")]
    pub(crate) allowed: Vec<String>,
    /// URL that egress has to refuse
    #[arg(long, value_name = "[METHOD=]URL", default_value = "https://bottle-probe.invalid/")]
    pub(crate) denied: Vec<String>,
    /// Address that no TCP connection may reach; 169.254.169.254 is where clouds keep credentials
    #[arg(long, value_name = "ADDR:PORT", default_values = ["1.1.1.1:443", "169.254.169.254:80"])]
    pub(crate) direct: Vec<SocketAddr>,
    /// Address of the host, which may not answer on any port that is tried
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub(crate) host: Vec<String>,
    /// Name that no resolver may answer
    #[arg(long, value_name = "NAME", default_value = "example.com")]
    pub(crate) dns: Vec<String>,
    /// How long to listen for an answer that must not come
    #[arg(long, value_name = "MS", default_value_t = 200)]
    pub(crate) timeout_ms: u64,
    /// How long to wait for an answer that has to come, as a loaded machine may need
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    pub(crate) answer_ms: u64,
}

/// Send one request, and print the body of its answer
///
/// Exits with 0 if the status is 2xx, with 1 if it is another one, which stderr then tells.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// Method of the request
    #[arg(long, short = 'X', default_value = "GET")]
    pub(crate) method: String,
    /// Body of the request
    #[arg(long, short = 'd', value_name = "TEXT")]
    pub(crate) data: Option<String>,
    /// Proxy, or 'none'; where it is not given, the one that the environment names
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// Certificates that servers are trusted by
    #[arg(long, value_name = "FILE", default_value = "/etc/bottle/ca.pem")]
    pub(crate) ca: PathBuf,
    /// Limit of the whole exchange
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub(crate) timeout_ms: u64,
    /// What to ask for, 'https://…' or 'http://…'
    pub(crate) url: String,
}

/// Serve a small web site for tests and demonstrations, until a signal ends it
///
/// Answers '/', '/bytes/N', '/sse/COUNT/MS', '/status/N' and '/echo'. Makes a CA of its own at the
/// start, and prints where it listens and the certificate of that CA on stdout once it serves.
#[derive(Debug, clap::Args)]
pub(crate) struct Origin {
    /// Name or address that the certificate is for
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub(crate) name: Vec<String>,
    /// Where to serve HTTPS
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:443")]
    pub(crate) https: SocketAddr,
    /// Where to serve HTTP
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:80")]
    pub(crate) http: SocketAddr,
}

/// Sleep, and end at once when a signal asks for it
///
/// Waits for orphaned processes too, as the first process of a container has to. Exits with 128
/// and the number of the signal.
#[derive(Debug, clap::Args)]
pub(crate) struct Sleep {
    /// Seconds, or 'infinity'
    #[arg(default_value = "infinity")]
    pub(crate) duration: String,
}

/// Print each word on a line of its own (for tests)
#[derive(Debug, clap::Args)]
pub(crate) struct Echo {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// End with a given code (for tests)
#[derive(Debug, clap::Args)]
pub(crate) struct Exit {
    pub(crate) code: u8,
}
