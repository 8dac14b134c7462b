//! The plan: what `bottle-plan` resolves a manifest to, and every other tool reads.
//!
//! Everything in it is absolute and spelled out, so that a later tool looks nothing up again, and a
//! person can read from it alone what the bottle can do. It never holds a secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::{Audit, Rule};
use crate::strict::unique;

/// The section `plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `sha256:` and 64 hex digits over the plan's canonical form; see [`Plan::seal`].
    pub digest: String,
    /// The agent of the manifest.
    pub agent: String,
    /// The bottle of the manifest that the agent works in.
    pub bottle: String,
    /// The manifest it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ManifestSource>,
    /// Image of the agent; exactly one of `image` and `build` is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How the agent's image is built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// OCI runtime by its name in the engine (`runc`, `crun`, `runsc`, …); the engine's default
    /// where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// `uid[:gid]` or `root`, as in Compose. Not set: the caller (see `bottle-render`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment of the agent.
    #[serde(default, deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What `bottle start` runs in the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Text for the agent, rendered to a file that `$BOTTLE_PROMPT` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Folders of the host, mounted read-only below `$BOTTLE_SKILLS`, by their last name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<PathBuf>,
    /// Where each secret comes from. A value is never here.
    #[serde(default, deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// Limits of the agent's container.
    pub resources: Resources,
    /// Mounts of the agent, beside the workspace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// The folder that the agent works on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// What may leave.
    pub egress: Egress,
    /// The firewall behind egress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipelock: Option<Pipelock>,
    /// Git remotes that the git gate serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub git: Vec<GitRemote>,
    /// Hosts that the agent reaches by ssh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<SshHost>,
    /// The agent's way to ask for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervise: Option<Supervise>,
    /// What the first self-test does.
    pub selftest: Selftest,
}

impl Plan {
    /// The agent's way to ask for more, where the bottle has one.
    #[must_use]
    pub fn supervised(&self) -> Option<&Supervise> {
        self.supervise.as_ref().filter(|supervise| supervise.enabled)
    }
}

/// Where a plan came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSource {
    /// Absolute path; `-` for stdin.
    pub path: PathBuf,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
}

/// `build` of Compose, the part that a bottle needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Absolute path of the context.
    pub context: PathBuf,
    /// Path of the Dockerfile below the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<PathBuf>,
    /// Build arguments.
    #[serde(default, deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// Stage to build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Where a secret's value comes from; exactly one field is set. Read on the host, never by a
/// container of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// An environment variable of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_env: Option<String>,
    /// A file, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_file: Option<PathBuf>,
    /// A command and its arguments; its stdout is the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_command: Option<Vec<String>>,
}

/// Limits of the agent's container, in Compose's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPUs as a decimal number, as in `--cpus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Most processes and threads; always set, so that a fork bomb ends in the bottle.
    pub pids: u32,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path on the host, links resolved.
    pub source: PathBuf,
    /// Absolute path in the agent.
    pub target: PathBuf,
    /// Whether the agent can only read it.
    pub read_only: bool,
}

/// The folder that the agent works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// Absolute path on the host, links resolved.
    pub source: PathBuf,
    /// Absolute path in the agent; its working directory.
    pub target: PathBuf,
    /// Shared with the host, or a copy.
    pub mode: WorkspaceMode,
    /// Whether the agent can only read it.
    pub read_only: bool,
    /// Paths below `source` that stay read-only in any case, sorted: every `.git` (a folder or, of
    /// a worktree or submodule, a file), and what git on the host runs or reads because it says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected: Vec<PathBuf>,
    /// Folders below `source`, outer ones first, that are mounted onto themselves: they lead to what
    /// is protected, and a mount point cannot be renamed away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<PathBuf>,
}

/// How the workspace gets into the bottle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkspaceMode {
    /// The host's own folder is mounted.
    Bind,
    /// A copy below the state folder is mounted; it goes to the archive.
    Copy,
}

/// What may leave the bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Which proxy enforces it.
    pub engine: Engine,
    /// The rules; a request that none of them allows is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Rule>,
    /// Files with further CA certificates that upstream servers are trusted by, absolute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca_certificates: Vec<PathBuf>,
    /// What becomes of requests whose decision cannot be written down.
    #[serde(default, skip_serializing_if = "crate::strict::is_default")]
    pub audit: Audit,
    /// Whether the scan of what leaves looks for private data too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private_data: bool,
    /// The rules spelled out for a person, one line each, sorted:
    /// `GET,POST https://api.example.com:443/v1/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// The proxy that enforces `egress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// `bottle-egress`.
    Embedded,
    /// Real mitmproxy.
    Mitmproxy,
}

/// The firewall behind egress, in pipelock's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipelock {
    /// `strict`, `balanced` or `audit`.
    pub mode: PipelockMode,
    /// Image, pinned by digest; the pinned default where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Names that pipelock may reach though they are internal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_domains: Vec<String>,
    /// Networks exempt from its SSRF check, canonical.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssrf_ip_allowlist: Vec<IpNet>,
    /// Domains whose TLS it does not intercept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passthrough_domains: Vec<String>,
}

/// pipelock's `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PipelockMode {
    /// Only what is listed.
    Strict,
    /// What is not known to be bad.
    Balanced,
    /// Everything, logged.
    Audit,
}

/// A git remote behind the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitRemote {
    /// What the gate calls it.
    pub name: String,
    /// The upstream URL, ssh, scp-like or https.
    pub url: String,
    /// Patterns of refs that the agent may push; none: fetch only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<String>,
    /// Protected paths that a push may touch all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_paths: Vec<String>,
    /// Whether each pushed commit must be signed.
    #[serde(default)]
    pub require_signed: bool,
    /// File of the keys that count, absolute, in the form of ssh's `allowed_signers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_signers: Option<PathBuf>,
    /// Largest pack of a push, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_push: Option<u64>,
    /// Largest new file of a push, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_file: Option<u64>,
    /// Most new files of a push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u32>,
    /// Private key file on the host, absolute, for ssh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// `known_hosts` file on the host, absolute, for ssh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<PathBuf>,
    /// Name of the secret that is the token, for https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A host that the agent reaches by plain `ssh NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshHost {
    /// What the agent calls it.
    pub name: String,
    /// Host name or address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// User on that host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Private key file on the host, absolute.
    pub key: PathBuf,
    /// The host's public key, `ssh-ed25519 AAAA…`.
    pub host_key: String,
}

/// The agent's way to ask for more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervise {
    /// Whether the sidecar runs.
    pub enabled: bool,
    /// Most proposals that may be open at once.
    pub max_open: u32,
}

/// What the first self-test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selftest {
    /// It is not run.
    Off,
    /// What it finds open is told.
    Warn,
    /// What it finds open ends the bottle.
    Enforce,
}
