//! Leases of subnets: one file each below `leases/` of the state folder, named by subnet and slug,
//! so that a listing of the folder tells what is taken, and by whom.
//!
//! One lock covers choosing and writing, and is held for nothing else.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::{Blame, caller};
use crate::name::Slug;
use crate::net::{DEFAULT_POOL, Pool};
use crate::owner::Owner;
use crate::state::{self, Lock, State};
use crate::strict;

/// How long another tool may hold the leases before that is an error. It needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// One subnet that is a bottle's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// 1.
    pub version: u32,
    /// The subnet.
    pub subnet: Ipv4Net,
    /// The bottle.
    pub slug: Slug,
    /// Its compose project.
    pub project: String,
    /// The pipeline that took it. Once the bottle has a record, that one says who owns it.
    pub owner: Owner,
    /// When it was taken, RFC 3339 in UTC.
    pub created_at: String,
}

/// The pool: `$BOTTLE_SUBNETS`, else the default one.
pub fn pool() -> Result<Pool> {
    match std::env::var("BOTTLE_SUBNETS") {
        Ok(text) if !text.is_empty() => text.parse(),
        Ok(_) | Err(std::env::VarError::NotPresent) => DEFAULT_POOL.parse(),
        Err(_) => Err(caller("read BOTTLE_SUBNETS: it is not UTF-8")),
    }
}

/// What is leased, and to whom, by the names of the files alone.
pub fn taken(state: &State) -> Result<Vec<(Ipv4Net, Slug)>> {
    Ok(state::names(&state.leases())?.iter().filter_map(|name| parse(name)).collect())
}

/// Makes the folder of leases and takes its lock.
pub fn lock(state: &State) -> Result<Lock> {
    let folder = state.leases();
    loop {
        state::make_folder(&folder, None)?;
        if let Some(lock) = state::lock_file(&folder.join("lock"), PATIENCE)? {
            sweep(&folder)?;
            return Ok(lock);
        }
    }
}

/// Removes the half-written leases of killed tools: whoever writes one holds the lock.
fn sweep(folder: &Path) -> Result<()> {
    for name in state::names(folder)?.iter().filter(|name| name.starts_with('.')) {
        state::remove(&folder.join(name))?;
    }
    Ok(())
}

/// Reads the first lease of a bottle; `None` where it has none, or none that can be read.
#[must_use]
pub fn of(state: &State, slug: &Slug) -> Option<Lease> {
    let names = state::names(&state.leases()).ok()?;
    names.iter().filter(|name| parse(name).is_some_and(|(_, whose)| whose == *slug)).find_map(
        |name| strict::json(&fs::read_to_string(state.leases().join(name)).ok()?, name).ok(),
    )
}

/// Frees every lease of a bottle.
pub fn free_all(state: &State, slug: &Slug) -> Result<()> {
    for (subnet, _) in taken(state)?.iter().filter(|(_, whose)| whose == slug) {
        free(state, *subnet, slug)?;
    }
    Ok(())
}

/// Frees one lease; one that is not there is no error.
pub fn free(state: &State, subnet: Ipv4Net, slug: &Slug) -> Result<()> {
    state::remove(&state.leases().join(file_name(subnet, slug)))
}

impl Lease {
    /// Writes it; the caller holds the lock and has seen that the subnet is free.
    pub fn write(&self, state: &State, _lock: &Lock) -> Result<()> {
        let mut text = serde_json::to_string(self).world("write a lease")?;
        text.push('\n');
        let path = state.leases().join(file_name(self.subnet, &self.slug));
        state::write_unsynced(&path, text.as_bytes(), 0o600, None)
    }
}

/// `10.201.0.16_28.implementer`
fn file_name(subnet: Ipv4Net, slug: &Slug) -> String {
    format!("{}_{}.{slug}", subnet.network(), subnet.prefix_len())
}

fn parse(name: &str) -> Option<(Ipv4Net, Slug)> {
    let (address, rest) = name.split_once('_')?;
    let (prefix, slug) = rest.split_once('.')?;
    let subnet = Ipv4Net::new(address.parse().ok()?, prefix.parse().ok()?).ok()?;
    Some((subnet, slug.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_tells_subnet_and_bottle() {
        let (subnet, slug) = ("10.201.0.16/28".parse().unwrap(), "dev-2".parse().unwrap());
        let name = file_name(subnet, &slug);
        assert_eq!(name, "10.201.0.16_28.dev-2");
        assert_eq!(parse(&name), Some((subnet, slug)));
    }

    #[test]
    fn other_files_are_no_leases() {
        for name in
            ["lock", ".atomicwrite", "10.0.0.0_28", "10.0.0.0_40.x", "x_28.y", "10.0.0.0_28.A"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
