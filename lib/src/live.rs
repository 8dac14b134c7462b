//! A bottle that runs: what it was told, what it says, and how it is told anew.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::apply::Apply;
use crate::docker::Docker;
use crate::error::{Blame, no, visible, world};
use crate::grant::{self, Grant};
use crate::pipelock::Config;
use crate::plan::Plan;
use crate::policy::{Loaded, Policy, Routes};
use crate::record::{Phase, Record};
use crate::render::{EGRESS, SUPERVISE, container};
use crate::run::say;
use crate::state::{self, sha256_hex};
use crate::up::Up;
use crate::{report, strict};

/// How often it is looked whether egress has said something.
const TICK: Duration = Duration::from_millis(2);

/// A bottle that runs, as its folder tells it.
#[derive(Debug)]
pub struct Live {
    /// The tool that it is told by.
    tool: &'static str,
    folder: PathBuf,
    record: Record,
    /// The plan that it runs.
    pub plan: Plan,
    /// Its `routes.yaml`.
    routes: Routes,
    bytes: Vec<u8>,
    /// Whose that file is, and its mode: the next one is the same.
    ids: (u32, u32),
    mode: u32,
}

/// A policy to be put in force.
#[derive(Debug)]
pub struct Next {
    routes: Routes,
    bytes: Vec<u8>,
    sha256: String,
}

impl Live {
    /// Whether the bottle in a folder is up.
    pub fn is_up(folder: &Path) -> Result<bool> {
        Ok(Record::read(folder)?.is_some_and(|record| record.phase == Phase::Up))
    }

    /// Reads the folder of a bottle; `None` where it is not up.
    pub fn read(tool: &'static str, folder: &Path) -> Result<Option<Self>> {
        let Some(record) = Record::read(folder)?.filter(|record| record.phase == Phase::Up) else {
            return Ok(None);
        };
        let path = folder.join("plan.json");
        let plan = fs::read_to_string(&path).world(format!("read '{}'", path.display()))?;
        let plan = strict::json(&plan, "plan.json").world(format!("read '{}'", path.display()))?;
        let path = routes(folder);
        let what = || format!("read '{}'", path.display());
        let bytes = fs::read(&path).world(what())?;
        let found = fs::metadata(&path).world(what())?;
        Ok(Some(Self {
            tool,
            folder: folder.to_owned(),
            record,
            plan,
            routes: Routes::parse(&bytes).world(what())?,
            bytes,
            ids: (found.uid(), found.gid()),
            mode: found.mode() & 0o777,
        }))
    }

    /// Refuses a plan that pipelock would have to be told of: it goes on with what it was started
    /// with.
    pub fn keeps_pipelock(&self, plan: &Plan, next: &Next) -> Result<()> {
        let told = |plan| Config::of(plan, &self.routes.closed);
        let mut whole = plan.clone();
        whole.egress.routes.clone_from(&next.routes.routes);
        if told(&self.plan)? == told(&whole)? {
            return Ok(());
        }
        Err(no(format!(
            "change the plan: its routes are another list of hosts or networks for pipelock, which needs a restart: stop the bottle with 'bottle stop {}' and start it anew",
            self.record.slug
        )))
    }

    /// The policy for a plan and the grants that hold beside it, with one that is about to: the one
    /// there is, where that is it already.
    pub fn next(&self, plan: &Plan, coming: Option<&Grant>) -> Result<Next> {
        let mut routes = self.routes.clone();
        routes.plan.clone_from(&plan.digest);
        routes.routes = grant::rules(&self.folder, plan, coming)?;
        if routes == self.routes {
            let bytes = self.bytes.clone();
            return Ok(Next { sha256: sha256_hex(&bytes), bytes, routes });
        }
        routes.generation += 1;
        let bytes = routes.to_yaml()?.into_bytes();
        // As egress will, so that what it would refuse is not even written.
        Routes::parse(&bytes).and_then(Policy::new).caller("check the new routes")?;
        Ok(Next { sha256: sha256_hex(&bytes), bytes, routes })
    }

    /// What egress says, if it serves by a policy already.
    pub fn serves(&self, next: &Next) -> Result<Option<Loaded>> {
        let said = report::loaded(&self.folder, EGRESS)?;
        Ok(said.filter(|said| said.sha256 == next.sha256 && self.bytes == next.bytes))
    }

    /// Puts a policy in force, or the old one back.
    pub fn put(&self, docker: &Docker, next: &Next, limit: Duration) -> Result<Apply> {
        let begun = Instant::now();
        let told = self.tell(docker, &next.bytes, &next.sha256, limit);
        let said = told
            .and_then(|said| self.show(&next.bytes).map(|()| said))
            .inspect_err(|_| self.back(docker, limit))?;
        let ms = begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        Ok(Apply { generation: said.generation, sha256: said.sha256, ms })
    }

    /// Puts a policy in force that takes something back: where egress does not say so, it stays
    /// written all the same, and egress has it as soon as it looks.
    pub fn take_back(&self, docker: &Docker, next: &Next, limit: Duration) -> Result<Loaded> {
        let said = self.tell(docker, &next.bytes, &next.sha256, limit)?;
        self.show(&next.bytes)?;
        self.note(&self.plan, said.generation)?;
        Ok(said)
    }

    /// Puts the old policy back; what goes wrong in that is told beside the first error.
    pub fn back(&self, docker: &Docker, limit: Duration) {
        let back = || -> Result<()> {
            self.tell(docker, &self.bytes, &sha256_hex(&self.bytes), limit)?;
            self.show(&self.bytes)?;
            self.note(&self.plan, self.routes.generation)
        };
        if let Err(error) = back() {
            let slug = &self.record.slug;
            say(
                self.tool,
                &format!(
                    "put the old rules of bottle '{slug}' back: {error:#}: what is in force is unknown: stop it with 'bottle stop {slug}'"
                ),
            );
        }
    }

    /// Writes `routes.yaml` and waits until egress says that it serves by it.
    fn tell(&self, docker: &Docker, bytes: &[u8], sha256: &str, limit: Duration) -> Result<Loaded> {
        state::write(&routes(&self.folder), bytes, self.mode, Some(self.ids))?;
        self.wake(docker)?;
        let end = Instant::now() + limit;
        loop {
            let said = report::loaded(&self.folder, EGRESS)?;
            let refused = said.as_ref().and_then(|said| said.refused.as_ref());
            if let Some(refused) = refused.filter(|refused| refused.sha256 == *sha256) {
                return Err(world(format!(
                    "egress refused its new rules: {}",
                    visible(&refused.error)
                )));
            }
            if let Some(said) = said.filter(|said| said.sha256 == *sha256 && said.refused.is_none())
            {
                return Ok(said);
            }
            if Instant::now() > end {
                return Err(silent(self, "serves by its new rules", limit));
            }
            std::thread::sleep(TICK);
        }
    }

    /// Shows the rules in force to the sidecar that explains them, where there is one.
    fn show(&self, bytes: &[u8]) -> Result<()> {
        let folder = self.folder.join(SUPERVISE).join("conf");
        if !folder.is_dir() {
            return Ok(());
        }
        state::write_unsynced(&folder.join("routes.yaml"), bytes, self.mode, Some(self.ids))
    }

    /// Lets egress look at its files: where no change of one is seen, the signal is.
    pub fn wake(&self, docker: &Docker) -> Result<()> {
        let egress = container(&self.record.compose_project, EGRESS);
        docker.text(&["kill", "--signal", "HUP", &egress]).map(drop).world("wake egress")
    }

    /// Refuses a copy of the plan that is not the one that was started: commands are run by it.
    pub fn check_plan(&self) -> Result<()> {
        self.plan.check_seal().world("read 'plan.json'")?;
        if self.plan.digest == self.record.plan {
            return Ok(());
        }
        Err(world(
            "read 'plan.json': 'metadata.json' names another plan: stop the bottle and start it anew",
        ))
    }

    /// Notes in the bottle's folder which plan is in force.
    pub fn note(&self, plan: &Plan, generation: u64) -> Result<()> {
        let write = |name: &str, mut text: String| {
            text.push('\n');
            state::write(&self.folder.join(name), text.as_bytes(), 0o600, None)
        };
        write("plan.json", serde_json::to_string_pretty(plan).world("write 'plan.json'")?)?;
        let path = self.folder.join("up.json");
        let up = fs::read_to_string(&path).world(format!("read '{}'", path.display()))?;
        let mut up: Up =
            strict::json(&up, "up.json").world(format!("read '{}'", path.display()))?;
        (up.plan, up.generation) = (plan.digest.clone(), generation);
        write("up.json", serde_json::to_string(&up).world("write 'up.json'")?)?;
        let record = Record { plan: plan.digest.clone(), ..self.record.clone() };
        record.write(&self.folder)
    }
}

fn routes(folder: &Path) -> PathBuf {
    folder.join(EGRESS).join("conf/routes.yaml")
}

/// Egress did not say in time that it does something.
#[must_use]
pub fn silent(live: &Live, what: &str, limit: Duration) -> Error {
    world(format!(
        "egress did not say in {} s that it {what}: see 'bottle logs {}'",
        limit.as_secs(),
        live.record.slug
    ))
}
