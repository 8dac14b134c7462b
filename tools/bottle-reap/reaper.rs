//! Takes one bottle down, in this order: stop, log, containers, networks, leases, and the record
//! with the archive. What is left, not which call failed, decides whether it worked.

use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::docker::{Docker, PATIENCE};
use bottle::inventory::{Container, Inventory, Network};
use bottle::owner::Owner;
use bottle::reap::Reap;
use bottle::record::Record;
use bottle::render::{EGRESS, SSH_AGENT};
use bottle::state::{self, State};
use bottle::{Slug, lease, secret, ssh, world};

use crate::trouble::Trouble;
use crate::{archive, logs, orphan};

/// How long a tool that is at work on the bottle is waited for. A killed one ends when the call
/// that it started does.
const LOCK_PATIENCE: Duration = Duration::from_mins(2);

/// How long the engine may take over a removal that somebody else asked for.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(10);

/// Seconds that a container has between TERM and KILL. Ours end at once; what the agent started by
/// `docker exec` never gets the TERM.
const GRACE: &str = "2";

/// What to take down.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What<'a> {
    /// All of it.
    Bottle,
    /// All of it, if it is an orphan.
    Orphan,
    /// All of it, if it is one of these who owns it.
    Owned(&'a [Owner]),
    /// The containers of one service.
    Service(&'a str),
}

/// How it ended; what went wrong is in [`Trouble`].
#[derive(Debug)]
pub(crate) enum End {
    /// Nothing was there, or what was there is still.
    Nothing,
    /// It is no orphan, or another's.
    Kept(String),
    /// It is gone.
    Reaped(Reap),
}

/// One bottle to be taken down.
pub(crate) struct Reaper<'a> {
    state: &'a State,
    docker: &'a Docker,
    slug: &'a Slug,
    project: String,
    trouble: &'a mut Trouble,
}

impl<'a> Reaper<'a> {
    pub(crate) fn new(
        state: &'a State,
        docker: &'a Docker,
        slug: &'a Slug,
        trouble: &'a mut Trouble,
    ) -> Self {
        Self { state, docker, slug, project: state.project(slug), trouble }
    }

    /// Takes it down.
    pub(crate) fn reap(mut self, what: &What) -> End {
        let outcome = self.attempt(what);
        let doing = format!("reap '{}'", self.slug);
        self.trouble.note(&doing, outcome).unwrap_or(End::Nothing)
    }

    fn attempt(&mut self, what: &What) -> Result<End> {
        // A lock needs a folder, and none is made for a bottle that nobody knows of.
        if !self.is_known()? && self.inventory()?.is_empty() {
            return Ok(End::Nothing);
        }
        // Before the lock as well: a tool may be at work on a bottle that is kept anyway.
        if let Some(why) = self.kept(what)? {
            return Ok(End::Kept(why));
        }
        let _lock = self.state.lock(self.slug, LOCK_PATIENCE)?;
        if let Some(why) = self.kept(what)? {
            return Ok(End::Kept(why));
        }
        let mut found = self.inventory()?;
        if let What::Service(service) = what {
            found.containers.retain(|container| container.service == *service);
            found.networks.clear();
        }
        let mut reap = Reap::default();
        let no_containers = self.remove_containers(&found.containers, &mut reap);
        if matches!(what, What::Service(EGRESS) | What::Bottle | What::Orphan | What::Owned(_)) {
            // Whatever fails below: what is kept must not hold them, and nobody needs them any more.
            let forgotten = secret::forget(&self.state.bottle(self.slug));
            self.note("remove its secrets", forgotten);
        }
        if matches!(what, What::Service(SSH_AGENT) | What::Bottle | What::Orphan | What::Owned(_)) {
            let forgotten = ssh::forget(&self.state.bottle(self.slug));
            self.note("remove its keys of ssh", forgotten);
        }
        let no_networks = self.remove_networks(&found.networks, &mut reap);
        if matches!(what, What::Service(_)) {
            return Ok(if reap == Reap::default() { End::Nothing } else { End::Reaped(reap) });
        }
        // A network that is still there still has its subnet.
        let mut had_leases = false;
        let no_leases = no_networks && {
            had_leases = self.has_leases()?;
            let freed = lease::free_all(self.state, self.slug);
            self.note("free its leases", freed).is_some()
        };
        if no_containers && no_leases {
            let told = archive::tell(&self.state.bottle(self.slug));
            self.note("tell what was asked for in it", told);
            let kept = archive::keep(self.state, self.slug);
            reap.archive = self.note("keep its log and record", kept).flatten();
        }
        let is_nothing = reap == Reap::default() && !had_leases;
        Ok(if is_nothing { End::Nothing } else { End::Reaped(reap) })
    }

    fn inventory(&self) -> Result<Inventory> {
        Inventory::of(self.docker, Some(&self.project))
    }

    fn has_leases(&self) -> Result<bool> {
        Ok(lease::taken(self.state)?.iter().any(|(_, slug)| slug == self.slug))
    }

    fn is_known(&self) -> Result<bool> {
        Ok(self.state.holds(self.slug) || self.has_leases()?)
    }

    /// Why the bottle is none of those that are meant; `None`: it is one.
    fn kept(&self, what: &What) -> Result<Option<String>> {
        if matches!(what, What::Bottle | What::Service(_)) {
            return Ok(None);
        }
        let record = match Record::read(&self.state.bottle(self.slug)) {
            Ok(record) => record.map(|record| record.owner),
            Err(error) => return Ok(Some(format!("whose it is cannot be told: {error:#}"))),
        };
        let lease = lease::of(self.state, self.slug).map(|lease| lease.owner);
        let found = self.inventory()?;
        let What::Owned(by) = what else {
            return Ok(orphan::kept(record.as_ref(), lease.as_ref(), &found, Owner::life));
        };
        Ok(match orphan::whose(record.as_ref(), lease.as_ref(), &found) {
            // A folder that a tool made just before it was killed is nobody's yet.
            Ok(owner) if owner.as_ref().is_none_or(|owner| by.contains(owner)) => None,
            Ok(_) => Some("it belongs to another".to_owned()),
            Err(why) => Some(why),
        })
    }

    /// Stops, logs and removes containers; whether none is left.
    fn remove_containers(&mut self, containers: &[Container], reap: &mut Reap) -> bool {
        if containers.is_empty() {
            return true;
        }
        let running = containers.iter().filter(|container| container.runs());
        let stop: Vec<&str> =
            ["stop", "-t", GRACE].into_iter().chain(running.map(|c| c.id.as_str())).collect();
        if stop.len() > 3 {
            // Stopped first, so that the log holds their last words. One that does not stop is
            // killed when it is removed.
            let _ = self.docker.text(&stop);
        }
        let logged = self.log(containers);
        self.note("write its log", logged);
        let all = containers.iter().map(|container| container.id.as_str());
        let remove: Vec<&str> = ["rm", "--force", "--volumes"].into_iter().chain(all).collect();
        let mut left = Vec::new();
        if let Err(error) = self.docker.text(&remove) {
            left = self.left(containers);
            if !left.is_empty() {
                let doing = format!("remove container '{}'", names(&left));
                self.note::<()>(&doing, Err(error));
            }
        }
        let gone = containers.iter().filter(|container| !left.contains(container));
        reap.containers.extend(gone.map(|container| container.name.clone()));
        left.is_empty()
    }

    /// Those of the containers that are there after a call failed: missing ones are no error. The
    /// engine may be at work on one: those of `docker run --rm` remove themselves.
    fn left<'c>(&self, containers: &'c [Container]) -> Vec<&'c Container> {
        let end = Instant::now() + REMOVAL_PATIENCE;
        loop {
            // Where the engine does not answer, nothing is proven gone.
            let now = self.inventory().map_or_else(|_| containers.to_vec(), |now| now.containers);
            let is_going = now.iter().any(|container| container.state == "removing");
            if !is_going || Instant::now() > end {
                let is_left = |then: &&Container| now.iter().any(|now| now.id == then.id);
                return containers.iter().filter(is_left).collect();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes the log of containers into the bottle's folder.
    fn log(&self, containers: &[Container]) -> Result<()> {
        let folder = self.state.bottle(self.slug);
        let part = folder.join("compose.part");
        state::remove(&part)?;
        let merged = logs::merge(self.docker, containers, state::create_new(&part)?);
        // Half a log is better than none.
        state::rename(&part, &archive::next_log(&folder))?;
        let mut unread = merged?;
        if !unread.is_empty() {
            let left = self.left(containers);
            unread.retain(|container| left.contains(container));
        }
        if unread.is_empty() {
            return Ok(());
        }
        Err(world(format!(
            "the engine does not give that of '{}': the end of compose.log says why",
            names(&unread)
        )))
    }

    /// Removes networks, side by side; whether none is left.
    fn remove_networks(&mut self, networks: &[Network], reap: &mut Reap) -> bool {
        let calls: Vec<_> = networks
            .iter()
            .map(|network| self.docker.start(&["network", "rm", &network.id]))
            .collect();
        let mut all_gone = true;
        for (call, network) in calls.into_iter().zip(networks) {
            let removed = call.and_then(|call| call.text(PATIENCE));
            let is_gone = match &removed {
                Ok(_) => true,
                Err(_) => self
                    .inventory()
                    .is_ok_and(|now| now.networks.iter().all(|left| left.id != network.id)),
            };
            if is_gone {
                reap.networks.push(network.name.clone());
            } else {
                all_gone = false;
                self.note(&format!("remove network '{}'", network.name), removed);
            }
        }
        all_gone
    }

    fn note<T>(&mut self, doing: &str, outcome: Result<T>) -> Option<T> {
        self.trouble.note(&format!("reap '{}': {doing}", self.slug), outcome)
    }
}

fn names(containers: &[&Container]) -> String {
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    names.join("', '")
}
