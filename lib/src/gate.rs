//! What the git gate is told and what it tells: `gate.json`, and the lines of its `decisions.jsonl`.
//!
//! Pure, but for [`files`]. [`Gate`] is written by `bottle-render`, and read again by the gate when it changes;
//! [`refs::Pattern`] and [`paths`] are what a push is judged by, [`forms`] says which URLs of an
//! agent mean a remote.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::{Blame, caller};
use crate::plan::GitRemote;
use crate::policy::Verdict;
use crate::remote::Remote as Url;
use crate::strict;

pub mod files;
pub mod forms;
pub mod paths;
pub mod refs;

/// The file, in a folder that the gate alone has mounted.
pub const FILE: &str = "gate.json";

/// The port of git's own protocol.
pub const PORT: u16 = 9418;

/// Limits of one push where the manifest sets none: bytes of the pack, bytes of one file, new files.
pub const MAX_PUSH: u64 = 256 << 20;
/// See [`MAX_PUSH`].
pub const MAX_FILE: u64 = 32 << 20;
/// See [`MAX_PUSH`].
pub const MAX_FILES: u32 = 10_000;

/// `gate.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// 1.
    pub version: u32,
    /// Counts the policies that this bottle has had, from 1.
    pub generation: u64,
    /// Digest of the plan that this came from.
    pub plan: String,
    /// The slug of the bottle.
    pub bottle: String,
    /// The agent, the only one who is served.
    pub client: Ipv4Addr,
    /// Egress, by whose CONNECT every upstream is reached; not set: they are reached directly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SocketAddrV4>,
    /// The remotes; there is no way to any other.
    pub remotes: Vec<Remote>,
}

/// A remote that the gate serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// What the agent calls it; also the name of its key's files.
    pub name: String,
    /// The upstream.
    pub url: String,
    /// What may be pushed; nothing: fetch only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<Push>,
    /// Protected paths that a push may touch all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_paths: Vec<String>,
    /// Whether each pushed commit must be signed by one of the allowed signers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_signed: bool,
    /// Whether upstream is reached by ssh, with a key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ssh: bool,
    /// Largest pack of a push, in bytes.
    pub max_push: u64,
    /// Largest new file of a push, in bytes.
    pub max_file: u64,
    /// Most new files of a push.
    pub max_files: u32,
}

/// Refs that may be pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// A [`refs::Pattern`].
    pub refs: String,
    /// The grant that it comes from, where it is none of the plan's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// When it ends, in seconds since 1970; the gate itself heeds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// How many pushes that upstream took it is for; the gate itself counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
}

impl Gate {
    /// Reads a `gate.json`, strictly.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| caller("gate.json: it is not UTF-8"))?;
        let gate: Self = strict::json(text, FILE)?;
        if gate.version != 1 {
            return Err(caller(format!(
                "gate.json: version is {}: this gate knows 1: use the images of the tools' version",
                gate.version
            )));
        }
        let mut names = BTreeSet::new();
        for remote in &gate.remotes {
            let name = &remote.name;
            let what = |e: anyhow::Error| caller(format!("gate.json: remote '{name}': {e:#}"));
            if !is_name(name) || !names.insert(name) {
                return Err(caller(format!(
                    "gate.json: remote '{name}' is there twice, or its name is none"
                )));
            }
            remote.check().map_err(what)?;
        }
        Ok(gate)
    }

    /// As it is written.
    pub fn to_json(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self).world("write 'gate.json'")?;
        text.push('\n');
        Ok(text)
    }

    /// The remote of a name, to the letter.
    #[must_use]
    pub fn remote(&self, name: &str) -> Option<&Remote> {
        self.remotes.iter().find(|remote| remote.name == name)
    }
}

impl Remote {
    /// The remote of a plan.
    #[must_use]
    pub fn of(remote: &GitRemote) -> Self {
        let push =
            |refs: &String| Push { refs: refs.clone(), grant: None, until: None, uses: None };
        Self {
            name: remote.name.clone(),
            url: remote.url.clone(),
            push: remote.push.iter().map(push).collect(),
            allow_paths: remote.allow_paths.clone(),
            require_signed: remote.require_signed,
            ssh: remote.key.is_some(),
            max_push: remote.max_push.unwrap_or(MAX_PUSH),
            max_file: remote.max_file.unwrap_or(MAX_FILE),
            max_files: remote.max_files.unwrap_or(MAX_FILES),
        }
    }

    /// Refuses what would mean nothing.
    pub fn check(&self) -> Result<()> {
        Url::parse(&self.url)?;
        self.push.iter().try_for_each(Push::check)?;
        paths::Allowed::parse(&self.allow_paths).map(drop)
    }

    /// The patterns that are in force at a time, in seconds since 1970.
    pub fn open_at(&self, now: u64) -> impl Iterator<Item = &Push> {
        self.push.iter().filter(move |push| push.until.is_none_or(|until| now < until))
    }
}

impl Push {
    fn check(&self) -> Result<()> {
        if self.uses == Some(0) || (self.uses.is_some() && self.grant.is_none()) {
            return Err(caller(format!(
                "push '{}': 'uses' is the number of pushes of a grant, from 1",
                self.refs
            )));
        }
        refs::Pattern::parse(&self.refs).map(drop)
    }
}

/// Whether a text can be the name of a remote, as in the manifest.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// One line of the gate's `decisions.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionLine<'a> {
    /// When it was decided, RFC 3339 in UTC.
    pub time: Cow<'a, str>,
    /// What was asked.
    pub kind: Kind,
    /// The remote, as far as the request named one.
    pub remote: Cow<'a, str>,
    /// What was decided.
    pub decision: Verdict,
    /// The rule that refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// What it refused, in words; they hold what the agent or upstream said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<Cow<'a, str>>,
    /// What a push was to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<Update>,
    /// Grants without which it would have been refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Cow<'a, str>>,
    /// The generation of the policy in force.
    pub generation: u64,
    /// SHA-256 of its `gate.json`, 64 hex digits.
    pub policy: Cow<'a, str>,
}

/// What was asked of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To read a remote.
    Fetch,
    /// To change one. Two lines: that it may, before anything leaves, and what came of it.
    Push,
    /// What upstream said to a push that was let through.
    Upstream,
    /// Something that is no request of git's.
    Unknown,
}

/// What a push changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The ref.
    pub name: String,
    /// What it was, all zeros where it is new.
    pub old: String,
    /// What it becomes, all zeros where it is to go.
    pub new: String,
}

/// What a request to the gate is refused by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// It is no request of git's protocol.
    Protocol,
    /// The name is that of no remote.
    Remote,
    /// No pattern of `push` covers the ref.
    Push,
    /// The ref would be deleted.
    Delete,
    /// The ref would lose commits, or a tag be moved.
    Force,
    /// The ref would be neither a commit nor a tag of one.
    Object,
    /// The push is larger than its limits.
    Size,
    /// A commit is not signed by an allowed signer.
    Signed,
    /// A protected path is touched.
    Protected,
    /// Something that looks like a secret would leave.
    Secrets,
    /// Upstream refused it, or is away.
    Upstream,
    /// The gate itself could not judge it.
    Gate,
}

impl Rule {
    /// As it is written down and told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Remote => "remote",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Force => "force",
            Self::Object => "object",
            Self::Size => "size",
            Self::Signed => "signed",
            Self::Protected => "protected",
            Self::Secrets => "secrets",
            Self::Upstream => "upstream",
            Self::Gate => "gate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(remote: &str) -> Result<Gate> {
        let text = format!(
            r#"{{"version":1,"generation":1,"plan":"","bottle":"b","client":"127.0.0.1","remotes":[{remote}]}}"#
        );
        Gate::parse(text.as_bytes())
    }

    const LIMITS: &str = r#""max_push":1,"max_file":1,"max_files":1"#;

    #[test]
    fn remotes_are_checked_when_they_are_read() {
        let one = format!(r#"{{"name":"a","url":"https://h.example/x",{LIMITS}}}"#);
        assert!(gate(&one).is_ok());
        for (remote, why) in [
            (format!("{one},{one}"), "there twice"),
            (one.replace("\"a\"", "\"../a\""), "its name is none"),
            (one.replace("https:", "file:"), "neither ssh nor https"),
            (one.replace("\"url\"", "\"push\":[{\"refs\":\"refs/*\"}],\"url\""), "refs/*"),
            (
                one.replace("\"url\"", "\"push\":[{\"refs\":\"refs/heads/x\",\"uses\":1}],\"url\""),
                "of a grant",
            ),
            (one.replace("\"url\"", "\"allow_paths\":[\"/x\"],\"url\""), "allow_paths"),
            (one.replace("\"url\"", "\"pusch\":[],\"url\""), "did you mean 'push'"),
        ] {
            let told = format!("{:#}", gate(&remote).unwrap_err());
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn grant_ends_by_itself() {
        let until =
            |until| Push { refs: "refs/heads/x".to_owned(), grant: None, until, uses: None };
        let one = format!(r#"{{"name":"a","url":"https://h.example/x",{LIMITS}}}"#);
        let mut remote = gate(&one).unwrap().remotes.remove(0);
        remote.push = vec![until(None), until(Some(100))];
        assert_eq!(remote.open_at(99).count(), 2);
        assert_eq!(remote.open_at(100).count(), 1);
    }
}
