//! Who a bottle belongs to, and whether that one is proven dead.
//!
//! Every tool of a pipeline ends, so until `bottle-up` succeeds the owner is the pipeline's process
//! group; afterwards it is a process (the launch script) or nobody. Only what machine, boot, pid
//! namespace, number and start time prove dead is dead: a number alone is used again.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::error::{Blame, caller};

/// The owner of a bottle. Its text form is what the label `bottle.owner` holds:
/// `none`, or `KIND:NUMBER:START@BOOT/NAMESPACE/MACHINE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Owner {
    /// Nobody: a person reaps the bottle.
    None,
    /// A process group: the tools of one pipeline.
    Group(Identity),
    /// One process: a launch script.
    Process(Identity),
}

/// What tells one process, or group by its leader, from every other one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The pid, or the process group's.
    pub number: u32,
    /// Start of the process (of the group's leader) in clock ticks since boot; 0 where a group's
    /// leader had ended already. Field 22 of `proc_pid_stat(5)`.
    pub start: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// Inode of the pid namespace: the same number means another process elsewhere.
    pub namespace: u64,
    /// Hash of the machine id, because a state folder may be shared between hosts.
    pub machine: String,
}

/// Whether an owner still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It does, or there is nobody who could die.
    Alive,
    /// Proven dead.
    Dead,
    /// Cannot be told from here: another machine or pid namespace.
    Unknown,
}

impl Owner {
    /// The process group of this pipeline.
    pub fn pipeline() -> Result<Self> {
        let group = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
        let start = stat(group).map_or(0, |stat| stat.start);
        Ok(Self::Group(Identity::here(group, start)?))
    }

    /// A process of this machine, which must be running.
    pub fn process(pid: u32) -> Result<Self> {
        let stat = stat(pid).ok_or_else(|| {
            caller(format!(
                "find owner process {pid}: no such process: give the pid of a running one"
            ))
        })?;
        Ok(Self::Process(Identity::here(pid, stat.start)?))
    }

    /// Whether the owner lives, as seen from this process.
    #[must_use]
    pub fn life(&self) -> Life {
        let (Self::Group(id) | Self::Process(id)) = self else { return Life::Alive };
        let Ok(here) = Identity::here(0, 0) else { return Life::Unknown };
        if id.machine != here.machine {
            return Life::Unknown;
        }
        if id.boot != here.boot {
            return Life::Dead;
        }
        if id.namespace != here.namespace {
            return Life::Unknown;
        }
        let running = match self {
            Self::Process(_) => {
                stat(id.number).is_some_and(|stat| stat.start == id.start && stat.runs)
            }
            _ => group_lives(id),
        };
        if running { Life::Alive } else { Life::Dead }
    }
}

impl Identity {
    fn here(number: u32, start: u64) -> Result<Self> {
        let boot =
            fs::read_to_string("/proc/sys/kernel/random/boot_id").world("read the boot id")?;
        let namespace = fs::read_link("/proc/self/ns/pid").world("read the pid namespace")?;
        let namespace = namespace
            .to_string_lossy()
            .trim_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .world("read the pid namespace")?;
        Ok(Self { number, start, boot: boot.trim().to_owned(), namespace, machine: machine() })
    }
}

/// A short hash of the machine id, machine-id(5). A machine without one counts as its boot.
#[must_use]
pub fn machine() -> String {
    let id = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok().filter(|text| !text.trim().is_empty()))
        .unwrap_or_default();
    crate::state::sha256_hex(id.trim().as_bytes())[..8].to_owned()
}

struct Stat {
    group: u32,
    start: u64,
    /// Not a zombie: one that has ended, and is only not yet waited for, owns nothing.
    runs: bool,
}

/// The interesting fields of `/proc/PID/stat`; the command, which may hold spaces and brackets,
/// ends at the last bracket.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    Some(Stat {
        group: fields.get(2)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
        runs: !matches!(*fields.first()?, "Z" | "X"),
    })
}

/// A group's number cannot be used again while a process of it lives, so a leader with another
/// start time proves that the recorded group is gone.
fn group_lives(id: &Identity) -> bool {
    if let Some(leader) = stat(id.number) {
        if leader.group == id.number && id.start != 0 && leader.start != id.start {
            return false;
        }
        if leader.group == id.number && leader.runs {
            return true;
        }
    }
    let Ok(processes) = fs::read_dir(Path::new("/proc")) else { return true };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(stat)
        .any(|stat| stat.group == id.number && stat.runs)
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id) = match self {
            Self::None => return f.write_str("none"),
            Self::Group(id) => ("group", id),
            Self::Process(id) => ("process", id),
        };
        write!(f, "{kind}:{}:{}@{}/{}/{}", id.number, id.start, id.boot, id.namespace, id.machine)
    }
}

impl FromStr for Owner {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self::None);
        }
        let parts = || -> Option<Self> {
            let (who, place) = text.split_once('@')?;
            let mut who = who.split(':');
            let kind = who.next()?;
            let (number, start) = (who.next()?.parse().ok()?, who.next()?.parse().ok()?);
            let mut place = place.split('/');
            let id = Identity {
                number,
                start,
                boot: place.next()?.to_owned(),
                namespace: place.next()?.parse().ok()?,
                machine: place.next()?.to_owned(),
            };
            match kind {
                "group" => Some(Self::Group(id)),
                "process" => Some(Self::Process(id)),
                _ => None,
            }
        };
        parts().with_context(|| format!("'{text}' is not an owner"))
    }
}

impl TryFrom<String> for Owner {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_survives_its_text_form() {
        for owner in
            [Owner::None, Owner::pipeline().unwrap(), Owner::process(std::process::id()).unwrap()]
        {
            assert_eq!(owner.to_string().parse::<Owner>().unwrap(), owner);
            assert_eq!(owner.life(), Life::Alive);
        }
    }

    #[test]
    fn recycled_number_is_dead() {
        let Owner::Process(mut id) = Owner::process(std::process::id()).unwrap() else {
            unreachable!()
        };
        id.start += 1;
        assert_eq!(Owner::Process(id).life(), Life::Dead);
    }

    #[test]
    fn another_boot_is_dead_and_another_machine_unknown() {
        let Owner::Process(id) = Owner::process(std::process::id()).unwrap() else {
            unreachable!()
        };
        let rebooted = Identity { boot: "0".to_owned(), ..id.clone() };
        assert_eq!(Owner::Process(rebooted).life(), Life::Dead);
        let elsewhere = Identity { machine: "0".to_owned(), ..id.clone() };
        assert_eq!(Owner::Process(elsewhere).life(), Life::Unknown);
        let contained = Identity { namespace: 1, ..id };
        assert_eq!(Owner::Process(contained).life(), Life::Unknown);
    }
}
