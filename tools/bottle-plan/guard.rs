//! What no bottle may be given: mounts that lead out of it, and things that the host obeys although
//! an agent can write them.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::plan::{Plan, WorkspaceMode};
use bottle::{Blame, caller};

use crate::facts::World;
use crate::git;

/// Folders of the kernel, and of engines, which are the host itself.
const HOST: [&str; 6] =
    ["/proc", "/sys", "/dev", "/var/lib/containerd", "/var/lib/containers", "/var/lib/rancher"];

/// Where Docker keeps everything; a link where the disk is too small.
const ENGINE_DATA: &str = "/var/lib/docker";

/// Where engines listen. Whoever reaches one is root on the host. `/var/run` is a link to `/run`.
const SOCKETS: [&str; 8] = [
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
pub(crate) fn check(plan: &mut Plan, world: &World) -> Result<()> {
    let shown = !(plan.mounts.is_empty() && plan.skills.is_empty());
    let used = plan.workspace.is_some() || plan.build.is_some();
    let closed = if shown || used { closed(world) } else { Vec::new() };
    for mount in &plan.mounts {
        let check = || -> Result<()> {
            check_source(&mount.source, &closed)?;
            if mount.read_only { Ok(()) } else { check_writable(&mount.source) }
        };
        check().caller(format!("mount '{}'", mount.source.display()))?;
    }
    let skills = plan.skills.iter().map(|path| ("skill", path));
    let context = plan.build.iter().map(|build| ("build context", &build.context));
    for (what, path) in skills.chain(context) {
        check_source(path, &closed).caller(format!("{what} '{}'", path.display()))?;
    }
    if let Some(workspace) = &mut plan.workspace {
        let what = format!("workspace '{}'", workspace.source.display());
        check_source(&workspace.source, &closed).caller(&what)?;
        (workspace.protected, workspace.pinned) = (Vec::new(), Vec::new());
        if workspace.mode == WorkspaceMode::Bind && !workspace.read_only {
            check_inside_git(&workspace.source).caller(&what)?;
            let found = git::protect(&workspace.source).caller(&what)?;
            (workspace.protected, workspace.pinned) = (found.paths, found.pinned);
        }
    }
    check_obeyed(plan, world)
}

/// Everything that is no agent's business, each with what it is. Sources have their links resolved,
/// so what may be a link itself is named both ways.
fn closed(world: &World) -> Vec<(PathBuf, &'static str)> {
    let both = |path: &Path| {
        let real = path.canonicalize().ok().filter(|real| real != path);
        real.into_iter().chain([path.to_owned()])
    };
    let mut closed = vec![(world.state.root().to_owned(), "the state folder of bottle")];
    closed.extend(HOST.iter().map(|path| (path.into(), "the host's own")));
    closed.extend(both(Path::new(ENGINE_DATA)).map(|path| (path, "the engine's own")));
    let mut sockets: Vec<PathBuf> = SOCKETS.iter().map(PathBuf::from).collect();
    let homes = [&world.home, &world.runtime].into_iter().flatten();
    for home in homes.flat_map(|home| both(home)) {
        sockets.extend(USER_SOCKETS.iter().map(|path| home.join(path)));
    }
    sockets.extend(world.engine.iter().flat_map(|socket| both(socket)));
    closed.extend(sockets.into_iter().map(|path| (path, "a socket of the engine")));
    closed
}

/// Refuses a source that contains or lies in what is closed, and what is neither folder nor file.
fn check_source(source: &Path, closed: &[(PathBuf, &str)]) -> Result<()> {
    if source == Path::new("/") {
        return Err(caller("it is the whole host: name the folder that is meant"));
    }
    // True of every source that comes from a manifest, and of an edited plan perhaps not.
    if source.canonicalize().ok().as_deref() != Some(source) {
        return Err(caller("it is not there, or leads through a link: write where it leads to"));
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

/// Refuses links of a manifest's paths that an agent could turn elsewhere.
pub(crate) fn check_links(links: &[(String, PathBuf)], world: &World) -> Result<()> {
    for (text, link) in links {
        if let Some(folder) = world.written(link) {
            return Err(caller(format!(
                "'{text}' leads through link '{}', which an agent can turn elsewhere, because '{}' is writable: write where it leads to",
                link.display(),
                folder.display()
            )));
        }
    }
    Ok(())
}

/// Refuses what the host reads or runs on behalf of this plan while an agent could have written it,
/// and keys that an agent could read.
fn check_obeyed(plan: &Plan, world: &World) -> Result<()> {
    for (what, path) in obeyed(plan) {
        if let Some(folder) = world.written(&path) {
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
fn obeyed(plan: &Plan) -> Vec<(&'static str, PathBuf)> {
    let mut found: Vec<_> = secret(plan).map(|(what, path)| (what, path.to_owned())).collect();
    found.extend(plan.build.iter().map(|build| ("build context", build.context.clone())));
    found.extend(plan.egress.ca_certificates.iter().map(|path| ("CA file", path.clone())));
    found.extend(
        plan.git.iter().flat_map(|it| &it.known_hosts).map(|path| ("known_hosts", path.clone())),
    );
    let signers = plan.git.iter().flat_map(|it| &it.allowed_signers);
    found.extend(signers.map(|path| ("allowed_signers", path.clone())));
    for word in plan.secrets.values().flat_map(|secret| secret.from_command.iter().flatten()) {
        // A script may be an argument of its interpreter.
        if let Some(script) = Path::new(word).is_absolute().then(|| Path::new(word).canonicalize())
        {
            found.extend(script.ok().map(|path| ("command", path)));
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
