//! The section `up`: what `bottle-up` started, and what the first self-test found.

use serde::{Deserialize, Serialize};

use crate::owner::Owner;
use crate::verdict::Verdict;

/// The section `up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Up {
    /// Digest of the plan that runs.
    pub plan: String,
    /// Name of the agent's container, for `docker exec`.
    pub agent: String,
    /// Services that run.
    pub services: Vec<String>,
    /// The generation of the policy that egress said it loaded.
    pub generation: u64,
    /// Who owns the bottle.
    pub owner: Owner,
    /// What the self-test found; not there where it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selftest: Option<Verdict>,
    /// What the self-test took, its container included, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selftest_ms: Option<u64>,
}
