//! A bottle on the real engine for one test: a state folder and a slice of the address pool of its
//! own, so that tests run side by side, and nothing left behind however the test ends.

#![allow(dead_code, reason = "the parts are for the tests beside it")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bottle::docker::label;
use bottle::state::State;

use crate::common::manifest::Manifest;
use crate::common::{Run, Scratch, Tool, bin, skip};

/// The pool that the slices are cut from, a /16.
const POOL: &str = "BOTTLE_TEST_SUBNETS";
const DEFAULT_POOL: &str = "10.199.0.0/16";

/// Calls the real docker.
pub(crate) fn docker<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    Tool::new(Path::new("docker")).args(args).run()
}

/// Whether there is an engine; where there is none, the test is skipped aloud.
pub(crate) fn engine() -> bool {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let trouble = FOUND.get_or_init(|| {
        let found = Command::new("docker")
            .args(["version", "--format", "{{.Server.Version}}"])
            .stdin(Stdio::null())
            .output();
        match found {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(e) => Some(format!("docker: {e}")),
        }
    });
    if let Some(why) = trouble {
        skip(&format!("no engine: {why}"));
    }
    trouble.is_none()
}

/// Whether there is an engine that has the images of the sidecars.
pub(crate) fn images() -> bool {
    engine() && ["egress", "probe"].iter().all(|name| image(name, "make images"))
}

/// Whether there is the image of that engine too.
pub(crate) fn mitmproxy() -> bool {
    engine() && image("mitmproxy", "make engines")
}

/// Whether one of our images is there, and what makes it where it is not.
fn image(name: &str, make: &str) -> bool {
    let image = bottle::docker::image(name);
    let there = docker(["image", "inspect", "--format", "{{.Id}}", &image]).status == 0;
    if !there {
        skip(&format!("image '{image}' is missing: run '{make}'"));
    }
    there
}

/// A bottle of one test. When it is dropped, everything it left is removed.
pub(crate) struct Bottle {
    scratch: Scratch,
    pool: String,
}

impl Bottle {
    /// A state folder and a pool of its own, with a manifest at `bottle.yaml`.
    pub(crate) fn new(manifest: &Manifest) -> Self {
        // A /24 holds sixteen subnets, eight bottles. Two processes that use one pool meet at worst
        // in "Pool overlaps", which the tools answer with the next subnet.
        static SLICE: AtomicU32 = AtomicU32::new(0);
        let offset = std::process::id().wrapping_mul(37);
        let slice = SLICE.fetch_add(1, Ordering::Relaxed).wrapping_add(offset) % 256;
        let pool = std::env::var(POOL).unwrap_or_else(|_| DEFAULT_POOL.to_owned());
        let parts: Vec<&str> = pool.split('.').collect();
        assert!(pool.ends_with("/16") && parts.len() == 4, "{POOL} '{pool}' is not a /16");
        let pool = format!("{}.{}.{slice}.0/24", parts[0], parts[1]);
        let scratch = Scratch::new();
        scratch.file("bottle.yaml", manifest.text());
        Self { scratch, pool }
    }

    /// Takes the whole pool, for a test of many bottles. What other tests have of it is in use, and
    /// so left alone by `bottle-net`.
    #[must_use]
    pub(crate) fn with_whole_pool(mut self) -> Self {
        self.pool = std::env::var(POOL).unwrap_or_else(|_| DEFAULT_POOL.to_owned());
        self
    }

    /// The pool that its subnets come from.
    pub(crate) fn pool(&self) -> &str {
        &self.pool
    }

    /// The temporary folder that all of it lies in.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The folder that tools run in.
    pub(crate) fn work(&self) -> PathBuf {
        self.scratch.work()
    }

    /// The state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.scratch.state()
    }

    /// The 8 hex digits that end the projects of this state folder.
    pub(crate) fn id(&self) -> String {
        State::at(&self.state()).unwrap().id()
    }

    /// Writes a file into the folder that tools run in.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        self.scratch.file(name, text)
    }

    /// The environment of the tools: the caller's way to the engine, and our own everything else.
    pub(crate) fn env(&self) -> Vec<(&'static str, OsString)> {
        let beside = bin("bottle-plan").parent().unwrap().to_owned();
        let scripts = crate::common::root().join("scripts");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths([beside, scripts].into_iter().chain(std::env::split_paths(&path)));
        let mut env = vec![
            ("PATH", path.unwrap()),
            ("BOTTLE_BIN", bin("bottle-plan").parent().unwrap().into()),
            ("BOTTLE_STATE", self.state().into()),
            ("BOTTLE_SUBNETS", OsString::from(&self.pool)),
        ];
        for name in [
            "HOME",
            "DOCKER_HOST",
            "DOCKER_CONFIG",
            "DOCKER_CONTEXT",
            "BOTTLE_COMPOSE",
            "BOTTLE_IMAGE_TAG",
        ] {
            env.extend(std::env::var_os(name).map(|value| (name, value)));
        }
        env
    }

    /// A tool, ready to be run for this bottle.
    pub(crate) fn tool(&self, name: &str) -> Tool {
        Tool::new(&bin(name)).bare().envs(self.env()).dir(&self.work())
    }

    /// The glue script, ready to be run for this bottle.
    pub(crate) fn script(&self) -> Tool {
        let script = crate::common::root().join("scripts/bottle");
        Tool::new(&script).bare().envs(self.env()).dir(&self.work())
    }

    /// Shell text, ready to be run for this bottle.
    pub(crate) fn sh(&self, text: &str) -> Tool {
        Tool::new(Path::new("/bin/sh")).bare().envs(self.env()).dir(&self.work()).args(["-c", text])
    }

    /// Starts the agent of the manifest by the whole pipeline; gives the document.
    pub(crate) fn start(&self) -> serde_json::Value {
        self.sh("bottle-plan implementer | bottle-net | bottle-render | bottle-up").run().json()
    }

    /// Runs a program in the agent's container.
    pub(crate) fn exec(&self, args: &[&str]) -> Run {
        let agent = self.tool("bottle-ps").args(["-q", "implementer"]).run().ok();
        docker(["exec", agent.trim()].iter().chain(args))
    }

    /// Names of the containers and networks that still carry our labels.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let end = format!("-{}", self.id());
        let ours = |listed: Run| -> Vec<String> {
            let all = listed.ok();
            let all = all.lines().filter_map(|line| line.split_once(' '));
            all.filter(|(project, _)| project.ends_with(&end))
                .map(|(_, it)| it.to_owned())
                .collect()
        };
        let filter = format!("label={}", label::PROJECT);
        let containers = format!("{{{{.Label \"{}\"}}}} container {{{{.Names}}}}", label::PROJECT);
        let networks = format!("{{{{.Label \"{}\"}}}} network {{{{.Name}}}}", label::PROJECT);
        let mut all = ours(docker(["ps", "-a", "--filter", &filter, "--format", &containers]));
        all.extend(ours(docker(["network", "ls", "--filter", &filter, "--format", &networks])));
        all
    }

    /// Asserts that nothing is left: no container, network, lease or record.
    #[track_caller]
    pub(crate) fn is_gone(&self) {
        assert_eq!(self.leftovers(), Vec::<String>::new());
        for name in ["leases", "implementer"] {
            let folder = self.state().join(name);
            let mut left: Vec<_> = fs::read_dir(&folder)
                .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
                .unwrap_or_default();
            // The lock of the leases is one file for all of them, for ever.
            left.retain(|file| name != "leases" || file != "lock");
            assert!(left.is_empty(), "{} still holds {left:?}", folder.display());
        }
    }
}

impl Drop for Bottle {
    fn drop(&mut self) {
        // By the tool first, because that is what a user has; then by hand, because a test of a
        // broken tool must not leave anything either.
        let _ = self.tool("bottle-reap").args(["--all"]).run();
        for left in self.leftovers() {
            let Some((kind, name)) = left.split_once(' ') else { continue };
            let _ = match kind {
                "container" => docker(["rm", "-f", name]),
                _ => docker(["network", "rm", name]),
            };
        }
    }
}

/// An image made of a few files, by `docker import`; removed when it is dropped.
pub(crate) struct Image(String);

impl Image {
    /// `files` are pairs of a path in the image and the host's file that goes there, with its mode.
    pub(crate) fn of(name: &str, files: &[(&str, &Path)], changes: &[&str]) -> Self {
        let tree = tempfile::tempdir().unwrap();
        for (target, source) in files {
            let target = tree.path().join(target.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(source, target).unwrap();
        }
        let name = format!("bottle-test-{name}:{}", std::process::id());
        let mut tar = Command::new("tar")
            .args(["-C", tree.path().to_str().unwrap(), "--owner=0", "--group=0", "-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let changes = changes.iter().flat_map(|change| ["--change", change]);
        Tool::new(Path::new("docker"))
            .args(["import"].into_iter().chain(changes).chain(["-", &name]))
            .stdin_from(tar.stdout.take().unwrap())
            .run()
            .ok();
        assert!(tar.wait().unwrap().success());
        Self(name)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = docker(["image", "rm", "-f", &self.0]);
    }
}

#[test]
fn bottle_of_a_test_leaves_nothing_behind() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let project = format!("bottle-implementer-{}", bottle.id());
    let name = format!("{project}-internal");
    let project = format!("{}={project}", label::PROJECT);
    let subnet = bottle.pool.replace("/24", "/28");
    docker(["network", "create", "--label", &project, "--subnet", &subnet, &name]).ok();
    assert_eq!(bottle.leftovers(), [format!("network {name}")]);
    drop(bottle);
    let listed = docker(["network", "ls", "--filter", &format!("name={name}"), "-q"]);
    assert_eq!(listed.ok(), "");
}
