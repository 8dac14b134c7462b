//! `bottle-probe check`: every attempt at once, then one verdict.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::error::visible;
use bottle::verdict::{Check, Expect, Finding, Got, Verdict};
use bottle::{Blame, caller};

use crate::args;
use crate::attempt::{self, Outcome};
use crate::connect::{connect_all, worst};
use crate::fetch::{Client, Url};
use crate::targets;

/// One thing to try.
struct Attempt<'a> {
    name: &'static str,
    target: String,
    expect: Expect,
    act: Act<'a>,
}

/// How it is tried: by a thread of its own, or together with all other connections.
enum Act<'a> {
    Alone(Box<dyn Fn(Duration) -> Outcome + Send + Sync + 'a>),
    Connect(Vec<SocketAddr>),
}

pub(crate) fn check(args: &args::Check) -> Result<ExitCode> {
    let begin = Instant::now();
    let client = Client::new(args.proxy.as_deref(), &args.ca)?;
    let attempts = attempts(args, &client)?;
    let checks = run(
        &attempts,
        Duration::from_millis(args.timeout_ms),
        Duration::from_millis(args.answer_ms),
    );
    let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let verdict = Verdict::new(args.plan.clone(), ms, checks);
    let mut text = if args.json {
        serde_json::to_string(&verdict).world("write the verdict")?
    } else {
        table(&verdict)
    };
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes()).world("write the verdict")?;
    let failed = verdict.failures().next().is_some();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All that is tried, in the order in which it is told.
fn attempts<'a>(args: &'a args::Check, client: &'a Client) -> Result<Vec<Attempt<'a>>> {
    let mut all = Vec::new();
    for text in &args.allowed {
        all.push(request("allowed route", text, Expect::Passed, client)?);
    }
    for text in &args.denied {
        all.push(request("denied route", text, Expect::Denied, client)?);
    }
    for address in &args.direct {
        all.push(tcp("direct TCP", address.to_string(), vec![*address]));
    }
    let mut servers = targets::resolvers();
    // Past the engine's resolver, straight to the one that it asks.
    servers.extend(client.proxy_host().and_then(|host| host.parse::<IpAddr>().ok()));
    for name in &args.dns {
        for &server in &servers {
            all.push(Attempt {
                name: "outside DNS",
                target: format!("{name} by {server}"),
                expect: Expect::Closed,
                act: Act::Alone(Box::new(move |limit| attempt::resolve(name, server, limit))),
            });
        }
    }
    for gateway in targets::gateways() {
        let text = gateway.to_string();
        if !args.host.contains(&text) {
            let addresses = targets::host(&text)?;
            all.push(tcp("host gateway", text, addresses));
        }
    }
    for text in &args.host {
        all.push(tcp("host address", text.clone(), targets::host(text)?));
    }
    Ok(all)
}

/// `[METHOD=]URL`, where the URL may hold a `=` too.
fn request<'a>(
    name: &'static str,
    text: &'a str,
    expect: Expect,
    client: &'a Client,
) -> Result<Attempt<'a>> {
    let (method, url) = match text.split_once('=') {
        Some((method, url)) if method.bytes().all(|c| c.is_ascii_uppercase()) => (method, url),
        _ => ("GET", text),
    };
    if method.is_empty() {
        return Err(caller(format!("read '{text}': the method before '=' is missing")));
    }
    let url: Url = url.parse()?;
    Ok(Attempt {
        name,
        target: format!("{method} {url}"),
        expect,
        act: Act::Alone(Box::new(move |limit| attempt::request(client, method, &url, limit))),
    })
}

fn tcp<'a>(name: &'static str, target: String, addresses: Vec<SocketAddr>) -> Attempt<'a> {
    Attempt { name, target, expect: Expect::Closed, act: Act::Connect(addresses) }
}

/// Everything at once, so that the whole takes about as long as the slowest. `limit` bounds what
/// must not be answered, `patience` what has to be.
fn run(attempts: &[Attempt], limit: Duration, patience: Duration) -> Vec<Check> {
    let addresses: Vec<SocketAddr> = attempts
        .iter()
        .flat_map(|one| match &one.act {
            Act::Connect(addresses) => addresses.as_slice(),
            Act::Alone(_) => &[],
        })
        .copied()
        .collect();
    std::thread::scope(|scope| {
        let alone: Vec<_> = attempts
            .iter()
            .map(|one| match &one.act {
                Act::Alone(act) if one.expect == Expect::Closed => {
                    Some(scope.spawn(move || act(limit)))
                }
                Act::Alone(act) => Some(scope.spawn(move || act(patience))),
                Act::Connect(_) => None,
            })
            .collect();
        let mut connected = connect_all(&addresses, limit).into_iter();
        let mut checks = Vec::new();
        for (one, thread) in attempts.iter().zip(alone) {
            let (got, detail) = match (&one.act, thread) {
                (Act::Connect(addresses), _) => {
                    let ports = addresses.iter().map(SocketAddr::port);
                    worst(&ports.zip(connected.by_ref()).collect::<Vec<_>>())
                }
                (Act::Alone(_), Some(thread)) => thread.join().unwrap_or_else(|_| broken()),
                (Act::Alone(_), None) => broken(),
            };
            checks.push(Check::new(one.name, one.target.clone(), one.expect, got, detail));
        }
        checks
    })
}

/// The outcome of an attempt whose thread came to grief.
fn broken() -> Outcome {
    (Got::Failed, "the attempt came to grief".to_owned())
}

/// The verdict for a person: a line an attempt, and a last one that sums up.
fn table(verdict: &Verdict) -> String {
    let rows: Vec<[String; 5]> = verdict
        .checks
        .iter()
        .map(|check| {
            let mark = match (check.ok, check.open()) {
                (true, _) => "ok",
                (false, true) => "OPEN",
                (false, false) => "FAILED",
            };
            let expect = match check.expect {
                Expect::Passed => "an answer",
                Expect::Denied => "a denial",
                Expect::Closed => "no way there",
            };
            let got = match check.got {
                Got::Passed => format!("answer: {}", check.detail),
                Got::Denied => format!("denial: {}", check.detail),
                Got::Unreachable | Got::Silent | Got::Failed => check.detail.clone(),
            };
            [mark, &check.name, &check.target, expect, &got].map(visible)
        })
        .collect();
    let mut text = String::new();
    for row in std::iter::once(["", "what", "where", "expected", "got"].map(str::to_owned))
        .chain(rows.clone())
    {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    let total = verdict.checks.len();
    let failed = verdict.failures().count();
    let found = match verdict.verdict {
        Finding::Closed => "closed",
        Finding::Open => "OPEN",
    };
    text + &format!(
        "{found}: {} of {total} attempts as expected, in {} ms",
        total - failed,
        verdict.ms
    )
}
