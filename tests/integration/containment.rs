//! The claim of the whole: from inside a bottle nothing is within reach but what its plan allows.
//! Each attempt has a control, the same act outside the bottle, that succeeds; only that for where
//! clouds keep credentials has none, because it would really go there.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs};

use bottle::docker::image;
use bottle::verdict::{Check, Expect, Finding, Got, Verdict};
use rustix::process::geteuid;
use serde_json::{Value, json};

use crate::common::manifest::Manifest;
use crate::common::{Run, SIDECARS, TOOLS, Tool, bin, skip};
use crate::origin::{BODY, Origin, SITE};
use crate::support::{Bottle, docker, images, mitmproxy};

/// A user that is on no machine, and not root.
const UID: u32 = 48_213;

/// Who runs the tools.
enum Caller {
    /// Whoever runs the tests.
    Tester,
    /// An ordinary user of the engine's group, with copies of the tools that it can read.
    Ordinary { group: u32, bin: PathBuf },
}

impl Caller {
    /// An ordinary user; `None`, aloud, where none can be had.
    fn ordinary(bottle: &Bottle) -> Option<Self> {
        if !geteuid().is_root() {
            skip("only root can become another user; the tests as they run are of one already");
            return None;
        }
        let Ok(socket) = fs::metadata("/var/run/docker.sock") else {
            skip("the engine has no socket that a group could use");
            return None;
        };
        let folder = bottle.work().join("bin");
        fs::create_dir(&folder).unwrap();
        for tool in TOOLS.iter().chain(&SIDECARS) {
            fs::copy(bin(tool), folder.join(tool)).unwrap();
        }
        // A plugin below root's home is out of the user's reach.
        let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
        let plugin = home.join(".docker/cli-plugins/docker-compose");
        if plugin.is_file() {
            fs::copy(plugin, folder.join("docker-compose")).unwrap();
        }
        for folder in [bottle.work().parent().unwrap().to_owned(), bottle.work(), folder.clone()] {
            chown(&folder, Some(UID), Some(UID)).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
        Some(Self::Ordinary { group: socket.gid(), bin: folder })
    }

    /// Shell text, ready to be run for the bottle.
    fn sh(&self, bottle: &Bottle, text: &str) -> Tool {
        let Self::Ordinary { group, bin } = self else { return bottle.sh(text) };
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
        let mut tool = Tool::new(Path::new("setpriv"))
            .bare()
            .envs(bottle.env())
            .env("PATH", path)
            .env("HOME", bottle.work())
            .dir(&bottle.work())
            .args([format!("--reuid={UID}"), format!("--regid={UID}"), format!("--groups={group}")])
            .args(["--inh-caps=-all", "--bounding-set=-all", "sh", "-c", text]);
        let compose = bin.join("docker-compose");
        if env::var_os("BOTTLE_COMPOSE").is_none() && compose.is_file() {
            tool = tool.env("BOTTLE_COMPOSE", compose);
        }
        tool
    }
}

/// Services of the host on every address it has, which note who came.
struct Host {
    port: u16,
    visitors: Arc<Mutex<Vec<IpAddr>>>,
}

impl Host {
    fn start() -> Self {
        // Of both families where the host has both.
        let listener =
            TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let visitors = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&visitors);
        std::thread::spawn(move || {
            while let Ok((_, from)) = listener.accept() {
                seen.lock().unwrap().push(from.ip().to_canonical());
            }
        });
        Self { port, visitors }
    }

    /// Whether somebody came from these networks.
    fn was_visited_from(&self, networks: &[ipnet::Ipv4Net]) -> bool {
        let seen = self.visitors.lock().unwrap();
        seen.iter().any(|from| match from {
            IpAddr::V4(from) => networks.iter().any(|network| network.contains(from)),
            // Link-local: from any link, and only a bottle would come that way.
            IpAddr::V6(_) => false,
        })
    }
}

/// Link-local addresses of the host on the networks of a bottle, each with the number of its link.
fn link_locals(document: &Value) -> Vec<(Ipv6Addr, u32)> {
    let links: Vec<String> = ["internal", "bridge"]
        .iter()
        .map(|network| {
            let name = document["net"][network]["name"].as_str().unwrap();
            let id = docker(["network", "inspect", "--format", "{{.Id}}", name]).ok();
            format!("br-{}", &id[..12])
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        // Address, link, prefix length, scope, flags, name; hexadecimal.
        let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let mut is_settled = true;
        let mut found = Vec::new();
        for line in table.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| u128::from_str_radix(fields[at], 16).unwrap();
            let address = Ipv6Addr::from(number(0));
            if links.iter().any(|name| name == fields[5]) && address.is_unicast_link_local() {
                // Nobody can use an address that the kernel still tries for duplicates.
                is_settled &= number(4) & 0x40 == 0;
                found.push((address, u32::try_from(number(1)).unwrap()));
            }
        }
        if is_settled {
            return found;
        }
        assert!(Instant::now() < end, "the host's link-local addresses stay tentative");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn verdict(run: &Run) -> Verdict {
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}\n{}", run.report()))
}

fn manifest(pool: &str, engine: &str) -> Manifest {
    let route = json!({ "methods": ["GET"], "paths": ["/", "/echo"] });
    Manifest::new()
        .image(&image("probe"))
        .route(Origin::route(pool, &route))
        .set("bottles.dev.egress.ca_certificates", json!(["origin.pem"]))
        .set("bottles.dev.egress.engine", engine)
}

/// Starts a bottle as `caller`, tries everything, and reaps it.
fn holds(bottle: &Bottle, caller: &Caller, engine: &str) {
    let origin = Origin::start();
    let ca = bottle.file("origin.pem", &origin.ca);
    let manifest = bottle.file("bottle.yaml", manifest(bottle.pool(), engine).text());
    for file in [ca, manifest] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let sh = |text: &str| caller.sh(bottle, text);
    let chosen = sh("bottle-plan implementer | bottle-net").run().ok();
    let document: Value = serde_json::from_str(&chosen).unwrap();
    let reaped = Reaped { bottle, caller, project: document["net"]["project"].clone() };
    let beside = origin.join(&document);
    let document = sh("bottle-render | bottle-up").stdin(&chosen).run().json();
    assert_eq!(document["up"]["selftest"]["verdict"], "closed", "{document:#}");

    let agent = sh("bottle-ps -q implementer").run().ok();
    let inside = |args: &[&str]| docker(["exec", agent.trim(), "bottle-probe"].iter().chain(args));
    let site = format!("https://{SITE}/");

    // What is allowed arrives, whole.
    let run = inside(&["get", &site]);
    assert_eq!((run.status, run.stdout.as_str()), (0, BODY), "{}", run.report());

    // What is not is refused with its reason.
    for (method, url, reason) in [
        ("GET", "https://other.example.test/".to_owned(), "host"),
        ("GET", format!("{site}secret"), "path"),
        ("POST", site.clone(), "method"),
        ("GET", format!("http://{SITE}/"), "port"),
    ] {
        let run = inside(&["get", "-X", method, &url]);
        let line = format!(
            "bottle-probe: {method} '{url}': status 403: denied by bottle-egress: [..]{reason}[..]"
        );
        let report = run.report();
        assert!(crate::common::matches(&line, run.stderr.trim_end()), "expected {line}\n{report}");
        assert_eq!(run.status, 1, "{report}");
        assert!(run.stdout.contains("bottle-egress"), "{report}");
        assert!(!run.stdout.contains(BODY), "{report}");
    }

    // Everything else is out of reach.
    let host = Host::start();
    let mut services: Vec<String> = document["net"]["host_addresses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|address| address.as_str().unwrap().parse::<IpAddr>().unwrap())
        .filter(IpAddr::is_ipv4)
        .map(|address| format!("{address}:{}", host.port))
        .collect();
    let gateway = document["net"]["bridge"]["gateway"].as_str().unwrap();
    services.push(format!("{gateway}:{}", host.port));
    let direct = format!("{beside}:443");
    let mut attempts = vec!["check", "--json", "--dns", SITE, "--direct", &direct];
    for service in &services {
        attempts.extend(["--host", service]);
    }
    let denied = [format!("{site}secret"), format!("POST={site}")];
    for url in &denied {
        attempts.extend(["--denied", url]);
    }
    let links = link_locals(&document);
    let six: Vec<String> =
        links.iter().map(|(address, _)| format!("[{address}]:{}", host.port)).collect();
    let mut here = attempts.clone();
    // Where clouds keep credentials; tried here alone, because the control would really go there.
    here.extend(["--direct", "169.254.169.254:80"]);
    for service in &six {
        here.extend(["--host", service]);
    }
    let found = verdict(&inside(&here));
    assert_eq!(found.failures().collect::<Vec<_>>(), Vec::<&_>::new());
    assert_eq!(found.verdict, Finding::Closed);
    let networks = ["internal", "bridge"]
        .map(|network| document["net"][network]["subnet"].as_str().unwrap().parse().unwrap());
    assert!(!host.was_visited_from(&networks));

    // The control: from an ordinary container every one of these acts succeeds.
    let bridge = document["net"]["bridge"]["name"].as_str().unwrap();
    let mut there = attempts;
    there.extend(["--proxy", "none", "--ca", "/ca.pem"]);
    let found = verdict(&origin.outside(bridge, &there));
    assert_eq!(found.verdict, Finding::Open);
    for check in &found.checks {
        let is_ours = ["denied route", "direct TCP", "outside DNS", "host address"]
            .contains(&check.name.as_str());
        if is_ours && check.expect != Expect::Passed && !is_lost(check) {
            assert_eq!(check.got, Got::Passed, "the control does not reach it: {check:?}");
        }
    }
    assert!(host.was_visited_from(&networks), "the control did not come to the host");

    // Of IPv6, from the host itself: ordinary containers have none either.
    for (address, link) in links {
        TcpStream::connect(SocketAddrV6::new(address, host.port, 0, link)).unwrap();
    }
    drop(origin);
    drop(reaped);
}

/// Whether the host has lost an address since the bottle was made, as that of another test's network:
/// nobody can reach it then, from anywhere.
fn is_lost(check: &Check) -> bool {
    let Ok(address) = check.target.parse::<SocketAddr>() else { return false };
    let bound = TcpListener::bind((address.ip(), 0));
    check.name == "host address"
        && bound.is_err_and(|e| e.kind() == std::io::ErrorKind::AddrNotAvailable)
}

/// Takes the bottle down as its caller, however the test ends, and sees that nothing is left.
struct Reaped<'a> {
    bottle: &'a Bottle,
    caller: &'a Caller,
    project: Value,
}

impl Drop for Reaped<'_> {
    fn drop(&mut self) {
        let run = self.caller.sh(self.bottle, "bottle-reap implementer").run();
        if std::thread::panicking() {
            // Another user's state folder is none that the bottle of the test could look into.
            let _ = fs::remove_dir_all(self.bottle.state());
            return;
        }
        assert_eq!(run.status, 0, "{}", run.report());
        let label = format!("label=bottle.project={}", self.project.as_str().unwrap());
        for listing in [["ps", "--all"], ["network", "ls"]] {
            let select = ["--format", "{{.ID}}", "--filter", &label];
            assert_eq!(docker(listing.iter().chain(&select)).ok(), "");
        }
    }
}

#[test]
fn nothing_is_within_reach_but_what_the_plan_allows() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    holds(&bottle, &Caller::Tester, "embedded");
    bottle.is_gone();
}

#[test]
fn nothing_is_within_reach_with_mitmproxy_as_the_engine() {
    if !images() || !mitmproxy() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    holds(&bottle, &Caller::Tester, "mitmproxy");
    bottle.is_gone();
}

#[test]
fn nothing_is_within_reach_when_an_ordinary_user_started_it() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let Some(caller) = Caller::ordinary(&bottle) else { return };
    holds(&bottle, &caller, "embedded");
    fs::remove_dir_all(bottle.state()).unwrap();
}
