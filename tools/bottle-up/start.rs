//! Starts a bottle or one of its sidecars, and takes it down again where that fails.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use bottle::credentials::{self, Credentials, Value};
use bottle::docker::{Compose, Docker, PATIENCE};
use bottle::owner::Owner;
use bottle::plan::Selftest;
use bottle::record::{Phase, Record, now};
use bottle::render::{AGENT, EGRESS, GIT_GATE, PIPELOCK, SSH_AGENT};
use bottle::run::{progress, say};
use bottle::spawn::Group;
use bottle::ssh::{self, Key};
use bottle::state;
use bottle::up::Up;
use bottle::{Blame, caller, gate, image, no, secret, strict, world};

use crate::job::Job;
use crate::selftest::{Probe, Tested};
use crate::sweep::sweep;
use crate::there::{self, Container};
use crate::{TOOL, ready};

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
    /// The keys of ssh hosts.
    pub(crate) keys: Vec<Key>,
}

impl Start<'_> {
    /// Starts what is not up yet; gives the section, and whether anything was started.
    pub(crate) fn run(&self) -> Result<(Up, bool)> {
        let sidecars = self.sidecars()?;
        let mut record = self.job.record()?;
        let there = there::look(&self.docker, self.job)?;
        if let Some(up) = self.already(&record, &there)? {
            return Ok((up, false));
        }
        // Read first: where that fails, nothing has to be undone.
        let named = credentials::injected(&self.job.plan);
        let secrets = sidecars.contains(&EGRESS).then(|| secret::read(named, Group::Ours));
        let secrets = secrets.transpose()?;
        let up =
            self.bring_up(&sidecars, secrets, &there, &mut record).inspect_err(|_| self.undo())?;
        Ok((up, true))
    }

    /// What is up already, if it is what is asked for.
    fn already(&self, record: &Record, there: &[Container]) -> Result<Option<Up>> {
        let runs = |service: &str| there.iter().any(|c| c.service == service && c.running);
        if record.phase == Phase::Up {
            let mut services = self.job.render.services.keys();
            if let Some(ended) = services.find(|service| !runs(service)) {
                return Err(no(format!(
                    "start bottle '{}': it was up, and its '{ended}' has ended: clear it away with 'bottle-reap {0}' first",
                    self.job.slug
                )));
            }
            let text = std::fs::read_to_string(self.file()).world("read 'up.json'")?;
            return strict::json(&text, "up.json").map(Some);
        }
        let Some(only) = self.only else { return Ok(None) };
        let serves = runs(only) && ready::is_ready(&self.docker, self.job, only)?;
        Ok(serves.then(|| self.section(self.job.render.generation, None)))
    }

    /// The sidecars that are to serve.
    fn sidecars(&self) -> Result<Vec<&str>> {
        let all = self.job.render.services.keys().map(String::as_str);
        let all: Vec<&str> = all.filter(|service| *service != AGENT).collect();
        match self.only {
            None => Ok(all),
            Some(only) if all.contains(&only) => Ok(vec![only]),
            Some(only) => Err(caller(format!(
                "start '{only}' alone: it is no sidecar of this bottle: known are '{}'",
                all.join("', '")
            ))),
        }
    }

    fn bring_up(
        &self,
        sidecars: &[&str],
        secrets: Option<BTreeMap<String, Value>>,
        there: &[Container],
        record: &mut Record,
    ) -> Result<Up> {
        let job = self.job;
        if let Some(secrets) = secrets {
            let last = secret::written(&job.render.state)?.map_or(0, |last| last.generation);
            secret::write(&job.render.state, &Credentials::new(last + 1, secrets))?;
        }
        if sidecars.contains(&SSH_AGENT) {
            self.give_keys()?;
        }
        if sidecars.contains(&GIT_GATE) {
            gate::files::write(&job.render.state, &job.plan)?;
        }
        let ours = |c: &&Container| c.plan == job.plan.digest;
        for service in sidecars {
            // What a container that is gone said of itself must not count for the next one.
            if !there.iter().filter(ours).any(|c| c.running && c.service == *service) {
                state::remove(&job.loaded(service))?;
            }
        }
        let mut args = vec!["up", "--detach"];
        if there.iter().all(|c| ours(&c)) {
            args.push("--no-recreate");
        }
        if let Some(service) = self.only {
            args.extend(["--no-deps", service]);
        }
        progress(TOOL, &format!("start bottle '{}'", job.slug));
        let probe = match self.only {
            Some(_) => None,
            None => Probe::make(&self.docker, job)?,
        };
        let (generation, tested) = match (self.serve(&args, sidecars), probe) {
            (Ok(generation), Some(probe)) => (generation, probe.run()?),
            (Ok(generation), None) => (generation, None),
            (Err(error), probe) => {
                if let Some(probe) = probe {
                    probe.discard();
                }
                return Err(error);
            }
        };
        if self.only.is_none() && tested.is_none() && job.plan.selftest == Selftest::Warn {
            // The self-test met nobody. Where it is off, the engine is asked nothing more.
            ready::agent(&self.docker, job)?;
        }
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

    /// Lets Compose start what is to run, and waits until it serves; gives the policy's generation.
    fn serve(&self, args: &[&str], sidecars: &[&str]) -> Result<u64> {
        let what = format!("start bottle '{}'", self.job.slug);
        self.images().world(&what)?;
        self.compose(args, &self.owner.to_string()).world(what)?;
        let mut generation = self.job.render.generation;
        for service in sidecars {
            match *service {
                PIPELOCK => ready::health(&self.docker, self.job, self.limit)?,
                SSH_AGENT => {
                    ready::keys(&self.docker, self.job, self.limit)?;
                    // They are in its memory, where nobody reads them any more.
                    ssh::forget(&self.job.render.state)?;
                }
                GIT_GATE => {
                    ready::wait(&self.docker, self.job, GIT_GATE, self.limit)?;
                    if self.only.is_some() {
                        ready::attempt(&self.docker, self.job)?;
                    }
                }
                ours => generation = ready::wait(&self.docker, self.job, ours, self.limit)?,
            }
        }
        Ok(generation)
    }

    /// Puts the keys where their sidecar reads them, if they are those whose public halves were
    /// rendered.
    fn give_keys(&self) -> Result<()> {
        let job = self.job;
        let path = job.keys();
        let told = std::fs::read(&path).world(format!("read '{}'", path.display()))?;
        if told != ssh::listed(&job.plan, &self.keys).into_bytes() {
            return Err(caller(format!(
                "start bottle '{}': a key of its ssh hosts is another one than when it was rendered: pipe it through 'bottle-render' again",
                job.slug
            )));
        }
        ssh::write(&job.render.state, &self.keys)
    }

    /// Refuses images that went away since they were rendered. Compose 1.29 does not heed
    /// `pull_policy: never`: it would ask a registry for them, under names that anybody may have there.
    fn images(&self) -> Result<()> {
        let Compose::V1(_) = self.compose else { return Ok(()) };
        let all = self.job.render.services.iter();
        let images: Vec<String> = all
            .filter(|(service, _)| self.only.is_none_or(|only| only == *service))
            .map(|(_, image)| image.clone())
            .collect();
        image::look(&self.docker, &images)?.map(drop).map_err(|missing| {
            world(format!(
                "find image '{}': it is not there any more: pipe it through 'bottle-render' again",
                missing.join("', '")
            ))
        })
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
            let made_egress = self.only.is_none_or(|only| only == EGRESS);
            let made = &self.job.render.services;
            let mut made =
                made.iter().filter(|(service, _)| self.only.is_none_or(|o| o == *service));
            made.try_for_each(|(service, image)| sweep(&self.docker, self.job, service, image))?;
            if made_egress {
                secret::forget(&self.job.render.state)?;
            }
            ssh::forget(&self.job.render.state)?;
            if self.only.is_none_or(|only| only == GIT_GATE) {
                gate::files::forget(&self.job.render.state)?;
            }
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

    fn section(&self, generation: u64, tested: Option<Tested>) -> Up {
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
