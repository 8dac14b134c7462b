//! The compose model and the policy of one bottle: pure, from plan, networks and facts.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::Result;
use bottle::compose::{Attachment, Bind, File, Logging, Network, Service, literal};
use bottle::docker::{self, label};
use bottle::gate::{self, Gate};
use bottle::net::{IpNet, Net};
use bottle::plan::{self, Engine, Plan};
use bottle::policy::Routes;
use bottle::proposal::{self, Settings};
use bottle::render::{
    AGENT, EGRESS, GATE_DATA, GIT_GATE, PIPELOCK, PROXY_PORT, SECRETS, SSH_AGENT, SUPERVISE,
    SUPERVISE_PORT, container,
};
use bottle::{Blame, Slug, pins, pipelock, secret, strict};
use serde_json::json;

use crate::environment::{self, CONF};
use crate::mounts::{self, Mounted};
use crate::passwd::HOME;
use crate::ssh;
use crate::who::Who;

/// What the model is made of.
pub(crate) struct Facts<'a> {
    pub(crate) slug: &'a Slug,
    pub(crate) plan: &'a Plan,
    pub(crate) net: &'a Net,
    /// The bottle's folder below the state folder.
    pub(crate) folder: &'a Path,
    pub(crate) who: &'a Who,
    pub(crate) mounts: &'a [Mounted],
}

/// The image of the agent; one that is built is named after the plan that says how.
pub(crate) fn agent_image(slug: &Slug, plan: &Plan) -> String {
    plan.image.clone().unwrap_or_else(|| {
        let digest = plan.digest.trim_start_matches("sha256:");
        format!("bottle-build-{slug}:{}", digest.get(..12).unwrap_or(digest))
    })
}

/// The image of pipelock, where the plan has one.
pub(crate) fn pipelock_image(plan: &Plan) -> Option<String> {
    let asked = plan.pipelock.as_ref()?;
    Some(asked.image.clone().unwrap_or_else(|| pins::PIPELOCK.to_owned()))
}

/// The image of the engine of egress.
fn egress_image(plan: &Plan) -> String {
    docker::image(match plan.egress.engine {
        Engine::Embedded => EGRESS,
        Engine::Mitmproxy => "mitmproxy",
    })
}

/// The services by name, each with its image; the agent's first to be looked at.
pub(crate) fn images(slug: &Slug, plan: &Plan) -> BTreeMap<String, String> {
    let own =
        [(AGENT.to_owned(), agent_image(slug, plan)), (EGRESS.to_owned(), egress_image(plan))];
    let pipelock = pipelock_image(plan).map(|image| (PIPELOCK.to_owned(), image));
    let keys = (!plan.ssh.is_empty()).then(|| (SSH_AGENT.to_owned(), docker::image(SSH_AGENT)));
    let supervise = plan.supervised().map(|_| (SUPERVISE.to_owned(), docker::image(SUPERVISE)));
    let gate = (!plan.git.is_empty()).then(|| (GIT_GATE.to_owned(), docker::image(GIT_GATE)));
    own.into_iter().chain(pipelock).chain(gate).chain(keys).chain(supervise).collect()
}

/// The compose file.
pub(crate) fn compose(facts: &Facts) -> Result<File> {
    let net = facts.net;
    let network = |name: &str| Network { name: literal(name), external: true };
    let mut services = BTreeMap::from([(AGENT, agent(facts)?), (EGRESS, egress(facts)?)]);
    if let Some(image) = pipelock_image(facts.plan) {
        services.insert(PIPELOCK, pipelock(facts, &image)?);
    }
    if facts.plan.supervised().is_some() {
        services.insert(SUPERVISE, supervise(facts)?);
    }
    if !facts.plan.ssh.is_empty() {
        services.insert(SSH_AGENT, ssh_agent(facts)?);
    }
    if !facts.plan.git.is_empty() {
        services.insert(GIT_GATE, git_gate(facts)?);
    }
    Ok(File {
        services,
        networks: BTreeMap::from([
            ("internal", network(&net.internal.name)),
            ("bridge", network(&net.bridge.name)),
        ]),
    })
}

/// What agent and sidecars have in common.
fn service(facts: &Facts, name: &'static str, image: &str) -> Service {
    let labels = [
        (label::SLUG, facts.slug.as_str()),
        (label::PROJECT, &facts.net.project),
        (label::PLAN, &facts.plan.digest),
    ];
    let mut labels: Vec<String> =
        labels.iter().map(|(name, value)| literal(&format!("{name}={value}"))).collect();
    // Known only when the bottle is up; `bottle-up` sets the variable.
    labels.push(format!("{}=${{BOTTLE_OWNER:-none}}", label::OWNER));
    labels.sort();
    Service {
        image: literal(image),
        pull_policy: "never",
        container_name: literal(&container(&facts.net.project, name)),
        hostname: name,
        cap_drop: vec!["ALL"],
        security_opt: vec!["no-new-privileges:true"],
        labels,
        logging: Logging {
            driver: "json-file",
            options: BTreeMap::from([("max-size", "10m"), ("max-file", "3")]),
        },
        ..Service::default()
    }
}

fn agent(facts: &Facts) -> Result<Service> {
    let (plan, net) = (facts.plan, facts.net);
    let (uid, gid) = facts.who.agent;
    Ok(Service {
        runtime: plan.runtime.as_deref().map(literal),
        entrypoint: vec!["sleep".to_owned()],
        command: vec!["infinity".to_owned()],
        user: literal(&facts.who.user),
        working_dir: plan.workspace.as_ref().map(|space| literal(&space.target.to_string_lossy())),
        environment: environment::lines(plan, net),
        init: Some(true),
        pids_limit: plan.resources.pids,
        mem_limit: plan.resources.memory,
        cpus: plan.resources.cpus.clone(),
        dns: vec![net.internal.egress],
        dns_search: vec!["."],
        networks: BTreeMap::from([("internal", Attachment { ipv4_address: net.internal.agent })]),
        volumes: binds(facts, facts.mounts)?,
        tmpfs: vec![
            format!("{HOME}:mode=0700,uid={uid},gid={gid},exec"),
            "/tmp:mode=1777,exec".to_owned(),
        ],
        ..service(facts, AGENT, &agent_image(facts.slug, plan))
    })
}

fn egress(facts: &Facts) -> Result<Service> {
    let net = facts.net;
    let (uid, gid) = facts.who.sidecars;
    let address = net.internal.egress;
    let folder = facts.folder.join("egress");
    let volumes = [
        Mounted::new(folder.join("conf"), CONF.into(), true),
        Mounted::new(secret::folder(facts.folder), SECRETS.into(), true),
        Mounted::new(folder.join("run"), "/run/bottle".into(), false),
    ];
    let (entrypoint, command, memory) = match facts.plan.egress.engine {
        Engine::Embedded => (vec![], embedded(address), 256 << 20),
        // The official image's own entrypoint wants to be root. Python holds much more.
        Engine::Mitmproxy => (vec!["mitmdump".to_owned()], mitmproxy(address), 1 << 30),
    };
    Ok(Service {
        entrypoint,
        command,
        user: format!("{uid}:{gid}"),
        read_only: Some(true),
        pids_limit: 512,
        mem_limit: Some(memory),
        networks: BTreeMap::from([
            ("internal", Attachment { ipv4_address: address }),
            ("bridge", Attachment { ipv4_address: net.bridge.egress }),
        ]),
        volumes: binds(facts, &volumes)?,
        ..service(facts, EGRESS, &egress_image(facts.plan))
    })
}

/// Arguments of `bottle-egress`.
fn embedded(address: Ipv4Addr) -> Vec<String> {
    let (proxy, dns) = (format!("{address}:{PROXY_PORT}"), format!("{address}:53"));
    ["serve", "--listen", &proxy, "--dns", &dns].map(str::to_owned).into()
}

/// Arguments of `mitmdump`; the options that its safety rests on are set by our addon.
fn mitmproxy(address: Ipv4Addr) -> Vec<String> {
    [
        // The addon opens the port; without it nobody is served.
        "--no-server",
        "--scripts",
        "/opt/bottle/bottle.py",
        "--mode",
        &format!("regular@{address}:{PROXY_PORT}"),
        "--set",
        &format!("confdir={CONF}"),
        "--set",
        &format!("ssl_verify_upstream_trusted_ca={CONF}/roots.pem"),
        "--set",
        &format!("bottle_dns={address}:53"),
    ]
    .map(str::to_owned)
    .into()
}

/// pipelock, on the bridge only: nobody but egress is there to ask it.
fn pipelock(facts: &Facts, image: &str) -> Result<Service> {
    let (uid, gid) = facts.who.sidecars;
    let conf = facts.folder.join(PIPELOCK).join("conf");
    let file = format!("{CONF}/{}", pipelock::FILE);
    Ok(Service {
        // Flags are not applied again when it reloads: all of it is in the file.
        command: ["run", "--config", &file].map(str::to_owned).into(),
        user: format!("{uid}:{gid}"),
        // Go's way to roots: its image has the public ones, but not those that the plan adds.
        environment: vec![format!("SSL_CERT_FILE={CONF}/roots.pem")],
        read_only: Some(true),
        pids_limit: 512,
        // It holds what it looks into in memory, see `pipelock::Config`.
        mem_limit: Some(1 << 30),
        networks: BTreeMap::from([(
            "bridge",
            Attachment { ipv4_address: facts.net.bridge.pipelock },
        )]),
        volumes: binds(facts, &[Mounted::new(conf, CONF.into(), true)])?,
        ..service(facts, PIPELOCK, image)
    })
}

/// The agent's way to ask for more: it reads what egress tells, and has no way out itself.
fn supervise(facts: &Facts) -> Result<Service> {
    let (uid, gid) = facts.who.sidecars;
    let address = facts.net.internal.supervise;
    let folder = facts.folder.join(SUPERVISE);
    let volumes = [
        Mounted::new(folder.join("conf"), CONF.into(), true),
        Mounted::new(folder.join("run"), "/run/bottle".into(), false),
        Mounted::new(facts.folder.join("egress/run"), "/run/egress".into(), true),
    ];
    Ok(Service {
        command: vec!["--listen".to_owned(), format!("{address}:{SUPERVISE_PORT}")],
        user: format!("{uid}:{gid}"),
        read_only: Some(true),
        pids_limit: 64,
        mem_limit: Some(64 << 20),
        networks: BTreeMap::from([("internal", Attachment { ipv4_address: address })]),
        volumes: binds(facts, &volumes)?,
        ..service(facts, SUPERVISE, &docker::image(SUPERVISE))
    })
}

/// What supervise is told beside the rules.
pub(crate) fn settings(facts: &Facts, supervise: &plan::Supervise) -> Result<String> {
    let rules = facts.plan.egress.routes.iter();
    let secrets = rules.filter_map(|rule| rule.inject.as_ref()).rev();
    let settings = Settings {
        version: proposal::VERSION,
        max_open: supervise.max_open,
        // Of a secret that is added in several ways, the first one.
        secrets: secrets.map(|inject| (inject.secret.clone(), inject.clone())).collect(),
    };
    let mut text = serde_json::to_string(&settings).world("write 'supervise.json'")?;
    text.push('\n');
    Ok(text)
}

/// How an MCP client finds supervise: the form that most of them read.
pub(crate) fn mcp(facts: &Facts) -> Result<String> {
    let url = format!("http://{}:{SUPERVISE_PORT}/mcp", facts.net.internal.supervise);
    let servers = json!({ "mcpServers": { "bottle": { "type": "http", "url": url } } });
    let mut text = serde_json::to_string_pretty(&servers).world("write '.mcp.json'")?;
    text.push('\n');
    Ok(text)
}

/// The keeper of the keys, which nobody reaches but by its socket.
fn ssh_agent(facts: &Facts) -> Result<Service> {
    let (uid, gid) = facts.who.sidecars;
    let folder = facts.folder.join(SSH_AGENT);
    let volumes = [
        Mounted::new(folder.join("conf"), CONF.into(), true),
        Mounted::new(bottle::ssh::folder(facts.folder), SECRETS.into(), true),
        Mounted::new(mounts::socket(facts.folder), ssh::SOCKET.into(), false),
        Mounted::new(folder.join("run"), "/run/bottle".into(), false),
    ];
    Ok(Service {
        user: format!("{uid}:{gid}"),
        // It starts others, which end before it.
        init: Some(true),
        read_only: Some(true),
        pids_limit: 128,
        mem_limit: Some(128 << 20),
        network_mode: Some("none"),
        volumes: binds(facts, &volumes)?,
        tmpfs: vec![format!("/tmp:mode=0700,uid={uid},gid={gid}")],
        ..service(facts, SSH_AGENT, &docker::image(SSH_AGENT))
    })
}

/// The git gate, on the internal network only: it goes out by egress.
fn git_gate(facts: &Facts) -> Result<Service> {
    let (uid, gid) = facts.who.sidecars;
    let address = facts.net.internal.git_gate;
    let folder = facts.folder.join(GIT_GATE);
    let volumes = [
        Mounted::new(folder.join("conf"), CONF.into(), true),
        Mounted::new(gate::files::folder(facts.folder), SECRETS.into(), true),
        Mounted::new(folder.join("passwd"), "/etc/passwd".into(), true),
        Mounted::new(folder.join("run"), "/run/bottle".into(), false),
        Mounted::new(folder.join("data"), GATE_DATA.into(), false),
    ];
    Ok(Service {
        command: ["serve", "--listen", &format!("{address}:{}", gate::PORT)]
            .map(str::to_owned)
            .into(),
        user: format!("{uid}:{gid}"),
        // git leaves children behind, which somebody has to wait for.
        init: Some(true),
        read_only: Some(true),
        pids_limit: 256,
        // What git and gitleaks need for the largest push; a pack that needs more ends git alone.
        mem_limit: Some(1 << 30),
        networks: BTreeMap::from([("internal", Attachment { ipv4_address: address })]),
        volumes: binds(facts, &volumes)?,
        // The keys of a signature are tried from files.
        tmpfs: vec![format!("/tmp:mode=0700,uid={uid},gid={gid},size=16m")],
        ..service(facts, GIT_GATE, &docker::image(GIT_GATE))
    })
}

/// What the git gate is told, where the plan has remotes.
pub(crate) fn gate_file(facts: &Facts, generation: u64) -> Result<Option<String>> {
    let (plan, internal) = (facts.plan, &facts.net.internal);
    if plan.git.is_empty() {
        return Ok(None);
    }
    let gate = Gate {
        version: 1,
        generation,
        plan: plan.digest.clone(),
        bottle: facts.slug.to_string(),
        client: internal.agent,
        proxy: Some(SocketAddrV4::new(internal.egress, PROXY_PORT)),
        // A bottle that starts has no grants yet.
        remotes: plan.git.iter().map(gate::Remote::of).collect(),
    };
    gate.to_json().map(Some)
}

fn binds(facts: &Facts, mounts: &[Mounted]) -> Result<Vec<Bind>> {
    let selinux = facts.net.engine.as_ref().is_some_and(|engine| engine.selinux);
    // What two containers see cannot be labelled for one of them.
    let run = facts.plan.supervised().map(|_| facts.folder.join("egress/run"));
    let shared = [run, Some(mounts::socket(facts.folder))];
    let bind = |mount: &Mounted| {
        let mut bind = mount.bind(selinux)?;
        let is_shared = shared.iter().flatten().any(|path| *path == mount.source);
        if let Some(options) = bind.bind.as_mut().filter(|_| is_shared) {
            options.selinux = "z";
        }
        Ok(bind)
    };
    mounts.iter().map(bind).collect()
}

/// The policy that egress enforces.
pub(crate) fn routes(facts: &Facts, generation: u64) -> Result<Routes> {
    let (plan, net) = (facts.plan, facts.net);
    let parent = SocketAddrV4::new(net.bridge.pipelock, pipelock::PORT);
    Ok(Routes {
        version: 1,
        generation,
        plan: plan.digest.clone(),
        bottle: facts.slug.to_string(),
        names: names(facts),
        closed: closed(net),
        parent: plan.pipelock.is_some().then_some(parent),
        audit: plan.egress.audit,
        private_data: plan.egress.private_data,
        routes: plan.rules()?,
    })
}

/// Who is on the internal network: whoever asks egress something, and whom the agent can name.
fn names(facts: &Facts) -> BTreeMap<String, Ipv4Addr> {
    let (plan, internal) = (facts.plan, &facts.net.internal);
    let supervise = plan.supervised().is_some();
    let all = [
        (AGENT, internal.agent, true),
        (EGRESS, internal.egress, true),
        (GIT_GATE, internal.git_gate, !plan.git.is_empty()),
        (SUPERVISE, internal.supervise, supervise),
    ];
    let there = all.into_iter().filter(|(.., is_there)| *is_there);
    there.map(|(name, address, _)| (name.to_owned(), address)).collect()
}

/// The host's own addresses and other bottles'.
fn closed(net: &Net) -> Vec<IpNet> {
    let hosts = net.host_addresses.iter().map(|address| (*address).into());
    let pool = net.pool.iter().map(|subnet| (*subnet).into());
    let mut closed: Vec<_> = hosts.chain(pool).collect();
    closed.sort();
    closed.dedup();
    closed
}

/// What pipelock is told, where the plan has one.
pub(crate) fn pipelock_file(facts: &Facts) -> Result<Option<String>> {
    let config = pipelock::Config::of(facts.plan, &closed(facts.net))?;
    config.map(|config| strict::to_yaml(&config)).transpose()
}

/// The plan, for people and for tools that come later.
pub(crate) fn plan_file(plan: &Plan) -> Result<String> {
    let mut text = serde_json::to_string_pretty(plan).world("write plan.json")?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod goldens;
