//! Routes that would allow what was recorded. They are a beginning for an owner to read: what an
//! agent did is not what it should.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use bottle::host::{self, Host};
use bottle::policy::{AGENT, Glob};
use bottle::{no, strict};
use serde::Serialize;

use crate::args::Widen;
use crate::paths::Paths;
use crate::record::Record;

/// The most hosts, methods and segments that are kept.
const MOST: usize = 200_000;

/// What was recorded, put together.
#[derive(Default)]
pub(crate) struct Learned {
    /// By host, port and method.
    requests: BTreeMap<(String, u16), BTreeMap<String, Paths>>,
    tunnels: BTreeSet<(String, u16)>,
    addresses: BTreeMap<(String, u16), BTreeSet<IpAddr>>,
    size: usize,
    /// What cannot be written as a route, and why.
    pub(crate) left_out: BTreeSet<String>,
}

/// An item of `egress.routes`.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    host: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    passthrough: bool,
}

impl Learned {
    /// Adds one line, where it was allowed, or `denied` asks for what no rule allowed.
    pub(crate) fn add(&mut self, line: &[u8], denied: bool, widen: Widen) -> Result<()> {
        let record = Record::parse(line)?;
        let Some(question) = record.question()? else { return Ok(()) };
        // What the gate and the like need is made of other parts of the plan.
        if !(record.was_allowed() || denied) || question.client != AGENT {
            return Ok(());
        }
        let host = match &question.host {
            Host::Name(name) => name.to_string(),
            Host::Address(address) => address.to_string(),
        };
        let is_name = matches!(question.host, Host::Name(_));
        let place = (host, question.port);
        if let Some(address) = record.address.filter(|it| is_name && host::special(*it).is_some()) {
            self.size +=
                usize::from(self.addresses.entry(place.clone()).or_default().insert(address));
        }
        match &question.request {
            None if record.was_allowed() && is_name && place.1 == 443 => {
                self.size += usize::from(self.tunnels.insert(place));
            }
            // Of a CONNECT that was refused nobody knows what would have come; another port than
            // that of TLS may be ssh's.
            None if record.was_allowed() => {
                self.left_out.insert(format!(
                    "a tunnel to {}:{}: name it in 'ssh', or as a route with 'passthrough'",
                    question.host, place.1
                ));
            }
            None => {}
            Some((_, path)) => {
                let of_host = self.requests.entry(place).or_default();
                if !of_host.contains_key(&*record.method) {
                    of_host.insert(record.method.to_string(), Paths::default());
                    self.size += 1;
                }
                let Some(paths) = of_host.get_mut(&*record.method) else { return Ok(()) };
                for reading in path.readings() {
                    if widen == Widen::None && reading.contains('*') {
                        self.left_out.insert(format!("'{reading}': as a route, it is a pattern"));
                    } else {
                        self.size += paths.add(&reading, widen);
                    }
                }
            }
        }
        if self.size + self.left_out.len() > MOST {
            return Err(no(format!(
                "learn routes: there are more than {MOST} different parts of requests: let '--max-widen' be more than '{widen}', or leave '--denied' out"
            )));
        }
        Ok(())
    }

    /// The routes, as the items of `egress.routes`.
    pub(crate) fn write(&mut self, widen: Widen) -> Result<String> {
        let routes = self.routes(widen);
        if routes.is_empty() { Ok("[]\n".to_owned()) } else { strict::to_yaml(&routes) }
    }

    fn routes(&mut self, widen: Widen) -> Vec<Route> {
        // Methods that go to the same paths are one route, and so are ports that take the same.
        let mut alike: BTreeMap<Route, Vec<u16>> = BTreeMap::new();
        for (place, methods) in &self.requests {
            let mut of_paths: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
            for (method, paths) in methods {
                let (good, bad): (Vec<_>, Vec<_>) =
                    paths.patterns(widen).into_iter().partition(|path| Glob::parse(path).is_ok());
                for path in bad {
                    self.left_out.insert(format!("'{path}': it is too long for a pattern"));
                }
                if !good.is_empty() || widen == Widen::Host {
                    of_paths.entry(good).or_default().push(method.clone());
                }
            }
            let addresses: Vec<String> =
                self.addresses.get(place).into_iter().flatten().map(network).collect();
            for (paths, methods) in of_paths {
                let (host, addresses) = (place.0.clone(), addresses.clone());
                let (ports, passthrough) = (Vec::new(), false);
                let route = Route { host, ports, methods, paths, addresses, passthrough };
                alike.entry(route).or_default().push(place.1);
            }
        }
        let requests = alike.into_iter().map(|(route, ports)| {
            let ports = if ports == [443] { Vec::new() } else { ports };
            Route { ports, ..route }
        });
        let tunnels = self.tunnels.iter().map(|place| Route {
            host: place.0.clone(),
            ports: Vec::new(),
            methods: Vec::new(),
            paths: Vec::new(),
            addresses: self.addresses.get(place).into_iter().flatten().map(network).collect(),
            passthrough: true,
        });
        requests.chain(tunnels).collect()
    }
}

fn network(address: &IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{length}")
}
