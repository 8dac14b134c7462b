//! Secrets on the real engine: their values reach egress and nothing else, and nothing is left of
//! them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bottle::docker::{image, label};
use serde_json::{Value, json};

use crate::common::Run;
use crate::common::manifest::Manifest;
use crate::origin::{Origin, SITE};
use crate::support::{Bottle, docker, images};

/// The values, and each of them in Base64 as it stands.
const ENV: &str = "env-Zx81-value";
const FILE: &str = "file-Qp27-value";
const COMMAND: &str = "cmd-Lm93-value";
/// What is in plain sight: the search has to find it.
const MARKER: &str = "marker-Hj55-planted";

fn manifest(pool: &str, work: &Path) -> Manifest {
    let route = |paths: &str, inject: Value| {
        Origin::route(pool, &json!({ "paths": [paths], "inject": inject }))
    };
    Manifest::new()
        .image(&image("probe"))
        .set("bottles.dev.env.MARKER", MARKER)
        .set("bottles.dev.egress.ca_certificates", json!(["origin.pem"]))
        .set("bottles.dev.secrets.a", json!({ "from_env": "BOTTLE_TEST_SECRET" }))
        .set("bottles.dev.secrets.b", json!({ "from_file": "token" }))
        .set("bottles.dev.secrets.c", json!({ "from_command": ["cat", work.join("printed")] }))
        .route(route("/echo/a", json!({ "secret": "a", "bearer": true })))
        .route(route("/echo/b", json!({ "secret": "b", "basic": "git" })))
        .route(route("/echo/c", json!({ "secret": "c", "query": "key", "mask": true })))
        .route(Origin::route(pool, &json!({ "paths": ["/echo/none"] })))
}

/// A bottle with an origin next door, and the document before `bottle-render`.
fn prepared() -> Option<(Bottle, Origin, String)> {
    if !images() {
        return None;
    }
    let origin = Origin::start();
    let bottle = Bottle::new(&Manifest::new());
    bottle.file("origin.pem", &origin.ca);
    bottle.file("token", format!("{FILE}\n"));
    bottle.file("printed", format!("{COMMAND}\n"));
    bottle.file("bottle.yaml", manifest(bottle.pool(), &bottle.work()).text());
    let chosen = bottle.sh("bottle-plan implementer | bottle-net").run().ok();
    origin.join(&serde_json::from_str(&chosen).unwrap());
    Some((bottle, origin, chosen))
}

fn up(bottle: &Bottle, chosen: &str) -> Run {
    bottle.sh("bottle-render | bottle-up").env("BOTTLE_TEST_SECRET", ENV).stdin(chosen).run()
}

fn get(bottle: &Bottle, path: &str) -> String {
    let run = bottle.exec(&["bottle-probe", "get", &format!("https://{SITE}{path}")]);
    run.stdout.clone() + &run.stderr
}

fn folder(bottle: &Bottle) -> PathBuf {
    bottle.state().join("implementer/egress/secrets")
}

/// Where a text is found below a folder, but for the folder of values.
fn below(folder: &Path, text: &str) -> Vec<String> {
    let found = Command::new("grep")
        .args(["--recursive", "--files-with-matches", "--fixed-strings", "--text", "--"])
        .arg(text)
        .arg(folder)
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    found.lines().filter(|path| !path.contains("/egress/secrets/")).map(str::to_owned).collect()
}

/// The places outside of egress's own folder where a text shows while the bottle runs.
fn shows(bottle: &Bottle, text: &str) -> Vec<String> {
    let mut found = below(&bottle.state(), text);
    let project = format!("label={}=bottle-implementer-{}", label::PROJECT, bottle.id());
    let containers = docker(["ps", "--all", "--quiet", "--filter", &project]).ok();
    for id in containers.lines() {
        if docker(["inspect", id]).ok().contains(text) {
            found.push(format!("docker inspect {id}"));
        }
        if docker(["logs", id]).stdout.contains(text) {
            found.push(format!("docker logs {id}"));
        }
        let top = docker(["top", id, "-o", "pid"]).ok();
        for pid in top.lines().skip(1) {
            let environ = fs::read(format!("/proc/{}/environ", pid.trim())).unwrap_or_default();
            if String::from_utf8_lossy(&environ).contains(text) {
                found.push(format!("environment of process {pid} of {id}"));
            }
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // The search itself has it as an argument.
        if name.parse::<u32>().is_ok() && !line.starts_with(b"grep") {
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains(text) {
                found.push(format!("command line {line}"));
            }
        }
    }
    found
}

/// A value as it stands and in Base64.
fn forms(value: &str) -> [String; 2] {
    let run = Command::new("sh").args(["-c", &format!("printf %s {value} | base64")]).output();
    [value.to_owned(), String::from_utf8(run.unwrap().stdout).unwrap().trim().to_owned()]
}

#[test]
fn values_reach_egress_alone_and_nothing_is_left_of_them() {
    let Some((bottle, origin, chosen)) = prepared() else { return };
    let document = up(&bottle, &chosen).json();
    // They are used,
    assert!(get(&bottle, "/echo/a").contains(&format!("Bearer {ENV}")));
    assert!(get(&bottle, "/echo/b").contains("Basic Z2l0OmZpbGUtUXAyNy12YWx1ZQ=="));
    let masked = get(&bottle, "/echo/c?key=mine");
    assert!(masked.contains(&format!("/echo/c?key={}", "*".repeat(COMMAND.len()))), "{masked}");
    let none = get(&bottle, "/echo/none");
    assert!(none.contains("\"path\":\"/echo/none\"") && !none.contains("authorization"), "{none}");
    // by one container, which cannot change them,
    let run_as = document["render"]["run_as"].as_str().unwrap().to_owned();
    let owner = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.permissions().mode() & 0o777, format!("{}:{}", found.uid(), found.gid()))
    };
    assert_eq!(owner(&folder(&bottle)), (0o700, run_as.clone()));
    assert_eq!(owner(&folder(&bottle).join("secrets.json")), (0o600, run_as));
    let project = document["render"]["compose_project"].as_str().unwrap();
    let mounts = |service: &str| {
        let name = format!("{project}-{service}");
        let mounts = docker(["inspect", "--format", "{{json .Mounts}}", &name]).ok();
        serde_json::from_str::<Vec<Value>>(&mounts).unwrap()
    };
    let of_values = |mount: &Value| mount["Source"].as_str().unwrap().ends_with("egress/secrets");
    let mounted = mounts("egress").into_iter().find(|mount| of_values(mount)).unwrap();
    assert_eq!(mounted["RW"], false);
    assert!(!mounts("agent").iter().any(of_values));
    let state = bottle.state();
    let text = document.to_string();
    for value in [ENV, FILE, COMMAND] {
        for form in forms(value) {
            // and show nowhere.
            assert!(!text.contains(&form), "the document holds '{form}'");
            assert_eq!(shows(&bottle, &form), Vec::<String>::new(), "'{form}'");
        }
    }
    // The control: the same search finds what is not secret, in every kind of place.
    let found = shows(&bottle, MARKER).join("\n");
    for place in ["plan.json", "docker-compose.yml", "docker inspect", "environment of process"] {
        assert!(found.contains(place), "{place}: {found}");
    }
    drop(origin);
    bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    bottle.is_gone();
    assert!(!below(&state.join("archive"), MARKER).is_empty());
    for value in [ENV, FILE, COMMAND] {
        for form in forms(value) {
            let left = Command::new("grep").args(["-rlaF", &form]).arg(&state).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&left.stdout), "");
        }
    }
}

#[test]
fn refresh_runs_what_the_hosts_own_plan_says_and_ends_when_egress_uses_it() {
    let Some((bottle, _origin, chosen)) = prepared() else { return };
    let refresh = |state: &str| {
        let args = ["--refresh-secrets", "implementer", "--timeout", "20"];
        bottle.tool("bottle-apply").args(args).env("BOTTLE_TEST_STATE", state).run()
    };
    refresh("before").fails(1, "bottle-apply: refresh the secrets of 'implementer': it is not up");
    up(&bottle, &chosen).ok();
    bottle.file("token", "file-Zz11-second\n");
    let run = refresh("up");
    assert_eq!((run.ok(), ""), (String::new(), ""));
    assert!(get(&bottle, "/echo/b").contains("Basic Z2l0OmZpbGUtWnoxMS1zZWNvbmQ="));
    // What came from a variable that is not set here stays.
    assert!(get(&bottle, "/echo/a").contains(&format!("Bearer {ENV}")));
    // A source that fails changes nothing.
    fs::remove_file(bottle.work().join("printed")).unwrap();
    let run = refresh("broken");
    assert_eq!(run.status, 3, "{}", run.report());
    assert!(run.stderr.contains("read secret 'c': run 'cat': it ended with"), "{}", run.stderr);
    assert!(get(&bottle, "/echo/b").contains("Basic Z2l0OmZpbGUtWnoxMS1zZWNvbmQ="));
    bottle.file("printed", COMMAND);
    // A plan that is not the one that was started names no command that is run.
    let plan = bottle.state().join("implementer/plan.json");
    let whole = fs::read_to_string(&plan).unwrap();
    let pwned = bottle.work().join("pwned");
    fs::write(&plan, whole.replace("\"cat\"", "\"touch\"").replace("printed", "pwned")).unwrap();
    let run = refresh("edited");
    assert_eq!(run.status, 3, "{}", run.report());
    assert!(run.stderr.contains("the plan was changed after it was sealed"), "{}", run.stderr);
    assert!(!pwned.exists());
    fs::write(&plan, whole).unwrap();
    refresh("mended").ok();
}

#[test]
fn secret_that_cannot_be_read_starts_nothing_and_a_failed_start_leaves_none() {
    let Some((bottle, _origin, chosen)) = prepared() else { return };
    let rendered = bottle.tool("bottle-render").env("BOTTLE_TEST_SECRET", ENV).stdin(&chosen);
    let rendered = rendered.run().ok();
    bottle.file("printed", "two\nlines\n");
    let start = |args: &[&str]| {
        let up = bottle.tool("bottle-up").args(args).env("BOTTLE_TEST_SECRET", ENV);
        up.stdin(&rendered).run()
    };
    start(&[]).fails(
        2,
        "bottle-up: read secret 'c': it has more than one line, which fits into no header",
    );
    let containers = |bottle: &Bottle| {
        bottle.leftovers().into_iter().filter(|left| left.starts_with("container")).count()
    };
    assert_eq!(containers(&bottle), 0);
    assert_eq!(fs::read_dir(folder(&bottle)).unwrap().count(), 0);
    bottle.file("printed", COMMAND);
    // One sidecar alone has them too; and it gives them back.
    start(&["--only", "egress"]).ok();
    assert!(folder(&bottle).join("secrets.json").is_file());
    bottle.tool("bottle-reap").args(["--only", "egress", "implementer"]).run().ok();
    assert_eq!(fs::read_dir(folder(&bottle)).unwrap().count(), 0);
    // A start that is taken back takes them back.
    let full = bottle.sh("bottle-up >/dev/full").env("BOTTLE_TEST_SECRET", ENV).stdin(&rendered);
    assert_eq!(full.run().status, 3);
    assert_eq!(containers(&bottle), 0);
    assert_eq!(fs::read_dir(folder(&bottle)).unwrap().count(), 0);
}

#[test]
fn killed_pipeline_leaves_no_value_once_orphans_are_reaped() {
    use std::os::unix::process::CommandExt;
    let Some((bottle, origin, _)) = prepared() else { return };
    drop(origin);
    bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    let mut pipeline = Command::new("sh")
        .args(["-c", "bottle-plan implementer | bottle-net | bottle-render | bottle-up"])
        .env_clear()
        .envs(bottle.env())
        .env("BOTTLE_TEST_SECRET", ENV)
        .current_dir(bottle.work())
        .process_group(0)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the values are written", || folder(&bottle).join("secrets.json").is_file());
    let group = format!("-{}", pipeline.id());
    Command::new("kill").args(["-s", "KILL", "--", &group]).status().unwrap();
    pipeline.wait().unwrap();
    assert!(folder(&bottle).join("secrets.json").is_file());
    bottle.tool("bottle-reap").args(["--orphans"]).run().ok();
    bottle.is_gone();
    let left = Command::new("grep").args(["-rlaF", ENV]).arg(bottle.state()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

#[test]
fn secret_that_ends_is_read_again_while_the_agent_works() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let now = Command::new("date").arg("+%s").output().unwrap();
    let now: u64 = String::from_utf8(now.stdout).unwrap().trim().parse().unwrap();
    let token = |end: u64| {
        let text = format!("printf '{{\"exp\":%12d}}' {end} | base64 | tr -d '=\\n'");
        let claims = Command::new("sh").args(["-c", &text]).output().unwrap();
        format!("eyJhbGciOiJub25lIn0.{}.x", String::from_utf8(claims.stdout).unwrap())
    };
    let printed = bottle.file("printed", token(now + 40));
    let manifest = Manifest::new()
        .image(&image("probe"))
        .set("bottles.dev.selftest", "off")
        .set("bottles.dev.secrets.t", json!({ "from_command": ["cat", printed] }))
        .route(json!({ "host": "a.example", "inject": { "secret": "t", "bearer": true } }));
    bottle.file("bottle.yaml", manifest.text());
    let args = ["start", "implementer", "--", "bottle-probe", "sleep", "60"];
    let script = bottle.script().args(args).spawn();
    let pid = script.id();
    until("the bottle is up", || bottle.state().join("implementer/up.json").is_file());
    let later = token(now + 7200);
    bottle.file("printed", &later);
    let file = folder(&bottle).join("secrets.json");
    until("the new value is there", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(&later))
    });
    Command::new("kill").args(["-s", "TERM", &pid.to_string()]).status().unwrap();
    let mut script = script;
    script.wait().unwrap();
    until("all is gone", || bottle.leftovers().is_empty());
    bottle.is_gone();
    // Nobody goes on looking after it.
    let keepers =
        Command::new("pgrep").args(["-f", "refresh-secrets implementer --follow"]).output();
    let state = bottle.state();
    let mine = String::from_utf8(keepers.unwrap().stdout).unwrap();
    let mine = mine.lines().filter(|pid| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            String::from_utf8_lossy(&environ).contains(&*state.to_string_lossy())
        })
    });
    assert_eq!(mine.count(), 0);
}

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !is() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
