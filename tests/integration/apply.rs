//! `bottle-apply` on the real engine.

use std::fs;

use bottle::docker::image;
use serde_json::{Value, json};

use crate::common::Run;
use crate::common::manifest::Manifest;
use crate::support::{Bottle, docker, images};

/// A bottle that is up with a route to one host, which does not exist: that egress looked for it
/// shows that it was allowed, and nothing leaves the machine.
fn up(host: &str) -> Option<Bottle> {
    let bottle = images().then(|| Bottle::new(&manifest(host)))?;
    bottle.start();
    Some(bottle)
}

fn manifest(host: &str) -> Manifest {
    Manifest::new()
        .image(&image("probe"))
        .set("bottles.dev.selftest", "off")
        .route(json!({ "host": host }))
}

/// Plans anew with a route to another host, and applies it.
fn apply(bottle: &Bottle, host: &str, args: &str) -> Run {
    bottle.file("bottle.yaml", manifest(host).text());
    bottle.sh(&format!("bottle-plan implementer | bottle-apply {args}")).run()
}

fn egress(bottle: &Bottle) -> String {
    format!("bottle-implementer-{}-egress", bottle.id())
}

/// The policy that is written.
fn routes(bottle: &Bottle) -> String {
    fs::read_to_string(bottle.state().join("implementer/egress/conf/routes.yaml")).unwrap()
}

/// What egress says that it serves by.
fn loaded(bottle: &Bottle) -> Value {
    let path = bottle.state().join("implementer/egress/run/loaded.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Digests of the plan, wherever the bottle's folder names it.
fn noted(bottle: &Bottle) -> Vec<Value> {
    let digest = |file: &str, field: &str| {
        let text = fs::read_to_string(bottle.state().join("implementer").join(file)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[field].clone()
    };
    vec![digest("metadata.json", "plan"), digest("plan.json", "digest"), digest("up.json", "plan")]
}

#[track_caller]
fn allowed(bottle: &Bottle, host: &str) -> bool {
    let run = bottle.exec(&["bottle-probe", "get", &format!("https://{host}/")]);
    let text = format!("{}{}", run.stdout, run.stderr);
    match (text.contains("denied this request"), text.contains("the rules of the bottle allow")) {
        (true, false) => false,
        (false, true) => true,
        _ => panic!("{}", run.report()),
    }
}

#[test]
fn new_rules_are_in_force_when_it_ends_and_the_old_ones_are_not() {
    let Some(bottle) = up("a.invalid") else { return };
    assert!(allowed(&bottle, "a.invalid") && !allowed(&bottle, "b.invalid"));
    let container = docker(["inspect", "--format", "{{.Id}}", &egress(&bottle)]).ok();

    let doc = apply(&bottle, "b.invalid", "").json();
    assert!(!allowed(&bottle, "a.invalid") && allowed(&bottle, "b.invalid"));
    assert_eq!(doc["apply"]["generation"], 2);
    assert_eq!(doc["apply"]["sha256"], loaded(&bottle)["sha256"]);
    assert_eq!(loaded(&bottle)["generation"], 2);
    assert_eq!(noted(&bottle), vec![doc["plan"]["digest"].clone(); 3]);
    assert_eq!(docker(["inspect", "--format", "{{.Id}}", &egress(&bottle)]).ok(), container);

    // Once more it changes nothing, to the byte.
    let again = bottle.tool("bottle-apply").stdin(doc.to_string()).run().json();
    assert_eq!(again, doc);
    assert_eq!(loaded(&bottle)["generation"], 2);
}

#[test]
fn what_cannot_change_is_named_and_nothing_is_touched() {
    let Some(bottle) = up("a.invalid") else { return };
    let (before, plans) = (routes(&bottle), noted(&bottle));
    let other =
        manifest("b.invalid").set("bottles.dev.resources.pids", 64).set("bottles.dev.env.A", "1");
    bottle.file("bottle.yaml", other.text());
    bottle.sh("bottle-plan implementer | bottle-apply").run().fails(1, "bottle-apply: change the plan: only 'egress.routes' changes while a bottle runs, and these differ too: 'env' (nothing to {\"A\":\"1\"}), 'resources.pids' (512 to 64): stop the bottle and start it anew");
    assert_eq!((routes(&bottle), noted(&bottle)), (before, plans));
    assert!(allowed(&bottle, "a.invalid"));
}

#[test]
fn egress_that_does_not_answer_gets_its_old_rules_back() {
    let Some(bottle) = up("a.invalid") else { return };
    let (before, plans, said) = (routes(&bottle), noted(&bottle), loaded(&bottle));
    // Not by pause: the engine resumes what it signals.
    docker(["kill", "--signal", "STOP", &egress(&bottle)]).ok();
    let run = apply(&bottle, "b.invalid", "--timeout 1");
    docker(["kill", "--signal", "CONT", &egress(&bottle)]).ok();
    assert_eq!((run.status, run.stdout.as_str()), (3, ""), "{}", run.report());
    assert!(run.stderr.contains("egress did not say in 1 s"), "{}", run.report());
    assert_eq!((routes(&bottle), noted(&bottle)), (before, plans));
    // It has slept over both changes.
    assert!(allowed(&bottle, "a.invalid") && !allowed(&bottle, "b.invalid"));
    assert_eq!(loaded(&bottle)["sha256"], said["sha256"]);
}

#[test]
fn closed_stdout_puts_the_old_rules_back() {
    let Some(bottle) = up("a.invalid") else { return };
    let (before, plans) = (routes(&bottle), noted(&bottle));
    let run = apply(&bottle, "b.invalid", "> /dev/full");
    assert_eq!(run.status, 3, "{}", run.report());
    assert_eq!((routes(&bottle), noted(&bottle)), (before, plans));
    assert_eq!(loaded(&bottle)["generation"], 1);
    assert!(allowed(&bottle, "a.invalid") && !allowed(&bottle, "b.invalid"));
}

#[test]
fn killed_apply_is_made_good_by_the_next_one() {
    let Some(bottle) = up("a.invalid") else { return };
    let old = fs::read(bottle.state().join("implementer/plan.json")).unwrap();
    let doc = apply(&bottle, "b.invalid", "").json();
    // As if it had died after egress was told, and before that was noted.
    fs::write(bottle.state().join("implementer/plan.json"), old).unwrap();
    let again = bottle.tool("bottle-apply").stdin(doc.to_string()).run().json();
    assert_eq!(again, doc);
    assert_eq!(noted(&bottle), vec![doc["plan"]["digest"].clone(); 3]);
}
