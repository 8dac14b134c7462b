//! What a plan depends on beside the manifest: where it lies, who asks, and from where.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::Blame;
use bottle::manifest::{Bottle, Manifest};
use bottle::path::follow;
use bottle::plan::{Plan, WorkspaceMode};
use bottle::source::Source;
use bottle::state::State;
use bottle::trust;

use crate::args::Args;
use crate::paths::Base;

/// The manifest, and what its paths are relative to.
pub(crate) struct Facts {
    /// The manifest.
    pub(crate) source: Source,
    /// What its paths are relative to.
    pub(crate) base: Base,
    /// The workspace given on the command line, absolute.
    pub(crate) workspace: Option<PathBuf>,
}

/// What of the host is no agent's business, whatever a manifest says.
pub(crate) struct World {
    /// The state folder.
    pub(crate) state: State,
    /// The caller's home.
    pub(crate) home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`, where engines of one user listen.
    pub(crate) runtime: Option<PathBuf>,
    /// The socket of the engine that `$DOCKER_HOST` names.
    pub(crate) engine: Option<PathBuf>,
    /// Folders and files that an agent could have written.
    pub(crate) writable: Vec<PathBuf>,
}

impl Facts {
    /// Reads the manifest.
    pub(crate) fn gather(args: &Args, world: &World) -> Result<Self> {
        let here = std::env::current_dir().world("find the current folder")?;
        let source = match &args.file {
            Some(path) if path.as_os_str() == "-" => Source::stdin()?,
            Some(path) => Source::open(path)?,
            None => Source::nearest(&here)?,
        };
        let folder = source.path.parent().filter(|_| source.is_file()).unwrap_or(&here).to_owned();
        let base = Base { folder, home: world.home.clone(), links: RefCell::default() };
        let workspace = args.workspace.as_ref().map(|path| here.join(path));
        Ok(Self { source, base, workspace })
    }

    /// What the bottles of the manifest let their agents write, and what `--workspace` does:
    /// whichever agent of this manifest is asked for now, another one could have been there before.
    pub(crate) fn writable(&self, manifest: &Manifest) -> Vec<PathBuf> {
        let of_bottle = |bottle: &Bottle| {
            let mounts = bottle.mounts.iter().filter(|mount| !mount.read_only);
            let workspace = bottle.workspace.iter().filter(|workspace| {
                !workspace.read_only && workspace.mode != Some(WorkspaceMode::Copy)
            });
            let mounts = mounts.map(|mount| mount.source.to_string());
            mounts.chain(workspace.map(|it| it.source.to_string())).collect::<Vec<_>>()
        };
        let texts = manifest.bottles.values().flat_map(of_bottle);
        let mut found: Vec<PathBuf> = texts.filter_map(|text| self.base.locate(&text)).collect();
        found.extend(self.workspace.as_ref().and_then(|path| Some(follow(path).ok()?.path)));
        found
    }
}

impl World {
    /// Looks round. What agents could once write is noted in the state folder.
    pub(crate) fn look() -> Result<Self> {
        let state = State::find()?;
        let socket = std::env::var("DOCKER_HOST").ok();
        Ok(Self {
            home: std::env::home_dir().filter(|home| home.is_absolute()),
            runtime: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            engine: socket.and_then(|host| host.strip_prefix("unix://").map(PathBuf::from)),
            writable: trust::written(&state)?,
            state,
        })
    }

    /// The folder in which an agent could have written a path.
    pub(crate) fn written(&self, path: &Path) -> Option<&PathBuf> {
        self.writable.iter().find(|folder| path.starts_with(folder))
    }

    /// Adds what the agent of a plan can write.
    pub(crate) fn add(&mut self, plan: &Plan) {
        self.writable.extend(trust::writable(plan).cloned());
    }
}
