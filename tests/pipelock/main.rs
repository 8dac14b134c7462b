//! A stand-in for pipelock, for tests where no registry is at hand. It is written from what is known
//! of the real one (`tests/README.md` says from where), and only as far as a bottle depends on it:
//! the strict schema, the CA's key, CONNECT and plain proxying with the allowlist and the check for
//! internal addresses, interception, `/health`, and the reload that refuses to be loosened.
//!
//! It scans nothing. What it cannot show, the canary shows with the real image.

mod ca;
mod config;
mod judge;
mod proxy;
mod reload;
mod upstream;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use config::Config;

/// Stand in for pipelock
#[derive(Debug, Parser)]
#[command(name = "pipelock")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve
    Run {
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration, without loading its key
    Check {
        #[arg(long)]
        config: PathBuf,
    },
    /// Ask the one that serves here for its health
    Healthcheck {
        #[arg(long, default_value = "127.0.0.1:8888")]
        addr: String,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().verb {
        Verb::Run { config } => proxy::serve(&config),
        Verb::Check { config } => Config::read(&config).map(drop),
        Verb::Healthcheck { addr } => health(&addr),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn health(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("ask {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!("unhealthy: {}", answer.lines().next().unwrap_or_default());
    }
    Ok(())
}

/// One line of the log: a JSON object.
fn log(event: &str, fields: &[(&str, &str)]) {
    let mut line = serde_json::Map::new();
    line.insert("event".to_owned(), event.into());
    line.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
    let _ = writeln!(std::io::stdout(), "{}", serde_json::Value::Object(line));
}
