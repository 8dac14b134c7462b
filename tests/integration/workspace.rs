//! What an agent cannot do to the git of a workspace that it writes; each with a control in which it
//! can, in the same folder without the bottle's mounts.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::common::manifest::Manifest;
use crate::common::skip;
use crate::support::{Bottle, Image, docker, images};

/// What an agent would do to have the host's git run something.
const ACTS: [&str; 11] = [
    "echo x >> .git/config",
    "touch .git/hooks/post-commit",
    "mv .git g",
    "rm -r .git",
    "touch vendor/other/.git/hooks/post-commit",
    "mv vendor/other/.git vendor/other/g",
    "mv vendor/other vendor/x",
    "mv vendor v",
    "mkdir third/party/.git",
    "mv third t",
    "touch .husky/post-commit",
];

/// A shell, and what the acts need.
fn shell(test: &str) -> Option<Image> {
    let path = Path::new("/bin/busybox");
    if !path.is_file() {
        skip("no busybox: install 'busybox-static'");
        return None;
    }
    let files: Vec<(String, &Path)> = ["sh", "sleep", "mv", "touch", "mkdir", "rm"]
        .map(|name| (format!("/bin/{name}"), path))
        .into();
    let files: Vec<(&str, &Path)> = files.iter().map(|(to, from)| (to.as_str(), *from)).collect();
    let image = Image::of(&format!("shell-{test}"), &files, &["ENV PATH=/bin"]);
    if docker(["run", "--rm", "--network", "none", image.name(), "sh", "-c", ":"]).status != 0 {
        skip("busybox is not static: install 'busybox-static'");
        return None;
    }
    Some(image)
}

/// Makes a repository with one of everything that git on the host obeys.
fn repository(bottle: &Bottle, name: &str) {
    let make = "git init -q . && git init -q vendor/other && mkdir -p .husky third/party plain &&
        git config core.hooksPath .husky &&
        git update-index --add --cacheinfo 160000,0123456789abcdef0123456789abcdef01234567,third/party &&
        { [ $(id -u) != 0 ] || chown -R 1000:1000 .; }";
    bottle.sh(&format!("mkdir {name} && cd {name} && {make}")).run().ok();
}

/// Everything below a repository, with its size.
fn tree(bottle: &Bottle, name: &str) -> String {
    bottle.sh(&format!("cd {name} && find . -printf '%p %y %s\\n' | sort")).run().ok()
}

#[test]
fn agent_cannot_change_what_git_on_the_host_obeys() {
    if !images() {
        return;
    }
    let Some(shell) = shell("bottle") else { return };
    if Command::new("git").arg("--version").output().is_err() {
        return skip("no git");
    }
    let manifest = Manifest::new()
        .image(shell.name())
        .set("bottles.dev.workspace", "./repo")
        .set("bottles.dev.selftest", "off");
    let bottle = Bottle::new(&manifest);
    repository(&bottle, "repo");
    bottle.start();
    // A manifest that lies here from now on is not yet the owner's word.
    let noted = fs::read_to_string(bottle.state().join("trust/written.json")).unwrap();
    assert!(noted.contains(bottle.work().join("repo").to_str().unwrap()), "{noted}");
    let before = tree(&bottle, "repo");
    for act in ACTS {
        let run = bottle.exec(&["sh", "-c", act]);
        assert_ne!(run.status, 0, "'{act}' was done: {}", run.report());
        assert_eq!(tree(&bottle, "repo"), before, "'{act}' changed something");
    }
    // The rest of the workspace is the agent's.
    for act in
        ["touch file", "mv plain other", "mkdir new", "touch vendor/file", "touch third/file"]
    {
        bottle.exec(&["sh", "-c", act]).ok();
    }
    assert!(tree(&bottle, "repo").contains("./vendor/file f"), "{}", tree(&bottle, "repo"));
}

#[test]
fn same_acts_are_done_without_the_bottle() {
    if !images() {
        return;
    }
    let Some(shell) = shell("control") else { return };
    let bottle = Bottle::new(&Manifest::new());
    let mut script = String::new();
    for (at, act) in ACTS.iter().enumerate() {
        repository(&bottle, &format!("r{at}"));
        writeln!(script, "(cd /work/r{at} && {act}) || exit 1").unwrap();
    }
    let before = tree(&bottle, "r0");
    let owner = fs::metadata(bottle.work().join("r0")).unwrap().uid().to_string();
    let mount = format!("{}:/work", bottle.work().display());
    let mut args = vec!["run", "--rm", "--cap-drop", "ALL", "--network", "none"];
    args.extend(["--user", &owner, "-v", &mount, shell.name(), "sh", "-c", &script]);
    docker(args).ok();
    for (at, act) in ACTS.iter().enumerate() {
        assert_ne!(tree(&bottle, &format!("r{at}")), before, "'{act}' changed nothing");
    }
}
