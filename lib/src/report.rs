//! What a sidecar tells in its `run/` folder. It is the sidecar's claim, read with care.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::credentials::Told;
use crate::policy::Loaded;
use crate::render::EGRESS;
use crate::{state, strict};

/// Where a sidecar of the bottle in `folder` tells what it has loaded.
#[must_use]
pub fn path(folder: &Path, service: &str) -> PathBuf {
    folder.join(service).join("run/loaded.json")
}

/// What it says that it has loaded; `None` where it has not said anything yet.
pub fn loaded(folder: &Path, service: &str) -> Result<Option<Loaded>> {
    let Some(bytes) = state::read_report(&path(folder, service))? else { return Ok(None) };
    strict::json(&String::from_utf8_lossy(&bytes), "loaded.json").map(Some)
}

/// What egress says of the secrets that it was given; `None` where it has not said anything yet.
pub fn secrets(folder: &Path) -> Result<Option<Told>> {
    let path = folder.join(EGRESS).join("run/secrets.json");
    let Some(bytes) = state::read_report(&path)? else { return Ok(None) };
    strict::json(&String::from_utf8_lossy(&bytes), "secrets.json").map(Some)
}
