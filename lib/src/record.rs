//! `metadata.json`: what the state folder knows of one bottle. It names the compose project, says
//! who owns the bottle, and is deleted last.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::name::Slug;
use crate::owner::Owner;
use crate::{state, strict};

/// The record of one bottle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// 1.
    pub version: u32,
    /// The bottle.
    pub slug: Slug,
    /// Its compose project.
    pub compose_project: String,
    /// Digest of the plan that it runs.
    pub plan: String,
    /// Who owns it now: the pipeline until `bottle-up` succeeded, then what `--owner` said.
    pub owner: Owner,
    /// How far it came.
    pub phase: Phase,
    /// Name of the agent's container, for `docker exec`.
    pub agent: String,
    /// When it was rendered, RFC 3339 in UTC.
    pub created_at: String,
    /// When it was up, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_at: Option<String>,
}

/// How far a bottle came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A pipeline is at work on it, or died over it.
    Starting,
    /// It serves.
    Up,
}

impl Record {
    /// Where the record of the bottle in `folder` lies.
    #[must_use]
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("metadata.json")
    }

    /// Reads the record in a bottle's folder; `None` where there is none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = Self::path(folder);
        match fs::read_to_string(&path) {
            Ok(text) => strict::json(&text, "metadata.json").map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).world(format!("read '{}'", path.display())),
        }
    }

    /// Writes it, atomically.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).world("write metadata.json")?;
        text.push('\n');
        state::write_unsynced(&Self::path(folder), text.as_bytes(), 0o600, None)
    }
}

/// The time now, RFC 3339 in UTC, to the millisecond: `2026-11-24T05:59:55.123Z`.
#[must_use]
pub fn now() -> String {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs(), since.subsec_millis())
}

/// The time now in seconds of Unix time.
#[must_use]
pub fn unix_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// A time in seconds of Unix time, RFC 3339 in UTC: `2026-11-24T05:59:55Z`.
#[must_use]
pub fn time_of(seconds: u64) -> String {
    rfc3339(seconds, 0).replace(".000Z", "Z")
}

/// Civil date from days, after Howard Hinnant's `civil_from_days`,
/// <https://howardhinnant.github.io/date_algorithms.html>.
fn rfc3339(seconds: u64, millis: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let mut text = String::with_capacity("2026-11-24T05:59:55.123Z".len());
    // Written for each request: std's formatting takes ten times as long.
    for (number, digits, after) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (hour, 2, ':'),
        (minute, 2, ':'),
        (second, 2, '.'),
        (millis.into(), 3, 'Z'),
    ] {
        for place in (0..digits).rev() {
            let digit = number / 10_u64.pow(place) % 10;
            text.push(
                char::from_digit(u32::try_from(digit).unwrap_or_default(), 10).unwrap_or('0'),
            );
        }
        text.push(after);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn dates_are_civil() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696, 7), "2000-02-29T12:34:56.007Z");
        assert_eq!(rfc3339(1_795_499_995, 123), "2026-11-24T05:59:55.123Z");
    }
}
