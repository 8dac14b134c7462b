//! `make demo`: it holds, and it cleans up after itself however it ends.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::common::manifest::Manifest;
use crate::common::{Tool, root};
use crate::support::{Bottle, docker, images};

/// Containers and networks of the demonstration with this process number.
fn left(pid: u32) -> String {
    let label = format!("label=bottle.demo=bottle-demo-{pid}");
    let slug = ["--filter", "label=bottle.slug=demo", "--format", "{{.ID}}"];
    let all = docker(["ps", "--all", "--quiet", "--filter", &label]).ok();
    let all = all + &docker(["ps", "--all"].iter().chain(&slug)).ok();
    all + &docker(["network", "ls"].iter().chain(&slug)).ok()
}

#[test]
fn demonstration_holds_and_an_interrupted_one_leaves_nothing() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let demo = root().join("scripts/demo");
    let run = Tool::new(&demo).bare().envs(bottle.env()).run();
    assert_eq!(run.status, 0, "{}", run.report());
    assert!(run.stdout.contains("\nIt holds."), "{}", run.report());
    assert!(run.stdout.contains("containers and networks left: none"), "{}", run.report());
    for moment in [300, 1100, 1900, 2700] {
        let mut child = Command::new(&demo)
            .env_clear()
            .envs(bottle.env())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(moment));
        kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(130), "interrupted after {moment} ms");
        assert_eq!(left(child.id()), "", "interrupted after {moment} ms");
    }
}
