//! What an agent keeps of its bottle: it may narrow it, and never widen it.

use std::fmt::Display;

use anyhow::{Error, Result};
use bottle::manifest::{Agent, Route};
use bottle::plan::{Plan, Selftest, WorkspaceMode};
use bottle::policy::Excess;
use bottle::scalar::{Cpus, Memory};
use bottle::strict::{Text, did_you_mean};
use bottle::{Blame, caller};

use crate::paths::Base;
use crate::resolve;

/// Narrows the plan of a bottle to what its agent keeps, and adds what is the agent's own.
pub(crate) fn narrow(plan: &mut Plan, agent: &Agent, name: &str, base: &Base) -> Result<()> {
    let at = |field: &str| format!("agents.{name}.{field}");
    plan.command = agent.command.iter().map(Text::to_string).collect();
    plan.prompt = agent.prompt.as_ref().map(Text::to_string);
    plan.skills =
        resolve::each(&agent.skills, &at("skills"), |it| resolve::folder(it.as_str(), base))?;
    for (i, skill) in plan.skills.iter().enumerate() {
        if plan.skills[..i].iter().any(|other| other.file_name() == skill.file_name()) {
            return Err(caller(format!(
                "{}[{i}]: two folders are called '{}': rename one",
                at("skills"),
                skill.file_name().unwrap_or_default().display()
            )));
        }
    }
    // What an owner puts into the environment grants nothing, so an agent may have more of it.
    plan.env.append(&mut resolve::env(&agent.env).caller(at("env"))?);
    resources(plan, agent, name)?;
    mounts(plan, agent, name)?;
    workspace(plan, agent, name)?;
    if let Some(kept) = &agent.egress {
        routes(plan, &kept.routes, name)?;
    }
    if let Some(kept) = &agent.git {
        keep(&mut plan.git, kept, |remote| &remote.name).caller(at("git"))?;
    }
    if let Some(kept) = &agent.ssh {
        keep(&mut plan.ssh, kept, |host| &host.name).caller(at("ssh"))?;
    }
    supervise(plan, agent, name)?;
    selftest(plan, agent, name)
}

/// The refusal of an agent that asks for more than its bottle has; both sides are shown.
fn widened(name: &str, bottle: &str, what: &str, asks: &dyn Display, has: &dyn Display) -> Error {
    caller(format!(
        "agent '{name}' asks for '{what}' {asks}, bottle '{bottle}' has {has}: an agent can only narrow: ask for less, or change the bottle"
    ))
}

/// The same, of a field that nothing above names.
fn beyond(field: &str, name: &str, bottle: &str, asks: &dyn Display, has: &dyn Display) -> Error {
    caller(format!("agents.{name}.{field}: {}", widened(name, bottle, field, asks, has)))
}

fn resources(plan: &mut Plan, agent: &Agent, name: &str) -> Result<()> {
    let has = &mut plan.resources;
    if let Some(asks) = agent.resources.cpus.map(|cpus| cpus.0) {
        let limit = has.cpus.as_ref().and_then(|cpus| cpus.parse::<Cpus>().ok());
        if let Some(limit) = limit.filter(|limit| asks > *limit) {
            return Err(beyond("resources.cpus", name, &plan.bottle, &asks, &limit));
        }
        has.cpus = Some(asks.to_string());
    }
    if let Some(asks) = agent.resources.memory.map(|memory| memory.0) {
        if let Some(limit) = has.memory.map(Memory).filter(|limit| asks > *limit) {
            return Err(beyond("resources.memory", name, &plan.bottle, &asks, &limit));
        }
        has.memory = Some(asks.0);
    }
    if let Some(asks) = agent.resources.pids.map(|pids| pids.0.0) {
        if asks > has.pids {
            return Err(beyond("resources.pids", name, &plan.bottle, &asks, &has.pids));
        }
        has.pids = asks;
    }
    Ok(())
}

fn mounts(plan: &mut Plan, agent: &Agent, name: &str) -> Result<()> {
    let Some(kept) = &agent.mounts else { return Ok(()) };
    let all = std::mem::take(&mut plan.mounts);
    plan.mounts = resolve::each(kept, &format!("agents.{name}.mounts"), |keep| {
        let target = keep.target.as_str();
        let Some(mount) = all.iter().find(|it| it.target.as_os_str() == target) else {
            let known: Vec<&str> = all.iter().filter_map(|it| it.target.to_str()).collect();
            return Err(caller(format!(
                "bottle '{}' mounts nothing at '{target}'{}",
                plan.bottle,
                did_you_mean(target, &known)
            )));
        };
        if mount.read_only && keep.read_only == Some(false) {
            return Err(widened(name, &plan.bottle, "read_only", &"false", &"true"));
        }
        let mut mount = mount.clone();
        mount.read_only |= keep.read_only.unwrap_or(false);
        Ok(mount)
    })?;
    Ok(())
}

fn workspace(plan: &mut Plan, agent: &Agent, name: &str) -> Result<()> {
    let Some(kept) = &agent.workspace else { return Ok(()) };
    let Some(workspace) = &mut plan.workspace else {
        return Err(beyond("workspace", name, &plan.bottle, &"one", &"none"));
    };
    if kept.mode == Some(WorkspaceMode::Bind) && workspace.mode == WorkspaceMode::Copy {
        return Err(beyond("workspace.mode", name, &plan.bottle, &"bind", &"copy"));
    }
    if kept.read_only == Some(false) && workspace.read_only {
        return Err(beyond("workspace.read_only", name, &plan.bottle, &"false", &"true"));
    }
    workspace.mode = kept.mode.unwrap_or(workspace.mode);
    workspace.read_only |= kept.read_only.unwrap_or(false);
    Ok(())
}

fn routes(plan: &mut Plan, kept: &[Route], name: &str) -> Result<()> {
    let at = format!("agents.{name}.egress.routes");
    let rules = resolve::routes(kept, &at, plan)?;
    let has = &plan.egress.routes;
    for (i, rule) in rules.iter().enumerate() {
        if has.iter().any(|wide| wide.contains(rule)) {
            continue;
        }
        let nearest = has.iter().filter_map(|wide| wide.excess(rule)).find(|it| it.field != "host");
        let hosts = || match has.len() {
            0 => "none".to_owned(),
            1..=5 => has.iter().map(|wide| wide.host.as_str()).collect::<Vec<_>>().join(","),
            many => format!("{many} others"),
        };
        let Excess { field, asks, has } = nearest.unwrap_or_else(|| Excess {
            field: "host",
            asks: rule.host.clone(),
            has: hosts(),
        });
        let asks = if field == "host" { asks } else { format!("{asks} of '{}'", rule.host) };
        return Err(widened(name, &plan.bottle, field, &asks, &has)).caller(format!("{at}[{i}]"));
    }
    plan.egress.routes = rules;
    Ok(())
}

/// Keeps the items of a list that are named.
fn keep<T>(items: &mut Vec<T>, kept: &[Text], of: impl Fn(&T) -> &String) -> Result<()> {
    let known: Vec<&str> = items.iter().map(|item| of(item).as_str()).collect();
    if let Some(odd) = kept.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(caller(format!(
            "'{odd}' is not in the bottle{}",
            did_you_mean(odd.as_str(), &known)
        )));
    }
    items.retain(|item| kept.iter().any(|name| name.as_str() == of(item)));
    Ok(())
}

fn supervise(plan: &mut Plan, agent: &Agent, name: &str) -> Result<()> {
    let Some(kept) = &agent.supervise else { return Ok(()) };
    let enabled = kept.enabled.unwrap_or(true);
    let Some(has) = &mut plan.supervise else {
        return if enabled {
            Err(beyond("supervise", name, &plan.bottle, &"enabled", &"none"))
        } else {
            Ok(())
        };
    };
    if let Some(asks) = kept.max_open.map(|count| count.0.0) {
        if asks > has.max_open {
            return Err(beyond("supervise.max_open", name, &plan.bottle, &asks, &has.max_open));
        }
        has.max_open = asks;
    }
    if !enabled {
        plan.supervise = None;
    }
    Ok(())
}

fn selftest(plan: &mut Plan, agent: &Agent, name: &str) -> Result<()> {
    let Some(asks) = agent.selftest else { return Ok(()) };
    let text = |it| match it {
        Selftest::Off => "off",
        Selftest::Warn => "warn",
        Selftest::Enforce => "enforce",
    };
    if (asks as u8) < plan.selftest as u8 {
        return Err(beyond("selftest", name, &plan.bottle, &text(asks), &text(plan.selftest)));
    }
    plan.selftest = asks;
    Ok(())
}
