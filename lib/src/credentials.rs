//! The values of secrets on their way to egress, which alone gets them, and what it tells of them.
//!
//! [`Credentials`] is `secrets.json` in a folder that only egress has mounted; being JSON, a part of
//! it is never valid. [`Told`] is what egress writes to `run/`: a claim, and never a value.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::caller;
use crate::plan::{Plan, Secret};

/// The version of `secrets.json`.
const VERSION: u32 = 1;

/// The value of a secret. It is not shown, whoever prints what holds it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value(String);

impl Value {
    /// A value, which [`crate::secret`] has found fit for a header.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one who uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// `secrets.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// 1.
    pub version: u32,
    /// Counts how often the values of this bottle were read, from 1. What egress acknowledges:
    /// a digest would tell whoever can guess a value that the guess is right.
    pub generation: u64,
    /// The values, by the name in the plan.
    #[serde(deserialize_with = "crate::strict::unique")]
    pub secrets: BTreeMap<String, Value>,
}

impl Credentials {
    /// Values that were read for the `generation`th time.
    #[must_use]
    pub fn new(generation: u64, secrets: BTreeMap<String, Value>) -> Self {
        Self { version: VERSION, generation, secrets }
    }

    /// Reads a `secrets.json`. The error says where, and nothing of what is there.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let read: Self = serde_json::from_slice(bytes).map_err(|e| {
            caller(format!(
                "secrets.json:{}:{}: it is not whole or not valid",
                e.line(),
                e.column()
            ))
        })?;
        if read.version != VERSION {
            return Err(caller(format!(
                "secrets.json: version is {}: this egress knows {VERSION}: use the images of the tools' version",
                read.version
            )));
        }
        Ok(read)
    }
}

/// The secrets of a plan that some rule adds to requests: of a route or a remote of git. No other is
/// read.
#[must_use]
pub fn injected(plan: &Plan) -> BTreeMap<&str, &Secret> {
    let rules = plan.egress.routes.iter();
    let named = rules.filter_map(|rule| rule.inject.as_ref().map(|inject| &*inject.secret));
    let of_git = plan.git.iter().filter_map(|remote| remote.secret.as_deref());
    named
        .chain(of_git)
        .filter_map(|name| plan.secrets.get_key_value(name))
        .map(|(n, s)| (&**n, s))
        .collect()
}

/// `run/secrets.json`: how the values are that egress uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// The [`Credentials::generation`] in use; 0: it has none.
    pub generation: u64,
    /// Set while a newer file is not taken and the one above stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The secrets that some route adds, by name.
    #[serde(deserialize_with = "crate::strict::unique")]
    pub secrets: BTreeMap<String, Standing>,
}

/// How a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Nothing is known against it.
    Good,
    /// It says of itself that it expires within the minute.
    Expiring,
    /// It says of itself that it has expired: its routes are closed.
    Expired,
    /// The server last answered 401 to it.
    Refused,
    /// There is no value: its routes are closed.
    Missing,
}

impl Told {
    /// Whether reading the sources again may help.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.secrets.values().any(|standing| *standing != Standing::Good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_in_no_error_and_no_debug_text() {
        let text = br#"{"version":1,"generation":1,"secrets":{"a":"s3cr3t-value"}}"#;
        let read = Credentials::parse(text).unwrap();
        assert_eq!(read.secrets["a"].expose(), "s3cr3t-value");
        assert!(!format!("{read:?}").contains("s3cr3t"));
        for end in 0..text.len() {
            let error = format!("{:?}", Credentials::parse(&text[..end]).unwrap_err());
            assert!(!error.contains("s3cr3t"), "{error}");
        }
        for odd in [
            r#"{"version":1,"generation":1,"secrets":"s3cr3t-value"}"#,
            r#"{"version":1,"generation":1,"secrets":{"a":1},"s3cr3t-value":2}"#,
            r#"{"version":2,"generation":1,"secrets":{"a":"s3cr3t-value"}}"#,
            r#"{"version":1,"generation":1,"secrets":{"s3cr3t":"a","s3cr3t":"b"}}"#,
        ] {
            let error = format!("{:#}", Credentials::parse(odd.as_bytes()).unwrap_err());
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
