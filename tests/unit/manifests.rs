//! Bad manifests: each gives one clear line, exit code 2, and nothing on stdout. Good ones are the
//! transcripts of `tests/cmd/bottle-plan/`.

mod bad;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::common::manifest::Manifest;
use crate::common::{Scratch, root};
use serde_json::json;

use bad::{BAD, WHOLE};

/// A world in which a manifest can go wrong.
fn world() -> (Scratch, UnixListener) {
    let scratch = Scratch::new();
    scratch.file("data/file", "");
    scratch.file("repo/.git/HEAD", "ref: refs/heads/main\n");
    scratch.file("repo/get", "");
    fs::create_dir(scratch.work().join("engine")).unwrap();
    fs::create_dir(scratch.state()).unwrap();
    std::os::unix::fs::symlink("..", scratch.work().join("link")).unwrap();
    std::os::unix::fs::symlink("../data", scratch.work().join("repo/link")).unwrap();
    let socket = UnixListener::bind(scratch.work().join("socket")).unwrap();
    fs::write(scratch.work().join("engine/docker.sock"), "").unwrap();
    (scratch, socket)
}

/// What the tool says of one manifest; all of it but the name of the tool.
fn said(scratch: &Scratch, text: &str) -> Result<String, String> {
    scratch.file("bottle.yaml", text);
    let host = format!("unix://{}/engine/docker.sock", scratch.work().display());
    let run = scratch.tool("bottle-plan").args(["x"]).env("DOCKER_HOST", &host).run();
    if run.status == 0 {
        return Ok(run.stdout);
    }
    assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{text}\n{}", run.stderr);
    let line = run.stderr.strip_prefix("bottle-plan: ").and_then(|line| line.strip_suffix('\n'));
    Err(line.filter(|line| !line.contains('\n')).unwrap_or(&run.stderr).to_owned())
}

#[test]
fn bad_manifests_are_refused_in_one_clear_line() {
    let (scratch, _socket) = world();
    let work = scratch.work().canonicalize().unwrap();
    let fill = |text: &str| {
        text.replace("HERE", work.to_str().unwrap())
            .replace("STATE", scratch.state().to_str().unwrap())
            .replace("ENGINE", work.join("engine/docker.sock").to_str().unwrap())
            .replace("UP", work.parent().unwrap().to_str().unwrap())
    };
    let mut wrong = String::new();
    let mut hold = |fact: &str, text: &str, expected: &str| {
        let told = said(&scratch, &fill(text)).map_err(|line| pidless(&line));
        if told != Err(fill(expected)) {
            let _ = writeln!(wrong, "{fact}:\n  expected: {}\n  said: {told:?}", fill(expected));
        }
    };
    for (fact, bottle, agent, expected) in BAD {
        let text = format!(
            "version: 1\nbottles:\n  dev:\n    image: y\n    {bottle}\nagents:\n  x:\n    {agent}\n    bottle: dev\n"
        );
        hold(fact, &text.replace("    \n", ""), expected);
    }
    for (fact, text, expected) in WHOLE {
        hold(fact, text, expected);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The process that looked at `/proc/self` is another one each time.
fn pidless(line: &str) -> String {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
    match line.split_once("/proc/") {
        Some((before, after)) if digits(after) > 0 => {
            format!("{before}/proc/PID{}", &after[digits(after)..])
        }
        _ => line.to_owned(),
    }
}

#[test]
fn same_world_takes_a_good_manifest() {
    let (scratch, _socket) = world();
    let good = Manifest::new()
        .set("agents.x", json!({"bottle": "dev"}))
        .set("bottles.dev.workspace", "./repo")
        .set("bottles.dev.mounts", json!([{"source": "./data", "target": "/data"}]))
        .route(json!({"host": "a.example"}));
    let plan = said(&scratch, &good.text()).unwrap();
    assert!(plan.contains(r#""allow":["* https://a.example:443/**"]"#), "{plan}");
}

#[test]
fn example_of_the_page_resolves_for_each_agent() {
    let scratch = Scratch::new();
    let home = scratch.path().join("home");
    for folder in ["src/shop/.git", "notes"] {
        fs::create_dir_all(home.join(folder)).unwrap();
    }
    let example = root().join("man/examples/bottle.yaml");
    for agent in ["implementer", "reviewer"] {
        scratch.tool("bottle-plan").args(["-f", example.to_str().unwrap(), agent]).run().ok();
    }
}

#[test]
fn manifest_that_others_put_above_is_not_picked_up() {
    let scratch = Scratch::new();
    let path = scratch.file("bottle.yaml", Manifest::new().text());
    let below = scratch.work().join("below");
    fs::create_dir(&below).unwrap();
    let found = || scratch.tool("bottle-plan").args(["implementer"]).dir(&below).run();
    found().ok();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    found().fails(2, "bottle-plan: find the manifest: '[..]/bottle.yaml' is there, and everybody can write it: if it is meant, name it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        found().fails(2, "bottle-plan: find the manifest: '[..]/bottle.yaml' is there, and it belongs to uid 12345: if it is meant, name it");
    }
    scratch.tool("bottle-plan").args(["-f", "bottle.yaml", "implementer"]).run().ok();
}

/// What is said of each bad manifest.
pub(crate) fn refused() -> impl Iterator<Item = &'static str> {
    BAD.iter().map(|row| row.3).chain(WHOLE.iter().map(|row| row.2))
}
