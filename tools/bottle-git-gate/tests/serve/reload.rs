//! A configuration that changes while the gate serves.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::support::{World, executable};

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

#[test]
fn grant_for_one_push_ends_with_the_first_that_upstream_takes() {
    let Some(mut world) = World::new(&["refs/heads/agent/*"]) else { return };
    let grant = json!({ "refs": "refs/heads/topic", "grant": "g1", "uses": 1 });
    let more = json!({ "push": [{ "refs": "refs/heads/agent/*" }, grant] });
    world.change(&more);
    let push = "git commit -q --allow-empty -m x && git push origin HEAD:topic";
    let told = |world: &World| {
        let text = std::fs::read_to_string(world.path("run/grants.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["grants"]["g1"].clone()
    };
    // What is refused here or upstream is none.
    world
        .work("git commit -q --allow-empty -m x && git push origin HEAD:topic HEAD:main")
        .fails("'refs/heads/main' is none of");
    world.upstream_refuses("not today");
    world.work(push).fails("not today");
    assert_eq!(told(&world), json!({}));
    std::fs::remove_file(world.path("up/repo.git/hooks/pre-receive")).unwrap();
    world.work(push).ok();
    let ended = told(&world);
    assert_eq!((&ended["used"], &ended["end"]), (&json!(1), &json!("pushed")));
    let none = "'refs/heads/topic' is none of 'refs/heads/agent/*'";
    world.work(push).fails(none);
    // Neither another configuration nor a restart revives it.
    world.change(&json!({ "push": [{ "refs": "refs/heads/agent/*" }] }));
    world.change(&more);
    world.work(push).fails(none);
    world.kill();
    world.gate();
    world.work(push).fails(none);
    world.work("git push -q origin HEAD:agent/x").ok();
    // What cannot be read lets nothing through.
    std::fs::write(world.path("run/grants.json"), "{").unwrap();
    world
        .work("git commit -q --allow-empty -m y && git push origin HEAD:agent/x")
        .fails("grants.json");
    assert_eq!(world.refs().matches("refs/heads/topic").count(), 1);
}

#[test]
fn killed_push_has_used_its_grant() {
    let Some(mut world) = World::new(&[]) else { return };
    world.change(&json!({ "push": [{ "refs": "refs/heads/topic", "grant": "g1", "uses": 1 }] }));
    let hook = world.path("up/repo.git/hooks/post-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\ntouch ../../taken\nsleep 5\n").unwrap();
    executable(&hook);
    let url = world.url("origin");
    let push = world.path("home/work");
    let mut client = std::process::Command::new("git")
        .args(["-C", push.to_str().unwrap(), "push", &url, "HEAD:refs/heads/topic"])
        .spawn()
        .unwrap();
    while !world.path("taken").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    world.kill();
    let _ = client.wait();
    std::fs::remove_file(&hook).unwrap();
    world.gate();
    world
        .work("git commit -q --allow-empty -m y && git push origin HEAD:topic")
        .fails("what allowed a push to 'origin' has ended");
}
