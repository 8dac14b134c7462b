//! The way out against other intercepting proxies, and against no proxy at all.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::load::{self, Way};
use crate::origin::{self, Ca, Running, address, free_port};
use crate::report::{Aim, Report};
use crate::{Bench, peers};

const CONNECTIONS: usize = 32;

/// Rules of the larger and of the smaller of two policies, whose cost should be the same.
const MANY: usize = 10_000;
const FEW: usize = 10;

/// Distinct hosts that are asked for, and large downloads (256 MiB each), before memory is read.
const HOSTS: usize = 10_000;
const DOWNLOADS: usize = 4;

/// One of those compared, with what it measured in each round.
struct Peer {
    name: &'static str,
    way: Way,
    process: Option<Running>,
    requests: Vec<f64>,
    /// Median times of a request on one connection, in milliseconds.
    alone: Vec<f64>,
    bulk: Vec<f64>,
}

impl Peer {
    fn new(name: &'static str, way: Way, process: Option<Running>) -> Self {
        Self { name, way, process, requests: Vec::new(), alone: Vec::new(), bulk: Vec::new() }
    }
}

/// Measures `egress_*`.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let all = [
        "egress_vs_squid_rps",
        "egress_vs_mitmproxy_rps",
        "egress_p50_vs_squid",
        "egress_many_routes_vs_few",
        "egress_vs_direct_bulk",
        "egress_vs_squid_bulk",
        "egress_rss_mib",
    ];
    let folder = tempfile::tempdir()?;
    let ca = Ca::new()?;
    let port = free_port()?;
    let Some(_origin) = origin::serve(folder.path(), &ca, port)? else {
        report.skip(&all, "nginx is not installed (apt-get install nginx-light)");
        return Ok(());
    };
    let way = |proxy: u16| Way::new(Some(address(proxy)), address(port), &ca.certificate);
    let direct = Way::new(None, address(port), &ca.certificate)?;
    let mut peers = vec![Peer::new("direct", direct, None)];
    let ports = [free_port()?, free_port()?, free_port()?, free_port()?];
    let folder = folder.path();
    for (name, proxy, started) in [
        ("egress", ports[0], Some(peers::egress(bench, folder, &ca, ports[0], port, FEW)?)),
        ("squid", ports[1], peers::squid(folder, &ca, ports[1])?),
        ("mitmproxy", ports[2], peers::mitmproxy(bench, folder, &ca, ports[2])?),
        ("many", ports[3], Some(peers::egress(bench, folder, &ca, ports[3], port, MANY)?)),
    ] {
        if let Some(process) = started {
            let way = way(proxy)?;
            // The first connection of a proxy makes certificates and fills caches.
            load::requests(&way, CONNECTIONS, Duration::from_millis(200))
                .with_context(|| format!("warm up {name}"))?;
            peers.push(Peer::new(name, way, Some(process)));
        }
    }
    let time = Duration::from_millis(if bench.quick { 500 } else { 1_500 });
    for round in 0..bench.rounds(7) {
        for peer in in_turn(&mut peers, round) {
            let rate = load::requests(&peer.way, CONNECTIONS, time);
            peer.requests.push(rate.with_context(|| format!("ask by {}", peer.name))?);
        }
    }
    for round in 0..bench.rounds(7) {
        for peer in in_turn(&mut peers, round) {
            let median = load::latency(&peer.way, 500);
            peer.alone.push(median.with_context(|| format!("ask by {}", peer.name))? * 1e3);
        }
    }
    for round in 0..bench.rounds(7) {
        for peer in in_turn(&mut peers, round).filter(|peer| peer.name != "many") {
            let rate = load::bulk(&peer.way);
            peer.bulk.push(rate.with_context(|| format!("download by {}", peer.name))? / 1e6);
        }
    }
    compare(report, &peers);
    memory(report, &peers)
}

/// The peers, in the order of this round.
fn in_turn(peers: &mut [Peer], round: usize) -> Box<dyn Iterator<Item = &mut Peer> + '_> {
    if round.is_multiple_of(2) {
        Box::new(peers.iter_mut())
    } else {
        Box::new(peers.iter_mut().rev())
    }
}

fn compare(report: &mut Report, peers: &[Peer]) {
    let find = |name: &str| peers.iter().find(|peer| peer.name == name);
    let Some(egress) = find("egress") else { return };
    if let Some(direct) = find("direct") {
        let (ours, theirs) = (&egress.bulk, &direct.bulk);
        report.ratio("egress_vs_direct_bulk", ours, theirs, "MB/s", Aim::AtLeast(0.65));
    }
    if let Some(many) = find("many") {
        let (ours, theirs) = (&many.alone, &egress.alone);
        report.ratio("egress_many_routes_vs_few", ours, theirs, "ms", Aim::AtMost(1.2));
    }
    match find("squid") {
        Some(squid) => {
            let (ours, theirs) = (&egress.requests, &squid.requests);
            report.ratio("egress_vs_squid_rps", ours, theirs, "requests/s", Aim::AtLeast(2.0));
            let (ours, theirs) = (&egress.alone, &squid.alone);
            report.ratio("egress_p50_vs_squid", ours, theirs, "ms", Aim::AtMost(0.5));
            let (ours, theirs) = (&egress.bulk, &squid.bulk);
            report.ratio("egress_vs_squid_bulk", ours, theirs, "MB/s", Aim::AtLeast(2.0));
        }
        None => report.skip(
            &["egress_vs_squid_rps", "egress_p50_vs_squid", "egress_vs_squid_bulk"],
            "squid with OpenSSL is not installed (apt-get install squid-openssl)",
        ),
    }
    match find("mitmproxy") {
        Some(mitmproxy) => {
            let (ours, theirs) = (&egress.requests, &mitmproxy.requests);
            report.ratio("egress_vs_mitmproxy_rps", ours, theirs, "requests/s", Aim::AtLeast(35.0));
        }
        None => report.skip(
            &["egress_vs_mitmproxy_rps"],
            "mitmproxy is not installed, nor could it be (pip install mitmproxy)",
        ),
    }
}

/// The most that egress ever held, after all of the load, a gibibyte and many hosts.
fn memory(report: &mut Report, peers: &[Peer]) -> Result<()> {
    let egress = peers.iter().find(|peer| peer.name == "egress").context("find egress")?;
    load::hosts(&egress.way, HOSTS).context("ask for many hosts")?;
    for _ in 0..DOWNLOADS {
        load::bulk(&egress.way)?;
    }
    let pid = egress.process.as_ref().context("find egress")?.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        })
        .context("read the peak memory of egress")?;
    report.plain("egress_rss_mib", &[peak / 1024.0], "MiB at the peak", Aim::AtMost(20.0));
    Ok(())
}
