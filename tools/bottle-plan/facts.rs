//! What a plan depends on beside the manifest: where it lies, who asks, and from where.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::manifest::{Bottle, MAX_BYTES, Manifest};
use bottle::plan::{ManifestSource, WorkspaceMode};
use bottle::state::{State, sha256_hex};
use bottle::{Blame, caller};

use crate::args::Args;
use crate::paths::{Base, follow};

/// The names that a manifest is looked for by.
const NAMES: [&str; 3] = ["bottle.yaml", "bottle.yml", "bottle.json"];

/// All that the resolution needs to know.
pub(crate) struct Facts {
    /// What messages call the manifest.
    pub(crate) label: String,
    /// The manifest's text.
    pub(crate) text: String,
    /// Where it came from.
    pub(crate) source: ManifestSource,
    /// What its paths are relative to.
    pub(crate) base: Base,
    /// The workspace given on the command line, absolute.
    pub(crate) workspace: Option<PathBuf>,
    /// The state folder.
    pub(crate) state: State,
    /// The socket of the engine that `$DOCKER_HOST` names.
    pub(crate) engine: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`, where engines of one user listen.
    pub(crate) runtime: Option<PathBuf>,
    /// Folders and files that some agent can write.
    pub(crate) writable: Vec<PathBuf>,
}

impl Facts {
    /// Reads the manifest and looks round.
    pub(crate) fn gather(args: &Args) -> Result<Self> {
        let here = std::env::current_dir().world("find the current folder")?;
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        let (path, bytes) = match &args.file {
            Some(path) if path.as_os_str() == "-" => {
                ("-".into(), read(std::io::stdin().lock(), "stdin")?)
            }
            Some(path) => open(path)?,
            None => open(&nearest(&here)?)?,
        };
        let label = match &args.file {
            Some(given) if given.as_os_str() == "-" => "stdin".to_owned(),
            Some(given) => given.display().to_string(),
            None => path.strip_prefix(&here).unwrap_or(&path).display().to_string(),
        };
        let sha256 = sha256_hex(&bytes);
        let text = String::from_utf8(bytes).caller(format!("{label}: it is not UTF-8"))?;
        let folder = path.parent().filter(|_| path.is_absolute()).unwrap_or(&here).to_owned();
        Ok(Self {
            label,
            text,
            source: ManifestSource { path, sha256 },
            base: Base { folder, home, links: RefCell::default() },
            workspace: args.workspace.as_ref().map(|path| here.join(path)),
            state: State::find()?,
            engine: std::env::var("DOCKER_HOST")
                .ok()
                .and_then(|host| host.strip_prefix("unix://").map(PathBuf::from)),
            runtime: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            writable: Vec::new(),
        })
    }
}

/// What the bottles of a manifest let their agents write, and what `--workspace` does: whoever else
/// an agent of this manifest may be, it could have been there before.
pub(crate) fn writable(manifest: &Manifest, facts: &Facts) -> Vec<PathBuf> {
    let of_bottle = |bottle: &Bottle| {
        let mounts = bottle.mounts.iter().filter(|mount| !mount.read_only);
        let workspace = bottle.workspace.iter().filter(|workspace| {
            !workspace.read_only && workspace.mode != Some(WorkspaceMode::Copy)
        });
        let mounts = mounts.map(|mount| mount.source.to_string());
        mounts.chain(workspace.map(|workspace| workspace.source.clone())).collect::<Vec<_>>()
    };
    let texts = manifest.bottles.values().flat_map(of_bottle);
    let mut found: Vec<PathBuf> = texts.filter_map(|text| facts.base.locate(&text)).collect();
    found.extend(facts.workspace.as_ref().and_then(|path| follow(path).ok()).map(|it| it.path));
    found
}

/// The manifest in a folder or the nearest one above it.
fn nearest(here: &Path) -> Result<PathBuf> {
    for folder in here.ancestors() {
        let found: Vec<PathBuf> =
            NAMES.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
        match &found[..] {
            [] => {}
            [one] => return Ok(one.clone()),
            [one, other, ..] => {
                return Err(caller(format!(
                    "find the manifest: both '{}' and '{}' are there: name one with --file",
                    one.display(),
                    other.display()
                )));
            }
        }
    }
    Err(caller(format!(
        "find the manifest: there is no 'bottle.yaml' in '{}' or above it: write one, or name it with --file",
        here.display()
    )))
}

/// The canonical path of a manifest, and its text.
fn open(path: &Path) -> Result<(PathBuf, Vec<u8>)> {
    let name = path.display().to_string();
    let what = || format!("read manifest '{name}'");
    let canonical = path.canonicalize().caller(what())?;
    // A pipe would block for as long as nobody writes to it.
    if !canonical.is_file() {
        return Err(caller(format!("{}: it is not a file: use '-' to read a pipe", what())));
    }
    let file = File::open(&canonical).caller(what())?;
    Ok((canonical, read(file, &name)?))
}

fn read(from: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes).caller(format!("read manifest '{name}'"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(caller(format!(
            "read manifest '{name}': it is larger than {} MiB",
            MAX_BYTES >> 20
        )));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(caller(format!("read manifest '{name}': it is empty")));
    }
    Ok(bytes)
}
