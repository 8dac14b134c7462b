//! The section `reap`: what `bottle-reap` removed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The section `reap`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reap {
    /// Names of the containers that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Names of the networks that were removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// Where the log and the record are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<PathBuf>,
}
