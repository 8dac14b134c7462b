//! Keys of ssh: what of a host of the plan is checked, and what becomes of it in the words of
//! OpenSSH. The values of private keys take the way of secrets: read at the last moment, written
//! into a folder that one sidecar alone has mounted, never told.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Blame, caller};
use crate::host;
use crate::plan::{Plan, SshHost};
use crate::policy::HostKind;
use crate::remote::check_user;
use crate::render::SSH_AGENT;
use crate::secret::readable;
use crate::state;

mod key;

pub use key::{Blob, host_key, public_of};

/// The largest private key file: an RSA key of 16384 bits has 13 KiB.
const MAX: u64 = 64 << 10;

/// The list of keys, in the sidecar's configuration.
pub const KEYS: &str = "keys";

/// Refuses ssh hosts that OpenSSH could not be told of, or that would mean something else to it.
pub fn check(hosts: &[SshHost]) -> Result<()> {
    for (at, host) in hosts.iter().enumerate() {
        check_one(host).caller(host.name.escape_debug())?;
        let twin = hosts[..at].iter().find(|other| other.name.eq_ignore_ascii_case(&host.name));
        if let Some(twin) = twin {
            return Err(caller(format!(
                "'{}' and '{}' are one name to ssh: rename one",
                twin.name, host.name
            )));
        }
    }
    Ok(())
}

fn check_one(ssh: &SshHost) -> Result<()> {
    let name = &ssh.name;
    let fits = name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !fits {
        return Err(caller(format!("'{}' is no name of a host for ssh", name.escape_debug())));
    }
    let (normal, kind) = host::normalise(&ssh.address).caller("address")?;
    if matches!(kind, HostKind::Wildcard | HostKind::Network | HostKind::PrivateNetwork) {
        return Err(caller(format!("address '{normal}' is more than one host: name one")));
    }
    if normal != ssh.address {
        return Err(caller(format!("address '{}': write it as '{normal}'", ssh.address)));
    }
    if ssh.port == 0 {
        return Err(caller("port: 0 is no port"));
    }
    if let Some(user) = &ssh.user {
        check_user(user)?;
    }
    host_key(&ssh.host_key).map(drop)
}

/// The name of a host among known hosts, which OpenSSH knows in lower case only.
#[must_use]
pub fn alias(host: &SshHost) -> String {
    host.name.to_ascii_lowercase()
}

/// `known_hosts`: the one key that each host has to prove.
pub fn known_hosts(hosts: &[SshHost]) -> Result<String> {
    let line = |host: &SshHost| Ok(format!("{} {}\n", alias(host), host_key(&host.host_key)?));
    hosts.iter().map(line).collect()
}

/// A private key, and what it is for.
pub struct Key {
    /// The name of its file in the sidecar: a part of the SHA-256 of its public half.
    pub file: String,
    /// The public half, as `ssh-ed25519 AAAA…`.
    pub public: String,
    /// Its hosts, as `ssh-add -h` has them: `user@host`, or `host` where any user is meant.
    pub destinations: Vec<String>,
    /// Names of its hosts in the plan.
    pub hosts: Vec<String>,
    private: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.public, self.destinations.join(", "))
    }
}

/// Reads the private keys of a plan: one of several hosts once, because an ssh-agent knows a key
/// once only.
pub fn read(plan: &Plan) -> Result<Vec<Key>> {
    let mut keys: Vec<Key> = Vec::new();
    for host in &plan.ssh {
        let what = || format!("ssh.{}: read the key '{}'", host.name, host.key.display());
        let private = file(&host.key).caller(what())?;
        let public = public_of(&private).map_err(|why| caller(format!("{}: {why}", what())))?;
        let destination = match &host.user {
            Some(user) => format!("{user}@{}", alias(host)),
            None => alias(host),
        };
        match keys.iter_mut().find(|key| key.public == public) {
            Some(key) => {
                key.destinations.push(destination);
                key.hosts.push(host.name.clone());
            }
            None => keys.push(Key {
                file: state::sha256_hex(public.as_bytes())[..16].to_owned(),
                public,
                destinations: vec![destination],
                hosts: vec![host.name.clone()],
                private,
            }),
        }
    }
    Ok(keys)
}

fn file(path: &Path) -> Result<Vec<u8>> {
    readable(path)?;
    if !std::fs::metadata(path).caller("look at it")?.is_file() {
        return Err(caller("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path).caller("open it")?.take(MAX + 1).read_to_end(&mut bytes).world("read it")?;
    if bytes.len() as u64 > MAX {
        return Err(caller(format!("it is longer than {} KiB", MAX >> 10)));
    }
    Ok(bytes)
}

/// The list of keys that the sidecar is told.
#[must_use]
pub fn listed(plan: &Plan, keys: &[Key]) -> String {
    let lines = keys.iter().map(|key| format!("{} {}\n", key.file, key.destinations.join(" ")));
    format!("plan {}\n", plan.digest) + &lines.collect::<String>()
}

/// The folder, in that of a bottle, by which keys reach their sidecar.
#[must_use]
pub fn folder(bottle: &Path) -> PathBuf {
    bottle.join(SSH_AGENT).join("keys")
}

/// Writes the keys for the sidecar into the folder that `bottle-render` made, for its owner. The
/// lock of the bottle is held.
pub fn write(bottle: &Path, keys: &[Key]) -> Result<()> {
    forget(bottle)?;
    let folder = folder(bottle);
    let found =
        std::fs::symlink_metadata(&folder).world(format!("look at '{}'", folder.display()))?;
    let ids = Some((found.uid(), found.gid()));
    keys.iter().try_for_each(|key| {
        state::write_unsynced(&folder.join(&key.file), &key.private, 0o600, ids)
    })
}

/// Removes the keys; the folder stays, because it is mounted.
pub fn forget(bottle: &Path) -> Result<()> {
    let folder = folder(bottle);
    if !folder.is_dir() {
        return Ok(());
    }
    state::names(&folder)?.iter().try_for_each(|name| state::remove(&folder.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `ssh-keygen -t ed25519`, and used nowhere.
    pub(super) const HOST_KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDt0cxXDZBnEHcMd3gAjXPtBZTq5ZLr0R7HQ0mFFeHo9";

    fn host(name: &str) -> SshHost {
        SshHost {
            name: name.to_owned(),
            address: "100.64.0.7".to_owned(),
            port: 22,
            user: None,
            key: "/k".into(),
            host_key: format!("{HOST_KEY} root@there"),
        }
    }

    #[test]
    fn known_host_is_its_name_and_its_key_alone() {
        let hosts = [host("Build"), SshHost { address: "b.example".into(), ..host("b") }];
        check(&hosts).unwrap();
        assert_eq!(known_hosts(&hosts).unwrap(), format!("build {HOST_KEY}\nb {HOST_KEY}\n"));
    }

    #[test]
    fn what_openssh_would_take_for_something_else_is_refused() {
        let told = |host: SshHost| format!("{:#}", check(&[host]).unwrap_err());
        for name in ["", "a b", "-x", "a*", "a,b", "!a", "a\nHost *", "\u{e9}", "%h"] {
            assert!(told(host(name)).contains("is no name of a host"), "{name:?}");
        }
        for user in ["", "-l", "a b", "x\nProxyCommand id", "%u", "$HOME", "a\"b"] {
            let host = SshHost { user: Some(user.to_owned()), ..host("a") };
            assert!(told(host).contains("is not usable"), "{user:?}");
        }
        for address in ["*.a.example", "10.0.0.0/8"] {
            let host = SshHost { address: address.to_owned(), ..host("a") };
            assert!(told(host).contains("more than one host"), "{address:?}");
        }
        let twins = [host("a"), host("A")];
        assert!(format!("{:#}", check(&twins).unwrap_err()).contains("'a' and 'A' are one name"));
    }
}
