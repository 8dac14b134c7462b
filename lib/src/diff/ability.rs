//! What a plan can do beside its routes, each ability as a line of its own, so that more of them is
//! more.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Change, Item};
use crate::plan::{
    Egress, Pipelock, PipelockMode, Plan, Resources, Secret, Selftest, WorkspaceMode,
};
use crate::policy::Audit;

/// Everything that is there or is not.
pub(super) fn all(plan: &Plan) -> BTreeSet<Item> {
    let mut items = BTreeSet::new();
    let mut can = |part, can: String| {
        items.insert(Item { part, can, was: None });
    };
    files(plan, &mut can);
    secrets(plan, &mut can);
    git(plan, &mut can);
    for host in &plan.ssh {
        let user = host.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        let to = format!("'{}', {user}{}:{}", host.name, host.address, host.port);
        can("ssh", format!("log in to {to} with the key '{}'", host.key.display()));
        can("ssh", format!("take '{}' for {to}", host.host_key));
    }
    if plan.supervise.as_ref().is_some_and(|supervise| supervise.enabled) {
        can("supervise", "propose more than it may".to_owned());
    }
    if is_root(plan) {
        can("user", "be root in its container".to_owned());
    }
    guards(plan, &mut can);
    items
}

/// What of the host's files there is.
fn files(plan: &Plan, can: &mut impl FnMut(&'static str, String)) {
    for mount in &plan.mounts {
        let (source, target) = (mount.source.display(), mount.target.display());
        can("mounts", format!("read '{source}' of the host at '{target}'"));
        if !mount.read_only {
            can("mounts", format!("write '{source}' of the host at '{target}'"));
        }
    }
    for skill in &plan.skills {
        can("skills", format!("read '{}' of the host", skill.display()));
    }
    if let Some(workspace) = &plan.workspace {
        let (source, target) = (workspace.source.display(), workspace.target.display());
        can("workspace", format!("read '{source}' of the host at '{target}'"));
        if workspace.mode == WorkspaceMode::Bind && !workspace.read_only {
            can("workspace", format!("write '{source}' of the host at '{target}'"));
        }
    }
}

/// Where secrets come from. Where they go is said by the routes and the remotes.
fn secrets(plan: &Plan, can: &mut impl FnMut(&'static str, String)) {
    for (name, secret) in &plan.secrets {
        let source = match secret {
            Secret { from_env: Some(name), .. } => format!("variable '{name}'"),
            Secret { from_file: Some(path), .. } => format!("file '{}'", path.display()),
            Secret { from_command: Some(command), .. } => {
                format!("command '{}'", command.join(" "))
            }
            Secret { .. } => "nowhere".to_owned(),
        };
        can("secrets", format!("use secret '{name}', which is in {source}"));
    }
}

fn git(plan: &Plan, can: &mut impl FnMut(&'static str, String)) {
    for remote in &plan.git {
        let url = &remote.url;
        can("git", format!("fetch from '{url}' as '{}'", remote.name));
        let with = [
            remote.key.as_ref().map(|key| format!("the key '{}'", key.display())),
            remote.secret.as_ref().map(|secret| format!("secret '{secret}'")),
        ];
        for with in with.into_iter().flatten() {
            can("git", format!("show '{url}' {with}"));
        }
        if let Some(known) = &remote.known_hosts {
            can("git", format!("take a host of '{}' for '{url}'", known.display()));
        }
        for pattern in &remote.push {
            can("git", format!("push '{pattern}' to '{url}'"));
            for path in &remote.allow_paths {
                can("git", format!("push changes of '{path}' to '{url}'"));
            }
            if !remote.require_signed {
                can("git", format!("push commits that are not signed to '{url}'"));
            }
        }
    }
}

/// What is there to hold it back: that it is missing is an ability.
fn guards(plan: &Plan, can: &mut impl FnMut(&'static str, String)) {
    if plan.egress.audit == Audit::Allow {
        can("egress.audit", "send requests whose decision cannot be written down".to_owned());
    }
    if !plan.egress.private_data {
        can("egress.private_data", "send private data unscanned".to_owned());
    }
    for file in &plan.egress.ca_certificates {
        can(
            "egress.ca_certificates",
            format!("talk to servers that '{}' vouches for", file.display()),
        );
    }
    if plan.selftest != Selftest::Enforce {
        can("selftest", "run although the self-test finds a way out".to_owned());
    }
    if plan.selftest == Selftest::Off {
        can("selftest", "run without a self-test".to_owned());
    }
    // Without pipelock, nothing of its own lists holds anything back either.
    let mode = plan.pipelock.as_ref().map(|pipelock| pipelock.mode);
    let open = "send what it does not list";
    match mode {
        None => {
            can("pipelock", "go out without it".to_owned());
            can("pipelock", format!("{open}, unscanned"));
            can("pipelock", open.to_owned());
        }
        Some(PipelockMode::Audit) => {
            can("pipelock", format!("{open}, unscanned"));
            can("pipelock", open.to_owned());
        }
        Some(PipelockMode::Balanced) => can("pipelock", open.to_owned()),
        Some(PipelockMode::Strict) => {}
    }
    if let Some(Pipelock { trusted_domains, ssrf_ip_allowlist, passthrough_domains, .. }) =
        &plan.pipelock
    {
        for name in trusted_domains {
            can("pipelock", format!("go to '{name}' though it is internal"));
        }
        for net in ssrf_ip_allowlist {
            can("pipelock", format!("go to {net} though it is internal"));
        }
        for name in passthrough_domains {
            can("pipelock", format!("go to '{name}' without being looked into"));
        }
    }
}

/// What there is more or less of.
pub(super) fn amounts(old: &Plan, new: &Plan) -> Vec<Item> {
    let (had, has) = (&old.resources, &new.resources);
    let cpus = |cpus: &Option<String>| cpus.as_ref().and_then(|text| text.parse::<f64>().ok());
    let bytes = |bytes: &Option<u64>| bytes.map(|bytes| format!("{bytes} bytes"));
    let open = |plan: &Plan| plan.supervise.as_ref().map_or(0, |it| it.max_open);
    let more = [
        (
            is_more(had.memory, has.memory),
            "resources.memory",
            bytes(&has.memory),
            bytes(&had.memory),
        ),
        (
            is_more(cpus(&had.cpus), cpus(&has.cpus)),
            "resources.cpus",
            has.cpus.clone(),
            had.cpus.clone(),
        ),
        (
            has.pids > had.pids,
            "resources.pids",
            Some(has.pids.to_string()),
            Some(had.pids.to_string()),
        ),
        (
            open(new) > open(old) && open(old) > 0,
            "supervise.max_open",
            Some(open(new).to_string()),
            Some(open(old).to_string()),
        ),
    ];
    let unprotected = unprotected(old, new);
    let unlimited = |amount: Option<String>| amount.unwrap_or_else(|| "without limit".to_owned());
    more.into_iter()
        .filter(|(more, ..)| *more)
        .map(|(_, part, can, was)| Item { part, can: unlimited(can), was: Some(unlimited(was)) })
        .chain(unprotected)
        .collect()
}

/// What of a shared workspace was kept from the agent, and is not any more.
fn unprotected(old: &Plan, new: &Plan) -> Vec<Item> {
    let shared = |plan: &Plan| {
        let space = plan.workspace.clone();
        space.filter(|space| space.mode == WorkspaceMode::Bind && !space.read_only)
    };
    let (Some(old), Some(new)) = (shared(old), shared(new)) else { return Vec::new() };
    let gone = old.protected.iter().filter(|path| !new.protected.contains(path));
    gone.filter(|path| path.starts_with(&new.source))
        .map(|path| Item {
            part: "workspace",
            can: format!("write '{}' of the host", path.display()),
            was: Some("protected".to_owned()),
        })
        .collect()
}

/// Whether there is more of what is without limit when it is not set.
fn is_more<T: PartialOrd>(old: Option<T>, new: Option<T>) -> bool {
    match (old, new) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => new > old,
    }
}

fn is_root(plan: &Plan) -> bool {
    plan.user.as_deref().is_some_and(|user| {
        let name = user.split(':').next().unwrap_or_default();
        name == "root" || name.parse() == Ok(0_u32)
    })
}

/// What is other, and cannot be told to be more or less.
pub(super) fn changed(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |part, old: String, new: String| {
        if old != new {
            changes.push(Change { part, old, new });
        }
    };
    for ((part, old), (_, new)) in others(old).into_iter().zip(others(new)) {
        compare(part, old, new);
    }
    let keys: BTreeSet<_> = old.env.keys().chain(new.env.keys()).collect();
    for key in keys {
        let line = |plan: &Plan| match plan.env.get(key) {
            Some(value) => format!("{key}={value}"),
            None => format!("no {key}"),
        };
        compare("env", line(old), line(new));
    }
    changes
}

/// The fields that are neither more nor less. A field that is new in the plan does not compile until
/// it is decided here which it is.
fn others(plan: &Plan) -> [(&'static str, String); 11] {
    let Plan {
        // Of the text and the file that it came from, two that can do the same may differ.
        digest: _,
        manifest: _,
        agent,
        bottle,
        image,
        build,
        runtime,
        user,
        env: _,
        command,
        prompt,
        skills: _,
        secrets: _,
        resources: Resources { cpus: _, memory: _, pids: _ },
        mounts: _,
        workspace,
        egress:
            Egress { engine, routes: _, ca_certificates: _, audit: _, private_data: _, allow: _ },
        pipelock,
        git: _,
        ssh: _,
        supervise: _,
        selftest: _,
    } = plan;
    let workspace = workspace.as_ref();
    [
        ("agent", shown(agent)),
        ("bottle", shown(bottle)),
        ("image", shown(image)),
        ("build", shown(build)),
        ("runtime", shown(runtime)),
        ("user", shown(user)),
        ("command", shown(command)),
        ("prompt", shown(prompt)),
        ("workspace.mode", shown(&workspace.map(|it| it.mode))),
        ("egress.engine", shown(engine)),
        ("pipelock.image", shown(&pipelock.as_ref().map(|it| &it.image))),
    ]
}

/// A field as it stands in the plan.
fn shown(value: &impl Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(text) if text == "null" => "none".to_owned(),
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}
