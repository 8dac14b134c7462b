//! A bottle that runs: what it was told, what it says, and how it is told anew.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::apply::Apply;
use crate::docker::Docker;
use crate::error::{Blame, no, visible, world};
use crate::gate::{self, Gate};
use crate::grant::{self, Grant};
use crate::pipelock::Config;
use crate::plan::Plan;
use crate::policy::{Loaded, Policy, Routes};
use crate::record::{Phase, Record};
use crate::render::{EGRESS, GIT_GATE, SUPERVISE, container};
use crate::run::say;
use crate::state::{self, sha256_hex};
use crate::up::Up;
use crate::{report, strict};

/// How often it is looked whether a sidecar has said something.
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
    file: Told,
    /// Its `gate.json`, where it has a git gate.
    gate: Option<(Gate, Told)>,
}

/// A file that a sidecar is told by: the next one is of the same owner and mode.
#[derive(Debug)]
struct Told {
    path: PathBuf,
    bytes: Vec<u8>,
    ids: (u32, u32),
    mode: u32,
}

impl Told {
    fn read(path: PathBuf) -> Result<Self> {
        let what = || format!("read '{}'", path.display());
        let bytes = fs::read(&path).world(what())?;
        let found = fs::metadata(&path).world(what())?;
        let (ids, mode) = ((found.uid(), found.gid()), found.mode() & 0o777);
        Ok(Self { path, bytes, ids, mode })
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        state::write(&self.path, bytes, self.mode, Some(self.ids))
    }
}

/// A policy to be put in force.
#[derive(Debug)]
pub struct Next {
    routes: Routes,
    bytes: Vec<u8>,
    sha256: String,
    /// `gate.json`, where it changes.
    gate: Option<Vec<u8>>,
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
        let plan: Plan =
            strict::json(&plan, "plan.json").world(format!("read '{}'", path.display()))?;
        let file = Told::read(folder.join(EGRESS).join("conf/routes.yaml"))?;
        let routes = Routes::parse(&file.bytes).world("read 'routes.yaml'")?;
        let gate = if plan.git.is_empty() {
            None
        } else {
            let file = Told::read(folder.join(GIT_GATE).join("conf").join(gate::FILE))?;
            Some((Gate::parse(&file.bytes).world(format!("read '{}'", gate::FILE))?, file))
        };
        let folder = folder.to_owned();
        Ok(Some(Self { tool, folder, record, plan, routes, file, gate }))
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
        let gate = self.next_gate(plan, coming)?;
        if routes == self.routes {
            let bytes = self.file.bytes.clone();
            return Ok(Next { sha256: sha256_hex(&bytes), bytes, routes, gate });
        }
        routes.generation += 1;
        let bytes = routes.to_yaml()?.into_bytes();
        // As egress will, so that what it would refuse is not even written.
        Routes::parse(&bytes).and_then(Policy::new).caller("check the new routes")?;
        Ok(Next { sha256: sha256_hex(&bytes), bytes, routes, gate })
    }

    /// The `gate.json` for the same, where it lets through anything else than it does.
    fn next_gate(&self, plan: &Plan, coming: Option<&Grant>) -> Result<Option<Vec<u8>>> {
        let Some((gate, _)) = &self.gate else { return Ok(None) };
        let remotes = grant::remotes(&self.folder, plan, coming)?;
        if remotes == gate.remotes {
            return Ok(None);
        }
        let (plan, generation) = (plan.digest.clone(), gate.generation + 1);
        let bytes = Gate { generation, plan, remotes, ..gate.clone() }.to_json()?.into_bytes();
        // As the gate will.
        Gate::parse(&bytes).caller("check what the git gate is told")?;
        Ok(Some(bytes))
    }

    /// What egress says, if it serves by a policy already.
    pub fn serves(&self, next: &Next) -> Result<Option<Loaded>> {
        let said = report::loaded(&self.folder, EGRESS)?;
        Ok(said.filter(|said| {
            said.sha256 == next.sha256 && self.file.bytes == next.bytes && next.gate.is_none()
        }))
    }

    /// Puts a policy in force, or the old one back.
    pub fn put(&self, docker: &Docker, next: &Next, limit: Duration) -> Result<Apply> {
        let begun = Instant::now();
        let told = self.tell(docker, &next.bytes, next.gate.as_deref(), limit);
        let said = told
            .and_then(|said| self.show(&next.bytes, next.gate.as_deref()).map(|()| said))
            .inspect_err(|_| self.back(docker, limit))?;
        let ms = begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        Ok(Apply { generation: said.generation, sha256: said.sha256, ms })
    }

    /// Puts a policy in force that takes something back: where a sidecar does not say so, it stays
    /// written all the same, and the sidecar has it as soon as it looks.
    pub fn take_back(&self, docker: &Docker, next: &Next, limit: Duration) -> Result<Loaded> {
        let said = self.tell(docker, &next.bytes, next.gate.as_deref(), limit)?;
        self.show(&next.bytes, next.gate.as_deref())?;
        self.note(&self.plan, said.generation)?;
        Ok(said)
    }

    /// Puts the old policy back; what goes wrong in that is told beside the first error.
    pub fn back(&self, docker: &Docker, limit: Duration) {
        let back = || -> Result<()> {
            let gate = self.gate.as_ref().map(|(_, file)| file);
            let gate = gate.filter(|file| fs::read(&file.path).ok().as_ref() != Some(&file.bytes));
            let gate = gate.map(|file| file.bytes.as_slice());
            self.tell(docker, &self.file.bytes, gate, limit)?;
            self.show(&self.file.bytes, gate)?;
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

    /// Writes `routes.yaml`, and `gate.json` where it is another one, and waits until those who read
    /// them say that they serve by them.
    fn tell(
        &self,
        docker: &Docker,
        routes: &[u8],
        gate: Option<&[u8]>,
        limit: Duration,
    ) -> Result<Loaded> {
        self.file.write(routes)?;
        if let (Some(bytes), Some((_, file))) = (gate, &self.gate) {
            file.write(bytes)?;
        }
        self.wake(docker)?;
        let end = Instant::now() + limit;
        let said = self.wait(EGRESS, &sha256_hex(routes), end, limit)?;
        if let Some(bytes) = gate {
            self.wait(GIT_GATE, &sha256_hex(bytes), end, limit)?;
        }
        Ok(said)
    }

    /// Waits until a sidecar says that it serves by a file.
    fn wait(&self, who: &str, sha256: &str, end: Instant, limit: Duration) -> Result<Loaded> {
        loop {
            let said = report::loaded(&self.folder, who)?;
            let refused = said.as_ref().and_then(|said| said.refused.as_ref());
            if let Some(refused) = refused.filter(|refused| refused.sha256 == *sha256) {
                return Err(world(format!(
                    "{who} refused its new rules: {}",
                    visible(&refused.error)
                )));
            }
            if let Some(said) = said.filter(|said| said.sha256 == *sha256 && said.refused.is_none())
            {
                return Ok(said);
            }
            if Instant::now() > end {
                return Err(silent(self, who, "serves by its new rules", limit));
            }
            std::thread::sleep(TICK);
        }
    }

    /// Shows what is in force to the sidecar that explains it, where there is one.
    fn show(&self, routes: &[u8], gate: Option<&[u8]>) -> Result<()> {
        let folder = self.folder.join(SUPERVISE).join("conf");
        if !folder.is_dir() {
            return Ok(());
        }
        let (mode, ids) = (self.file.mode, Some(self.file.ids));
        state::write_unsynced(&folder.join("routes.yaml"), routes, mode, ids)?;
        match gate {
            Some(gate) => state::write_unsynced(&folder.join(gate::FILE), gate, mode, ids),
            None => Ok(()),
        }
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

/// A sidecar did not say in time that it does something.
#[must_use]
pub fn silent(live: &Live, who: &str, what: &str, limit: Duration) -> Error {
    world(format!(
        "{who} did not say in {} s that it {what}: see 'bottle logs {}'",
        limit.as_secs(),
        live.record.slug
    ))
}
