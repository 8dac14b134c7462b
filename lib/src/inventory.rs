//! What the engine has of ours, by labels alone: containers and networks.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::docker::{Docker, PATIENCE, label};
use crate::error::Blame;
use crate::name::Slug;
use crate::state::State;

/// The containers and networks that carry the label `bottle.project`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Running or not.
    pub containers: Vec<Container>,
    /// Both kinds.
    pub networks: Vec<Network>,
}

/// One container. What the labels say is what whoever made it wrote there: no proof.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The whole id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `running`, `exited`, …
    pub state: String,
    /// Since when it is in that state, for a person: `Up 2 minutes`.
    pub status: String,
    /// Its image.
    pub image: String,
    /// Its service in the compose file; empty where it came by other ways.
    pub service: String,
    /// `bottle.slug`
    pub slug: String,
    /// `bottle.project`
    pub project: String,
    /// `bottle.owner`
    pub owner: String,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The whole id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bottle.slug`
    pub slug: String,
    /// `bottle.project`
    pub project: String,
    /// `bottle.owner`
    pub owner: String,
}

impl Inventory {
    /// Lists what belongs to one project, or to any.
    pub fn of(docker: &Docker, project: Option<&str>) -> Result<Self> {
        let filter = match project {
            Some(project) => format!("label={}={project}", label::PROJECT),
            None => format!("label={}", label::PROJECT),
        };
        let common = format!(
            r#""id":{{{{json .ID}}}},"slug":{{{{json (.Label "{}")}}}},"project":{{{{json (.Label "{}")}}}},"owner":{{{{json (.Label "{}")}}}}"#,
            label::SLUG,
            label::PROJECT,
            label::OWNER
        );
        let containers = format!(
            r#"{{{common},"name":{{{{json .Names}}}},"state":{{{{json .State}}}},"status":{{{{json .Status}}}},"image":{{{{json .Image}}}},"service":{{{{json (.Label "com.docker.compose.service")}}}}}}"#
        );
        let networks = format!(r#"{{{common},"name":{{{{json .Name}}}}}}"#);
        let list = |what: &[&str], format: &str| {
            let rest = ["--no-trunc", "--filter", &filter, "--format", format];
            docker.start(&[what, &rest].concat())
        };
        // Side by side: both together take the time of one.
        let containers = list(&["ps", "--all"], &containers)?;
        let networks = list(&["network", "ls"], &networks)?.text(PATIENCE);
        Ok(Self { containers: parse(&containers.text(PATIENCE)?)?, networks: parse(&networks?)? })
    }

    /// The bottles of a state folder that something here is of. One of another user or state folder
    /// ends its project with another hash.
    #[must_use]
    pub fn slugs(&self, state: &State) -> BTreeSet<Slug> {
        let containers = self.containers.iter().map(|it| (&it.slug, &it.project));
        let networks = self.networks.iter().map(|it| (&it.slug, &it.project));
        containers
            .chain(networks)
            .filter_map(|(slug, project)| Some((slug.parse::<Slug>().ok()?, project)))
            .filter(|(slug, project)| state.project(slug) == **project)
            .map(|(slug, _)| slug)
            .collect()
    }

    /// Whether the engine has nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.networks.is_empty()
    }
}

impl Container {
    /// Whether a process of it may run.
    #[must_use]
    pub fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }

    /// What people call it: the service, else the name.
    #[must_use]
    pub fn title(&self) -> &str {
        if self.service.is_empty() { &self.name } else { &self.service }
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).world("read the engine's list"))
        .collect()
}
