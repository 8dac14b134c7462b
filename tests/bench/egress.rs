//! The way out against other intercepting proxies, and against no proxy at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::Bench;
use crate::load::{self, Way};
use crate::origin::{self, Ca, HOST, Running, address, free_port, program, start};
use crate::report::{Aim, Report};

const CONNECTIONS: usize = 32;

/// One of those compared, with what it measured in each round.
struct Peer {
    name: &'static str,
    way: Way,
    process: Option<Running>,
    requests: Vec<f64>,
    bulk: Vec<f64>,
}

/// Measures `egress_*`.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let all = [
        "egress_vs_squid_rps",
        "egress_vs_mitmproxy_rps",
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
    let mut peers = vec![Peer {
        name: "direct",
        way: Way::new(None, address(port), &ca.certificate)?,
        process: None,
        requests: Vec::new(),
        bulk: Vec::new(),
    }];
    let ports = [free_port()?, free_port()?, free_port()?];
    for (name, proxy, started) in [
        ("egress", ports[0], egress(bench, folder.path(), &ca, ports[0], port)?),
        ("squid", ports[1], squid(folder.path(), &ca, ports[1])?),
        ("mitmproxy", ports[2], mitmproxy(bench, folder.path(), &ca, ports[2])?),
    ] {
        if let Some(process) = started {
            let way = way(proxy)?;
            // The first connection of a proxy makes certificates and fills caches.
            load::requests(&way, CONNECTIONS, Duration::from_millis(200))
                .with_context(|| format!("warm up {name}"))?;
            let process = Some(process);
            peers.push(Peer { name, way, process, requests: Vec::new(), bulk: Vec::new() });
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
            let rate = load::bulk(&peer.way);
            peer.bulk.push(rate.with_context(|| format!("download by {}", peer.name))? / 1e6);
        }
    }
    compare(report, &peers)
}

/// The peers, in the order of this round.
fn in_turn(peers: &mut [Peer], round: usize) -> Box<dyn Iterator<Item = &mut Peer> + '_> {
    if round.is_multiple_of(2) {
        Box::new(peers.iter_mut())
    } else {
        Box::new(peers.iter_mut().rev())
    }
}

fn compare(report: &mut Report, peers: &[Peer]) -> Result<()> {
    let find = |name: &str| peers.iter().find(|peer| peer.name == name);
    let egress = find("egress").context("find our own figures")?;
    if let Some(direct) = find("direct") {
        let (ours, theirs) = (&egress.bulk, &direct.bulk);
        report.ratio("egress_vs_direct_bulk", ours, theirs, "MB/s", Aim::AtLeast(0.5));
    }
    match find("squid") {
        Some(squid) => {
            let (ours, theirs) = (&egress.requests, &squid.requests);
            report.ratio("egress_vs_squid_rps", ours, theirs, "requests/s", Aim::AtLeast(1.5));
            let (ours, theirs) = (&egress.bulk, &squid.bulk);
            report.ratio("egress_vs_squid_bulk", ours, theirs, "MB/s", Aim::AtLeast(1.5));
        }
        None => report.skip(
            &["egress_vs_squid_rps", "egress_vs_squid_bulk"],
            "squid with OpenSSL is not installed (apt-get install squid-openssl)",
        ),
    }
    match find("mitmproxy") {
        Some(mitmproxy) => {
            let (ours, theirs) = (&egress.requests, &mitmproxy.requests);
            report.ratio("egress_vs_mitmproxy_rps", ours, theirs, "requests/s", Aim::AtLeast(20.0));
        }
        None => report.skip(
            &["egress_vs_mitmproxy_rps"],
            "mitmproxy is not installed, nor could it be (pip install mitmproxy)",
        ),
    }
    let pid = egress.process.as_ref().context("find egress")?.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        })
        .context("read the peak memory of egress")?;
    // The most it ever held, after all of the load.
    report.plain("egress_rss_mib", &[peak / 1024.0], "MiB at the peak", Aim::AtMost(20.0));
    Ok(())
}

/// Our own, with one rule, as a bottle has it.
fn egress(
    bench: &Bench,
    folder: &Path,
    ca: &Ca,
    port: u16,
    origin: u16,
) -> Result<Option<Running>> {
    let (conf, run) = (folder.join("egress-conf"), folder.join("egress-run"));
    fs::create_dir_all(&conf)?;
    fs::create_dir_all(&run)?;
    let routes = json!({
        "version": 1,
        "generation": 1,
        "plan": "sha256:0",
        "bottle": "bench",
        "names": {},
        "routes": [{
            "host": HOST,
            "kind": "single_label",
            "ports": [origin],
            "methods": ["GET"],
            "paths": ["/**"],
            "addresses": ["127.0.0.0/8"],
        }],
    });
    // Text without the mark at its end is taken for half a file.
    fs::write(conf.join("routes.yaml"), serde_json::to_string_pretty(&routes)? + "\n# end\n")?;
    fs::write(conf.join("roots.pem"), &ca.certificate)?;
    // Its certificates are signed by the same CA as the origin's, so that one client trusts all.
    fs::write(conf.join("ca.pem"), &ca.certificate)?;
    fs::write(conf.join("ca-key.pem"), &ca.key)?;
    fs::set_permissions(conf.join("ca-key.pem"), fs::Permissions::from_mode(0o600))?;
    fs::write(conf.join("mitmproxy-ca.pem"), ca.key.clone() + &ca.certificate)?;
    let mut command = Command::new(bench.bin("bottle-egress"));
    command.args(["serve", "--listen", &address(port).to_string()]);
    command.arg("--conf").arg(&conf).arg("--run").arg(&run);
    start(command, &folder.join("egress.log"), port).map(Some)
}

fn squid(folder: &Path, ca: &Ca, port: u16) -> Result<Option<Running>> {
    let helper = Path::new("/usr/lib/squid/security_file_certgen");
    let Some(squid) = program("squid").filter(|_| helper.is_file()) else { return Ok(None) };
    let dir = folder.join("squid");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("ca.pem"), ca.certificate.clone() + &ca.key)?;
    fs::write(dir.join("roots.pem"), &ca.certificate)?;
    let database = Command::new(helper)
        .args(["-c", "-s"])
        .arg(dir.join("certificates"))
        .args(["-M", "4MB"])
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(database.success(), "squid's certificate database could not be made");
    let dir = dir.display();
    let config = format!(
        "http_port 127.0.0.1:{port} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB tls-cert={dir}/ca.pem\n\
         sslcrtd_program {helper} -s {dir}/certificates -M 4MB\n\
         sslcrtd_children 2\n\
         acl step1 at_step SslBump1\n\
         ssl_bump peek step1\n\
         ssl_bump bump all\n\
         tls_outgoing_options cafile={dir}/roots.pem\n\
         acl origin dstdomain {HOST}\n\
         acl reading method GET CONNECT\n\
         http_access allow origin reading\n\
         http_access deny all\n\
         cache deny all\n\
         cache_mem 0\n\
         access_log none\n\
         cache_log {dir}/cache.log\n\
         pid_filename {dir}/squid.pid\n\
         coredump_dir {dir}\n\
         shutdown_lifetime 0 seconds\n\
         pinger_enable off\n",
        helper = helper.display()
    );
    fs::write(folder.join("squid.conf"), config)?;
    // As root squid becomes the user proxy, who has to get at its files.
    for path in [folder.to_owned(), folder.join("squid")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    if rustix::process::getuid().is_root() {
        let _ =
            Command::new("chown").args(["-R", "proxy:proxy"]).arg(folder.join("squid")).status()?;
    }
    let mut command = Command::new(squid);
    command.arg("-N").arg("-f").arg(folder.join("squid.conf"));
    start(command, &folder.join("squid.log"), port).map(Some)
}

/// mitmproxy with an addon that decides as a rule of ours does.
fn mitmproxy(bench: &Bench, folder: &Path, ca: &Ca, port: u16) -> Result<Option<Running>> {
    let Some(mitmdump) = mitmdump(bench) else { return Ok(None) };
    let dir = folder.join("mitmproxy");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("mitmproxy-ca.pem"), ca.key.clone() + &ca.certificate)?;
    fs::write(
        dir.join("rule.py"),
        format!(
            "from mitmproxy import http\n\n\n\
             def request(flow):\n    \
             r = flow.request\n    \
             if r.pretty_host != '{HOST}' or r.method != 'GET' or not r.path.startswith('/'):\n        \
             flow.response = http.Response.make(403)\n"
        ),
    )?;
    fs::write(dir.join("roots.pem"), &ca.certificate)?;
    let mut command = Command::new(mitmdump);
    command.args(["--quiet", "--listen-host", "127.0.0.1", "--listen-port", &port.to_string()]);
    command.arg("--set").arg(format!("confdir={}", dir.display()));
    command
        .arg("--set")
        .arg(format!("ssl_verify_upstream_trusted_ca={}", dir.join("roots.pem").display()));
    command.args(["--set", "stream_large_bodies=1m"]).arg("--scripts").arg(dir.join("rule.py"));
    start(command, &folder.join("mitmproxy.log"), port).map(Some)
}

/// mitmdump of `$BENCH_MITMDUMP`, of PATH, or of a virtual environment that is made once.
fn mitmdump(bench: &Bench) -> Option<std::path::PathBuf> {
    let given = std::env::var_os("BENCH_MITMDUMP").map(Into::into);
    if let Some(found) = given.or_else(|| program("mitmdump")) {
        return Some(found);
    }
    let venv = bench.out.join("mitmproxy");
    let found = venv.join("bin/mitmdump");
    if !found.is_file() {
        eprintln!("bench: installing mitmproxy into {}", venv.display());
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
        made.ok().filter(std::process::ExitStatus::success)?;
        let installed =
            Command::new(venv.join("bin/pip")).args(["install", "-q", "mitmproxy"]).status();
        installed.ok().filter(std::process::ExitStatus::success)?;
    }
    found.is_file().then_some(found)
}
