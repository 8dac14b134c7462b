//! The proxies that are compared, each with the same rule and the same CA.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;
use serde_json::{Value, json};

use crate::Bench;
use crate::origin::{Ca, HOST, Running, address, program, start};

/// Our own, with the rule for the origin and as many others as make `rules`.
pub(crate) fn egress(
    bench: &Bench,
    folder: &Path,
    ca: &Ca,
    port: u16,
    origin: u16,
    rules: usize,
) -> Result<Running> {
    let folder = folder.join(format!("egress-{port}"));
    let (conf, run) = (folder.join("conf"), folder.join("run"));
    fs::create_dir_all(&conf)?;
    fs::create_dir_all(&run)?;
    let mut all: Vec<Value> = (1..rules).map(other).collect();
    all.insert(
        all.len() / 2,
        json!({
            "host": HOST,
            "kind": "single_label",
            "ports": [origin],
            "methods": ["GET"],
            "paths": ["/**"],
            "addresses": ["127.0.0.0/8"],
        }),
    );
    let routes = json!({
        "version": 1,
        "generation": 1,
        "plan": "sha256:0",
        "bottle": "bench",
        "names": {"agent": "127.0.0.1"},
        "routes": all,
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
    start(command, &folder.join("egress.log"), port)
}

/// A rule for another host: names, and every third a wildcard.
fn other(n: usize) -> Value {
    let name = format!("h{n}.bench.example");
    let (host, kind) =
        if n.is_multiple_of(3) { (format!("*.{name}"), "wildcard") } else { (name, "name") };
    json!({ "host": host, "kind": kind, "ports": [443], "paths": ["/v1/**"] })
}

/// squid with the same rule, splicing nothing.
pub(crate) fn squid(folder: &Path, ca: &Ca, port: u16) -> Result<Option<Running>> {
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
pub(crate) fn mitmproxy(
    bench: &Bench,
    folder: &Path,
    ca: &Ca,
    port: u16,
) -> Result<Option<Running>> {
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
