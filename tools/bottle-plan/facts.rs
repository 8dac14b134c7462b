//! What a plan depends on beside the manifest: where it lies, who asks, and from where.

use std::cell::RefCell;
use std::path::PathBuf;

use anyhow::Result;
use bottle::Blame;
use bottle::manifest::{Bottle, Manifest};
use bottle::path::follow;
use bottle::plan::WorkspaceMode;
use bottle::source::Source;
use bottle::state::State;
use bottle::trust;

use crate::args::Args;
use crate::paths::Base;

/// All that the resolution needs to know.
pub(crate) struct Facts {
    /// The manifest.
    pub(crate) source: Source,
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
        let source = match &args.file {
            Some(path) if path.as_os_str() == "-" => Source::stdin()?,
            Some(path) => Source::open(path)?,
            None => Source::nearest(&here)?,
        };
        let folder = source.path.parent().filter(|_| source.is_file()).unwrap_or(&here).to_owned();
        Ok(Self {
            source,
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

/// What any agent can have written: what the bottles of the manifest let theirs write, what
/// `--workspace` does, and what earlier bottles did, whatever this manifest says.
pub(crate) fn writable(manifest: &Manifest, facts: &Facts) -> Result<Vec<PathBuf>> {
    let of_bottle = |bottle: &Bottle| {
        let mounts = bottle.mounts.iter().filter(|mount| !mount.read_only);
        let workspace = bottle.workspace.iter().filter(|workspace| {
            !workspace.read_only && workspace.mode != Some(WorkspaceMode::Copy)
        });
        let mounts = mounts.map(|mount| mount.source.to_string());
        mounts.chain(workspace.map(|workspace| workspace.source.to_string())).collect::<Vec<_>>()
    };
    let texts = manifest.bottles.values().flat_map(of_bottle);
    let mut found: Vec<PathBuf> = texts.filter_map(|text| facts.base.locate(&text)).collect();
    found.extend(facts.workspace.as_ref().and_then(|path| follow(path).ok()).map(|it| it.path));
    found.extend(trust::written(&facts.state)?);
    Ok(found)
}
