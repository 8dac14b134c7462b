//! Writes the folder of a bottle.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::gate::{self, files, forms};
use bottle::owner::Owner;
use bottle::plan::{Engine, WorkspaceMode};
use bottle::policy::Routes;
use bottle::record::{Phase, Record, now};
use bottle::render::{AGENT, GIT_GATE, PIPELOCK, Render, SSH_AGENT, SUPERVISE, container};
use bottle::ssh::Key;
use bottle::{Blame, docker, pipelock, secret, state, strict};

use crate::authority::Authority;
use crate::environment;
use crate::model::{self, Facts};
use crate::mounts::{self, copy_of};
use crate::ssh;
use crate::who::Caller;
use crate::{passwd, roots, truststore};

/// What the files hold beside the facts.
pub(crate) struct Content {
    pub(crate) caller: Caller,
    /// The certificates that the plan adds to the host's public roots.
    pub(crate) further: String,
    /// The keys of its ssh hosts; of them only what is public is written here.
    pub(crate) keys: Vec<Key>,
}

/// The compose file, in the bottle's folder.
const COMPOSE: &str = "docker-compose.yml";

/// Where egress reads what it is told.
pub(crate) fn egress_conf(folder: &Path) -> PathBuf {
    folder.join("egress/conf")
}

/// Writes everything, the record first, so that what a killed tool leaves is known.
pub(crate) fn all(facts: &Facts, content: &Content, passwd: &str) -> Result<Render> {
    let folder = facts.folder;
    record(facts)?;
    let ca = Authority::of(&egress_conf(folder).join("mitmproxy-ca.pem"), facts.slug)?;
    let generation = generation(facts);
    let routes = model::routes(facts, generation)?.to_yaml()?;
    let roots = [roots::of_host(), content.further.clone()].concat();
    let behind = pipelock(facts, content, &roots)?;
    agent(facts, content, &roots, &ca.certificate)?;
    ssh_hosts(facts, content)?;
    let passwd = passwd::merge(passwd, facts.who.agent);
    let top = Folder { path: folder.to_owned(), owner: None };
    top.file("agent/passwd", &passwd, 0o644)?;
    let gate = model::gate_file(facts, generation)?;
    git_gate(facts, content, &[&*roots, &ca.certificate].concat(), gate.as_deref())?;
    egress(facts, content, &[roots, behind].concat(), &ca, &routes)?;
    supervise(facts, content, &routes, gate.as_deref())?;
    let plan = model::plan_file(facts.plan)?;
    top.file("plan.json", &plan, 0o600)?;
    let compose = strict::to_yaml(&model::compose(facts)?)?;
    top.file(COMPOSE, &compose, 0o600)?;
    Ok(section(facts, generation, routes.as_bytes(), gate.as_deref().map(str::as_bytes)))
}

/// Takes back what [`all`] wrote for a bottle that had no record before.
pub(crate) fn undo(folder: &Path) -> Result<()> {
    state::remove_folder(&folder.join("agent"))?;
    state::remove_folder(&folder.join("egress"))?;
    state::remove_folder(&folder.join(PIPELOCK))?;
    state::remove_folder(&folder.join(SUPERVISE))?;
    state::remove_folder(&folder.join(SSH_AGENT))?;
    state::remove_folder(&folder.join(GIT_GATE))?;
    state::remove(&folder.join("plan.json"))?;
    state::remove(&folder.join(COMPOSE))?;
    state::remove(&Record::path(folder))
}

/// The section for a bottle that is up with this plan: its files are left alone.
pub(crate) fn running(facts: &Facts) -> Result<Render> {
    let path = egress_conf(facts.folder).join("routes.yaml");
    let routes = fs::read(&path).world(format!("read '{}'", path.display()))?;
    let path = facts.folder.join(GIT_GATE).join("conf").join(gate::FILE);
    let gate = if facts.plan.git.is_empty() {
        None
    } else {
        Some(fs::read(&path).world(format!("read '{}'", path.display()))?)
    };
    Ok(section(facts, generation(facts), &routes, gate.as_deref()))
}

fn section(facts: &Facts, generation: u64, routes: &[u8], gate: Option<&[u8]>) -> Render {
    let (uid, gid) = facts.who.sidecars;
    Render {
        state: facts.folder.to_owned(),
        compose_file: facts.folder.join(COMPOSE),
        compose_project: facts.net.project.clone(),
        plan: facts.plan.digest.clone(),
        generation,
        routes_sha256: state::sha256_hex(routes),
        gate_sha256: gate.map(state::sha256_hex),
        services: model::images(facts.slug, facts.plan),
        user: facts.who.user.clone(),
        run_as: format!("{uid}:{gid}"),
    }
}

/// The generation of the policy: that of the file where it is of the same plan, else the first.
pub(crate) fn generation(facts: &Facts) -> u64 {
    fs::read_to_string(egress_conf(facts.folder).join("routes.yaml"))
        .ok()
        .and_then(|text| strict::yaml::<Routes>(&text, "routes.yaml").ok())
        .filter(|routes| routes.plan == facts.plan.digest)
        .map_or(1, |routes| routes.generation)
}

fn record(facts: &Facts) -> Result<()> {
    let old = Record::read(facts.folder)?.filter(|old| old.plan == facts.plan.digest);
    Record {
        version: 1,
        slug: facts.slug.clone(),
        compose_project: facts.net.project.clone(),
        plan: facts.plan.digest.clone(),
        owner: Owner::pipeline()?,
        phase: Phase::Starting,
        agent: container(&facts.net.project, AGENT),
        created_at: old.map_or_else(now, |old| old.created_at),
        up_at: None,
    }
    .write(facts.folder)
}

/// What the agent sees: certificates, its prompt, and its workspace where that is a
/// copy.
fn agent(facts: &Facts, content: &Content, roots: &str, ca: &str) -> Result<()> {
    let ids = facts.who.agent;
    let owner = content.caller.owner(ids);
    let conf = Folder::make(facts.folder.join("agent/conf"), owner)?;
    // A user that the caller cannot give files to reads them as everybody does; nobody else gets
    // through the state folder to them.
    state::set_mode(&conf.path, if content.caller.can_own(ids) { 0o700 } else { 0o755 })?;
    conf.file("ca.pem", ca, 0o644)?;
    let bundle = [roots, ca].concat();
    conf.file("bundle.pem", &bundle, 0o644)?;
    conf.file("bundle.jks", truststore::jks(&bundle), 0o644)?;
    conf.file(environment::NODE_PROXY, include_str!("node-proxy.cjs"), 0o644)?;
    match facts.plan.supervised() {
        Some(_) => conf.file(environment::MCP, model::mcp(facts)?, 0o644)?,
        None => state::remove(&conf.path.join(environment::MCP))?,
    }
    if facts.plan.git.is_empty() {
        state::remove(&conf.path.join("gitconfig"))?;
    } else {
        let text = forms::gitconfig(&facts.plan.git, facts.net.internal.git_gate)?;
        conf.file("gitconfig", text, 0o644)?;
    }
    match &facts.plan.prompt {
        Some(prompt) => conf.file("prompt", prompt, 0o644)?,
        None => state::remove(&conf.path.join("prompt"))?,
    }
    match &facts.plan.workspace {
        Some(space) if space.mode == WorkspaceMode::Copy => {
            state::copy_folder(&space.source, &copy_of(facts.folder), owner)
        }
        _ => Ok(()),
    }
}

/// How the agent reaches its ssh hosts, and what the keeper of their keys sees. Of a plan without
/// such hosts nothing of an earlier one stays.
fn ssh_hosts(facts: &Facts, content: &Content) -> Result<()> {
    let (hosts, keys) = (&facts.plan.ssh, &content.keys);
    let (agent, keeper) = (facts.folder.join("agent"), facts.folder.join(SSH_AGENT));
    state::remove_folder(&agent.join("conf").join(ssh::FOLDER))?;
    state::remove_folder(&agent.join("tools"))?;
    state::remove_folder(&keeper)?;
    if hosts.is_empty() {
        return Ok(());
    }
    let ids = facts.who.agent;
    let owner = content.caller.owner(ids);
    let mode = if content.caller.can_own(ids) { 0o700 } else { 0o755 };
    let public = Folder::make(agent.join("conf").join(ssh::FOLDER), owner)?;
    // One that others could read is a private key left open, to ssh that looks for one in it.
    let readable = if mode == 0o700 { 0o600 } else { 0o644 };
    for (name, text) in ssh::files(hosts, keys)? {
        public.file(&name, text, readable)?;
    }
    let tools = Folder::make(agent.join("tools"), owner)?;
    let program = docker::sibling_path(ssh::CONNECT)?;
    let program = fs::read(&program).world(format!("read '{}'", program.display()))?;
    tools.file(ssh::CONNECT, program, 0o755)?;
    for folder in [&public, &tools] {
        state::set_mode(&folder.path, mode)?;
    }
    let top = Folder { path: agent, owner: None };
    top.file("ssh_config", ssh::config(hosts, facts.net.internal.egress), 0o644)?;
    let owner = content.caller.owner(facts.who.sidecars);
    let conf = Folder::make(keeper.join("conf"), owner)?;
    conf.file("known_hosts", bottle::ssh::known_hosts(hosts)?, 0o644)?;
    conf.file(bottle::ssh::KEYS, bottle::ssh::listed(facts.plan, keys), 0o644)?;
    Folder::make(keeper.join("run"), owner)?;
    // `bottle-up` fills it, at the last moment.
    Folder::make(bottle::ssh::folder(facts.folder), owner)?;
    // The agent may be somebody else, who has to get through to the socket and no further.
    let socket = Folder::make(mounts::socket(facts.folder), owner)?;
    state::set_mode(&socket.path, 0o711)
}

/// What egress sees, and where it reports.
fn egress(
    facts: &Facts,
    content: &Content,
    roots: &str,
    ca: &Authority,
    routes: &str,
) -> Result<()> {
    let owner = content.caller.owner(facts.who.sidecars);
    Folder::make(facts.folder.join("egress/run"), owner)?;
    // `bottle-up` fills it, at the last moment.
    Folder::make(secret::folder(facts.folder), owner)?;
    let conf = Folder::make(egress_conf(facts.folder), owner)?;
    conf.file("roots.pem", roots, 0o644)?;
    conf.file("ca.pem", &ca.certificate, 0o644)?;
    conf.file("ca-key.pem", &ca.key, 0o600)?;
    conf.file("mitmproxy-ca.pem", ca.both(), 0o644)?;
    if facts.plan.egress.engine == Engine::Mitmproxy {
        // It would write its own, and cannot: ffdhe2048 of RFC 7919.
        conf.file("mitmproxy-dhparam.pem", include_str!("dhparam.pem"), 0o644)?;
    }
    conf.file("routes.yaml", routes, 0o644)
}

/// What the git gate sees: what it is told, whom it trusts, and who it is. `bottle-up` adds its keys
/// at the last moment. Of a plan without remotes nothing of an earlier one stays.
fn git_gate(facts: &Facts, content: &Content, trusted: &str, gate: Option<&str>) -> Result<()> {
    let folder = facts.folder.join(GIT_GATE);
    let Some(gate) = gate else { return state::remove_folder(&folder) };
    let (uid, gid) = facts.who.sidecars;
    let owner = content.caller.owner((uid, gid));
    // Mirrors of another plan are of other remotes, or were another agent's.
    state::remove_folder(&folder.join("data"))?;
    for name in ["run", "data"] {
        Folder::make(folder.join(name), owner)?;
    }
    Folder::make(files::folder(facts.folder), owner)?;
    let conf = Folder::make(folder.join("conf"), owner)?;
    conf.file("bundle.pem", trusted, 0o644)?;
    conf.file(gate::FILE, gate, 0o644)?;
    // ssh wants to know the name of whoever runs it.
    let passwd = match uid {
        0 => "root:x:0:0:root:/nonexistent:/bin/false\n".to_owned(),
        _ => format!(
            "root:x:0:0:root:/nonexistent:/bin/false\nbottle:x:{uid}:{gid}:bottle:/nonexistent:/bin/false\n"
        ),
    };
    Folder { path: folder, owner: None }.file("passwd", passwd, 0o644)
}

/// What pipelock sees, which never tells anything but by its log; gives the certificate of its CA,
/// which egress trusts and nobody else. Of a plan without pipelock nothing of an earlier one stays.
fn pipelock(facts: &Facts, content: &Content, roots: &str) -> Result<String> {
    let folder = facts.folder.join(PIPELOCK);
    let Some(file) = model::pipelock_file(facts)? else {
        state::remove_folder(&folder)?;
        return Ok(String::new());
    };
    let owner = content.caller.owner(facts.who.sidecars);
    let ca = Authority::of(&folder.join("conf/ca-both.pem"), facts.slug)?;
    let conf = Folder::make(folder.join("conf"), owner)?;
    conf.file("roots.pem", roots, 0o644)?;
    conf.file("ca.pem", &ca.certificate, 0o644)?;
    conf.file("ca-key.pem", &ca.key, 0o600)?;
    conf.file("ca-both.pem", ca.both(), 0o600)?;
    conf.file(pipelock::FILE, file, 0o644)?;
    Ok(ca.certificate)
}

/// What supervise sees, and where it tells what the agent asks for. Of a plan without it nothing of an
/// earlier one stays.
fn supervise(facts: &Facts, content: &Content, routes: &str, gate: Option<&str>) -> Result<()> {
    let folder = facts.folder.join(SUPERVISE);
    let Some(supervise) = facts.plan.supervised() else { return state::remove_folder(&folder) };
    let owner = content.caller.owner(facts.who.sidecars);
    Folder::make(folder.join("run"), owner)?;
    let conf = Folder::make(folder.join("conf"), owner)?;
    Folder::make(conf.path.join("answers"), owner)?;
    conf.file("supervise.json", model::settings(facts, supervise)?, 0o644)?;
    match gate {
        Some(gate) => conf.file(gate::FILE, gate, 0o644)?,
        None => state::remove(&conf.path.join(gate::FILE))?,
    }
    conf.file("routes.yaml", routes, 0o644)
}

/// A folder, and who owns what is written into it.
struct Folder {
    path: PathBuf,
    owner: state::Ids,
}

impl Folder {
    fn make(path: PathBuf, owner: state::Ids) -> Result<Self> {
        state::make_folder(&path, owner)?;
        Ok(Self { path, owner })
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        state::write_unsynced(&self.path.join(name), bytes.as_ref(), mode, self.owner)
    }
}
