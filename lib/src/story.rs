//! What was asked for, what was decided and how it ended: records that are only ever appended to.
//!
//! The host's own is `supervise/record.jsonl`; the sidecar's, which is a claim, lies in its `run/`
//! folder. [`all`] puts both into one order, and `bottle-reap` writes that into the archive.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::policy::End;
use crate::proposal::Id;
use crate::render::SUPERVISE;
use crate::{record, state, strict};

/// The file of a record.
pub const FILE: &str = "record.jsonl";

/// The story, in the archive.
pub const STORY: &str = "story.jsonl";

/// The most that is read of a record: what lies further back is not told.
const MOST: u64 = 8 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When it happened, RFC 3339 in UTC, to the millisecond.
    pub time: String,
    /// What happened.
    pub event: Kind,
    /// The proposal; none where they are only counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposal: Option<Id>,
    /// The grant that it led to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// What is asked for or allowed, as a line of `egress.allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allows: Option<String>,
    /// The agent's reason, or the operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// Of how many proposals it tells, where not of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The agent made a proposal; the sidecar tells it.
    Proposed,
    /// Proposals came too fast or too many; the sidecar tells how many.
    TurnedAway,
    /// Nobody has decided about a proposal for a day; the sidecar tells it.
    Lapsed,
    /// The operator approved it, and it is in force.
    Approved,
    /// The operator rejected it.
    Rejected,
    /// An approval that not every sidecar acknowledged was taken back.
    NotInForce,
    /// The time of a grant was over.
    Expired,
    /// A grant has allowed as many requests as it was for.
    UsedUp,
    /// Upstream has taken as many pushes as a grant was for.
    Pushed,
    /// The operator took a grant back.
    Revoked,
}

impl From<End> for Kind {
    fn from(end: End) -> Self {
        match end {
            End::Expired => Self::Expired,
            End::UsedUp => Self::UsedUp,
            End::Pushed => Self::Pushed,
            End::Revoked => Self::Revoked,
            End::NotInForce => Self::NotInForce,
        }
    }
}

impl Event {
    /// Something that happens now.
    #[must_use]
    pub fn new(event: Kind) -> Self {
        let (proposal, grant, allows, words, count) = (None, None, None, None, None);
        Self { time: record::now(), event, proposal, grant, allows, words, count }
    }

    /// Appends it to a record.
    pub fn append(&self, path: &Path) -> Result<()> {
        let mut line = strict::ascii_json(self)?;
        line.push('\n');
        state::append(path, line.as_bytes(), None)
    }
}

/// The host's record of the bottle in `folder`.
#[must_use]
pub fn path(folder: &Path) -> PathBuf {
    folder.join(SUPERVISE).join(FILE)
}

/// All that is known of the bottle in `folder`, in the order in which it happened.
pub fn all(folder: &Path) -> Result<Vec<Event>> {
    let mut events = read(&path(folder))?;
    let claimed = read(&folder.join(SUPERVISE).join("run").join(FILE))?;
    // What the operator did is not for a sidecar to tell.
    let its =
        |event: &Event| matches!(event.event, Kind::Proposed | Kind::TurnedAway | Kind::Lapsed);
    events.extend(claimed.into_iter().filter(its));
    events.sort_by(|a, b| a.time.cmp(&b.time));
    Ok(events)
}

/// The lines of a record that can be read.
fn read(path: &Path) -> Result<Vec<Event>> {
    let Some(file) = state::open_report(path)? else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).world(format!("read '{}'", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|line| strict::json(line, "record").ok()).collect())
}

/// Writes the story of a bottle that is over, beside its records.
pub fn write(folder: &Path) -> Result<()> {
    let events = all(folder)?;
    if events.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for event in events {
        text += &strict::ascii_json(&event)?;
        text.push('\n');
    }
    state::write_unsynced(&folder.join(SUPERVISE).join(STORY), text.as_bytes(), 0o600, None)
}
