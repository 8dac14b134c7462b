//! The examples of `man/examples/`, each run as its head says.

use std::fs;

use bottle::docker::image;
use rustix::process::geteuid;
use serde_json::{Value, json};

use crate::common::manifest::Manifest;
use crate::common::{Tool, root};
use crate::supervise;
use crate::support::{Bottle, engine, images};

/// A bottle's folder with a copy of an example in it, and the examples on PATH.
fn with_example(bottle: &Bottle, name: &str) {
    let source = root().join("man/examples").join(name);
    bottle.file(name, fs::read(&source).unwrap());
    fs::set_permissions(bottle.work().join(name), fs::metadata(source).unwrap().permissions())
        .unwrap();
}

fn sh(bottle: &Bottle, text: &str) -> Tool {
    bottle.sh(text).env("PROBE", image("probe"))
}

#[test]
fn make_launches_a_bottle_a_task() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new().image(&image("probe")));
    with_example(&bottle, "Makefile");
    bottle.file("tasks/one.txt", "first\n");
    bottle.file("tasks/two.txt", "second\n");
    let make = "make -j2 AGENT=implementer COMMAND=";
    sh(&bottle, &format!("{make}'bottle-probe cat'")).run().ok();
    assert_eq!(fs::read_to_string(bottle.work().join("tasks/one.out")).unwrap(), "first\n");
    assert_eq!(fs::read_to_string(bottle.work().join("tasks/two.out")).unwrap(), "second\n");
    bottle.is_gone();

    // A command that fails leaves no answer.
    bottle.file("tasks/three.txt", "");
    let run = sh(&bottle, &format!("{make}'bottle-probe exit 7'")).run();
    assert_eq!(run.status, 2, "{}", run.report());
    assert!(run.stderr.contains("Error 7"), "{}", run.report());
    assert!(!bottle.work().join("tasks/three.out").exists());
    sh(&bottle, "make clean").run().ok();
    bottle.is_gone();
}

#[test]
fn xargs_launches_a_bottle_a_line() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new().image(&image("probe")));
    with_example(&bottle, "fan-out");
    let fan_out = "JOBS=3 ./fan-out implementer bottle-probe";
    let lines = "parser\nlexer\nprinter\n";
    let run = sh(&bottle, &format!("{fan_out} echo")).stdin(lines).run();
    let mut said: Vec<&str> = run.stdout.lines().collect();
    said.sort_unstable();
    assert_eq!((run.status, said), (0, vec!["lexer", "parser", "printer"]), "{}", run.report());
    bottle.is_gone();
    let run = sh(&bottle, &format!("{fan_out} exit")).stdin("0\n9\n").run();
    assert_eq!(run.status, 123, "{}", run.report());
    bottle.is_gone();
}

#[test]
fn jq_takes_the_place_of_a_stage() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    with_example(&bottle, "from-hosts");
    let text = "printf '%s\\n' api.example.test | ./from-hosts implementer \"$PROBE\"";
    let document: Value = sh(&bottle, text).run().json();
    assert_eq!(document["plan"]["egress"]["allow"][0], "* https://api.example.test:443/**");
    assert_eq!(document["up"]["selftest"]["verdict"], "closed");
    let run =
        sh(&bottle, "bottle exec implementer bottle-probe get https://other.example.test/").run();
    assert!(run.stderr.contains("denied by bottle-egress"), "{}", run.report());
    sh(&bottle, "bottle stop implementer").run().ok();
    bottle.is_gone();
}

#[test]
fn claude_code_reaches_its_model_and_nothing_else() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let example = root().join("man/examples/claude-code/bottle.yaml");
    bottle.file("bottle.yaml", fs::read(example).unwrap());
    let home = bottle.work().with_file_name("home");
    fs::create_dir_all(home.join(".local/share/claude-bottle")).unwrap();
    let mut text = "git init -q . && bottle trust >&2 && bottle start claude --dry-run".to_owned();
    if geteuid().is_root() {
        // The agent of a root caller works as the owner of its workspace.
        text.insert_str(0, "chown 48214:48214 . ../home/.local/share/claude-bottle && ");
    }
    let document = sh(&bottle, &text).env("HOME", home).run().json();
    assert_eq!(
        document["plan"]["egress"]["allow"],
        serde_json::json!([
            "GET,POST https://api.anthropic.com:443/**",
            "GET,POST https://claude.ai:443/**",
            "GET,POST https://platform.claude.com:443/**",
        ])
    );
    assert_eq!(document["plan"]["command"], serde_json::json!(["claude"]));
    assert_eq!(bottle.leftovers(), Vec::<String>::new());
    assert!(!bottle.state().join("claude").exists());
}

#[test]
fn jq_decides_about_what_only_reads() {
    let Some((bottle, origin)) = supervise::asking(|manifest| manifest) else { return };
    with_example(&bottle, "approve-reads");
    let said = fs::File::create(bottle.work().join("said")).unwrap();
    let mut watch = sh(&bottle, "exec ./approve-reads implementer").stdout_to(said).spawn();
    let propose = |wish: Value| {
        let told = supervise::ask(&bottle, "propose_route", &wish).ok();
        supervise::id(&told)
    };
    let (host, reason) = ("docs.invalid", "to read");
    let reads =
        propose(json!({ "host": host, "methods": ["GET"], "paths": ["/v1/**"], "reason": reason }));
    let writes = propose(
        json!({ "host": host, "methods": ["POST"], "paths": ["/v1/**"], "reason": reason }),
    );
    let wide = propose(json!({ "host": host, "methods": ["GET"], "reason": reason }));
    let status = |id: &str, wait: u32| {
        supervise::ask(&bottle, "proposal_status", &json!({ "id": id, "wait": wait })).ok()
    };
    assert!(status(&reads, 30).contains("is approved"));
    assert!(status(&writes, 2).contains("is open"));
    assert!(status(&wide, 0).contains("is open"));
    drop(origin);
    bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    // It ends by itself, because the bottle is down.
    assert!(watch.wait().unwrap().success());
    let said = fs::read_to_string(bottle.work().join("said")).unwrap();
    assert!(said.starts_with(&format!("approved implementer {reads}: GET ")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn agent_builds_on_another_machine() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let example = root().join("man/examples/build-host/bottle.yaml");
    bottle.file("bottle.yaml", fs::read(example).unwrap());
    let home = bottle.work().with_file_name("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    let mut text = "ssh-keygen -q -t ed25519 -N '' -f ../home/.ssh/bottle-build && git init -q . && bottle trust >&2 && bottle start builder --dry-run".to_owned();
    if geteuid().is_root() {
        text.insert_str(0, "chown 48214:48214 . && ");
    }
    let document = sh(&bottle, &text).env("HOME", home).run().json();
    assert_eq!(
        document["plan"]["egress"]["allow"],
        serde_json::json!(["CONNECT 100.64.0.7:22 as bytes"])
    );
    assert_eq!(bottle.leftovers(), Vec::<String>::new());
}

#[test]
fn pusher_reaches_its_forge_by_the_gate_alone() {
    let bottle = Bottle::new(&Manifest::new());
    let example = root().join("man/examples/git-push/bottle.yaml");
    bottle.file("bottle.yaml", fs::read(example).unwrap());
    for name in ["deploy-key", "known_hosts"] {
        bottle.file(name, "x\n");
    }
    let dry = "bottle-plan pusher | bottle-net --dry-run | bottle-render --print=gitconfig";
    let text = sh(&bottle, dry).env("FORGE_TOKEN", "x").run().ok();
    assert!(text.contains("/app\"]\n\tinsteadOf = https://git.example.com/team/app\n"), "{text}");
    let plan = sh(&bottle, "bottle-plan pusher").env("FORGE_TOKEN", "x").run().json();
    assert_eq!(plan["plan"]["egress"]["routes"], serde_json::Value::Null);
    assert_eq!(plan["plan"]["egress"]["allow"].as_array().unwrap().len(), 2);
}

#[test]
fn every_example_has_a_test() {
    let tests = [include_str!("examples.rs"), include_str!("../unit/examples.rs")].concat();
    for entry in fs::read_dir(root().join("man/examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            ["\"", "/", "'"].iter().any(|end| tests.contains(&format!("{name}{end}"))),
            "{name}"
        );
    }
}
