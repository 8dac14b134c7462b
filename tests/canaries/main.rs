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

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bottle::pins;

use crate::common::{Run, Tool, aloud};

/// How long an image may take until it is healthy.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn pipelock_starts_and_is_healthy() {
    if !wanted() {
        return;
    }
    let container = Container::start(pins::PIPELOCK, &[]);
    // Its binary is all that is in the image.
    let program = container.inspect("{{index .Config.Entrypoint 0}}");
    container.until("pipelock is healthy", || {
        docker(&["exec", &container.id, &program, "healthcheck"]).status == 0
    });
}

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
    fn start(image: &str, args: &[&str]) -> Self {
        Self::start_with(&[], image, args)
    }

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
