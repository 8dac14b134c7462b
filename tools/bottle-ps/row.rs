//! What is known of one bottle.

use std::fs;

use bottle::inventory::{Container, Inventory};
use bottle::net::Ipv4Net;
use bottle::owner::{Life, Owner};
use bottle::record::{Phase, Record};
use bottle::render::{AGENT, container};
use bottle::state::State;
use bottle::{Slug, lease};
use serde::Serialize;

/// One bottle, as it is told.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) slug: Slug,
    pub(crate) state: Condition,
    /// The agent of the manifest.
    pub(crate) agent: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) owner: Ownership,
    /// Since when the agent's container runs, in the engine's words.
    pub(crate) uptime: Option<String>,
    pub(crate) subnets: Vec<Ipv4Net>,
    pub(crate) project: String,
    /// Name of the agent's container.
    pub(crate) container: String,
    /// Digest of the plan.
    pub(crate) plan: Option<String>,
    pub(crate) created_at: Option<String>,
    pub(crate) up_at: Option<String>,
}

/// How a bottle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    /// A pipeline is at work on it, or died over it.
    Starting,
    /// It serves.
    Up,
    /// It was up, and its agent's container runs no more.
    Down,
    /// There is no record, only things in the engine.
    Remains,
    /// The engine does not answer.
    Unknown,
}

/// Whether somebody owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ownership {
    /// Nobody does: a person reaps it.
    None,
    Alive,
    Dead,
    /// It cannot be told from here.
    Unknown,
}

impl Row {
    /// `None`: there is nothing but a folder that nobody has removed yet.
    pub(crate) fn of(
        state: &State,
        slug: &Slug,
        leases: &[(Ipv4Net, Slug)],
        found: Option<&Inventory>,
    ) -> Option<Self> {
        let folder = state.bottle(slug);
        // One that cannot be read is told like one that is missing; reap says what is wrong.
        let record = Record::read(&folder).ok().flatten();
        let project = state.project(slug);
        let name = container(&project, AGENT);
        let ours = |container: &&Container| container.project == project;
        let containers: Vec<&Container> =
            found.iter().flat_map(|found| found.containers.iter().filter(ours)).collect();
        let agent = containers.iter().copied().find(|container| container.name == name);
        let subnets: Vec<Ipv4Net> =
            leases.iter().filter(|(_, whose)| whose == slug).map(|(subnet, _)| *subnet).collect();
        let has_network =
            found.is_some_and(|found| found.networks.iter().any(|net| net.project == project));
        if record.is_none() && subnets.is_empty() && containers.is_empty() && !has_network {
            return None;
        }
        let plan: Option<serde_json::Value> = fs::read_to_string(folder.join("plan.json"))
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        let of_plan = |key: &str| Some(plan.as_ref()?.get(key)?.as_str()?.to_owned());
        let owner = record.as_ref().map(|record| record.owner.clone());
        let owner = owner
            .or_else(|| containers.first()?.owner.parse().ok())
            .or_else(|| Some(lease::of(state, slug)?.owner));
        Some(Self {
            slug: slug.clone(),
            state: condition(record.as_ref(), found.is_some(), agent, subnets.is_empty()),
            agent: of_plan("agent"),
            image: agent.map(|agent| agent.image.clone()).or_else(|| of_plan("image")),
            owner: ownership(owner.as_ref()),
            uptime: agent
                .filter(|agent| agent.runs())
                .map(|agent| agent.status.trim_start_matches("Up ").to_owned()),
            subnets,
            project,
            container: name,
            plan: record.as_ref().map(|record| record.plan.clone()),
            created_at: record.as_ref().map(|record| record.created_at.clone()),
            up_at: record.and_then(|record| record.up_at),
        })
    }
}

fn condition(
    record: Option<&Record>,
    is_answered: bool,
    agent: Option<&Container>,
    has_no_lease: bool,
) -> Condition {
    match record.map(|record| record.phase) {
        _ if !is_answered => Condition::Unknown,
        Some(Phase::Up) if agent.is_some_and(Container::runs) => Condition::Up,
        Some(Phase::Up) => Condition::Down,
        None if has_no_lease => Condition::Remains,
        Some(Phase::Starting) | None => Condition::Starting,
    }
}

fn ownership(owner: Option<&Owner>) -> Ownership {
    match owner.map(|owner| (owner, owner.life())) {
        Some((Owner::None, _)) => Ownership::None,
        Some((_, Life::Alive)) => Ownership::Alive,
        Some((_, Life::Dead)) => Ownership::Dead,
        Some((_, Life::Unknown)) | None => Ownership::Unknown,
    }
}
