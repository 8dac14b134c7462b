//! Starts a bottle or one of its sidecars, and takes it down again where that fails.

use std::time::Duration;

use anyhow::Result;
use bottle::docker::{Compose, Docker, PATIENCE};
use bottle::owner::Owner;
use bottle::record::{Phase, Record, now};
use bottle::render::{AGENT, EGRESS};
use bottle::run::{progress, say};
use bottle::state;
use bottle::up::Up;
use bottle::{Blame, caller, no, strict};

use crate::job::Job;
use crate::there::{self, Container};
use crate::{TOOL, ready, selftest};

/// How often, and how long apart, it is looked for containers that come late.
const SWEEPS: u32 = 3;
const SETTLE: Duration = Duration::from_millis(100);

/// A start under way.
pub(crate) struct Start<'a> {
    pub(crate) job: &'a Job,
    pub(crate) docker: Docker,
    pub(crate) compose: Compose,
    pub(crate) owner: Owner,
    /// One sidecar, or all services.
    pub(crate) only: Option<&'a str>,
    pub(crate) keep: bool,
    pub(crate) limit: Duration,
}

impl Start<'_> {
    /// Starts what is not up yet; gives the section, and whether anything was started.
    pub(crate) fn run(&self) -> Result<(Up, bool)> {
        let mut record = self.job.record()?;
        let there = there::look(&self.docker, self.job)?;
        if let Some(up) = self.already(&record, &there)? {
            return Ok((up, false));
        }
        let up = self.bring_up(&there, &mut record).inspect_err(|_| self.undo())?;
        Ok((up, true))
    }

    /// What is up already, if it is what is asked for.
    fn already(&self, record: &Record, there: &[Container]) -> Result<Option<Up>> {
        let runs = |service: &str| there.iter().any(|c| c.service == service && c.running);
        let mut services = self.job.render.services.keys();
        if let Some(only) = self.only {
            self.sidecar(only)?;
            let serves = runs(only)
                && ready::loaded(self.job, only)?
                    .is_some_and(|loaded| loaded.sha256 == self.job.render.routes_sha256);
            return Ok(serves.then(|| self.section(self.job.render.generation, None)));
        }
        if record.phase != Phase::Up {
            return Ok(None);
        }
        if let Some(ended) = services.find(|service| !runs(service)) {
            return Err(no(format!(
                "start bottle '{}': it was up, and its '{ended}' has ended: clear it away with 'bottle-reap {0}' first",
                self.job.slug
            )));
        }
        let text = std::fs::read_to_string(self.file()).world("read 'up.json'")?;
        strict::json(&text, "up.json").map(Some)
    }

    fn sidecar(&self, service: &str) -> Result<()> {
        let sidecars: Vec<&str> =
            self.job.render.services.keys().map(String::as_str).filter(|s| *s != AGENT).collect();
        if sidecars.contains(&service) {
            return Ok(());
        }
        Err(caller(format!(
            "start '{service}' alone: it is no sidecar of this bottle: known are '{}'",
            sidecars.join("', '")
        )))
    }

    fn bring_up(&self, there: &[Container], record: &mut Record) -> Result<Up> {
        let job = self.job;
        // What a container that is gone said of itself must not count for the next one.
        let serving = |c: &Container| c.running && c.service == EGRESS && c.plan == job.plan.digest;
        if !there.iter().any(serving) {
            state::remove(&job.loaded(EGRESS))?;
        }
        let mut args = vec!["up", "--detach"];
        if there.iter().all(|c| c.plan == job.plan.digest) {
            args.push("--no-recreate");
        }
        if let Some(service) = self.only {
            args.extend(["--no-deps", service]);
        }
        progress(TOOL, &format!("start bottle '{}'", job.slug));
        let owner = self.owner.to_string();
        self.compose(&args, &owner).world(format!("start bottle '{}'", job.slug))?;
        let generation = ready::wait(&self.docker, job, EGRESS, self.limit)?;
        let tested = match self.only {
            Some(_) => None,
            None => selftest::run(&self.docker, job)?,
        };
        let up = self.section(generation, tested);
        record.owner = self.owner.clone();
        if self.only.is_none() {
            let mut text = serde_json::to_string(&up).world("write 'up.json'")?;
            text.push('\n');
            state::write_unsynced(&self.file(), text.as_bytes(), 0o600, None)?;
            record.phase = Phase::Up;
            record.up_at = Some(now());
        }
        record.write(&job.render.state)?;
        Ok(up)
    }

    /// Takes down what was started; what goes wrong in that is told beside the first error.
    pub(crate) fn undo(&self) {
        if self.keep {
            return;
        }
        let back = || -> Result<()> {
            let args = match self.only {
                Some(service) => vec!["rm", "--stop", "--force", "-v", service],
                None => vec!["down", "--volumes", "--timeout", "2"],
            };
            self.compose(&args, "none")?;
            self.sweep()?;
            state::remove(&self.file())?;
            let mut record = self.job.record()?;
            record.phase = Phase::Starting;
            record.owner = Owner::pipeline()?;
            record.up_at = None;
            record.write(&self.job.render.state)
        };
        if let Err(error) = back() {
            say(
                TOOL,
                &format!(
                    "take bottle '{}' down again: {error:#}: try 'bottle-reap {0}'",
                    self.job.slug
                ),
            );
        }
    }

    /// Removes what was still being made while Compose took the rest down: where one container
    /// fails, Compose ends without waiting for the others, and the engine goes on with them.
    fn sweep(&self) -> Result<()> {
        let service = self.only.unwrap_or_default();
        for _ in 0..SWEEPS {
            let left = there::look(&self.docker, self.job)?;
            let left = left.iter().filter(|c| service.is_empty() || c.service == service);
            let names: Vec<&str> = left.map(|container| container.name.as_str()).collect();
            if !names.is_empty() {
                self.docker.text(&[&["rm", "--force", "--volumes"], &names[..]].concat())?;
            }
            std::thread::sleep(SETTLE);
        }
        Ok(())
    }

    fn compose(&self, args: &[&str], owner: &str) -> Result<()> {
        let render = &self.job.render;
        let env = [("BOTTLE_OWNER", owner)];
        self.compose
            .start(&render.compose_project, &render.compose_file, args, &env)?
            .text(PATIENCE)
            .map(drop)
    }

    fn file(&self) -> std::path::PathBuf {
        self.job.render.state.join("up.json")
    }

    fn section(&self, generation: u64, tested: Option<selftest::Tested>) -> Up {
        let render = &self.job.render;
        let services = match self.only {
            Some(service) => vec![service.to_owned()],
            None => render.services.keys().cloned().collect(),
        };
        let (selftest, selftest_ms) = tested.map(|t| (t.verdict, t.ms)).unzip();
        Up {
            plan: self.job.plan.digest.clone(),
            agent: bottle::render::container(&render.compose_project, AGENT),
            services,
            generation,
            owner: self.owner.clone(),
            selftest,
            selftest_ms,
        }
    }
}
