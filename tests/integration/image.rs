//! The images of the sidecars, and the probe in a container that is no bottle.

use std::time::{Duration, Instant};

use bottle::docker::image;
use bottle::verdict::{Finding, Got, Verdict};

use crate::common::{Scratch, Tool, root};
use crate::support::{docker, images};

#[test]
fn first_process_of_a_container_ends_when_it_is_asked_to() {
    if !images() {
        return;
    }
    let run = ["run", "--detach", "--label", "bottle.test=image", "--entrypoint", "sleep"];
    let container = docker(run.iter().chain(&[image("probe").as_str(), "infinity"])).ok();
    let container = container.trim();
    // A signal that comes before its handler is there is lost, as it is to any first process.
    let end = Instant::now() + Duration::from_mins(1);
    while docker(["inspect", "--format", "{{.State.Running}}", container]).stdout == "true\n" {
        assert!(Instant::now() < end, "it ignores the signal");
        let _ = docker(["kill", "--signal", "TERM", container]);
    }
    let code = docker(["inspect", "--format", "{{.State.ExitCode}}", container]).ok();
    docker(["rm", container]).ok();
    assert_eq!(code, "143\n");
}

#[test]
fn image_that_is_as_it_would_become_is_left_alone() {
    if !images() {
        return;
    }
    let script = root().join("scripts/images");
    let run = || Tool::new(&script).args(["--no-build"]).run().ok();
    let _ = run();
    let told = run();
    let made: Vec<&str> =
        told.lines().map(|line| line.strip_suffix(" is up to date").unwrap()).collect();
    for name in ["egress", "supervise", "probe"] {
        assert!(made.contains(&&*image(name)), "{told}");
    }
    // A container inherits the labels of its image, and must not look like part of a bottle.
    for name in made {
        let format = "{{range $name, $_ := .Config.Labels}}{{$name}} {{end}}";
        let labels = docker(["image", "inspect", "--format", format, name]).ok();
        assert_eq!(labels, "bottle.image \n", "{name}");
    }
}

/// A container of the probe's image that has no network at all; removed when it is dropped.
struct Alone(String);

impl Alone {
    fn start(args: &[&str]) -> Self {
        let run = ["run", "--detach", "--label", "bottle.test=image", "--network", "none"];
        let probe = image("probe");
        Self(docker(run.iter().chain(&[probe.as_str()]).chain(args)).ok().trim().to_owned())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = docker(["rm", "--force", &self.0]);
    }
}

#[test]
fn what_gets_through_opens_the_verdict() {
    if !images() {
        return;
    }
    let origin = Alone::start(&["origin", "--name", "127.0.0.1"]);
    let scratch = Scratch::new();
    let mut ca = String::new();
    while !ca.contains("END CERTIFICATE") {
        ca = docker(["logs", &origin.0]).ok();
    }
    let mount = format!("{}:/ca.pem:ro", scratch.file("ca.pem", ca).display());
    let network = format!("container:{}", origin.0);
    let probe = image("probe");
    let check = |form: &[&str]| {
        let fixed = ["run", "--rm", "--network", &network, "--volume", &mount, &probe, "check"];
        let all = ["--proxy", "none", "--ca", "/ca.pem", "--plan", "sha256:x"];
        let urls = ["--allowed", "https://127.0.0.1/", "--denied", "POST=https://127.0.0.1/"];
        let rest = ["--direct", "127.0.0.1:80", "--host", "127.0.0.1:9", "--dns", "example.test"];
        docker(fixed.iter().chain(&all).chain(&urls).chain(&rest).chain(form))
    };
    let run = check(&["--json"]);
    let verdict: Verdict = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.status, verdict.verdict), (1, Finding::Open), "{}", run.report());
    assert_eq!(verdict.plan.as_deref(), Some("sha256:x"));
    let found: Vec<_> =
        verdict.checks.iter().map(|check| (check.name.as_str(), check.got, check.ok)).collect();
    assert_eq!(
        found[..3],
        [
            ("allowed route", Got::Passed, true),
            ("denied route", Got::Passed, false),
            ("direct TCP", Got::Passed, false),
        ]
    );
    assert!(found.contains(&("host address", Got::Passed, false)), "a refusal was reached too");
    assert!(verdict.checks.iter().any(|check| check.name == "outside DNS" && check.ok));
    let table = check(&[]).stdout;
    assert!(table.lines().any(|line| line.starts_with("OPEN") && line.contains("denied route")));
    assert!(table.trim_end().lines().last().unwrap().starts_with("OPEN: "), "{table}");
}
