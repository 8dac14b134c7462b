//! What no bottle may be given: mounts that lead out of it, and things that the host obeys although
//! an agent can write them.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::path::follow;
use bottle::plan::{Plan, WorkspaceMode};
use bottle::{Blame, caller};

use crate::facts::Facts;
use crate::git;

/// Folders of the kernel, and of the engine, which are the host itself.
const HOST: [&str; 7] = [
    "/proc",
    "/sys",
    "/dev",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/rancher",
];

/// Where engines listen. Whoever reaches one is root on the host.
const SOCKETS: [&str; 9] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/k3s",
    "/run/buildkit",
    "/run/systemd",
];

/// Where engines of one user listen, below the home and the runtime folder.
const USER_SOCKETS: [&str; 8] = [
    ".docker/run",
    ".docker/desktop",
    ".colima",
    ".lima",
    ".orbstack/run",
    ".rd",
    "docker.sock",
    "podman",
];

/// Checks what a plan mounts, and finds what stays read-only in its workspace.
pub(crate) fn check(plan: &mut Plan, facts: &Facts) -> Result<()> {
    let closed = closed(facts);
    for mount in &plan.mounts {
        let what = format!("mount '{}'", mount.source.display());
        let check = || -> Result<()> {
            check_source(&mount.source, &closed)?;
            if mount.read_only { Ok(()) } else { check_writable(&mount.source) }
        };
        check().caller(what)?;
    }
    if let Some(workspace) = &mut plan.workspace {
        let what = format!("workspace '{}'", workspace.source.display());
        check_source(&workspace.source, &closed).caller(&what)?;
        if workspace.mode == WorkspaceMode::Bind && !workspace.read_only {
            check_inside_git(&workspace.source).caller(&what)?;
            let found = git::protect(&workspace.source).caller(&what)?;
            workspace.protected = found.paths;
            workspace.pinned = found.pinned;
        }
    }
    check_obeyed(plan, facts)
}

/// Everything that is no agent's business, each with what it is.
fn closed(facts: &Facts) -> Vec<(PathBuf, &'static str)> {
    let mut closed: Vec<(PathBuf, &str)> = Vec::new();
    let mut add = |path: PathBuf, what| {
        // Both where it is said to be and where links lead.
        closed.extend(follow(&path).ok().map(|found| (found.path, what)));
        closed.push((path, what));
    };
    add(facts.state.root().to_owned(), "the state folder of bottle");
    let engine = "a socket of the engine";
    for path in SOCKETS {
        add(path.into(), engine);
    }
    let homes = [facts.base.home.clone(), facts.runtime.clone()];
    for home in homes.iter().flatten() {
        for path in USER_SOCKETS {
            add(home.join(path), engine);
        }
    }
    if let Some(socket) = &facts.engine {
        add(socket.clone(), engine);
    }
    for path in HOST {
        add(path.into(), "the host's own");
    }
    closed
}

/// Refuses a source that contains or lies in what is closed, and what is neither folder nor file.
fn check_source(source: &Path, closed: &[(PathBuf, &str)]) -> Result<()> {
    if source == Path::new("/") {
        return Err(caller("it is the whole host: name the folder that is meant"));
    }
    // A tmpfs that everyone may write, in spite of its name no device.
    let shared = source.starts_with("/dev/shm") && source != Path::new("/dev/shm");
    for (path, what) in closed.iter().filter(|(path, _)| !(shared && path == Path::new("/dev"))) {
        if source.starts_with(path) {
            return Err(caller(format!(
                "it lies in '{}', {what}: mount something else",
                path.display()
            )));
        }
        if path.starts_with(source) {
            return Err(caller(format!(
                "it contains '{}', {what}: mount a folder beside it",
                path.display()
            )));
        }
    }
    let kind = fs::metadata(source).caller("look at it")?.file_type();
    if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        return Err(caller(
            "it is a socket, pipe or device, a way out of the bottle: mount files and folders only",
        ));
    }
    Ok(())
}

/// Refuses a writable mount, beside the workspace, of anything that is git's.
fn check_writable(source: &Path) -> Result<()> {
    check_inside_git(source)?;
    if !source.is_dir() {
        return Ok(());
    }
    match git::find(source)?.first() {
        Some(found) => Err(caller(format!(
            "it holds '{}', and an agent could change what git on the host obeys there: make it the workspace, or read_only",
            found.display()
        ))),
        None => Ok(()),
    }
}

/// Refuses what lies in a `.git`.
fn check_inside_git(source: &Path) -> Result<()> {
    let inside = source.components().any(|part| part.as_os_str().eq_ignore_ascii_case(".git"));
    if inside {
        return Err(caller("it lies in a '.git', which git on the host obeys: mount it read_only"));
    }
    Ok(())
}

/// Refuses what the host reads, runs or follows on behalf of this plan while an agent could have
/// written it, and keys that an agent could read.
fn check_obeyed(plan: &Plan, facts: &Facts) -> Result<()> {
    let written = |path: &Path| facts.writable.iter().find(|folder| path.starts_with(folder));
    for (text, link) in facts.base.links.borrow().iter() {
        if let Some(folder) = written(link) {
            return Err(caller(format!(
                "'{text}' leads through link '{}', which an agent can turn elsewhere, because '{}' is writable: write where it leads to",
                link.display(),
                folder.display()
            )));
        }
    }
    for (what, path) in obeyed(plan, facts) {
        if let Some(folder) = written(&path) {
            return Err(caller(format!(
                "{what} '{}' can be changed by an agent, because '{}' is writable, and the host uses it: keep it elsewhere",
                path.display(),
                folder.display()
            )));
        }
    }
    let mut shown: Vec<&Path> = plan.mounts.iter().map(|mount| mount.source.as_path()).collect();
    shown.extend(plan.workspace.as_ref().map(|workspace| workspace.source.as_path()));
    shown.extend(plan.skills.iter().map(PathBuf::as_path));
    for (what, path) in secret(plan) {
        if let Some(source) = shown.iter().find(|source| path.starts_with(source)) {
            return Err(caller(format!(
                "{what} '{}' would be shown to the agent by '{}': keep it elsewhere",
                path.display(),
                source.display()
            )));
        }
    }
    Ok(())
}

/// What the host reads or runs, other than mounts.
fn obeyed(plan: &Plan, facts: &Facts) -> Vec<(&'static str, PathBuf)> {
    let mut found: Vec<_> = secret(plan).map(|(what, path)| (what, path.to_owned())).collect();
    found.extend(plan.build.iter().map(|build| ("build context", build.context.clone())));
    found.extend(plan.egress.ca_certificates.iter().map(|path| ("CA file", path.clone())));
    found.extend(
        plan.git.iter().flat_map(|it| &it.known_hosts).map(|path| ("known_hosts", path.clone())),
    );
    for word in plan.secrets.values().flat_map(|secret| secret.from_command.iter().flatten()) {
        // A script may be an argument of its interpreter.
        if let Ok(script) = follow(&facts.base.folder.join(word)) {
            found.push(("command", script.path));
        }
    }
    found
}

/// The files that are secret themselves.
fn secret(plan: &Plan) -> impl Iterator<Item = (&'static str, &Path)> {
    let files = plan.secrets.values().filter_map(|it| it.from_file.as_deref());
    let keys = plan.git.iter().filter_map(|it| it.key.as_deref());
    let keys = keys.chain(plan.ssh.iter().map(|it| it.key.as_path()));
    files.map(|path| ("secret file", path)).chain(keys.map(|path| ("key", path)))
}
