//! The two networks of one bottle in the engine: made side by side, both or neither.

use std::time::Duration;

use anyhow::Result;
use bottle::docker::{Call, Docker, PATIENCE, complaint, label};
use bottle::lease::{self, Lease};
use bottle::net::{Ipv4Net, Net, Pool};
use bottle::owner::{Life, Owner};
use bottle::record::{self, Record};
use bottle::run::say;
use bottle::state::{Lock, State};
use bottle::{Slug, no, world};

use crate::choice::{Used, choose};
use crate::host::Host;
use crate::{TOOL, engine};

/// How long another tool may be at work on the same bottle.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// How many subnets may turn out to be somebody else's before that is an error.
const TRIES: u32 = 32;

/// Leaves the host without an address on the bridge, so that the agent reaches no service of it:
/// on a network that is `--internal` only, it reaches all of them. Engine 28 calls this
/// `gateway_mode_ipv4=isolated`; its authors say that the two are the same for IPv4
/// (<https://github.com/moby/moby/pull/49262>), but older engines take the new name and do
/// nothing, or refuse it. The old one holds on all of them, and nobody has to ask for the version
/// first.
const ISOLATE: &str = "com.docker.network.bridge.inhibit_ipv4=true";

/// The containers of one bottle reach one another, whatever the engine's defaults are.
const TALK: &str = "com.docker.network.bridge.enable_icc=true";

/// Both networks while they are made.
#[derive(Debug)]
pub(crate) struct Pair {
    docker: Docker,
    state: State,
    pool: Pool,
    host: Host,
    /// What the leases of both say, but for the subnet.
    lease: Lease,
    labels: [String; 4],
    halves: Vec<Half>,
    /// Subnets that the engine gave to others.
    foreign: Vec<Ipv4Net>,
    /// Held from the moment at which the slug is known to be free: what bears its name is ours.
    lock: Option<Lock>,
}

/// One of the two networks.
#[derive(Debug)]
struct Half {
    name: String,
    subnet: Ipv4Net,
    internal: bool,
    fate: Fate,
}

/// What is known of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not made yet, or not by us.
    Absent,
    /// Not made, because another network of the engine has its subnet.
    Refused,
    /// Made.
    Made,
    /// A call failed in a way that does not prove that there is none.
    Doubtful,
}

impl Pair {
    /// Refuses a slug that is taken, before anything is done.
    pub(crate) fn new(
        state: State,
        slug: &Slug,
        digest: &str,
        pool: Pool,
        host: Host,
    ) -> Result<Self> {
        refuse_taken(&state, slug)?;
        let owner = Owner::pipeline()?;
        let project = state.project(slug);
        let labels = [
            format!("{}={slug}", label::SLUG),
            format!("{}={project}", label::PROJECT),
            format!("{}={owner}", label::OWNER),
            format!("{}={digest}", label::PLAN),
        ];
        let lease = Lease {
            version: 1,
            subnet: Ipv4Net::default(),
            slug: slug.clone(),
            project,
            owner,
            created_at: record::now(),
        };
        Ok(Self {
            docker: Docker::find()?,
            state,
            pool,
            host,
            lease,
            labels,
            halves: Vec::new(),
            foreign: Vec::new(),
            lock: None,
        })
    }

    /// Leases the subnets and makes the networks. Where this fails, the caller undoes it.
    pub(crate) fn make(&mut self) -> Result<Net> {
        let lock = self.state.lock(&self.lease.slug, LOCK_PATIENCE)?;
        refuse_taken(&self.state, &self.lease.slug)?;
        self.lock = Some(lock);
        let [internal, bridge] = self.lease()?;
        let net = Net::new(&self.lease.project, internal, bridge, &self.pool);
        let half = |name, subnet, internal| Half { name, subnet, internal, fate: Fate::Absent };
        self.halves =
            vec![half(net.internal.name, internal, true), half(net.bridge.name, bridge, false)];
        let calls: Vec<_> = self.halves.iter().map(|half| self.start(half)).collect();
        let facts = self.docker.start(&engine::FACTS);
        // Each is waited for, also where another one failed, or undoing would race it.
        let settled: Vec<_> =
            calls.into_iter().enumerate().map(|(at, call)| self.settle(at, call)).collect();
        settled.into_iter().collect::<Result<()>>()?;
        let refused = |half: &Half| half.fate == Fate::Refused;
        for tries in 1.. {
            let Some(at) = self.halves.iter().position(refused) else { break };
            self.relet(at, tries)?;
            let again = self.start(&self.halves[at]);
            self.settle(at, again)?;
        }
        let facts = engine::judge(&facts?.text(PATIENCE)?)?;
        let [internal, bridge] = [0, 1].map(|at: usize| self.halves[at].subnet);
        Ok(Net {
            host_addresses: std::mem::take(&mut self.host.addresses),
            engine: Some(facts),
            ..Net::new(&self.lease.project, internal, bridge, &self.pool)
        })
    }

    /// Takes what was made away again, and says what could not be. Whose slug was taken has made
    /// nothing.
    pub(crate) fn undo(&mut self) {
        if self.lock.is_none() {
            return;
        }
        let doubtful = |half: &&Half| matches!(half.fate, Fate::Made | Fate::Doubtful);
        let calls: Vec<_> = self
            .halves
            .iter()
            .filter(doubtful)
            .map(|half| (half.fate, self.docker.start(&["network", "rm", &half.name])))
            .collect();
        let mut is_left = false;
        for (fate, call) in calls {
            let removed = call.and_then(|call| call.text(PATIENCE));
            // Of a doubtful one, most probably there is nothing to remove.
            if let (Fate::Made, Err(error)) = (fate, removed)
                && !engine::is_missing(&format!("{error:#}"))
            {
                say(TOOL, &format!("undo: {error:#}: run 'bottle-reap {}'", self.lease.slug));
                is_left = true;
            }
        }
        if is_left {
            // A network that is still there still has its subnet.
            return;
        }
        let freed = lease::free_all(&self.state, &self.lease.slug)
            .and_then(|()| self.state.forget(&self.lease.slug));
        if let Err(error) = freed {
            say(TOOL, &format!("undo: {error:#}"));
        }
    }

    /// Leases the next subnets that are free.
    fn lease<const N: usize>(&self) -> Result<[Ipv4Net; N]> {
        let lock = lease::lock(&self.state)?;
        let leases = lease::taken(&self.state)?;
        let used = Used { leases: &leases, routes: &self.host.routes, engine: &self.foreign };
        let subnets = choose(&self.pool, &self.lease.slug, &used)?;
        for subnet in subnets {
            Lease { subnet, ..self.lease.clone() }.write(&self.state, &lock)?;
        }
        Ok(subnets)
    }

    /// Gives a network another subnet, because the engine gave this one to somebody else.
    fn relet(&mut self, at: usize, tries: u32) -> Result<()> {
        if tries > TRIES {
            return Err(world(format!(
                "make network '{}': {TRIES} subnets in a row belong to other networks of the engine: set BOTTLE_SUBNETS to networks that nobody else uses",
                self.halves[at].name
            )));
        }
        let stale = self.halves[at].subnet;
        if self.foreign.is_empty() {
            self.foreign = engine::subnets(&self.docker)?;
        }
        self.foreign.push(stale);
        let [fresh] = self.lease()?;
        lease::free(&self.state, stale, &self.lease.slug)?;
        self.halves[at].subnet = fresh;
        Ok(())
    }

    fn start(&self, half: &Half) -> Result<Call> {
        let subnet = half.subnet.to_string();
        let mut args = vec!["network", "create", "--driver", "bridge", "--ipv6=false"];
        args.extend(["--subnet", &subnet, "--opt", TALK]);
        if half.internal {
            args.extend(["--internal", "--opt", ISOLATE]);
        }
        for label in &self.labels {
            args.extend(["--label", label]);
        }
        args.push(&half.name);
        self.docker.start(&args)
    }

    /// Waits for a call that makes a network, and notes what became of it.
    fn settle(&mut self, at: usize, call: Result<Call>) -> Result<()> {
        let half = &mut self.halves[at];
        let output = call.and_then(|call| {
            half.fate = Fate::Doubtful;
            call.output(PATIENCE)
        })?;
        if output.status.success() {
            half.fate = Fate::Made;
            return Ok(());
        }
        let told = String::from_utf8_lossy(&output.stderr);
        if engine::is_overlap(&told) {
            half.fate = Fate::Refused;
            return Ok(());
        }
        if told.contains("already exists") {
            half.fate = Fate::Absent;
            return Err(no(format!(
                "make network '{}': it is there, though the state folder knows of no bottle '{slug}': remove what is left of it with 'bottle-reap {slug}'",
                half.name,
                slug = self.lease.slug
            )));
        }
        Err(world(format!("make network '{}': {}", half.name, complaint(&told))))
    }
}

/// A slug is taken where a record or a lease says so. Telling whether it can go saves a person the
/// next question.
fn refuse_taken(state: &State, slug: &Slug) -> Result<()> {
    let folder = state.bottle(slug);
    let owner = if Record::path(&folder).exists() {
        Record::read(&folder).ok().flatten().map(|record| record.owner)
    } else if lease::taken(state)?.iter().any(|(_, whose)| whose == slug) {
        lease::of(state, slug).map(|lease| lease.owner)
    } else {
        return Ok(());
    };
    if owner.is_some_and(|owner| owner.life() == Life::Dead) {
        return Err(no(format!(
            "bottle '{slug}' is there already, left behind by an owner that died: remove it with 'bottle-reap {slug}', or name another with --slug"
        )));
    }
    Err(no(format!(
        "bottle '{slug}' is there already: attach with 'bottle attach {slug}', stop it with 'bottle stop {slug}', or name another with --slug"
    )))
}
