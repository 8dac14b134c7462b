//! From a manifest to a plan: names looked up, defaults filled in, paths resolved.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use bottle::manifest::{self, Bottle, Manifest, Route};
use bottle::plan::{
    Build, Egress, Engine, GitRemote, Mount, Pipelock, PipelockMode, Plan, Resources, Secret,
    Selftest, SshHost, Supervise, Workspace, WorkspaceMode,
};
use bottle::policy::{HostKind, Rule, SCAN_SECRET, check_together};
use bottle::remote::{Remote, Transport, check_user};
use bottle::scalar::Env;
use bottle::seal::{check_known, check_rule, check_secret, check_target};
use bottle::secret::readable;
use bottle::ssh::host_key;
use bottle::strict::{Text, did_you_mean};
use bottle::{Blame, caller, gate, host};

use crate::facts::Facts;
use crate::kept;
use crate::paths::Base;

/// Most processes and threads, where nobody says.
const PIDS: u32 = 512;

/// Where the workspace is in the agent, where nobody says.
const WORKSPACE: &str = "/workspace";

/// Most proposals that may be open at once, where nobody says.
const MAX_OPEN: u32 = 8;

/// The plan of one agent, not yet sealed.
pub(crate) fn resolve(manifest: &Manifest, name: &str, facts: &Facts) -> Result<Plan> {
    check_names(manifest)?;
    let agent = manifest.agents.get(name).ok_or_else(|| {
        let known: Vec<&str> = manifest.agents.keys().map(String::as_str).collect();
        caller(format!("agent '{name}' is not in 'agents'{}", did_you_mean(name, &known)))
    })?;
    let bottle = manifest.bottles.get(agent.bottle.as_str()).ok_or_else(|| {
        let known: Vec<&str> = manifest.bottles.keys().map(String::as_str).collect();
        let wanted = agent.bottle.as_str();
        caller(format!(
            "agents.{name}.bottle: bottle '{wanted}' is not in 'bottles'{}",
            did_you_mean(wanted, &known)
        ))
    })?;
    let below = format!("bottles.{}", agent.bottle);
    let mut plan = of_bottle(bottle, &below, facts)?;
    name.clone_into(&mut plan.agent);
    plan.bottle = agent.bottle.to_string();
    kept::narrow(&mut plan, agent, name, &facts.base)?;
    drop_unused_secrets(&mut plan);
    Ok(plan)
}

/// Names end up in host names, labels and messages.
fn check_names(manifest: &Manifest) -> Result<()> {
    for (kind, names) in [
        ("bottles", manifest.bottles.keys().collect::<Vec<_>>()),
        ("agents", manifest.agents.keys().collect()),
    ] {
        names.into_iter().try_for_each(|name| check_name(name).caller(kind))?;
    }
    manifest.bottles.iter().try_for_each(|(bottle, it)| {
        for (kind, names) in [
            ("secrets", it.secrets.keys().collect::<Vec<_>>()),
            ("git", it.git.keys().collect()),
            ("ssh", it.ssh.keys().collect()),
        ] {
            let below = format!("bottles.{bottle}.{kind}");
            names.into_iter().try_for_each(|name| check_name(name).caller(&below))?;
        }
        Ok(())
    })
}

fn check_name(name: &str) -> Result<()> {
    let fits = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits {
        return Ok(());
    }
    Err(caller(format!(
        "name '{name}' is not usable: begin with a letter or digit, go on with those and '.', '_', '-', up to 63"
    )))
}

/// The plan of a whole bottle, whoever works in it.
fn of_bottle(bottle: &Bottle, below: &str, facts: &Facts) -> Result<Plan> {
    let base = &facts.base;
    let at = |field: &str| format!("{below}.{field}");
    if bottle.image.is_some() == bottle.build.is_some() {
        return Err(caller(format!("{below}: give it exactly one of 'image' and 'build'")));
    }
    let secrets = secrets(bottle, below, base)?;
    let mut plan = Plan {
        digest: String::new(),
        agent: String::new(),
        bottle: String::new(),
        manifest: Some(facts.source.named()),
        image: bottle.image.as_ref().map(Text::to_string),
        build: bottle.build.as_ref().map(|it| build(it, base).caller(at("build"))).transpose()?,
        runtime: bottle.runtime.as_ref().map(Text::to_string),
        user: bottle.user.as_ref().map(|user| user.0.0.clone()),
        env: env(&bottle.env).caller(at("env"))?,
        command: Vec::new(),
        prompt: None,
        skills: Vec::new(),
        secrets,
        resources: Resources {
            cpus: bottle.resources.cpus.map(|cpus| cpus.0.to_string()),
            memory: bottle.resources.memory.map(|memory| memory.0.0),
            pids: bottle.resources.pids.map_or(PIDS, |pids| pids.0.0),
        },
        mounts: each(&bottle.mounts, &at("mounts"), |it| mount(it, base))?,
        workspace: workspace(bottle, below, facts)?,
        egress: Egress {
            engine: bottle.egress.engine.unwrap_or(Engine::Embedded),
            routes: Vec::new(),
            ca_certificates: each(
                &bottle.egress.ca_certificates,
                &at("egress.ca_certificates"),
                |it| file(it, base),
            )?,
            audit: bottle.egress.audit.unwrap_or_default(),
            private_data: bottle.egress.private_data,
            allow: Vec::new(),
        },
        pipelock: bottle.pipelock.as_ref().map(pipelock),
        git: Vec::new(),
        ssh: Vec::new(),
        supervise: bottle.supervise.as_ref().map(supervise).filter(|it| it.enabled),
        selftest: bottle.selftest.unwrap_or(Selftest::Enforce),
    };
    plan.egress.routes = routes(&bottle.egress.routes, &at("egress.routes"), &plan)?;
    for (name, remote) in &bottle.git {
        let remote = git(name, remote, &plan, base).caller(at(&format!("git.{name}")))?;
        plan.git.push(remote);
    }
    for (name, host) in &bottle.ssh {
        plan.ssh.push(ssh(name, host, base).caller(at(&format!("ssh.{name}")))?);
    }
    bottle::ssh::check(&plan.ssh)
        .and_then(|()| check_together(&plan.rules()?))
        .caller(at("ssh"))?;
    Ok(plan)
}

/// Does the same with each item of a list; an error names the item.
pub(crate) fn each<T, U>(items: &[T], at: &str, f: impl Fn(&T) -> Result<U>) -> Result<Vec<U>> {
    items.iter().enumerate().map(|(i, item)| f(item).caller(format!("{at}[{i}]"))).collect()
}

/// Variables, by names that every shell can say.
pub(crate) fn env(env: &BTreeMap<String, Env>) -> Result<BTreeMap<String, String>> {
    let checked = |(name, value): (&String, &Env)| {
        let fits = !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !fits {
            return Err(caller(format!(
                "'{name}' is no name of a variable: use letters, digits and '_'"
            )));
        }
        if value.0.contains('\0') {
            return Err(caller(format!("'{name}' holds a NUL, which no variable can")));
        }
        Ok((name.clone(), value.0.clone()))
    };
    env.iter().map(checked).collect()
}

fn build(build: &manifest::Build, base: &Base) -> Result<Build> {
    let context = folder(build.context.as_str(), base).caller("context")?;
    let dockerfile = build.dockerfile.as_ref().map(|it| PathBuf::from(it.as_str()));
    if let Some(path) = dockerfile.as_ref().filter(|path| !context.join(path).is_file()) {
        return Err(caller(format!(
            "dockerfile: '{}' is not a file below the context '{}'",
            path.display(),
            context.display()
        )));
    }
    let args = env(&build.args).caller("args")?;
    Ok(Build { context, dockerfile, args, target: build.target.as_ref().map(Text::to_string) })
}

fn secrets(bottle: &Bottle, below: &str, base: &Base) -> Result<BTreeMap<String, Secret>> {
    let resolved = |(name, secret): (&String, &manifest::Secret)| {
        let at = format!("{below}.secrets.{name}");
        let mut resolved = Secret {
            from_env: secret.from_env.as_ref().map(Text::to_string),
            from_file: None,
            from_command: secret
                .from_command
                .as_ref()
                .map(|words| words.iter().map(Text::to_string).collect()),
        };
        for (i, word) in resolved.from_command.iter_mut().flatten().enumerate() {
            *word = program(word, i == 0, base).caller(format!("{at}.from_command[{i}]"))?;
        }
        if let Some(path) = &secret.from_file {
            resolved.from_file = Some(file(path, base).caller(format!("{at}.from_file"))?);
        }
        check_secret(&resolved).caller(at)?;
        Ok((name.clone(), resolved))
    };
    bottle.secrets.iter().map(resolved).collect()
}

/// A word of a command. What is named by a path is one thing, wherever the command is run: the
/// program, and scripts among its arguments, which begin with `./`, `../` or `~/`.
fn program(word: &str, first: bool, base: &Base) -> Result<String> {
    let script = ["./", "../", "~/"].iter().any(|start| word.starts_with(start));
    if script || (first && word.contains('/')) {
        return Ok(base.find(word)?.path.to_string_lossy().into_owned());
    }
    Ok(word.to_owned())
}

/// A secret that no route and no remote uses is never read.
fn drop_unused_secrets(plan: &mut Plan) {
    let routes = &plan.egress.routes;
    let git = &plan.git;
    plan.secrets.retain(|name, _| {
        let scanned = format!("{SCAN_SECRET}{name}");
        routes.iter().any(|rule| rule.inject.as_ref().is_some_and(|it| it.secret == *name))
            || routes.iter().any(|rule| rule.dlp_exempt.contains(&scanned))
            || git.iter().any(|remote| remote.secret.as_ref() == Some(name))
    });
}

/// A folder that is there.
pub(crate) fn folder(path: &str, base: &Base) -> Result<PathBuf> {
    let found = base.find(path)?.path;
    if found.is_dir() {
        return Ok(found);
    }
    Err(caller(format!("'{}' is not a folder", found.display())))
}

/// A file that the caller can read.
fn file(path: &Text, base: &Base) -> Result<PathBuf> {
    let found = base.find(path.as_str())?.path;
    if !found.is_file() {
        return Err(caller(format!("'{}' is not a file", found.display())));
    }
    readable(&found)?;
    Ok(found)
}

fn mount(mount: &manifest::Mount, base: &Base) -> Result<Mount> {
    let target = PathBuf::from(mount.target.as_str());
    check_target(&target)?;
    let source = base.find(mount.source.as_str()).caller("source")?.path;
    Ok(Mount { source, target, read_only: mount.read_only })
}

fn workspace(bottle: &Bottle, below: &str, facts: &Facts) -> Result<Option<Workspace>> {
    let (found, at) = match (&facts.workspace, &bottle.workspace) {
        (Some(given), _) => {
            let found = bottle::path::follow(given).caller("--workspace")?;
            (found, "--workspace".to_owned())
        }
        (None, Some(workspace)) => {
            let at = format!("{below}.workspace.source");
            (facts.base.find(workspace.source.as_str()).caller(&at)?, at)
        }
        (None, None) => return Ok(None),
    };
    if !found.path.is_dir() {
        return Err(caller(format!("{at}: '{}' is not a folder", found.path.display())));
    }
    let wanted = bottle.workspace.as_ref();
    let target = wanted.and_then(|it| it.target.as_ref()).map_or(WORKSPACE, Text::as_str);
    let target = PathBuf::from(target);
    check_target(&target).caller(format!("{below}.workspace"))?;
    Ok(Some(Workspace {
        source: found.path,
        target,
        mode: wanted.and_then(|it| it.mode).unwrap_or(WorkspaceMode::Bind),
        read_only: wanted.is_some_and(|it| it.read_only),
        protected: Vec::new(),
        pinned: Vec::new(),
    }))
}

/// The rules of a list of routes, normalised.
pub(crate) fn routes(routes: &[Route], at: &str, plan: &Plan) -> Result<Vec<Rule>> {
    let rules = each(routes, at, |route| {
        let rule = rule(route);
        check_rule(&rule, &plan.secrets)?;
        Ok(rule)
    })?;
    check_together(&rules).caller(at)?;
    Ok(rules)
}

fn rule(route: &Route) -> Rule {
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list.dedup();
        list
    };
    let mut ports = route
        .ports
        .as_ref()
        .map_or_else(|| vec![443], |ports| ports.iter().map(|port| port.0.0).collect::<Vec<u16>>());
    ports.sort_unstable();
    ports.dedup();
    let mut addresses: Vec<_> = route.addresses.iter().flatten().map(|net| net.0.0).collect();
    addresses.sort();
    addresses.dedup();
    Rule {
        host: route.host.0.host.clone(),
        kind: route.host.0.kind,
        ports,
        methods: sorted(route.methods.iter().flatten().map(|it| it.0.0.clone()).collect()),
        paths: sorted(route.paths.iter().flatten().map(|it| it.0.0.clone()).collect()),
        addresses,
        inject: route.inject.clone(),
        from: None,
        passthrough: route.passthrough,
        raw: false,
        dlp: route.dlp.unwrap_or_default(),
        dlp_exempt: sorted(route.dlp_exempt.iter().flatten().map(Text::to_string).collect()),
        grant: None,
    }
}

fn pipelock(pipelock: &manifest::Pipelock) -> Pipelock {
    let texts = |list: &[Text]| list.iter().map(Text::to_string).collect();
    Pipelock {
        mode: pipelock.mode.unwrap_or(PipelockMode::Balanced),
        image: pipelock.image.as_ref().map(Text::to_string),
        trusted_domains: texts(&pipelock.trusted_domains),
        ssrf_ip_allowlist: pipelock.ssrf_ip_allowlist.iter().map(|net| net.0.0).collect(),
        passthrough_domains: texts(&pipelock.passthrough_domains),
    }
}

fn git(name: &str, remote: &manifest::GitRemote, plan: &Plan, base: &Base) -> Result<GitRemote> {
    let url = remote.url.as_str();
    let https = Remote::parse(url)?.transport == Transport::Https;
    if https && (remote.key.is_some() || remote.known_hosts.is_some()) {
        return Err(caller(
            "'key' and 'known_hosts' are for ssh, the url is https: name a 'secret'",
        ));
    }
    if !https && remote.secret.is_some() {
        return Err(caller("'secret' is for https, the url is ssh: name a 'key'"));
    }
    if !https && (remote.key.is_none() || remote.known_hosts.is_none()) {
        return Err(caller("an ssh url needs 'key' and 'known_hosts'"));
    }
    if let Some(secret) = &remote.secret {
        check_known(secret.as_str(), &plan.secrets)?;
    }
    if remote.require_signed && remote.allowed_signers.is_none() {
        return Err(caller(
            "'require_signed' needs 'allowed_signers', a file of the keys that may sign",
        ));
    }
    let texts = |list: &[Text]| list.iter().map(Text::to_string).collect();
    let path = |field: &str, path: &Option<Text>| {
        path.as_ref().map(|it| file(it, base).caller(field)).transpose()
    };
    let remote = GitRemote {
        name: name.to_owned(),
        url: url.to_owned(),
        push: texts(&remote.push),
        allow_paths: texts(&remote.allow_paths),
        require_signed: remote.require_signed,
        allowed_signers: path("allowed_signers", &remote.allowed_signers)?,
        max_push: remote.max_push.map(|it| it.0.0),
        max_file: remote.max_file.map(|it| it.0.0),
        max_files: remote.max_files.map(|it| it.0.0),
        key: path("key", &remote.key)?,
        known_hosts: path("known_hosts", &remote.known_hosts)?,
        secret: remote.secret.as_ref().map(Text::to_string),
    };
    gate::Remote::of(&remote).check()?;
    Ok(remote)
}

fn ssh(name: &str, ssh: &manifest::SshHost, base: &Base) -> Result<SshHost> {
    let (address, kind) = host::normalise(ssh.address.as_str()).caller("address")?;
    if matches!(kind, HostKind::Wildcard | HostKind::Network | HostKind::PrivateNetwork) {
        return Err(caller(format!("address '{address}' is more than one host: name one")));
    }
    if let Some(user) = &ssh.user {
        check_user(user.as_str())?;
    }
    Ok(SshHost {
        name: name.to_owned(),
        address,
        port: ssh.port.map_or(22, |port| port.0.0),
        user: ssh.user.as_ref().map(Text::to_string),
        key: file(&ssh.key, base).caller("key")?,
        host_key: host_key(ssh.host_key.as_str())?,
    })
}

/// A section that is there is meant, unless it says otherwise.
pub(crate) fn supervise(supervise: &manifest::Supervise) -> Supervise {
    Supervise {
        enabled: supervise.enabled.unwrap_or(true),
        max_open: supervise.max_open.map_or(MAX_OPEN, |count| count.0.0),
    }
}
