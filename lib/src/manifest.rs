//! The manifest, `bottle.yaml`: what its owner wrote. The comments here are `bottle-manifest(5)`.
//!
//! Every field is checked where it is parsed, so that an error names its line. A field that is
//! there without a value is refused: `methods:` with nothing behind it must not mean "every
//! method". What needs more than one field or the file system is checked by `bottle-plan`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::plan::{Engine, PipelockMode, Selftest, WorkspaceMode};
use crate::policy::{Audit, Dlp, Inject};
use crate::scalar::{
    Count, Cpus, Env, Host, Memory, Method, Net, PathGlob, Port, Size, User, Version,
};
use crate::strict::{Parsed, Text, some, some_of, text_or, unique};

/// A whole manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this form, 1. A newer one than the tool knows is refused.
    pub version: Parsed<Version>,
    /// What boxes there are, by name.
    #[serde(deserialize_with = "unique")]
    pub bottles: BTreeMap<String, Bottle>,
    /// Who works in one, by name. `bottle start NAME` starts an agent.
    #[serde(deserialize_with = "unique")]
    pub agents: BTreeMap<String, Agent>,
}

/// What a box is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bottle {
    /// Image of the agent, as in Compose. Exactly one of `image` and `build` must be there.
    #[serde(default, deserialize_with = "some")]
    pub image: Option<Text>,
    /// How the image is built: the folder of the context alone, or an object.
    #[serde(default, deserialize_with = "some_build")]
    pub build: Option<Build>,
    /// OCI runtime by its name in the engine, as `runc`, `crun`, `runsc` or `kata`. Default: the
    /// engine's.
    #[serde(default, deserialize_with = "some")]
    pub runtime: Option<Text>,
    /// Who the agent runs as: `uid`, `uid:gid` or `root`. Default: whoever starts the bottle; where
    /// that is root, the owner of the workspace, and where that is root too, 65533.
    #[serde(default, deserialize_with = "some")]
    pub user: Option<Parsed<User>>,
    /// Environment of the agent, beside what bottle sets (the proxy, and whom to trust). Values are
    /// strings: `"true"`, not `true`.
    #[serde(default, deserialize_with = "unique")]
    pub env: BTreeMap<String, Env>,
    /// Where secrets come from, by name. A secret reaches no agent: a route names it in `inject`, a
    /// git remote in `secret`. One that nothing names is never read.
    #[serde(default, deserialize_with = "unique")]
    pub secrets: BTreeMap<String, Secret>,
    /// Limits of the agent's container.
    #[serde(default)]
    pub resources: Resources,
    /// Folders and files of the host that the agent sees, beside the workspace. Default: none.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The folder that the agent works on: its path alone, or an object. Default: none.
    #[serde(default, deserialize_with = "some_workspace")]
    pub workspace: Option<Workspace>,
    /// What may leave the bottle. Default: nothing.
    #[serde(default)]
    pub egress: Egress,
    /// The firewall pipelock behind egress. Default: none.
    #[serde(default, deserialize_with = "some")]
    pub pipelock: Option<Pipelock>,
    /// Git remotes behind the git gate, by the name that the gate gives them.
    #[serde(default, deserialize_with = "unique")]
    pub git: BTreeMap<String, GitRemote>,
    /// Hosts that the agent reaches by `ssh NAME`, by that name.
    #[serde(default, deserialize_with = "unique")]
    pub ssh: BTreeMap<String, SshHost>,
    /// The agent's way to ask for more. Default: none.
    #[serde(default, deserialize_with = "some")]
    pub supervise: Option<Supervise>,
    /// What the self-test does when the bottle starts. Default: `enforce`.
    #[serde(default, deserialize_with = "some")]
    pub selftest: Option<Selftest>,
}

/// Who works in a bottle, and how much less than the bottle allows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Name of its bottle.
    pub bottle: Text,
    /// What `bottle start` runs in the bottle, a list of words: `[claude, --print]`. No shell reads
    /// it. Default: none.
    #[serde(default)]
    pub command: Vec<Text>,
    /// Text for the agent, in the file that `$BOTTLE_PROMPT` names. Default: none.
    #[serde(default, deserialize_with = "some")]
    pub prompt: Option<Text>,
    /// Folders of the host that the agent sees, read-only, below `$BOTTLE_SKILLS`, each by its last
    /// name. Default: none.
    #[serde(default)]
    pub skills: Vec<Text>,
    /// Variables beside those of the bottle, or in place of them: an environment grants nothing.
    #[serde(default, deserialize_with = "unique")]
    pub env: BTreeMap<String, Env>,
    /// Lower limits.
    #[serde(default)]
    pub resources: Resources,
    /// The mounts that are kept, by target; an empty list keeps none. Default: all.
    #[serde(default, deserialize_with = "some")]
    pub mounts: Option<Vec<KeptMount>>,
    /// A workspace that the agent does less to.
    #[serde(default, deserialize_with = "some")]
    pub workspace: Option<KeptWorkspace>,
    /// Fewer routes.
    #[serde(default, deserialize_with = "some")]
    pub egress: Option<KeptEgress>,
    /// Names of the git remotes that are kept. Default: all.
    #[serde(default, deserialize_with = "some")]
    pub git: Option<Vec<Text>>,
    /// Names of the ssh hosts that are kept. Default: all.
    #[serde(default, deserialize_with = "some")]
    pub ssh: Option<Vec<Text>>,
    /// `enabled: false`, or a lower `max_open`.
    #[serde(default, deserialize_with = "some")]
    pub supervise: Option<Supervise>,
    /// A stricter self-test.
    #[serde(default, deserialize_with = "some")]
    pub selftest: Option<Selftest>,
}

/// How an image is built.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Folder of the context. It may not lie where an agent can write: the host builds it.
    pub context: Text,
    /// Path of the Dockerfile below the context. Default: `Dockerfile`.
    #[serde(default, deserialize_with = "some")]
    pub dockerfile: Option<Text>,
    /// Build arguments, strings.
    #[serde(default, deserialize_with = "unique")]
    pub args: BTreeMap<String, Env>,
    /// Stage to build. Default: the last one.
    #[serde(default, deserialize_with = "some")]
    pub target: Option<Text>,
}

fn some_build<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Build>, D::Error> {
    let of_context =
        |context| Build { context, dockerfile: None, args: BTreeMap::new(), target: None };
    text_or(deserializer, of_context).map(Some)
}

/// Where a secret comes from: exactly one of the three. It is read on the host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Name of a variable of whoever starts the bottle: `GITHUB_TOKEN`.
    #[serde(default, deserialize_with = "some")]
    pub from_env: Option<Text>,
    /// Path of a file.
    #[serde(default, deserialize_with = "some")]
    pub from_file: Option<Text>,
    /// A command whose output it is, a list of words: `[pass, show, github]`. A word that begins with
    /// `./`, `../` or `~/` is a path.
    #[serde(default, deserialize_with = "some_of")]
    pub from_command: Option<Vec<Text>>,
}

/// Limits of the agent's container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPUs, a decimal number: `1.5`. Default: no limit.
    #[serde(default, deserialize_with = "some")]
    pub cpus: Option<Parsed<Cpus>>,
    /// Memory, a whole number with `k`, `m` or `g`, at least `6m`: `4g`. Default: no limit.
    #[serde(default, deserialize_with = "some")]
    pub memory: Option<Parsed<Memory>>,
    /// Most processes and threads. Default: 512.
    #[serde(default, deserialize_with = "some")]
    pub pids: Option<Parsed<Count>>,
}

/// A bind mount, in Compose's long form.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path on the host; it must be there.
    pub source: Text,
    /// Absolute path in the agent. No target may lie in another one.
    pub target: Text,
    /// Whether the agent can only read it. Default: `false`. A mount that holds a `.git` must be.
    #[serde(default)]
    pub read_only: bool,
}

/// A mount that an agent keeps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptMount {
    /// Its target in the bottle.
    pub target: Text,
    /// `true` where the bottle can write it. Default: as in the bottle.
    #[serde(default, deserialize_with = "some")]
    pub read_only: Option<bool>,
}

/// The folder that the agent works on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// Path on the host; it must be there.
    pub source: Text,
    /// Absolute path in the agent, its working directory. Default: `/workspace`.
    #[serde(default, deserialize_with = "some")]
    pub target: Option<Text>,
    /// `bind`: the folder itself; `copy`: a copy, which goes to the archive when the bottle is
    /// reaped. Default: `bind`.
    #[serde(default, deserialize_with = "some")]
    pub mode: Option<WorkspaceMode>,
    /// Whether the agent can only read it. Default: `false`.
    #[serde(default)]
    pub read_only: bool,
}

fn some_workspace<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Workspace>, D::Error> {
    let of_source = |source| Workspace { source, target: None, mode: None, read_only: false };
    text_or(deserializer, of_source).map(Some)
}

/// What an agent does less to its workspace.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptWorkspace {
    /// `copy` where the bottle has `bind`. Default: as in the bottle.
    #[serde(default, deserialize_with = "some")]
    pub mode: Option<WorkspaceMode>,
    /// `true` where the bottle can write it. Default: as in the bottle.
    #[serde(default, deserialize_with = "some")]
    pub read_only: Option<bool>,
}

/// What may leave a bottle.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// The proxy that enforces it. Default: `embedded`.
    #[serde(default, deserialize_with = "some")]
    pub engine: Option<Engine>,
    /// The rules. A request that none of them allows is refused. Default: none.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Files with further CA certificates by which servers are trusted. Default: none.
    #[serde(default)]
    pub ca_certificates: Vec<Text>,
    /// What becomes of requests while decisions cannot be written down: `deny` or `allow`. Default:
    /// `deny`.
    #[serde(default, deserialize_with = "some")]
    pub audit: Option<Audit>,
    /// Whether the scan of what leaves looks for private data too. Default: `false`.
    #[serde(default)]
    pub private_data: bool,
}

/// The routes that an agent has in place of its bottle's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptEgress {
    /// Each lies within one of the bottle's; an empty list lets nothing out.
    pub routes: Vec<Route>,
}

/// One rule of egress.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A name, `*.` and a name (its subdomains, not itself), an address, or a network:
    /// `api.example.com`, `*.example.com`, `192.0.2.7`, `2001:db8::/32`.
    pub host: Parsed<Host>,
    /// Methods, a list: `[GET, HEAD]`. Default: every one.
    #[serde(default, deserialize_with = "some_of")]
    pub methods: Option<Vec<Parsed<Method>>>,
    /// Globs of paths, a list: `*` is any text within a segment, `**` any text across them, so
    /// `[/v1/**]`. Queries are not looked at. Default: every one.
    #[serde(default, deserialize_with = "some_of")]
    pub paths: Option<Vec<Parsed<PathGlob>>>,
    /// Ports, a list. Port 443 is for TLS only, port 80 for plain HTTP only. Default: `[443]`.
    #[serde(default, deserialize_with = "some_of")]
    pub ports: Option<Vec<Parsed<Port>>>,
    /// Networks that the host may resolve into although they are private or link-local, a list:
    /// `[10.1.2.0/24]`. The machine's own addresses and those of other bottles are open only to an
    /// entry that is no wider than they are, `[172.17.0.1/32]`. Default: none.
    #[serde(default, deserialize_with = "some_of")]
    pub addresses: Option<Vec<Parsed<Net>>>,
    /// A credential that egress adds, so that the agent never holds it. Default: none.
    #[serde(default, deserialize_with = "some")]
    pub inject: Option<Inject>,
    /// Whether TLS to this host is tunnelled, not looked into, as pinned certificates and client
    /// certificates need it: then there are no `methods`, `paths`, `inject` and `dlp`, the host is a
    /// name, nothing but TLS goes there, and the client has to name the host in the clear (no
    /// encrypted client hello). Default: `false`.
    #[serde(default)]
    pub passthrough: bool,
    /// What becomes of a request in which the scan of what leaves finds a secret or a well-known
    /// token: `block`, `warn` (it leaves, and the decision says what was found) or `off`. Default:
    /// `block`.
    #[serde(default, deserialize_with = "some")]
    pub dlp: Option<Dlp>,
    /// Findings that are no leak on this route, a list of the scan's rules, or `secret:NAME`: a key
    /// that the agent holds, on the host that it is for. Default: none.
    #[serde(default, deserialize_with = "some_of")]
    pub dlp_exempt: Option<Vec<Text>>,
}

/// The firewall behind egress, in pipelock's terms.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipelock {
    /// pipelock's own mode. Default: `balanced`.
    #[serde(default, deserialize_with = "some")]
    pub mode: Option<PipelockMode>,
    /// Image, pinned by digest. Default: the one that this version of bottle pins.
    #[serde(default, deserialize_with = "some")]
    pub image: Option<Text>,
    /// Internal names that it may reach. Default: none.
    #[serde(default)]
    pub trusted_domains: Vec<Text>,
    /// Networks exempt from its check for internal addresses. Default: none.
    #[serde(default)]
    pub ssrf_ip_allowlist: Vec<Parsed<Net>>,
    /// Domains whose TLS it does not look into. Default: none.
    #[serde(default)]
    pub passthrough_domains: Vec<Text>,
}

/// A git remote behind the gate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitRemote {
    /// The upstream: `https://host/path`, `ssh://user@host/path` or `user@host:path`, without a
    /// password.
    pub url: Text,
    /// Patterns of refs that the agent may push: `[refs/heads/agent/*]`. `*` is any text within a
    /// component, `**` any text across them. Default: none, it can only fetch.
    #[serde(default)]
    pub push: Vec<Text>,
    /// Protected paths that a push may touch all the same, globs as in routes but without the first
    /// `/`: `[.github/workflows/docs.yml]`. Default: none.
    #[serde(default)]
    pub allow_paths: Vec<Text>,
    /// Whether each pushed commit must be signed by one of `allowed_signers`. Default: `false`.
    #[serde(default)]
    pub require_signed: bool,
    /// File of the keys that may sign, as in `gpg.ssh.allowedSignersFile` of git-config(1): ssh keys.
    /// `require_signed` needs it.
    #[serde(default, deserialize_with = "some")]
    pub allowed_signers: Option<Text>,
    /// Largest pack of a push: `64m`. Default: 256m.
    #[serde(default, deserialize_with = "some")]
    pub max_push: Option<Parsed<Size>>,
    /// Largest new file of a push: `8m`. Default: 32m.
    #[serde(default, deserialize_with = "some")]
    pub max_file: Option<Parsed<Size>>,
    /// Most new files of a push. Default: 10000.
    #[serde(default, deserialize_with = "some")]
    pub max_files: Option<Parsed<Count>>,
    /// Private key file; ssh needs it.
    #[serde(default, deserialize_with = "some")]
    pub key: Option<Text>,
    /// `known_hosts` file; ssh needs it.
    #[serde(default, deserialize_with = "some")]
    pub known_hosts: Option<Text>,
    /// Name of the secret that is the token, for https. Default: none.
    #[serde(default, deserialize_with = "some")]
    pub secret: Option<Text>,
}

/// A host that the agent reaches by ssh.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshHost {
    /// Host name or address.
    pub address: Text,
    /// TCP port. Default: 22.
    #[serde(default, deserialize_with = "some")]
    pub port: Option<Parsed<Port>>,
    /// User on that host. Default: the agent's own name there.
    #[serde(default, deserialize_with = "some")]
    pub user: Option<Text>,
    /// Private key file. The agent never sees it.
    pub key: Text,
    /// The host's public key: `ssh-ed25519 AAAA…`.
    pub host_key: Text,
}

/// The agent's way to ask for more.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supervise {
    /// Whether the sidecar runs. Default: `true`.
    #[serde(default, deserialize_with = "some")]
    pub enabled: Option<bool>,
    /// Most proposals that may be open at once. Default: 8.
    #[serde(default, deserialize_with = "some")]
    pub max_open: Option<Parsed<Count>>,
}
