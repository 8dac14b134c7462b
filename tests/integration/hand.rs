//! A bottle put together by hand, so that a test says what its record, its labels and its containers
//! are: whatever a killed tool, a lost folder or another pipeline may leave.

use std::process::{Child, Command, Stdio};

use bottle::docker::label;
use bottle::owner::Owner;
use bottle::record::{Phase, Record, now};
use bottle::render::{AGENT, container};
use bottle::state::State;

use crate::common::Run;
use crate::common::manifest::Manifest;
use crate::support::{Bottle, docker, images};

/// The bottle of the manifest's agent, after `bottle-net`.
pub(crate) struct Hand {
    pub(crate) bottle: Bottle,
    /// The document.
    pub(crate) doc: String,
    image: String,
}

impl Hand {
    /// Where there is an engine with our images: networks and leases, nothing else yet.
    pub(crate) fn new() -> Option<Self> {
        if !images() {
            return None;
        }
        let image = bottle::docker::image("probe");
        let bottle = Bottle::new(&Manifest::new().image(&image));
        let doc = bottle.sh("bottle-plan implementer | bottle-net").run().ok();
        Some(Self { bottle, doc, image })
    }

    /// The probe's image.
    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    pub(crate) fn state(&self) -> State {
        State::at(&self.bottle.state()).unwrap()
    }

    pub(crate) fn project(&self) -> String {
        self.state().project(&"implementer".parse().unwrap())
    }

    /// The document's section `net`.
    pub(crate) fn net(&self) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&self.doc).unwrap()["net"].clone()
    }

    /// Starts a container of a service, with our labels, in the internal network.
    pub(crate) fn run(&self, service: &str, owner: &Owner, command: &[&str]) -> String {
        let project = self.project();
        let name = container(&project, service);
        let labels = [
            format!("{}={project}", label::PROJECT),
            format!("{}=implementer", label::SLUG),
            format!("{}={owner}", label::OWNER),
            format!("com.docker.compose.service={service}"),
        ];
        let mut args = vec!["run", "--detach", "--name", &name];
        let network = format!("{project}-internal");
        args.extend(["--network", &network, "--log-opt", "max-size=1m", "--log-opt", "max-file=2"]);
        args.extend(labels.iter().flat_map(|label| ["--label", label]));
        args.push(self.image());
        args.extend(command);
        docker(args).ok();
        name
    }

    /// Runs the probe in a network until it ends, and gives what it said.
    pub(crate) fn probe(&self, network: &str, command: &[&str]) -> Run {
        docker(["run", "--rm", "--network", network, self.image()].iter().chain(command))
    }

    /// Writes the bottle's record.
    pub(crate) fn record(&self, owner: Owner, phase: Phase) {
        let project = self.project();
        let record = Record {
            version: 1,
            slug: "implementer".parse().unwrap(),
            agent: container(&project, AGENT),
            compose_project: project,
            plan: "sha256:0".to_owned(),
            owner,
            phase,
            created_at: now(),
            up_at: None,
        };
        record.write(&self.bottle.state().join("implementer")).unwrap();
    }

    /// Calls `bottle-reap`.
    pub(crate) fn reap(&self, args: &[&str]) -> Run {
        self.bottle.tool("bottle-reap").args(args).run()
    }

    /// The folder of the bottle in the archive, which must hold only that one.
    pub(crate) fn archived(&self) -> std::path::PathBuf {
        let archive = self.bottle.state().join("archive");
        let all: Vec<_> = std::fs::read_dir(&archive).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }
}

/// A process that owns bottles until it is dropped.
pub(crate) struct Living(Child);

impl Living {
    pub(crate) fn new() -> Self {
        let sleep = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn();
        Self(sleep.unwrap())
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner::process(self.0.id()).unwrap()
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An owner that has died.
pub(crate) fn dead() -> Owner {
    Living::new().owner()
}
