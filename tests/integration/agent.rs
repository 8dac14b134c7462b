//! What the agent has and has not, on the real engine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::Tool;
use crate::support::{Bottle, Image, docker, images};
use crate::up::{container, probe, rendered, up};

#[test]
fn key_is_nowhere_where_the_agent_looks() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    up(&bottle, &doc, &[]).ok();
    let key =
        fs::read_to_string(bottle.state().join("implementer/egress/conf/ca-key.pem")).unwrap();
    assert!(!holds(&container(&bottle, "agent"), &key));
    // The control.
    assert!(holds(&container(&bottle, "egress"), &key));
}

/// Whether lines of a key are in what a container is made of: its settings, its mounts, its files.
pub(crate) fn holds(name: &str, key: &str) -> bool {
    let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(secret.len() >= 2, "{key}");
    let inspected = docker(["inspect", name]).ok();
    let found: Value = serde_json::from_str(&inspected).unwrap();
    let mut texts = vec![inspected];
    for mount in found[0]["Mounts"].as_array().unwrap() {
        read_all(Path::new(mount["Source"].as_str().unwrap()), &mut texts);
    }
    // What the container has beside its mounts.
    let export = Tool::new(Path::new("/bin/sh"));
    let export = export.args(["-c", &format!("docker export {name} | strings -n 8")]).run();
    texts.push(export.stdout);
    texts.iter().any(|text| secret.iter().any(|line| text.contains(line)))
}

fn read_all(path: &Path, texts: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            read_all(&entry.unwrap().path(), texts);
        }
    } else if path.is_file() {
        texts.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
    }
}

#[test]
fn dollars_reach_the_agent_as_they_are_written() {
    if !images() {
        return;
    }
    let manifest = probe()
        .set(
            "bottles.dev.env",
            json!({ "A": "p$HOME", "B": "${HOME}", "C": "$$", "D": "${NO:?x}" }),
        )
        .set(
            "bottles.dev.workspace",
            json!({ "source": "${HOME}", "target": "/w/$HOME", "mode": "copy" }),
        )
        .set(
            "bottles.dev.mounts",
            json!([{ "source": "m$HOME", "target": "/m/${HOME}", "read_only": true }]),
        );
    let bottle = Bottle::new(&manifest);
    for name in ["${HOME}", "m$HOME"] {
        fs::create_dir(bottle.work().join(name)).unwrap();
    }
    bottle.start();
    let mut found = docker(["inspect", &container(&bottle, "agent")]).json();
    let found = found[0].take();
    for line in ["A=p$HOME", "B=${HOME}", "C=$$", "D=${NO:?x}"] {
        assert!(found["Config"]["Env"].as_array().unwrap().contains(&json!(line)), "{line}");
    }
    assert_eq!(found["Config"]["WorkingDir"], "/w/$HOME");
    let mounts = found["Mounts"].as_array().unwrap();
    let mount = mounts.iter().find(|mount| mount["Destination"] == "/m/${HOME}").unwrap();
    assert_eq!(mount["Source"], json!(bottle.work().join("m$HOME")));
}

/// An image with a shell and a few programs of this machine.
fn shell(name: &str) -> Image {
    let mut files = Vec::new();
    for program in ["sh", "cat", "cp", "id", "mkdir", "mv", "rm", "sleep", "touch"] {
        let script = format!("p=$(readlink -f $(command -v {program})); echo $p; ldd $p");
        let run = Tool::new(Path::new("/bin/sh")).args(["-c", &script]).run().ok();
        let mut words = run.split_whitespace();
        let path = words.next().unwrap().to_owned();
        files.push((format!("/bin/{program}"), path));
        // `libc.so.6 => /lib/… (0x…)`, and the loader alone.
        let libraries = words.filter(|word| word.starts_with('/'));
        files.extend(libraries.map(|path| (path.to_owned(), path.to_owned())));
    }
    let files: Vec<(&str, &Path)> =
        files.iter().map(|(target, source)| (target.as_str(), Path::new(source))).collect();
    Image::of(name, &files, &["ENV PATH=/bin"])
}

#[test]
fn agent_has_a_home_a_name_and_room_for_its_files() {
    if !images() {
        return;
    }
    let image = shell("home");
    let bottle = Bottle::new(&probe().image(image.name()));
    bottle.start();
    let sh = |text: &str| bottle.exec(&["sh", "-c", text]);
    assert_eq!(sh("echo $HOME; id -un").ok(), "/home/agent\nagent\n");
    // It may run what it installs.
    assert_eq!(
        sh("for d in $HOME /tmp; do cp /bin/id $d && $d/id -un; done").ok(),
        "agent\nagent\n"
    );
    assert_ne!(sh(": >/etc/passwd").status, 0);
    assert_ne!(sh(": >/etc/bottle/ca.pem").status, 0);
    assert_eq!(sh("cat /etc/bottle/ca-key.pem").status, 1);
}

#[test]
fn git_folder_of_a_bound_workspace_can_be_neither_written_nor_moved() {
    if !images() {
        return;
    }
    let image = shell("git");
    let manifest = probe().image(image.name()).set("bottles.dev.workspace.source", "src");
    let bottle = Bottle::new(&manifest);
    let src = bottle.work().join("src");
    let git = "git init -q src && git -C src -c user.name=x -c user.email=x commit -q --allow-empty -m x && mkdir -p src/sub && git init -q src/sub";
    bottle.sh(git).run().ok();
    if bottle::state::caller_ids().0 == 0 {
        Tool::new(Path::new("chown")).args(["-R", "1234:1234"]).args([&src]).run().ok();
    }
    bottle.start();
    let sh = |text: &str| bottle.exec(&["sh", "-c", text]);
    for forbidden in [
        "echo x >.git/hooks/post-checkout",
        "echo x >>.git/config",
        "mv .git old",
        "rm -r .git",
        "echo x >sub/.git/hooks/post-checkout",
        "mv sub/.git old",
        "mv sub old",
    ] {
        let run = sh(forbidden);
        assert_ne!(run.status, 0, "{forbidden}: {}", run.report());
    }
    // The control: elsewhere it works, and the files are not root's.
    sh("echo x >file && mkdir new && mv new newer && echo x >sub/file && mv sub/file sub/moved")
        .ok();
    let made = fs::metadata(src.join("sub/moved")).unwrap();
    assert_eq!(made.uid(), fs::metadata(&src).unwrap().uid());
    let whole = Tool::new(Path::new("git")).args(["-c", "safe.directory=*", "-C"]).args([&src]);
    whole.args(["fsck", "--no-progress"]).run().ok();
}

#[test]
fn work_in_a_copied_workspace_stays_in_the_copy() {
    if !images() {
        return;
    }
    let image = shell("copy");
    let manifest = probe()
        .image(image.name())
        .set("bottles.dev.workspace", json!({ "source": "src", "mode": "copy" }));
    let bottle = Bottle::new(&manifest);
    bottle.file("src/file", "theirs\n");
    bottle.start();
    bottle.exec(&["sh", "-c", "cat file && echo mine >file && touch new"]).ok();
    let read = |path: &str| fs::read_to_string(path).ok();
    let host = bottle.work().join("src");
    assert_eq!(read(host.join("file").to_str().unwrap()).as_deref(), Some("theirs\n"));
    assert!(!host.join("new").exists());
    let copy = bottle.state().join("implementer/agent/workspace/file");
    assert_eq!(read(copy.to_str().unwrap()).as_deref(), Some("mine\n"));
}
