//! The section `render`: where `bottle-render` put what, for the tools that act on it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::strict::unique;

/// The section `render`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Render {
    /// The bottle's folder below the state folder.
    pub state: PathBuf,
    /// The compose file.
    pub compose_file: PathBuf,
    /// The compose project, for `-p`.
    pub compose_project: String,
    /// Digest of the plan that was rendered.
    pub plan: String,
    /// Counts the policies that this bottle has had.
    pub generation: u64,
    /// SHA-256 of `routes.yaml`, which egress has to say it loaded.
    pub routes_sha256: String,
    /// SHA-256 of `gate.json`, which the git gate has to say it loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_sha256: Option<String>,
    /// Services by name, each with its image.
    #[serde(deserialize_with = "unique")]
    pub services: BTreeMap<String, String>,
    /// Who the agent runs as, `uid:gid`.
    pub user: String,
    /// Who the sidecars run as, `uid:gid`.
    pub run_as: String,
}

/// The agent's service, whose container people reach by `docker exec`.
pub const AGENT: &str = crate::policy::AGENT;

/// The sidecar that is the agent's only way out.
pub const EGRESS: &str = "egress";

/// The firewall behind egress, where the plan has one.
pub const PIPELOCK: &str = "pipelock";

/// The sidecar by which git leaves, where the plan has remotes.
pub const GIT_GATE: &str = "git-gate";

/// The sidecar that keeps the keys of ssh hosts, where the plan has such hosts.
pub const SSH_AGENT: &str = "ssh-agent";

/// The sidecar by which the agent asks for more, where the plan has it.
pub const SUPERVISE: &str = "supervise";

/// The port of supervise on the internal network.
pub const SUPERVISE_PORT: u16 = 8090;

/// Where egress, and nobody else, has the values of secrets.
pub const SECRETS: &str = "/etc/bottle-secrets";

/// The port of egress's proxy on the internal network.
pub const PROXY_PORT: u16 = 3128;

/// Where the git gate keeps its mirrors.
pub const GATE_DATA: &str = "/var/lib/bottle";

/// The container of a service of a project: named alike by both composes.
#[must_use]
pub fn container(project: &str, service: &str) -> String {
    format!("{project}-{service}")
}
