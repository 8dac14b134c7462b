//! Opt-in tests of what others release: `BOTTLE_RUN_CANARIES=1`. They pull the pinned images, start
//! them as they are, and ask for their health. `scripts/canaries` runs them in a scheduled job.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test spawns and fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bottle::pins;

use crate::common::{Run, Tool, aloud, sidecar};

/// How long an image may take until it is healthy.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn pipelock_takes_what_bottle_renders_and_is_healthy() {
    if !wanted() {
        return;
    }
    docker(&["pull", "--quiet", pins::PIPELOCK]).ok();
    for mode in ["balanced", "strict", "audit"] {
        let conf = rendered(mode);
        let folder = conf.path().join("state/demo/pipelock/conf");
        let mount = format!("{}:/etc/bottle:ro", folder.display());
        let owner = fs::metadata(&folder).unwrap();
        let user = format!("{}:{}", owner.uid(), owner.gid());
        // As in the compose file.
        let options = ["--user", &user, "--read-only", "--cap-drop", "ALL", "--volume", &mount];
        let file = "/etc/bottle/pipelock.yaml";
        let check = ["check", "--config", file];
        docker(&[&["run", "--rm"], &options[..], &[pins::PIPELOCK], &check].concat()).ok();
        let container = Container::start_with(&options, pins::PIPELOCK, &["run", "--config", file]);
        // As 'bottle-up' asks.
        let program = container.inspect("{{.Path}}");
        container.until("pipelock is healthy", || {
            docker(&["exec", &container.id, &program, "healthcheck"]).status == 0
        });
    }
}

#[test]
fn canary_renders_what_a_bottle_would() {
    let Some(stand_in) = sidecar("pipelock") else { return };
    for mode in ["balanced", "strict", "audit"] {
        let folder = rendered(mode);
        let conf = folder.path().join("state/demo/pipelock/conf/pipelock.yaml");
        Tool::new(&stand_in).args(["check", "--config", conf.to_str().unwrap()]).run().ok();
    }
}

/// A state folder with what is rendered for pipelock in `mode`, its CA included. The networks and
/// the images of a bottle are not needed for it, so a fake engine says that all is there.
fn rendered(mode: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = serde_json::json!({
        "version": 1,
        "bottles": { "dev": {
            "image": "debian:12",
            "selftest": "off",
            "pipelock": { "mode": mode },
            "egress": { "routes": [
                { "host": "api.anthropic.com" },
                { "host": "*.example.org" },
                { "host": "git.corp.example", "addresses": ["10.1.0.0/16", "100.64.0.0/10"] },
                { "host": "192.168.7.1", "ports": [80] },
            ] },
        } },
        "agents": { "demo": { "bottle": "dev" } },
    });
    fs::write(folder.path().join("bottle.yaml"), manifest.to_string()).unwrap();
    let docker = folder.path().join("bin/docker");
    fs::create_dir(docker.parent().unwrap()).unwrap();
    fs::write(&docker, FAKE).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let beside = Path::new(env!("CARGO_BIN_EXE_bottle-plan")).parent().unwrap().to_owned();
    let path = [docker.parent().unwrap().to_owned(), beside, "/usr/bin".into(), "/bin".into()];
    let pipeline = "bottle-plan demo | bottle-net | bottle-render";
    let run = Tool::new(Path::new("/bin/sh"))
        .args(["-c", pipeline])
        .dir(folder.path())
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("BOTTLE_STATE", folder.path().join("state"))
        .run();
    run.ok();
    folder
}

/// Answers the calls of 'bottle-net' and 'bottle-render'.
const FAKE: &str = r#"#!/bin/sh
case "$1 $2" in
    'network create') echo 0123456789ab ;;
    'info '*) echo '{"version":"20.10.24","security":[]}' ;;
    'image inspect') shift 4; for image; do echo sha256:00; done ;;
    'create '*) echo 0123456789ab ;;
    'cp '*) tar -cf - -C /etc passwd ;;
esac
"#;

#[test]
fn mitmproxy_starts_and_answers() {
    if !wanted() {
        return;
    }
    let arguments = ["--set", "connection_strategy=lazy", "--listen-port", "8080"];
    let container =
        Container::start_with(&["--entrypoint", "mitmdump"], pins::MITMPROXY, &arguments);
    let address = container.inspect("{{.NetworkSettings.IPAddress}}");
    // A name that mitmproxy answers itself, so that no network is needed.
    container.until("mitmproxy answers", || {
        ask(&format!("{address}:8080")).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
}

/// Whether canaries were asked for; where not, says so aloud.
fn wanted() -> bool {
    let asked = std::env::var_os("BOTTLE_RUN_CANARIES").is_some_and(|value| value == "1");
    if !asked {
        // Opt-in: no setting makes this skip a failure.
        aloud("skipped: canaries run with BOTTLE_RUN_CANARIES=1");
    }
    asked
}

fn docker(args: &[&str]) -> Run {
    Tool::new(Path::new("docker")).args(args).run()
}

fn ask(proxy: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream
        .write_all(b"GET http://mitm.it/ HTTP/1.1\r\nHost: mitm.it\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A container that is removed with this.
struct Container {
    id: String,
}

impl Container {
    fn start_with(options: &[&str], image: &str, args: &[&str]) -> Self {
        docker(&["pull", "--quiet", image]).ok();
        let all = [&["run", "--detach"], options, &[image], args].concat();
        Self { id: docker(&all).ok().trim().to_owned() }
    }

    fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.id]).ok().trim().to_owned()
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(
                Instant::now() < end,
                "not so: {what}\n{}",
                docker(&["logs", &self.id]).report()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", "--volumes", &self.id]);
    }
}
