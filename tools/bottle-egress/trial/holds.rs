//! What has to be true of whatever a client sends.

use bottle::host::{self, Host};
use bottle::policy::{
    AGENT, Ask, Decision, DecisionLine, Policy, Request, Scheme, Verdict, normal_path,
};

use super::reading::{self, Reading};
use super::{HOST, Seen, Way};

/// Fields of one hop, which the server never sees; but for those of a WebSocket.
const HOP: [&str; 6] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "connection",
    "upgrade",
];

/// Fields that egress writes itself.
const OWN: [&str; 4] = ["host", "content-length", "transfer-encoding", "cookie"];

/// Holds what was seen against what was sent; the number of requests that reached the server.
pub(super) fn check(policy: &Policy, way: Way, sent: &[u8], seen: &Seen) -> Result<usize, String> {
    if !seen.ended {
        return Err("the client has gone, and its connection goes on".into());
    }
    let (asked, _) = reading::requests(sent);
    let mut decisions = decisions(&seen.decisions)?;
    // One that was refused may look like one that was not.
    decisions.sort_by_key(|line| line.decision != Verdict::Allow);
    let (mut forwarded, mut allowed) = (Vec::new(), Vec::new());
    for stream in &seen.forwarded {
        let (requests, more) = reading::requests(stream);
        if more {
            return Err(format!("a server could read it in two ways: {}", shown(stream)));
        }
        forwarded.extend(requests);
    }
    let parsed = forwarded.iter().map(|it| {
        let host = it.values("host").next().unwrap_or_default();
        [it.method.clone(), it.target.clone(), String::from_utf8_lossy(host).into_owned()]
    });
    let (mut read, mut parsed) = (parsed.collect::<Vec<_>>(), seen.parsed.clone());
    read.sort();
    parsed.sort();
    if read != parsed {
        return Err(format!("one reads {read:?}, another {parsed:?}"));
    }
    for request in &forwarded {
        let path = judged(policy, way, request)?;
        if !asked.iter().any(|asked| is_same(way, asked, request, path)) {
            return Err(format!("nobody asked for {request:?}, but for {asked:?}"));
        }
        allowed.push((request.method.clone(), path.to_owned()));
    }
    if forwarded.len() > asked.len() {
        return Err(format!("{} were forwarded of {}", forwarded.len(), asked.len()));
    }
    for line in &decisions {
        let told = (line.method.to_string(), line.path.as_deref().unwrap_or_default().to_owned());
        let place = allowed.iter().position(|known| *known == told);
        match (line.decision, line.status, place) {
            (_, _, Some(place)) => drop(allowed.swap_remove(place)),
            (Verdict::Allow, Some(200), None) => {
                return Err(format!("{told:?} was answered and never forwarded"));
            }
            _ => {}
        }
    }
    match &allowed[..] {
        [] => Ok(forwarded.len()),
        untold => Err(format!("nothing tells of {untold:?}")),
    }
}

fn decisions(lines: &[u8]) -> Result<Vec<DecisionLine<'static>>, String> {
    let lines = String::from_utf8(lines.to_vec()).map_err(|error| error.to_string())?;
    let parsed = lines.lines().map(|line| {
        serde_json::from_str(line).map_err(|error| format!("the line {line}: {error}"))
    });
    parsed.collect()
}

/// The path of a request that reached the server, if it may do so as it is there.
fn judged<'a>(policy: &Policy, way: Way, request: &'a Reading) -> Result<&'a str, String> {
    let odd = |why: &str| Err(format!("{why}: {request:?}"));
    let raw = path_of(&request.target);
    let Ok(path) = normal_path(raw) else { return odd("its path has no normal form") };
    if path.as_str() != raw {
        return odd("its path is not in normal form");
    }
    let scheme = match way {
        Way::Proxy => Scheme::Http,
        Way::Tunnel => Scheme::Https,
    };
    let host = Host::Name(HOST.into());
    let judged = Request { scheme, method: &request.method, path: &path };
    let ask = Ask { client: AGENT, host: &host, port: scheme.port(), request: Some(judged) };
    if !matches!(policy.decide(&ask), Decision::Allow { .. }) {
        return odd("no rule allows it");
    }
    let hosts: Vec<_> = request.values("host").collect();
    if hosts != [HOST.as_bytes()] {
        return odd("its 'Host' is not the host that was judged");
    }
    let websocket = request.values("upgrade").eq([&b"websocket"[..]])
        && request.values("connection").eq([&b"upgrade"[..]]);
    let is_hop = |name: &str| {
        HOP.contains(&name) && !(websocket && matches!(name, "connection" | "upgrade"))
    };
    match request.fields.iter().find(|(name, _)| is_hop(name)) {
        Some(_) => odd("it has a field of another hop"),
        None => Ok(raw),
    }
}

/// Whether a request is the one that a client asked for.
fn is_same(way: Way, asked: &Reading, request: &Reading, path: &str) -> bool {
    let target = match asked.target.split_once("://") {
        Some((_, rest)) if !asked.target.starts_with('/') => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            if !is_host(&rest[..end]) {
                return false;
            }
            &rest[end..]
        }
        _ if way == Way::Proxy => return false,
        _ => &asked.target,
    };
    let asked_path = match path_of(target) {
        "" => "/",
        path => path,
    };
    let query = |target: &str| target.split_once('?').map(|(_, query)| query.to_owned());
    asked.method == request.method
        && normal_path(asked_path).is_ok_and(|asked| asked.as_str() == path)
        && query(target).unwrap_or_default() == query(&request.target).unwrap_or_default()
        && asked.values("host").all(|host| std::str::from_utf8(host).is_ok_and(is_host))
        && asked.body.starts_with(&request.body)
        && (request.body.len() == asked.body.len() || !request.is_whole)
        && request.fields.iter().all(|(name, value)| {
            OWN.contains(&&**name)
                || matches!(&**name, "connection" | "upgrade")
                || asked.values(name).any(|known| known == value || name == "te")
        })
}

/// Whether an authority names the only host that there is.
fn is_host(authority: &str) -> bool {
    host::authority(authority).is_ok_and(|(host, port)| {
        host == Host::Name(HOST.into()) && matches!(port, None | Some(80 | 443))
    })
}

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
