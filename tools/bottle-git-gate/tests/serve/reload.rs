//! A configuration that changes while the gate serves.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::support::World;

#[test]
fn policy_changes_live_and_the_last_good_one_stays() {
    let Some(mut world) = World::new(&["refs/heads/agent/*"]) else { return };
    world.work("echo x >x && git add . && git commit -qm x").ok();
    world.work("git push origin HEAD:topic").fails("rule 'push'");
    world.change(&json!({ "push": [{ "refs": "refs/heads/topic" }] }));
    world.work("git push -q origin HEAD:topic").ok();
    world.work("git push origin HEAD:agent/x").fails("rule 'push'");
    let good = std::fs::read_to_string(world.path("conf/gate.json")).unwrap();
    for bad in [
        "",
        "{",
        &good.replace("\"push\"", "\"pusch\""),
        &good.replace("refs/heads/topic", "refs/*"),
    ] {
        world.write(bad);
        let loaded = world.loaded(|loaded| loaded["refused"]["error"].is_string());
        assert_eq!(loaded["generation"], 2);
        world.work("git fetch").ok();
        // A push is judged by what lies there now, and so not at all.
        world
            .work("git commit -q --allow-empty -m y && git push origin HEAD:topic")
            .fails("rule 'gate'");
        world.write(&good);
        world.loaded(|loaded| loaded["refused"].is_null());
    }
    world.work("git push -q origin HEAD:topic").ok();
}

#[test]
fn grant_ends_when_it_says_and_is_written_down() {
    let Some(mut world) = World::new(&["refs/heads/agent/*"]) else { return };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let grant = json!({ "refs": "refs/heads/topic", "grant": "g1", "until": now + 12 });
    world.change(&json!({ "push": [{ "refs": "refs/heads/agent/*" }, grant] }));
    world.work("echo x >x && git add . && git commit -qm x && git push -q origin HEAD:topic").ok();
    let line = world.decisions().into_iter().rfind(|line| line["kind"] == "push").unwrap();
    assert_eq!(line["grants"], json!(["g1"]));
    while SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() < now + 12 {
        std::thread::sleep(Duration::from_millis(200));
    }
    let again = "git commit -q --allow-empty -m y && git push origin HEAD:";
    world
        .work(&format!("{again}topic"))
        .fails("'refs/heads/topic' is none of 'refs/heads/agent/*'");
    world.work(&format!("{again}agent/x")).ok();
}
