//! `bottle-reap --orphans` on the real engine: only what is proven dead is taken down.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use bottle::owner::Owner;
use bottle::record::Phase;

use crate::common::bin;
use crate::common::manifest::Manifest;
use crate::hand::{Hand, Living, dead};
use crate::support::{Bottle, docker, images};

#[test]
fn bottle_of_a_dead_owner_is_reaped_and_its_log_is_kept() {
    let Some(hand) = Hand::new() else { return };
    hand.record(dead(), Phase::Up);
    hand.run("agent", &Owner::None, &["sleep", "infinity"]);
    hand.reap(&["--orphans"]).ok();
    hand.bottle.is_gone();
    assert!(hand.archived().join("compose.log").is_file());
}

#[test]
fn bottle_of_a_living_owner_is_kept_and_named() {
    let Some(hand) = Hand::new() else { return };
    let owner = Living::new();
    hand.record(owner.owner(), Phase::Up);
    hand.run("agent", &dead(), &["sleep", "infinity"]);
    let run = hand.reap(&["--orphans"]);
    assert_eq!(run.status, 0);
    assert_eq!(run.stderr, "bottle-reap: kept 'implementer': its owner lives\n");
    drop(owner);
    let run = hand.reap(&["--orphans"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    hand.bottle.is_gone();
}

#[test]
fn bottle_of_nobody_is_kept_while_it_runs() {
    let Some(hand) = Hand::new() else { return };
    hand.record(Owner::None, Phase::Up);
    let agent = hand.run("agent", &Owner::None, &["sleep", "infinity"]);
    let run = hand.reap(&["--orphans"]);
    assert_eq!(run.stderr, "bottle-reap: kept 'implementer': nobody owns it, and it runs\n");
    docker(["stop", "--time", "1", &agent]).ok();
    hand.reap(&["--orphans"]).ok();
    hand.bottle.is_gone();
}

#[test]
fn labels_prove_a_death_where_the_state_folder_is_lost() {
    let Some(hand) = Hand::new() else { return };
    let owner = Living::new();
    hand.run("agent", &owner.owner(), &["sleep", "infinity"]);
    fs::remove_dir_all(hand.bottle.state()).unwrap();
    let run = hand.reap(&["--orphans"]);
    assert_eq!(run.stderr, "bottle-reap: kept 'implementer': its owner lives\n");
    drop(owner);
    hand.reap(&["--orphans"]).ok();
    hand.bottle.is_gone();
}

#[test]
fn record_that_cannot_be_read_proves_nothing() {
    let Some(hand) = Hand::new() else { return };
    fs::write(hand.bottle.state().join("implementer/metadata.json"), "{").unwrap();
    let run = hand.reap(&["--orphans"]);
    assert_eq!(run.status, 0);
    assert!(run.stderr.starts_with("bottle-reap: kept 'implementer': whose it is cannot be told"));
    hand.reap(&["implementer"]).ok();
    hand.bottle.is_gone();
}

/// Each pause is a step at which the tool is killed; the pipeline is a process group of its own, as
/// a shell with job control makes it.
#[test]
fn net_that_is_killed_at_any_step_leaves_nothing_for_long() {
    let Some(hand) = Hand::new() else { return };
    hand.reap(&["implementer"]).ok();
    let doc = hand.bottle.tool("bottle-plan").args(["implementer"]).run().ok();
    for pause in [0, 2, 5, 10, 20, 40, 60, 80, 120, 160] {
        let mut child = Command::new(bin("bottle-net"))
            .env_clear()
            .envs(hand.bottle.env())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(doc.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        let run = hand.reap(&["--orphans"]);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{pause} ms");
        hand.bottle.is_gone();
    }
}

#[test]
fn bottle_that_a_tool_is_at_work_on_is_waited_for() {
    let Some(hand) = Hand::new() else { return };
    hand.record(dead(), Phase::Starting);
    // Another process, because children of this one would inherit the lock.
    let mut worker = Command::new("flock")
        .arg(hand.bottle.state().join("implementer/lock"))
        .args(["sh", "-c", "echo locked; read x"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    worker.stdout.take().unwrap().read_exact(&mut [0; 7]).unwrap();
    let tool = hand.bottle.tool("bottle-reap").args(["--orphans"]);
    let run = std::thread::spawn(move || tool.run());
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!run.is_finished());
    assert_eq!(hand.bottle.leftovers().len(), 2);
    // The other tool ends well: the bottle has an owner again.
    hand.record(Owner::None, Phase::Up);
    hand.run("agent", &Owner::None, &["sleep", "infinity"]);
    drop(worker.stdin.take());
    worker.wait().unwrap();
    let run = run.join().unwrap();
    assert_eq!(run.stderr, "bottle-reap: kept 'implementer': nobody owns it, and it runs\n");
    assert_eq!(hand.bottle.leftovers().len(), 3);
}

/// Each pause is a step at which every tool of the pipeline is killed at once.
#[test]
fn pipeline_that_is_killed_at_any_step_leaves_only_its_log() {
    if !images() {
        return;
    }
    let image = bottle::docker::image("probe");
    let bottle = Bottle::new(&Manifest::new().image(&image));
    let mut came_to_run = 0;
    for pause in [0, 30, 80, 150, 250, 400, 600, 900, 1300] {
        let mut child = Command::new("sh")
            .args(["-c", "bottle-plan implementer | bottle-net | bottle-render | bottle-up"])
            .env_clear()
            .envs(bottle.env())
            .current_dir(bottle.work())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        let group = format!("-{}", child.id());
        Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status().unwrap();
        child.wait().unwrap();
        let run = bottle.tool("bottle-reap").args(["--orphans"]).run();
        assert_eq!(run.status, 0, "{pause} ms: {}", run.report());
        if run.stderr.contains("nobody owns it, and it runs") {
            // It was too late: the bottle is up, and a person's.
            bottle.tool("bottle-reap").args(["implementer"]).run().ok();
        }
        bottle.is_gone();
        let archive = bottle.state().join("archive");
        came_to_run = fs::read_dir(&archive).map_or(0, |entries| {
            entries.filter(|it| it.as_ref().unwrap().path().join("compose.log").exists()).count()
        });
    }
    assert!(came_to_run > 0, "no pause was long enough for a container");
}
