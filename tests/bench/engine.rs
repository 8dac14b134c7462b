//! A whole start and stop against the same compose file driven by hand, as a script would that knows
//! nothing of readiness, leases or records: two `network create`, `compose up -d`; `compose logs`,
//! `compose down`, two `network rm`. With egress alone, and with the git gate, the ssh agent and
//! supervise. And what the self-test takes, which is not part of a start here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Bench;
use crate::pipeline::run;
use crate::report::{Aim, Report};

const AGENT: &str = "implementer";

/// Measures `start_vs_raw`, `stop_vs_raw`, the same with every sidecar, and `selftest_ms`.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let all = ["selftest_ms", "start_vs_raw", "stop_vs_raw", "start_all_vs_raw", "stop_all_vs_raw"];
    if let Err(why) = docker(&["version", "--format", "{{.Server.Version}}"]) {
        report.skip(&all, &format!("no engine: {why:#}"));
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let bare = json!({});
    compare(bench, report, ["start_vs_raw", "stop_vs_raw"], &folder.path().join("bare"), &bare)?;
    let names = ["start_all_vs_raw", "stop_all_vs_raw"];
    let tag = std::env::var("BOTTLE_IMAGE_TAG");
    let tag = tag.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
    let missing = ["git-gate", "ssh-agent", "supervise"]
        .map(|name| format!("bottle-{name}:{tag}"))
        .into_iter()
        .find(|image| docker(&["image", "inspect", image]).is_err());
    if let Some(image) = missing {
        report.skip(&names, &format!("no image '{image}'"));
    } else {
        let place = folder.path().join("all");
        compare(bench, report, names, &place, &sidecars(&place)?)?;
    }
    let tested = Side::new(bench, &folder.path().join("tested"), "enforce", &bare)?;
    let mut selftest = Vec::new();
    for _ in 0..bench.rounds(5) {
        let document = tested.start()?;
        let took = document.pointer("/up/selftest_ms").and_then(Value::as_f64);
        selftest.push(took.context("read 'up.selftest_ms'")?);
        tested.stop()?;
    }
    report.plain("selftest_ms", &selftest, "ms", Aim::AtMost(300.0));
    Ok(())
}

/// Starts and stops a bottle and the same by hand, in turns.
fn compare(
    bench: &Bench,
    report: &mut Report,
    [start_name, stop_name]: [&'static str; 2],
    folder: &Path,
    more: &Value,
) -> Result<()> {
    let quiet = Side::new(bench, &folder.join("quiet"), "off", more)?;
    let raw = Raw::new(Side::new(bench, &folder.join("raw"), "off", more)?)?;
    let [mut start, mut stop, mut raw_start, mut raw_stop] = [const { Vec::new() }; 4];
    for round in 0..bench.rounds(9) {
        let mut ours = || -> Result<()> {
            start.push(timed(|| quiet.start())?.0);
            stop.push(timed(|| quiet.stop())?.0);
            Ok(())
        };
        let mut by_hand = || -> Result<()> {
            raw_start.push(timed(|| raw.start())?.0);
            raw_stop.push(timed(|| raw.stop())?.0);
            Ok(())
        };
        if round.is_multiple_of(2) {
            ours()?;
            by_hand()?;
        } else {
            by_hand()?;
            ours()?;
        }
    }
    report.ratio(start_name, &start, &raw_start, "ms", Aim::AtMost(1.05));
    report.ratio(stop_name, &stop, &raw_stop, "ms", Aim::AtMost(1.05));
    Ok(())
}

/// What asks for the git gate, the ssh agent and supervise. Nothing is reached by it.
fn sidecars(folder: &Path) -> Result<Value> {
    std::fs::create_dir_all(folder)?;
    let (key, known) = (folder.join("key"), folder.join("known_hosts"));
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .stdin(Stdio::null())
        .status()
        .context("run 'ssh-keygen'")?;
    ensure!(made.success(), "ssh-keygen ended with {made}");
    let public = std::fs::read_to_string(key.with_extension("pub"))?;
    let host_key = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
    std::fs::write(&known, format!("192.0.2.1 {host_key}\n"))?;
    Ok(json!({
        "supervise": {},
        "ssh": { "build": { "address": "192.0.2.1", "key": key, "host_key": host_key } },
        "git": {
            "origin": { "url": "ssh://git@192.0.2.1/a/b.git", "key": key, "known_hosts": known },
        },
    }))
}

/// Milliseconds that something took, and what it gave.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let begin = Instant::now();
    let done = work()?;
    Ok((begin.elapsed().as_secs_f64() * 1e3, done))
}

/// A bottle, driven by the tools.
struct Side<'a> {
    bench: &'a Bench,
    folder: PathBuf,
    subnets: String,
}

impl<'a> Side<'a> {
    fn new(bench: &'a Bench, folder: &Path, selftest: &str, more: &Value) -> Result<Self> {
        let folder = folder.to_owned();
        std::fs::create_dir_all(&folder)?;
        let tag = std::env::var("BOTTLE_IMAGE_TAG");
        let image = format!("bottle-probe:{}", tag.as_deref().unwrap_or(env!("CARGO_PKG_VERSION")));
        let mut bottle = json!({ "image": image, "selftest": selftest });
        if let (Some(bottle), Some(more)) = (bottle.as_object_mut(), more.as_object()) {
            bottle.extend(more.clone());
        }
        let manifest = json!({
            "version": 1,
            "bottles": { "dev": bottle },
            "agents": { AGENT: { "bottle": "dev" } },
        });
        std::fs::write(folder.join("bottle.yaml"), serde_json::to_string_pretty(&manifest)?)?;
        let subnets = std::env::var("BOTTLE_TEST_SUBNETS").unwrap_or("10.199.0.0/16".to_owned());
        Ok(Self { bench, folder, subnets })
    }

    fn tool(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.bench.bin(name));
        command.args(args).current_dir(&self.folder);
        command.env("BOTTLE_STATE", self.folder.join("state")).env("BOTTLE_SUBNETS", &self.subnets);
        command
    }

    fn pipeline(&self, last: &[&str]) -> Result<Value> {
        let mut stages = vec![self.tool("bottle-plan", &[AGENT])];
        stages.extend(last.iter().map(|name| self.tool(name, &[])));
        let (_, text) = run(stages)?;
        serde_json::from_str(&text).context("read the document")
    }

    fn start(&self) -> Result<Value> {
        self.pipeline(&["bottle-net", "bottle-render", "bottle-up"])
    }

    fn stop(&self) -> Result<()> {
        run(vec![self.tool("bottle-reap", &[AGENT])]).map(drop)
    }
}

impl Drop for Side<'_> {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// The same by hand.
struct Raw<'a> {
    side: Side<'a>,
    project: String,
    file: String,
    /// The arguments of each `docker network create`.
    networks: Vec<Vec<String>>,
    /// `docker compose`, or the one that the tools are told to use.
    compose: Vec<String>,
}

impl<'a> Raw<'a> {
    /// Renders a bottle and takes its networks away again, once their options have been read.
    fn new(side: Side<'a>) -> Result<Self> {
        let document = side.pipeline(&["bottle-net", "bottle-render"])?;
        let text = |pointer: &str| -> Result<String> {
            let value = document.pointer(pointer).and_then(Value::as_str);
            Ok(value.with_context(|| format!("read '{pointer}' of the document"))?.to_owned())
        };
        let mut networks = Vec::new();
        for name in [text("/net/internal/name")?, text("/net/bridge/name")?] {
            networks.push(create(&name)?);
            docker(&["network", "rm", &name])?;
        }
        let compose = match std::env::var("BOTTLE_COMPOSE") {
            Ok(program) if !program.is_empty() => vec![program],
            _ => vec!["docker".to_owned(), "compose".to_owned()],
        };
        let (project, file) = (text("/render/compose_project")?, text("/render/compose_file")?);
        Ok(Self { side, project, file, networks, compose })
    }

    fn compose(&self, args: &[&str], stdout: Stdio) -> Result<()> {
        let status = Command::new(&self.compose[0])
            .args(&self.compose[1..])
            .args(["-p", &self.project, "-f", &self.file])
            .args(args)
            .stdout(stdout)
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "compose {args:?} ended with {status}");
        Ok(())
    }

    fn start(&self) -> Result<()> {
        for network in &self.networks {
            docker(&network.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        self.compose(&["up", "-d"], Stdio::null())
    }

    fn stop(&self) -> Result<()> {
        let log = File::create(self.side.folder.join("compose.log"))?;
        self.compose(&["logs", "--no-color", "--timestamps"], log.into())?;
        self.compose(&["down"], Stdio::null())?;
        for network in &self.networks {
            docker(&["network", "rm", network.last().context("find its name")?])?;
        }
        Ok(())
    }
}

/// The arguments that make a network like one that is there.
fn create(name: &str) -> Result<Vec<String>> {
    let found: Value = serde_json::from_str(&docker(&["network", "inspect", name])?)?;
    let network = &found[0];
    let mut args = vec!["network".to_owned(), "create".to_owned()];
    let mut add = |flag: &str, value: &str| args.extend([flag.to_owned(), value.to_owned()]);
    let range = &network["IPAM"]["Config"][0];
    for (flag, value) in [("--subnet", &range["Subnet"]), ("--gateway", &range["Gateway"])] {
        if let Some(value) = value.as_str() {
            add(flag, value);
        }
    }
    for (flag, members) in [("-o", &network["Options"]), ("--label", &network["Labels"])] {
        for (key, value) in members.as_object().into_iter().flatten() {
            add(flag, &format!("{key}={}", value.as_str().unwrap_or_default()));
        }
    }
    if network["Internal"] == true {
        args.push("--internal".to_owned());
    }
    args.push(name.to_owned());
    Ok(args)
}

fn docker(args: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(args).stdin(Stdio::null()).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {}: {}", args.join(" "), told.trim());
    Ok(String::from_utf8(output.stdout)?)
}
