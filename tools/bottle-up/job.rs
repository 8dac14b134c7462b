//! One bottle to be started: what the document says of it, checked against this state folder.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use bottle::net::Net;
use bottle::plan::Plan;
use bottle::record::Record;
use bottle::render::{Render, SSH_AGENT};
use bottle::ssh::KEYS;
use bottle::state::{self, State};
use bottle::{Blame, Document, Slug, caller, no, report};

/// The parts of a document that a start needs.
pub(crate) struct Job {
    pub(crate) slug: Slug,
    pub(crate) plan: Plan,
    pub(crate) net: Net,
    pub(crate) render: Render,
}

impl Job {
    /// Reads the sections and refuses those that do not fit each other or this state folder.
    pub(crate) fn new(doc: &Document, plan: Plan, state: &State) -> Result<Self> {
        let net: Net = doc.need("net")?;
        let render: Render = doc.need("render")?;
        let slug = doc.name().clone();
        if net.dry_run {
            return Err(caller(
                "start the bottle: section 'net' is of a dry run, and there is no network: run 'bottle-net' without --dry-run",
            ));
        }
        if render.plan != plan.digest {
            return Err(caller(
                "start the bottle: section 'render' is of another plan: pipe it through 'bottle-render' again",
            ));
        }
        let project = state.project(&slug);
        if render.state != state.bottle(&slug)
            || render.compose_project != project
            || net.project != project
        {
            return Err(caller(format!(
                "start the bottle: the document is of project '{}' in '{}', and here it would be '{project}' in '{}': run 'bottle-net' and 'bottle-render' again",
                render.compose_project,
                render.state.display(),
                state.bottle(&slug).display()
            )));
        }
        let job = Self { slug, plan, net, render };
        // Once more under the lock, which would make the folder.
        job.record()?;
        Ok(job)
    }

    /// The record of the bottle, once it is locked.
    pub(crate) fn record(&self) -> Result<Record> {
        let stale = |what: &str| {
            caller(format!(
                "start bottle '{}': {what}: pipe it through 'bottle-render' again",
                self.slug
            ))
        };
        let record = Record::read(&self.render.state)?
            .ok_or_else(|| stale("it is not rendered in this state folder"))?;
        if record.plan != self.plan.digest && record.phase == bottle::record::Phase::Up {
            return Err(no(format!(
                "start bottle '{}': it is up with another plan: change it with 'bottle-apply', or stop it with 'bottle-reap {0}'",
                self.slug
            )));
        }
        let routes = self.conf().join("routes.yaml");
        let routes = fs::read(&routes).world(format!("read '{}'", routes.display()))?;
        // A bottle that is up may have had its policy changed since.
        let same = state::sha256_hex(&routes) == self.render.routes_sha256;
        if record.plan != self.plan.digest || (!same && record.phase != bottle::record::Phase::Up) {
            return Err(stale("its folder was written for another document since"));
        }
        Ok(record)
    }

    fn conf(&self) -> PathBuf {
        self.render.state.join("egress/conf")
    }

    /// The list of keys that the keeper of them is told.
    pub(crate) fn keys(&self) -> PathBuf {
        self.render.state.join(SSH_AGENT).join("conf").join(KEYS)
    }

    /// Where a sidecar says what it has loaded.
    pub(crate) fn loaded(&self, service: &str) -> PathBuf {
        report::path(&self.render.state, service)
    }
}
