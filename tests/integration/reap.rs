//! `bottle-reap` on the real engine.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use std::process::{Command, Stdio};

use bottle::owner::Owner;
use bottle::record::Phase;

use crate::common::{Scratch, matches, skip};
use crate::hand::{Hand, Living};
use crate::support::docker;

/// A container that says something and goes on.
fn talk(hand: &Hand, service: &str) -> String {
    // Without a readable certificate the probe says so and ends.
    hand.run(service, &Owner::None, &["get", "--ca", "/nonexistent", "http://a.invalid/"])
}

#[test]
fn log_and_record_are_kept_and_everything_else_is_gone() {
    let Some(hand) = Hand::new() else { return };
    hand.record(Owner::None, Phase::Up);
    let folder = hand.bottle.state().join("implementer");
    for (name, text) in [
        ("docker-compose.yml", "services: {}\n"),
        ("plan.json", "{}\n"),
        ("egress/conf/ca-key.pem", "-----BEGIN EC PRIVATE KEY-----\n"),
        ("egress/run/decisions.jsonl", "{}\n"),
        ("agent/conf/ca.pem", "x\n"),
        ("agent/workspace/result", "done\n"),
        ("agent/passwd", "x\n"),
    ] {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }
    talk(&hand, "egress");
    let agent = hand.run("agent", &Owner::None, &["sleep", "infinity"]);
    let doc = hand.bottle.tool("bottle-reap").stdin(&hand.doc).run().json();
    assert_eq!(doc["net"], hand.net());
    assert_eq!(doc["reap"]["containers"].as_array().unwrap().len(), 2);
    assert!(doc["reap"]["containers"].as_array().unwrap().contains(&agent.into()));
    assert_eq!(doc["reap"]["networks"].as_array().unwrap().len(), 2);
    let archive = hand.archived();
    assert_eq!(doc["reap"]["archive"], archive.to_str().unwrap());
    hand.bottle.is_gone();
    let log = fs::read_to_string(archive.join("compose.log")).unwrap();
    let line = log.lines().find(|line| line.starts_with("egress | 20")).unwrap();
    assert!(line.contains("/nonexistent"), "{log}");
    for name in [
        "metadata.json",
        "plan.json",
        "docker-compose.yml",
        "egress/run/decisions.jsonl",
        "agent/workspace/result",
    ] {
        assert!(archive.join(name).is_file(), "{name} was not kept");
    }
    for name in ["egress/conf", "agent/conf", "agent/passwd", "lock"] {
        assert!(!archive.join(name).exists(), "{name} was kept");
    }
    // Again, and again: quiet, and the document as it came.
    let run = hand.reap(&["implementer"]);
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
    let text = doc.to_string() + "\n";
    let again = hand.bottle.tool("bottle-reap").stdin(&text).run().json();
    assert_eq!(again, doc);
}

#[test]
fn labels_alone_suffice() {
    let Some(hand) = Hand::new() else { return };
    talk(&hand, "egress");
    hand.run("agent", &Owner::None, &["sleep", "infinity"]);
    fs::remove_dir_all(hand.bottle.state()).unwrap();
    hand.reap(&["implementer"]).ok();
    hand.bottle.is_gone();
    let log = fs::read_to_string(hand.archived().join("compose.log")).unwrap();
    assert!(log.contains("/nonexistent"), "{log}");
}

#[test]
fn nothing_is_made_for_a_bottle_that_never_was() {
    let Some(hand) = Hand::new() else { return };
    hand.reap(&["other"]).ok();
    assert!(!hand.bottle.state().join("other").exists());
    let scratch = Scratch::new();
    let run = hand.bottle.tool("bottle-reap").env("BOTTLE_STATE", scratch.state()).args(["other"]);
    assert_eq!(run.run().ok(), "");
    assert!(!scratch.state().exists());
}

#[test]
fn step_that_fails_does_not_stop_the_next_and_the_record_stays() {
    let Some(hand) = Hand::new() else { return };
    hand.record(Owner::None, Phase::Up);
    hand.run("agent", &Owner::None, &["sleep", "infinity"]);
    let project = hand.project();
    let guest = format!("{project}-guest");
    let network = format!("{project}-internal");
    let image = hand.image();
    docker(["run", "-d", "--name", &guest, "--network", &network, image, "sleep", "infinity"]).ok();
    let run = hand.reap(&["implementer"]);
    let left = hand.bottle.leftovers();
    docker(["rm", "-f", &guest]).ok();
    run.fails(
        3,
        &format!(
            "bottle-reap: reap 'implementer': remove network '{network}': [..]active endpoints[..]"
        ),
    );
    assert_eq!(left, [format!("network {network}")]);
    assert!(hand.bottle.state().join("implementer/metadata.json").is_file());
    assert!(hand.bottle.state().join("implementer/compose.log").is_file());
    hand.reap(&["implementer"]).ok();
    hand.bottle.is_gone();
    assert!(hand.archived().join("compose.log").is_file());
}

#[test]
fn links_that_a_sidecar_left_lead_nowhere() {
    let Some(hand) = Hand::new() else { return };
    hand.record(Owner::None, Phase::Up);
    let outside = hand.bottle.file("outside/precious", "mine\n");
    let run = hand.bottle.state().join("implementer/egress/run");
    fs::create_dir_all(&run).unwrap();
    symlink(outside.parent().unwrap(), run.join("decisions.jsonl")).unwrap();
    symlink(&outside, run.join("loaded.json")).unwrap();
    // A folder that even its owner cannot look into.
    fs::create_dir_all(run.join("shut/in")).unwrap();
    fs::set_permissions(run.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
    symlink(outside.parent().unwrap(), hand.bottle.state().join("implementer/egress/conf"))
        .unwrap();
    hand.reap(&["implementer"]).ok();
    hand.bottle.is_gone();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "mine\n");
    assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o644);
    let kept = hand.archived().join("egress/run");
    assert!(kept.join("loaded.json").is_symlink());
    fs::set_permissions(kept.join("shut"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn one_service_can_be_stopped_and_the_rest_goes_on() {
    let Some(hand) = Hand::new() else { return };
    hand.record(Owner::None, Phase::Up);
    let agent = hand.run("agent", &Owner::None, &["sleep", "infinity"]);
    hand.run("egress", &Owner::None, &["sleep", "infinity"]);
    for _ in 0..2 {
        hand.reap(&["--only", "egress", "implementer"]).ok();
        let left = hand.bottle.leftovers();
        assert_eq!(left.iter().filter(|it| it.starts_with("container")).count(), 1, "{left:?}");
        assert!(left.contains(&format!("container {agent}")));
        assert_eq!(left.len(), 3);
    }
    assert!(hand.bottle.state().join("implementer/metadata.json").is_file());
}

#[test]
fn engine_that_is_away_is_said_and_the_record_stays() {
    let Some(hand) = Hand::new() else { return };
    hand.record(Owner::None, Phase::Up);
    let tool = hand.bottle.tool("bottle-reap").env("DOCKER_HOST", "unix:///nonexistent");
    tool.args(["implementer"]).run().fails(
        3,
        "bottle-reap: reap 'implementer': run 'docker ps': cannot connect to the Docker engine: is it running: start it, or set DOCKER_HOST",
    );
    assert!(hand.bottle.state().join("implementer/metadata.json").is_file());
}

#[test]
fn bottles_of_another_state_folder_are_left_alone() {
    let Some(hand) = Hand::new() else { return };
    hand.run("agent", &Living::new().owner(), &["sleep", "infinity"]);
    let scratch = Scratch::new();
    for args in [["--all"], ["--orphans"], ["implementer"]] {
        let tool = hand.bottle.tool("bottle-reap").env("BOTTLE_STATE", scratch.state());
        let run = tool.args(args).run();
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{}", run.report());
    }
    assert_eq!(hand.bottle.leftovers().len(), 3);
}

#[test]
fn folder_that_is_no_bottle_is_left_alone() {
    let Some(hand) = Hand::new() else { return };
    let stranger = hand.bottle.state().join("projects");
    fs::create_dir_all(&stranger).unwrap();
    fs::write(stranger.join("thesis"), "years\n").unwrap();
    hand.reap(&["--all"]).ok();
    hand.reap(&["projects"]).ok();
    assert!(stranger.join("thesis").is_file());
}

/// A file system of 256 KiB, for root; `None` where it cannot be mounted.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn new(at: std::path::PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"]).arg(&at);
        let is_mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !is_mounted {
            skip("only root can mount a small file system to be filled");
        }
        is_mounted.then_some(Self(at))
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn full_disk_costs_the_log_and_nothing_else() {
    let Some(hand) = Hand::new() else { return };
    hand.reap(&["implementer"]).ok();
    let folder = hand.bottle.work().join("small");
    let Some(disk) = Tmpfs::new(folder.clone()) else { return };
    let plan = hand.bottle.tool("bottle-plan").args(["implementer"]).run().ok();
    let net = |state: &std::path::Path| {
        hand.bottle.tool("bottle-net").env("BOTTLE_STATE", state).stdin(&plan).run()
    };
    // Nothing can be leased.
    disk.fill();
    let run = net(&folder);
    assert_eq!((run.status, run.stdout.as_str()), (3, ""), "{}", run.report());
    assert!(matches("bottle-net: [..]: No space left on device[..]", run.stderr.trim_end()));
    fs::remove_file(folder.join("filler")).unwrap();
    // A bottle comes up, talks, and the disk is full when it goes.
    let doc = net(&folder).json();
    let project = doc["net"]["project"].as_str().unwrap();
    let (name, network) = (format!("{project}-agent"), format!("{project}-internal"));
    let label = format!("bottle.project={project}");
    let talk = ["get", "--ca", "/nonexistent", "http://a.invalid/"];
    docker(
        ["run", "--name", &name, "--network", &network, "--label", &label, hand.image()]
            .iter()
            .chain(&talk),
    );
    disk.fill();
    let tool = hand.bottle.tool("bottle-reap").env("BOTTLE_STATE", &folder).args(["implementer"]);
    let run = tool.run();
    let left = docker(["ps", "-aq", "--filter", &format!("label={label}")]).ok()
        + &docker(["network", "ls", "-q", "--filter", &format!("label={label}")]).ok();
    assert_eq!(left, "", "{}", run.report());
    run.fails(3, "bottle-reap: reap 'implementer': write its log: [..]No space left on device[..]");
    assert_eq!(fs::read_dir(folder.join("leases")).unwrap().count(), 1);
}

/// Each pause is a step at which it is killed.
#[test]
fn reap_that_is_killed_at_any_step_goes_on_when_it_is_called_again() {
    for pause in [20, 150, 300, 450] {
        let Some(hand) = Hand::new() else { return };
        hand.record(Owner::None, Phase::Up);
        talk(&hand, "egress");
        hand.run("agent", &Owner::None, &["sleep", "infinity"]);
        let mut reap = hand.bottle.tool("bottle-reap").args(["implementer"]).spawn();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        reap.kill().unwrap();
        reap.wait().unwrap();
        hand.reap(&["implementer"]).ok();
        hand.bottle.is_gone();
        let archive = hand.archived();
        let logs = fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path());
        let mut logs = logs.filter(|path| path.extension().is_some_and(|end| end == "log"));
        let told = |path| fs::read_to_string(path).unwrap().contains("/nonexistent");
        assert!(logs.any(told), "{pause} ms: the log is lost");
        assert!(archive.join("metadata.json").is_file(), "{pause} ms: the record is lost");
    }
}
