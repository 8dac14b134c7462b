//! The probe and its origin as programs, over loopback.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Run, Scratch, sidecar};

/// A running origin; ended when it is dropped.
struct Origin {
    child: Child,
    https: String,
    http: String,
    scratch: Scratch,
}

impl Origin {
    fn start() -> Option<Self> {
        let mut child = Command::new(sidecar("bottle-probe")?)
            .args(["origin", "--https", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--name", "127.0.0.1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its word that it serves ends with the certificate.
        let mut said = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        while !said.contains("END CERTIFICATE") {
            assert_ne!(stdout.read_line(&mut said).unwrap(), 0, "the origin ended");
        }
        let address = |scheme: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(scheme)).unwrap();
            format!("{}://{}", scheme.trim(), line)
        };
        let (https, http) = (address("https "), address("http "));
        let scratch = Scratch::new();
        scratch.file("ca.pem", &said);
        Some(Self { child, https, http, scratch })
    }

    /// Runs the probe, straight, trusting this origin.
    fn probe(&self, args: &[&str]) -> Run {
        let fixed = ["--proxy", "none", "--ca", "ca.pem"];
        self.scratch.tool("bottle-probe").args(args).args(fixed).run()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn origin_tells_what_it_was_asked() {
    let Some(origin) = Origin::start() else { return };
    for (base, scheme) in [(&origin.https, "https"), (&origin.http, "http")] {
        let url = format!("{base}/echo?a=b");
        let told: Value = origin.probe(&["get", "-X", "PUT", "-d", "text", &url]).json();
        assert_eq!(told["method"], "PUT");
        assert_eq!(told["path"], "/echo?a=b");
        assert_eq!(told["body"], "text");
        assert_eq!(told["scheme"], scheme);
    }
    let events = origin.probe(&["get", &format!("{}/sse/3/1", origin.https)]).ok();
    assert_eq!(events, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    let bytes = origin.probe(&["get", &format!("{}/bytes/1000", origin.http)]).ok();
    assert_eq!(bytes.chars().count(), 1000);
    let missing = format!("{}/none", origin.https);
    let run = origin.probe(&["get", &missing]);
    assert_eq!(run.stderr, format!("bottle-probe: GET '{missing}': status 404\n"));
    assert_eq!(run.status, 1);
}

#[test]
fn stranger_with_another_certificate_is_not_believed() {
    let (Some(origin), Some(stranger)) = (Origin::start(), Origin::start()) else { return };
    let run = origin.probe(&["get", &format!("{}/", stranger.https)]);
    assert_eq!(run.status, 3, "{}", run.report());
    assert!(run.stderr.contains("invalid peer certificate"), "{}", run.report());
}

#[test]
fn sleep_ends_at_once_on_a_signal() {
    let Some(probe) = sidecar("bottle-probe") else { return };
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut child = Command::new(&probe)
            .arg0("sleep")
            .arg("infinity")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It handles the signal from the moment on that /proc says so.
        let status = format!("/proc/{}/status", child.id());
        while !catches(&status, signal) {
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

/// Whether a process has a handler for a signal.
fn catches(status: &str, signal: Signal) -> bool {
    let mut text = String::new();
    std::fs::File::open(status).unwrap().read_to_string(&mut text).unwrap();
    let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (signal.as_raw() - 1)) != 0
}
