//! The glue script on a real engine, without a terminal: codes, names, signals, death.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bottle::docker::image;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::common::manifest::Manifest;
use crate::common::{Run, Tool, root, skip};
use crate::support::{Bottle, docker, images};

/// Moments of a start at which it is interrupted, in milliseconds. It takes about two seconds; the
/// gaps are odd so that they meet different steps.
const MOMENTS: [u64; 12] = [5, 40, 90, 170, 260, 390, 530, 710, 930, 1190, 1480, 1970];

fn manifest() -> Manifest {
    Manifest::new().image(&image("probe"))
}

fn run(bottle: &Bottle, args: &[&str]) -> Run {
    bottle.script().args(args).run()
}

/// Starts the script as the leader of a process group, as a shell with job control would.
fn leader(bottle: &Bottle, args: &[&str]) -> Child {
    leader_by(bottle, &[], args)
}

/// The same, run by this shell.
fn leader_by(bottle: &Bottle, shell: &[&str], args: &[&str]) -> Child {
    // `env` becomes the shell, or the script where none is named.
    Command::new("env")
        .args(shell)
        .arg(root().join("scripts/bottle"))
        .args(args)
        .env_clear()
        .envs(bottle.env())
        .current_dir(bottle.work())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

fn code(child: &mut Child) -> i32 {
    let status = child.wait().unwrap();
    status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap()
}

/// Waits until `found` is true of a bottle.
#[track_caller]
fn until(what: &str, found: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_mins(2);
    while !found() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the command of a bottle runs in its agent.
fn until_it_works(bottle: &Bottle) {
    until("the agent's command runs", || {
        let agent = bottle.tool("bottle-ps").args(["-q", "implementer"]).run();
        agent.status == 0
            && docker(["top", agent.stdout.trim(), "-o", "pid,args"]).stdout.contains("probe sleep")
    });
}

#[test]
fn code_of_the_command_is_passed_on() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&manifest());
    for expected in [0, 7] {
        let text = expected.to_string();
        let run = run(&bottle, &["start", "implementer", "--", "bottle-probe", "exit", &text]);
        assert_eq!((run.status, run.stdout.as_str()), (expected, ""), "{}", run.report());
        bottle.is_gone();
    }
}

#[test]
fn command_of_the_manifest_gets_its_words() {
    if !images() {
        return;
    }
    let words = ["bottle-probe", "echo", "it's", "$HOME", "a  b"];
    let bottle = Bottle::new(&manifest().set("agents.implementer.command", words.to_vec()));
    let run = run(&bottle, &["start", "implementer"]);
    assert_eq!((run.status, run.stdout.as_str()), (0, "it's\n$HOME\na  b\n"), "{}", run.report());
    bottle.is_gone();
}

#[test]
fn stdin_and_stdout_of_the_command_are_the_callers() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&manifest());
    let args = ["start", "implementer", "--", "bottle-probe", "cat"];
    let run = bottle.script().args(args).stdin(b"a\0b\r\nc").run();
    assert_eq!((run.status, run.stdout.as_str()), (0, "a\0b\r\nc"), "{}", run.report());
    bottle.is_gone();
}

#[test]
fn suite_that_fails_first_ends_with_125() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&manifest().image("bottle-test-of-no-such-image:1"));
    for args in [
        &["start", "implementer", "--", "true"][..],
        &["start", "nobody", "--", "true"],
        &["start", "implementer"],
        &["start"],
        &["exec", "implementer", "true"],
        &["attach", "implementer"],
    ] {
        let run = run(&bottle, args);
        assert_eq!((run.status, run.stdout.as_str()), (125, ""), "{}", run.report());
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.report());
        bottle.is_gone();
    }
}

#[test]
fn running_bottle_is_entered_listed_and_stopped() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(
        &manifest().set("agents.implementer.command", vec!["bottle-probe", "exit", "9"]),
    );
    assert_eq!(run(&bottle, &["start", "--detach", "implementer"]).ok(), "implementer\n");
    assert_eq!(run(&bottle, &["exec", "implementer", "--", "bottle-probe", "exit", "7"]).status, 7);
    assert_eq!(run(&bottle, &["attach", "implementer"]).status, 9);
    assert!(run(&bottle, &["ps"]).ok().contains("implementer"));
    run(&bottle, &["logs", "implementer"]).ok();
    let second = run(&bottle, &["start", "implementer", "--", "bottle-probe", "exit", "0"]);
    let line = "bottle-net: bottle 'implementer' is there already[..]--slug[..]";
    second.fails(125, line);
    let other = ["start", "implementer", "--slug", "other", "--", "bottle-probe", "exit", "0"];
    run(&bottle, &other).ok();
    // The refused and the other one have left the first alone.
    assert_eq!(run(&bottle, &["exec", "implementer", "bottle-probe", "exit", "3"]).status, 3);
    run(&bottle, &["stop", "implementer"]).ok();
    bottle.is_gone();
    // Its log is in the archive now; of one that never was there is none.
    run(&bottle, &["logs", "implementer"]).ok();
    assert_eq!(run(&bottle, &["logs", "nobody"]).status, 1);
    run(&bottle, &["stop", "implementer"]).ok();
}

#[test]
fn interrupt_at_any_moment_leaves_nothing() {
    if !images() {
        return;
    }
    for moment in MOMENTS {
        let bottle = Bottle::new(&manifest());
        let args = ["start", "implementer", "--", "bottle-probe", "sleep"];
        let mut child = leader(&bottle, &args);
        std::thread::sleep(Duration::from_millis(moment));
        kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(code(&mut child), 130, "interrupted after {moment} ms");
        bottle.is_gone();
    }
}

#[test]
fn request_to_end_the_script_alone_ends_the_command_too() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&manifest());
    let mut child = leader(&bottle, &["start", "implementer", "--", "bottle-probe", "sleep"]);
    until_it_works(&bottle);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(code(&mut child), 143);
    bottle.is_gone();
}

#[test]
fn every_shell_passes_codes_on_and_ends_when_asked() {
    if !images() {
        return;
    }
    for shell in [&["dash"][..], &["bash"], &["busybox", "ash"]] {
        let asked = ["-c", "command -v \"$0\" >/dev/null", shell[0]];
        if Tool::new(Path::new("/bin/sh")).args(asked).run().status != 0 {
            skip(&format!("no '{}' here", shell[0]));
            continue;
        }
        let bottle = Bottle::new(&manifest());
        let args = ["start", "implementer", "--", "bottle-probe", "exit", "7"];
        assert_eq!(code(&mut leader_by(&bottle, shell, &args)), 7, "{shell:?}");
        bottle.is_gone();
        let args = ["start", "implementer", "--", "bottle-probe", "sleep"];
        let mut child = leader_by(&bottle, shell, &args);
        until_it_works(&bottle);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(code(&mut child), 143, "{shell:?}");
        bottle.is_gone();
    }
}

#[test]
fn killed_script_is_reaped_as_an_orphan() {
    if !images() {
        return;
    }
    for moment in MOMENTS {
        let bottle = Bottle::new(&manifest());
        let args = ["start", "implementer", "--", "bottle-probe", "sleep"];
        let mut child = leader(&bottle, &args);
        std::thread::sleep(Duration::from_millis(moment));
        kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
        assert_eq!(code(&mut child), 137, "killed after {moment} ms");
        bottle.tool("bottle-reap").args(["--orphans"]).run().ok();
        bottle.is_gone();
    }
}

#[test]
fn script_that_is_killed_over_its_command_leaves_an_orphan() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&manifest());
    let mut child = leader(&bottle, &["start", "implementer", "--", "bottle-probe", "sleep"]);
    until_it_works(&bottle);
    bottle.tool("bottle-reap").args(["--orphans"]).run().ok();
    assert!(!bottle.leftovers().is_empty(), "a bottle whose owner lives was reaped");
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    assert_eq!(code(&mut child), 137);
    bottle.tool("bottle-reap").args(["--orphans"]).run().ok();
    bottle.is_gone();
}
