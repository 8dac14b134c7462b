//! The section `apply`: which policy `bottle-apply` brought into force.

use serde::{Deserialize, Serialize};

/// The section `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Counts the policies that this bottle has had.
    pub generation: u64,
    /// SHA-256 of the `routes.yaml` that egress said it serves by, 64 hex digits.
    pub sha256: String,
    /// What it took until egress said so, in milliseconds; 0 where it had said so before.
    pub ms: u64,
}
