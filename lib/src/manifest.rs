//! The manifest, `bottle.yaml`: what its owner wrote; `bottle-manifest(5)` is its page.
//!
//! Every field is checked where it is parsed, so that an error names its line. A field that is
//! there without a value is refused: `methods:` with nothing behind it must not mean "every
//! method". What needs more than one field or the file system is checked by `bottle-plan`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::plan::{Engine, PipelockMode, Selftest, WorkspaceMode};
use crate::policy::Inject;
use crate::scalar::{Count, Cpus, Env, Host, Memory, Method, Net, PathGlob, Port, User, Version};
use crate::strict::{self, Parsed, Text, some, some_of, unique};

/// The largest manifest that is read.
pub const MAX_BYTES: u64 = 1 << 20;

/// A whole manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1.
    pub version: Parsed<Version>,
    /// What boxes there are, by name.
    #[serde(deserialize_with = "unique")]
    pub bottles: BTreeMap<String, Bottle>,
    /// Who works in one, by name.
    #[serde(deserialize_with = "unique")]
    pub agents: BTreeMap<String, Agent>,
}

/// What a box is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bottle {
    /// Image of the agent.
    #[serde(default, deserialize_with = "some")]
    pub image: Option<Text>,
    /// How the image is built, where there is none.
    #[serde(default, deserialize_with = "some")]
    pub build: Option<Build>,
    /// OCI runtime, by its name in the engine.
    #[serde(default, deserialize_with = "some")]
    pub runtime: Option<Text>,
    /// `uid[:gid]` or `root`.
    #[serde(default, deserialize_with = "some")]
    pub user: Option<Parsed<User>>,
    /// Environment of the agent.
    #[serde(default, deserialize_with = "unique")]
    pub env: BTreeMap<String, Env>,
    /// Where secrets come from, by name.
    #[serde(default, deserialize_with = "unique")]
    pub secrets: BTreeMap<String, Secret>,
    /// Limits of the agent's container.
    #[serde(default)]
    pub resources: Resources,
    /// Folders and files of the host.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The folder that the agent works on.
    #[serde(default, deserialize_with = "some")]
    pub workspace: Option<Workspace>,
    /// What may leave.
    #[serde(default)]
    pub egress: Egress,
    /// The firewall behind egress.
    #[serde(default, deserialize_with = "some")]
    pub pipelock: Option<Pipelock>,
    /// Git remotes behind the gate, by name.
    #[serde(default, deserialize_with = "unique")]
    pub git: BTreeMap<String, GitRemote>,
    /// Hosts that the agent reaches by ssh, by name.
    #[serde(default, deserialize_with = "unique")]
    pub ssh: BTreeMap<String, SshHost>,
    /// The agent's way to ask for more.
    #[serde(default, deserialize_with = "some")]
    pub supervise: Option<Supervise>,
    /// What the first self-test does.
    #[serde(default, deserialize_with = "some")]
    pub selftest: Option<Selftest>,
}

/// Who works in a bottle, and how much less than the bottle allows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Name of its bottle.
    pub bottle: Text,
    /// What `bottle start` runs.
    #[serde(default)]
    pub command: Vec<Text>,
    /// Text for the agent.
    #[serde(default, deserialize_with = "some")]
    pub prompt: Option<Text>,
    /// Folders with skills.
    #[serde(default)]
    pub skills: Vec<Text>,
    /// Adds to the environment, or sets anew: it grants nothing.
    #[serde(default, deserialize_with = "unique")]
    pub env: BTreeMap<String, Env>,
    /// Lower limits.
    #[serde(default)]
    pub resources: Resources,
    /// The mounts that are kept, by target.
    #[serde(default, deserialize_with = "some")]
    pub mounts: Option<Vec<KeptMount>>,
    /// A workspace that the agent does less to.
    #[serde(default, deserialize_with = "some")]
    pub workspace: Option<KeptWorkspace>,
    /// Fewer routes.
    #[serde(default, deserialize_with = "some")]
    pub egress: Option<KeptEgress>,
    /// The git remotes that are kept, by name.
    #[serde(default, deserialize_with = "some")]
    pub git: Option<Vec<Text>>,
    /// The ssh hosts that are kept, by name.
    #[serde(default, deserialize_with = "some")]
    pub ssh: Option<Vec<Text>>,
    /// `enabled: false`, or fewer proposals.
    #[serde(default, deserialize_with = "some")]
    pub supervise: Option<Supervise>,
    /// A stricter self-test.
    #[serde(default, deserialize_with = "some")]
    pub selftest: Option<Selftest>,
}

/// `build`: a mapping, or the context alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct BuildFields {
    context: Text,
    #[serde(default, deserialize_with = "some")]
    dockerfile: Option<Text>,
    #[serde(default, deserialize_with = "unique")]
    args: BTreeMap<String, Env>,
    #[serde(default, deserialize_with = "some")]
    target: Option<Text>,
}

/// How an image is built, as in Compose.
#[derive(Debug, Clone)]
pub struct Build {
    /// Folder of the context.
    pub context: String,
    /// The Dockerfile, below the context.
    pub dockerfile: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Stage to build.
    pub target: Option<String>,
}

impl<'de> Deserialize<'de> for Build {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = strict::text_or(deserializer, |context: Text| BuildFields {
            context,
            dockerfile: None,
            args: BTreeMap::new(),
            target: None,
        })?;
        Ok(Self {
            context: fields.context.into(),
            dockerfile: fields.dockerfile.map(String::from),
            args: fields.args.into_iter().map(|(name, value)| (name, value.0)).collect(),
            target: fields.target.map(String::from),
        })
    }
}

/// Where a secret comes from: exactly one of the three.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// A variable of the caller.
    #[serde(default, deserialize_with = "some")]
    pub from_env: Option<Text>,
    /// A file.
    #[serde(default, deserialize_with = "some")]
    pub from_file: Option<Text>,
    /// A command and its arguments.
    #[serde(default, deserialize_with = "some_of")]
    pub from_command: Option<Vec<Text>>,
}

/// Limits of the agent's container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPUs, `1.5`.
    #[serde(default, deserialize_with = "some")]
    pub cpus: Option<Parsed<Cpus>>,
    /// Memory, `4g`.
    #[serde(default, deserialize_with = "some")]
    pub memory: Option<Parsed<Memory>>,
    /// Most processes and threads.
    #[serde(default, deserialize_with = "some")]
    pub pids: Option<Parsed<Count>>,
}

/// A bind mount, in Compose's long form.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path on the host.
    pub source: Text,
    /// Path in the agent.
    pub target: Text,
    /// Whether the agent can only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// A mount that an agent keeps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptMount {
    /// Its target in the bottle.
    pub target: Text,
    /// `true` where the bottle can write it.
    #[serde(default, deserialize_with = "some")]
    pub read_only: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkspaceFields {
    source: Text,
    #[serde(default, deserialize_with = "some")]
    target: Option<Text>,
    #[serde(default, deserialize_with = "some")]
    mode: Option<WorkspaceMode>,
    #[serde(default)]
    read_only: bool,
}

/// The folder that the agent works on: a mapping, or the source alone.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Path on the host.
    pub source: String,
    /// Path in the agent.
    pub target: Option<String>,
    /// Shared or copied.
    pub mode: Option<WorkspaceMode>,
    /// Whether the agent can only read it.
    pub read_only: bool,
}

impl<'de> Deserialize<'de> for Workspace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = strict::text_or(deserializer, |source: Text| WorkspaceFields {
            source,
            target: None,
            mode: None,
            read_only: false,
        })?;
        Ok(Self {
            source: fields.source.into(),
            target: fields.target.map(String::from),
            mode: fields.mode,
            read_only: fields.read_only,
        })
    }
}

/// What an agent does less to its workspace.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptWorkspace {
    /// `copy` where the bottle shares it.
    #[serde(default, deserialize_with = "some")]
    pub mode: Option<WorkspaceMode>,
    /// `true` where the bottle can write it.
    #[serde(default, deserialize_with = "some")]
    pub read_only: Option<bool>,
}

/// What may leave a bottle.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Which proxy enforces it.
    #[serde(default, deserialize_with = "some")]
    pub engine: Option<Engine>,
    /// The rules.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Files with further CA certificates for upstream servers.
    #[serde(default)]
    pub ca_certificates: Vec<Text>,
}

/// The routes that an agent has in place of its bottle's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptEgress {
    /// Each of them lies within one of the bottle's.
    pub routes: Vec<Route>,
}

/// One rule of egress.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name, `*.` and a name, address, or network.
    pub host: Parsed<Host>,
    /// Methods; not set: every one.
    #[serde(default, deserialize_with = "some_of")]
    pub methods: Option<Vec<Parsed<Method>>>,
    /// Globs of paths; not set: every one.
    #[serde(default, deserialize_with = "some_of")]
    pub paths: Option<Vec<Parsed<PathGlob>>>,
    /// Ports; not set: 443.
    #[serde(default, deserialize_with = "some_of")]
    pub ports: Option<Vec<Parsed<Port>>>,
    /// Networks that the host may resolve into though they are not public.
    #[serde(default, deserialize_with = "some_of")]
    pub addresses: Option<Vec<Parsed<Net>>>,
    /// The credential that egress adds.
    #[serde(default, deserialize_with = "some")]
    pub inject: Option<Inject>,
    /// Whether TLS to this host is tunnelled.
    #[serde(default)]
    pub passthrough: bool,
}

/// The firewall behind egress.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipelock {
    /// pipelock's own mode.
    #[serde(default, deserialize_with = "some")]
    pub mode: Option<PipelockMode>,
    /// Image, pinned by digest.
    #[serde(default, deserialize_with = "some")]
    pub image: Option<Text>,
    /// Internal names that it may reach.
    #[serde(default)]
    pub trusted_domains: Vec<Text>,
    /// Networks exempt from its SSRF check.
    #[serde(default)]
    pub ssrf_ip_allowlist: Vec<Parsed<Net>>,
    /// Domains whose TLS it does not intercept.
    #[serde(default)]
    pub passthrough_domains: Vec<Text>,
}

/// A git remote behind the gate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitRemote {
    /// The upstream URL, ssh, scp-like or https.
    pub url: Text,
    /// Patterns of refs that the agent may push.
    #[serde(default)]
    pub push: Vec<Text>,
    /// Protected paths that a push may touch.
    #[serde(default)]
    pub allow_paths: Vec<Text>,
    /// Whether each pushed commit must be signed.
    #[serde(default)]
    pub require_signed: bool,
    /// Private key file, for ssh.
    #[serde(default, deserialize_with = "some")]
    pub key: Option<Text>,
    /// `known_hosts` file, for ssh.
    #[serde(default, deserialize_with = "some")]
    pub known_hosts: Option<Text>,
    /// Name of the secret that is the token, for https.
    #[serde(default, deserialize_with = "some")]
    pub secret: Option<Text>,
}

/// A host that the agent reaches by ssh.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshHost {
    /// Host name or address.
    pub address: Text,
    /// TCP port.
    #[serde(default, deserialize_with = "some")]
    pub port: Option<Parsed<Port>>,
    /// User on that host.
    #[serde(default, deserialize_with = "some")]
    pub user: Option<Text>,
    /// Private key file.
    pub key: Text,
    /// The host's public key.
    pub host_key: Text,
}

/// The agent's way to ask for more.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervise {
    /// Whether the sidecar runs.
    #[serde(default, deserialize_with = "some")]
    pub enabled: Option<bool>,
    /// Most proposals that may be open at once.
    #[serde(default, deserialize_with = "some")]
    pub max_open: Option<Parsed<Count>>,
}
