//! `bottle-render` with a real engine: what it writes, for whom, and what it leaves when it fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bottle::docker::image;
use serde_json::json;

use crate::common::manifest::Manifest;
use crate::common::{Tool, skip};
use crate::support::{Bottle, Image, docker, images};

const PIPE: &str = "bottle-plan implementer | bottle-net | bottle-render";

fn probe() -> Manifest {
    Manifest::new().image(&image("probe"))
}

/// Every file below a folder with its bytes, but for locks.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(tree(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// Owner, group and mode of a file.
fn owner(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

/// Whether this is root; else the test is skipped aloud.
fn root(why: &str) -> bool {
    let is = bottle::state::caller_ids().0 == 0;
    if !is {
        skip(why);
    }
    is
}

#[test]
fn second_render_writes_the_same_bytes() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&probe().set("agents.implementer.prompt", "Mend the tests."));
    let doc = bottle.sh(PIPE).run().ok();
    let folder = bottle.state().join("implementer");
    let first = tree(&folder);
    assert_eq!(bottle.tool("bottle-render").stdin(&doc).run().ok(), doc);
    assert_eq!(tree(&folder), first);
    assert_eq!(first[&folder.join("agent/conf/prompt")], b"Mend the tests.");
    for (name, path) in [
        ("docker-compose.yml", "docker-compose.yml"),
        ("routes.yaml", "egress/conf/routes.yaml"),
        ("plan.json", "plan.json"),
    ] {
        let print = bottle.tool("bottle-render").args(["--print", name]).stdin(&doc);
        assert_eq!(print.run().ok().as_bytes(), first[&folder.join(path)]);
    }
}

#[test]
fn certificates_are_split_and_bundled() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&probe());
    bottle.sh(PIPE).run().ok();
    let folder = bottle.state().join("implementer");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let (key, ca) = (read("egress/conf/ca-key.pem"), read("egress/conf/ca.pem"));
    assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----\n"), "{key}");
    assert_eq!(read("egress/conf/mitmproxy-ca.pem"), [key, ca.clone()].concat());
    assert_eq!(read("agent/conf/ca.pem"), ca);
    assert_eq!(read("agent/conf/bundle.pem"), [read("egress/conf/roots.pem"), ca].concat());
}

#[test]
fn folders_belong_to_those_who_read_them() {
    if !images() || !root("only root gives files away") {
        return;
    }
    let bottle = Bottle::new(&probe());
    bottle.sh(PIPE).run().ok();
    let folder = bottle.state().join("implementer");
    for (name, expected) in [
        ("agent", (0, 0, 0o700)),
        ("agent/conf", (65533, 65533, 0o700)),
        ("agent/conf/bundle.pem", (65533, 65533, 0o644)),
        ("agent/passwd", (0, 0, 0o644)),
        ("egress/conf", (65532, 65532, 0o700)),
        ("egress/conf/ca-key.pem", (65532, 65532, 0o600)),
        ("egress/conf/mitmproxy-ca.pem", (65532, 65532, 0o644)),
        ("egress/run", (65532, 65532, 0o700)),
        ("docker-compose.yml", (0, 0, 0o600)),
        ("metadata.json", (0, 0, 0o600)),
    ] {
        assert_eq!(owner(&folder.join(name)), expected, "{name}");
    }
}

#[test]
fn agent_of_a_caller_who_is_root_runs_as_the_owner_of_the_workspace() {
    if !images() || !root("only root gives files away") {
        return;
    }
    let bottle = Bottle::new(&probe().set("bottles.dev.workspace.source", "src"));
    let src = bottle.work().join("src");
    fs::create_dir(&src).unwrap();
    assert!(Tool::new(Path::new("git")).args(["init", "-q"]).dir(&src).run().status == 0);
    bottle.sh("bottle-plan implementer | bottle-net >net.json").run().ok();
    let refused = format!(
        "bottle-render: mount the workspace '{}': uid 65533 of the agent cannot write in it: set 'user: root', or 'read_only: true', or 'mode: copy'",
        src.display()
    );
    bottle.sh("bottle-render <net.json").run().fails(2, &refused);
    assert_eq!(tree(&bottle.state().join("implementer")), BTreeMap::new());
    std::os::unix::fs::chown(&src, Some(1234), Some(100)).unwrap();
    let doc = bottle.sh("bottle-render <net.json").run().json();
    assert_eq!(doc["render"]["user"], "1234:100");
    assert_eq!(doc["render"]["run_as"], "65532:65532");
}

#[test]
fn passwd_of_the_image_gets_a_line_for_the_agent() {
    if !images() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let lines = "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n";
    let passwd = scratch.path().join("passwd");
    fs::write(&passwd, lines).unwrap();
    let with = Image::of("passwd", &[("/etc/passwd", &passwd)], &[]);
    for (user, own) in
        [("1000", ""), ("0:0", ""), ("77:88", "agent:x:77:88:agent:/home/agent:/bin/sh\n")]
    {
        let bottle = Bottle::new(&probe().image(with.name()).set("bottles.dev.user", user));
        bottle.sh(PIPE).run().ok();
        let written = fs::read_to_string(bottle.state().join("implementer/agent/passwd")).unwrap();
        assert_eq!(written, format!("{lines}{own}"));
        // Looking into the image took a container, which is gone.
        assert_eq!(bottle.leftovers().iter().filter(|it| it.starts_with("container")).count(), 0);
    }
}

#[test]
fn copy_of_a_workspace_holds_what_lies_in_it_and_nothing_that_links_lead_to() {
    if !images() {
        return;
    }
    let manifest = probe().set("bottles.dev.workspace", json!({ "source": "src", "mode": "copy" }));
    let bottle = Bottle::new(&manifest);
    let src = bottle.work().join("src");
    fs::create_dir_all(src.join("a/b")).unwrap();
    let script = bottle.file("src/a/run.sh", "#!/bin/sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    symlink("/etc/passwd", src.join("out")).unwrap();
    symlink("a", src.join("in")).unwrap();
    assert!(Tool::new(Path::new("mkfifo")).args([src.join("pipe")]).run().status == 0);
    let doc = bottle.sh(PIPE).run().ok();
    let copy = bottle.state().join("implementer/agent/workspace");
    assert_eq!(fs::read_link(copy.join("out")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_link(copy.join("in")).unwrap(), Path::new("a"));
    assert_eq!(owner(&copy.join("a/run.sh")).2, 0o750);
    assert!(copy.join("a/b").is_dir());
    assert!(!copy.join("pipe").exists());
    let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(modified(&copy.join("a/run.sh")), modified(&script));
    if bottle::state::caller_ids().0 == 0 {
        assert_eq!(owner(&copy.join("out")).0, 65533);
        assert_eq!(owner(&copy.join("a")).0, 65533);
    }
    // Work in it is kept when the pipeline is run again.
    fs::write(copy.join("work"), "done").unwrap();
    bottle.tool("bottle-render").stdin(doc).run().ok();
    assert!(fs::symlink_metadata(src.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read(copy.join("work")).unwrap(), b"done");
}

#[test]
fn full_disk_leaves_nothing_half_written() {
    if !images() || !root("only root mounts a small disk") {
        return;
    }
    let bottle = Bottle::new(&probe());
    let state = bottle.state();
    fs::create_dir(&state).unwrap();
    let disk = Disk::mount(&state, "64k");
    bottle.sh("bottle-plan implementer | bottle-net >net.json").run().ok();
    let run = bottle.sh("bottle-render <net.json").run();
    run.fails(3, "bottle-render: write '[..]': No space left on device (os error 28)");
    assert_eq!(tree(&state.join("implementer")), BTreeMap::new());
    // The control: on a larger one it works.
    disk.resize("8m");
    bottle.sh("bottle-render <net.json").run().ok();
    bottle.tool("bottle-reap").args(["implementer"]).run();
    drop(disk);
}

/// A small disk.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Self {
        let size = format!("size={size},mode=0700");
        Tool::new(Path::new("mount"))
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .args([at])
            .run()
            .ok();
        Self(at.to_owned())
    }

    fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        Tool::new(Path::new("mount")).args(["-o", &size]).args([&self.0]).run().ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Tool::new(Path::new("umount")).args(["-l"]).args([&self.0]).run();
    }
}

#[test]
fn image_is_built_where_the_manifest_says_how() {
    if !images() {
        return;
    }
    let manifest = probe().without("bottles.dev.image").set("bottles.dev.build.context", "image");
    let bottle = Bottle::new(&manifest);
    bottle.file("image/Dockerfile", format!("FROM {}\nENV BUILT=yes\n", image("probe")));
    let doc = bottle.sh(PIPE).run().json();
    let tag = doc["render"]["services"]["agent"].as_str().unwrap();
    assert!(tag.starts_with("bottle-build-implementer:"), "{tag}");
    let env = docker(["image", "inspect", "--format", "{{json .Config.Env}}", tag]).ok();
    docker(["image", "rm", tag]).ok();
    assert!(env.contains("BUILT=yes"), "{env}");
}

#[test]
fn closed_stdout_takes_the_files_back() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&probe());
    let doc = bottle.sh("bottle-plan implementer | bottle-net").run().ok();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let run = bottle.tool("bottle-render").stdin(&doc).stdout_to(full).run();
    run.fails(
        3,
        "bottle-render: write the document to stdout: No space left on device (os error 28)",
    );
    assert_eq!(tree(&bottle.state().join("implementer")), BTreeMap::new());
}

#[test]
fn engine_that_is_away_is_told() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&probe());
    let doc = bottle.sh("bottle-plan implementer | bottle-net").run().ok();
    let render = bottle.tool("bottle-render").env("DOCKER_HOST", "unix:///nonexistent").stdin(&doc);
    render.run().fails(
        3,
        "bottle-render: look at the images: cannot connect to the Docker engine: is it running: start it, or set DOCKER_HOST",
    );
}

#[test]
fn secret_that_cannot_be_read_is_named() {
    if !root("root becomes a user who may not read") {
        return;
    }
    let manifest = Manifest::new()
        .set("bottles.dev.secrets", json!({ "key": { "from_file": "key" } }))
        .route(json!({ "host": "api.example.com", "inject": { "secret": "key", "bearer": true } }));
    let bottle = Bottle::new(&manifest);
    let key = bottle.file("key", "s3cret");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let top = bottle.work().parent().unwrap().to_owned();
    fs::set_permissions(top, fs::Permissions::from_mode(0o755)).unwrap();
    bottle.sh("bottle-plan implementer | bottle-net --dry-run >net.json").run().ok();
    let dry = "bottle-render --dry-run <net.json";
    let text = format!("BOTTLE_STATE=$PWD/none; export BOTTLE_STATE; {dry}");
    let as_user = ["--reuid=4242", "--regid=4242", "--clear-groups", "--inh-caps=-all", "sh", "-c"];
    let run = Tool::new(Path::new("setpriv")).bare().envs(bottle.env()).dir(&bottle.work());
    let told = format!(
        "bottle-render: find secret 'key': read '{}': Permission denied (os error 13)",
        key.display()
    );
    run.args(as_user).args([&text]).run().fails(2, &told);
    // The control: root may.
    bottle.sh(dry).run().ok();
}
