//! What is refused, gathered: every bad input of the transcripts and of the table of bad manifests, each
//! with its one line and its exit code. The tests beside this one prove them; this one holds all of
//! them to one voice, counts them, and sees to it that none of the notorious ones is missing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::common::manifest::Manifest;
use crate::common::{SIDECARS, Scratch, TOOLS, Tool, bin, root, skip};
use crate::manifests;

/// One refusal: exit code and line on stderr.
type Refusal = (i32, String);

/// What has to be among them, by what is said of it.
const NOTORIOUS: &[(&str, i32, &str)] = &[
    ("unknown field", 2, "unknown field 'iamge': did you mean 'image'"),
    ("wildcard for all", 2, "a bare '*' would allow every host"),
    ("bad CIDR", 2, "'10.0.0.0/33' is no network"),
    ("CIDR with host bits", 2, "bits of the host are set"),
    ("port that is none", 2, "'0' is not a port"),
    ("duplicate agent", 2, "agents: 'x' is there twice"),
    ("agent that widens", 2, "an agent can only narrow"),
    ("relative mount outside", 2, "mount"),
    ("engine's socket in a mount", 2, "socket"),
    ("state folder in a mount", 2, "state folder"),
    ("manifest without trust", 2, "is not trusted"),
    ("no manifest", 2, "there is no 'bottle.yaml'"),
    ("missing secret variable", 2, "is not set: export it"),
    ("missing secret file", 2, "No such file or directory"),
    ("missing secret command", 2, "is not there: install it"),
    ("edited plan", 2, "bottle-plan --seal"),
    ("missing section", 2, "section 'net' is missing"),
    ("dry run that is to act", 2, "of a dry run"),
    ("what cannot be served yet", 2, "this version cannot serve"),
    ("name that is no slug", 2, "is not a slug"),
    ("option misspelt", 2, "did you mean '--dry-run'"),
    ("state folder that is none", 2, "it is not a folder"),
    ("no docker client", 3, "'docker': it is not on PATH"),
    ("no engine", 3, "cannot connect to the Docker engine"),
    ("engine that is stopped", 3, "no answer in 1 s"),
    ("patience that is none", 2, "read BOTTLE_PATIENCE"),
    ("engine that forbids", 3, "permission denied on the engine's socket"),
    ("missing image", 3, "find image"),
    ("slug that is taken", 1, "is there already"),
    ("pool that is used up", 3, "used up"),
];

/// Proven elsewhere, because they need a world of their own: the file, and what it says.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("disk full", "tests/integration/reap.rs", "No space left on device"),
    ("stdout full", "tests/unit/laws.rs", "No space left on device"),
    ("state folder of another user", "tests/unit/net.rs", "it belongs to uid"),
];

#[test]
fn every_refusal_speaks_with_one_voice() {
    let all = refusals();
    for (code, line) in &all {
        let (tool, said) = line.split_once(": ").unwrap_or((line, ""));
        let begins = said.chars().next().is_some_and(|c| !c.is_uppercase());
        assert!(
            begins && !line.ends_with('.') && [1, 2, 3, 125].contains(code),
            "not in house style, of '{tool}', code {code}: {line}"
        );
    }
    let different: BTreeSet<&Refusal> = all.iter().collect();
    assert!(different.len() >= 40, "only {} refusals are tested", different.len());
}

#[test]
fn no_notorious_input_is_missing() {
    let all = refusals();
    for (fact, code, text) in NOTORIOUS {
        assert!(
            all.iter().any(|(found, line)| found == code && line.contains(text)),
            "{fact}: no test refuses it with {code} and '{text}'"
        );
    }
    for (fact, place, text) in ELSEWHERE {
        assert!(says(&root().join(place), text), "{fact}: '{place}' has no test of '{text}'");
    }
}

#[test]
fn key_that_cannot_be_read_is_named() {
    if !rustix::process::getuid().is_root() || !Path::new("/usr/bin/setpriv").is_file() {
        skip("only root can make a file that its reader may not read");
        return;
    }
    let scratch = Scratch::new();
    let key = scratch.file("key", "secret");
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(scratch.path(), 0o755);
    let manifest = Manifest::new()
        .set("bottles.dev.secrets.token.from_file", key.to_str().unwrap())
        .route(json!({"host": "a.example", "inject": {"secret": "token", "bearer": true}}));
    scratch.file("bottle.yaml", manifest.text());
    let document = scratch.sh("bottle-plan implementer | bottle-net --dry-run").run().ok();
    let check = || {
        Tool::new(Path::new("/usr/bin/setpriv"))
            .bare()
            .envs(scratch.env())
            .env("BOTTLE_STATE", "/nonexistent/state")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args([bin("bottle-render").to_str().unwrap(), "--dry-run"])
            .stdin(&document)
            .run()
    };
    open(&key, 0o644);
    check().ok();
    open(&key, 0o600);
    check().fails(
        2,
        &format!(
            "bottle-render: find secret 'token': read '{}': Permission denied (os error 13)",
            key.display()
        ),
    );
}

/// All refusals that transcripts and the table of bad manifests hold.
fn refusals() -> Vec<Refusal> {
    let mut all = Vec::new();
    collect(&root().join("tests/cmd"), &mut all);
    all.extend(manifests::refused().map(|line| (2, format!("bottle-plan: {line}"))));
    all
}

fn collect(folder: &Path, all: &mut Vec<Refusal>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "trycmd") {
            let text = fs::read_to_string(&path).unwrap();
            let mut code = 0;
            for line in text.lines() {
                if let Some(status) = line.strip_prefix("? ") {
                    code = status.trim().parse().unwrap_or(0);
                } else if line.starts_with("$ ") || line.starts_with("```") {
                    code = 0;
                } else if code != 0 && of_a_tool(line) {
                    all.push((code, line.to_owned()));
                }
            }
        }
    }
}

fn of_a_tool(line: &str) -> bool {
    let tool = line.split(": ").next().unwrap_or_default();
    tool == "bottle" || TOOLS.contains(&tool) || SIDECARS.contains(&tool)
}

/// Whether a file, or one below a folder, holds a text. This file does not count.
fn says(path: &Path, text: &str) -> bool {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().any(|entry| says(&entry.unwrap().path(), text));
    }
    !path.ends_with("unit/bad_input.rs")
        && fs::read_to_string(path).is_ok_and(|content| content.contains(text))
}
