//! The last denials, explained. The log that they come from is egress's, and what it holds came from
//! an agent: a bounded part is read from its end, each line strictly, and shown with its control
//! characters made visible.

use std::fmt::Write;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::Result;
use bottle::error::visible;
use bottle::host::request_host;
use bottle::policy::{
    AGENT, Ask, Decision, DecisionLine, Kind, Policy, Reason, Request, Term, Verdict, normal_path,
};
use bottle::{Blame, state};
use serde_json::json;

/// How much of the log is read.
const TAIL: u64 = 256 << 10;
/// The longest value that is shown.
const SHOWN: usize = 300;

/// One kind of denial, and how often it came.
struct Denial {
    line: DecisionLine<'static>,
    times: usize,
}

/// The last denials in words.
pub(crate) fn explain(
    run: &Path,
    policy: &Policy,
    ended: impl Fn(&Term) -> bool,
    host: Option<&str>,
    last: usize,
) -> Result<String> {
    let lines = tail(run)?;
    let mut found: Vec<Denial> = Vec::new();
    for line in lines.rsplit(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<DecisionLine<'_>>(line) else { continue };
        let is_asked = host.is_none_or(|host| line.host.eq_ignore_ascii_case(host));
        // What others were denied is not the agent's.
        let is_its = policy.client(line.client) == Some(AGENT);
        if line.decision != Verdict::Deny || !is_asked || !is_its {
            continue;
        }
        if let Some(same) = found.iter_mut().find(|it| is_same(&it.line, &line)) {
            same.times += 1;
        } else if found.len() < last {
            found.push(Denial { line: owned(line), times: 1 });
        }
    }
    if found.is_empty() {
        return Ok("Nothing was denied lately.\n".to_owned());
    }
    let mut text = "The last denials, the newest first:\n".to_owned();
    for denial in &found {
        described(denial, policy, &ended, &mut text);
    }
    Ok(text)
}

fn described(denial: &Denial, policy: &Policy, ended: impl Fn(&Term) -> bool, text: &mut String) {
    let line = &denial.line;
    let asked = match (line.kind, line.scheme, line.port, &line.path) {
        (Kind::Http, Some(scheme), Some(port), Some(path)) => {
            format!("{} {}://{}:{port}{path}", line.method, scheme.as_str(), line.host)
        }
        (Kind::Dns, ..) => format!("DNS {} {}", line.method, line.host),
        _ => format!("{} {}:{}", line.method, line.host, line.port.unwrap_or_default()),
    };
    let reason = line.reason.map_or_else(|| "unknown".to_owned(), |reason| reason.to_string());
    // Writing to a string cannot fail.
    let _ = write!(text, "- {} {}: {reason}", line.time, short(&asked));
    if denial.times > 1 {
        let _ = write!(text, " ({} times)", denial.times);
    }
    let _ = match now(line, policy, ended) {
        Some((Decision::Allow { .. }, _)) => writeln!(text, ": it is allowed now, try again"),
        Some((_, why)) => writeln!(text, ": {}", short(&why)),
        None => writeln!(text, ": {}", in_general(line)),
    };
    if let Some(arguments) = suggestion(line) {
        let _ = writeln!(text, "  to ask for it: propose_route {arguments}, and a 'reason'");
    }
}

/// What would be decided about it now, and why.
fn now(
    line: &DecisionLine<'_>,
    policy: &Policy,
    ended: impl Fn(&Term) -> bool,
) -> Option<(Decision, String)> {
    if !matches!(
        line.reason?,
        Reason::Host
            | Reason::Port
            | Reason::Scheme
            | Reason::Method
            | Reason::Path
            | Reason::Grant
    ) {
        return None;
    }
    let host = request_host(&line.host).ok()?;
    let path = line.path.as_ref().map(|path| normal_path(path)).transpose().ok()?;
    let request = match (line.scheme, &path) {
        (Some(scheme), Some(path)) => Some(Request { scheme, method: &line.method, path }),
        _ => None,
    };
    let ask = Ask { client: AGENT, host: &host, port: line.port?, request };
    let decision = policy.decide_unless(&ask, ended);
    let why = match decision {
        Decision::Allow { .. } => String::new(),
        Decision::Deny { reason, nearest } => {
            let told = policy.explain(&ask, reason, nearest);
            match told.nearest {
                Some(nearest) => format!("{}; the nearest rule is {nearest}", told.why),
                None => told.why,
            }
        }
    };
    Some((decision, why))
}

/// What a reason means that the rules alone do not explain.
fn in_general(line: &DecisionLine<'_>) -> String {
    let found = || short(&line.found.join(", "));
    match line.reason {
        Some(Reason::Address) => {
            "the host resolves to a private address, which only a rule with 'addresses' opens".into()
        }
        Some(Reason::Dlp) => format!("it holds what must not leave: {}", found()),
        Some(Reason::Dns) => {
            "names are not resolved in here: send the request to the proxy, which resolves them".into()
        }
        Some(Reason::NotHttp) => "only HTTP and TLS go through the proxy".into(),
        Some(Reason::HostMismatch) => {
            "TLS server name, Host header and target have to be the same".into()
        }
        Some(Reason::Secret) => {
            "the credential that the rule adds is missing or has expired: tell the person whom you work for".into()
        }
        Some(Reason::Audit) => "decisions cannot be written down at the moment: try again".into(),
        Some(Reason::Parent) => "the firewall behind the proxy refused it".into(),
        Some(reason) => format!("no rule opens what is refused for '{reason}': send it in another form"),
        None => "no reason was told".into(),
    }
}

/// The arguments of a proposal that would allow it.
fn suggestion(line: &DecisionLine<'_>) -> Option<serde_json::Value> {
    let reason = line.reason?;
    if !matches!(
        reason,
        Reason::Host
            | Reason::Port
            | Reason::Method
            | Reason::Path
            | Reason::Grant
            | Reason::Address
    ) || line.kind == Kind::Dns
    {
        return None;
    }
    let mut arguments = json!({ "host": short(&line.host) });
    if let Some(port) = line.port.filter(|port| *port != 443) {
        arguments["ports"] = json!([port]);
    }
    if let Some(path) = &line.path {
        arguments["methods"] = json!([short(&line.method)]);
        arguments["paths"] = json!([short(path)]);
    }
    if let (Reason::Address, Some(address)) = (reason, line.address) {
        arguments["addresses"] = json!([address]);
    }
    Some(arguments)
}

fn is_same(one: &DecisionLine<'_>, other: &DecisionLine<'_>) -> bool {
    (one.kind, &one.method, &one.host, one.port, &one.path, one.reason)
        == (other.kind, &other.method, &other.host, other.port, &other.path, other.reason)
}

fn owned(line: DecisionLine<'_>) -> DecisionLine<'static> {
    DecisionLine {
        time: line.time.into_owned().into(),
        method: line.method.into_owned().into(),
        host: line.host.into_owned().into(),
        path: line.path.map(|path| path.into_owned().into()),
        policy: String::new().into(),
        ..line
    }
}

fn short(text: &str) -> String {
    let mut shown = visible(text);
    if shown.len() > SHOWN {
        shown.truncate(shown.floor_char_boundary(SHOWN));
        shown.push('…');
    }
    shown
}

/// The end of the log, from a whole line on.
fn tail(run: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut file) = state::open_report(&run.join("decisions.jsonl"))? else {
        return Ok(bytes);
    };
    let length = file.metadata().world("read the decisions")?.len();
    let start = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start)).world("read the decisions")?;
    file.take(TAIL).read_to_end(&mut bytes).world("read the decisions")?;
    if start > 0 {
        let whole = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..whole);
    }
    Ok(bytes)
}
