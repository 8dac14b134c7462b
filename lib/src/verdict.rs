//! What `bottle-probe check` finds from inside a bottle, and `bottle-up` reads.
//!
//! A bottle is *open* when anything got through that had to stay out. An allowed route that does
//! not answer is a failure too, but of another kind: it leaves the bottle closed.

use serde::{Deserialize, Serialize};

/// The outcome of one run of the probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Digest of the plan that the bottle runs, where the caller named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Whether the bottle holds.
    pub verdict: Finding,
    /// What the run took, in milliseconds.
    pub ms: u64,
    /// Every attempt, in a fixed order.
    pub checks: Vec<Check>,
}

/// Whether a bottle holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// Nothing got through that had to stay out.
    Closed,
    /// Something did.
    Open,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What kind of attempt it is: `denied route`, `host address`.
    pub name: String,
    /// What was tried: `GET https://api.example.com/`, `10.0.0.1:22`.
    pub target: String,
    /// What had to happen.
    pub expect: Expect,
    /// What happened.
    pub got: Got,
    /// What happened, in words; some of them come from the other side.
    pub detail: String,
    /// Whether it is what had to happen.
    pub ok: bool,
}

/// What has to happen to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The request reaches its upstream.
    Passed,
    /// Egress refuses the request, and says so.
    Denied,
    /// There is no way there: nobody at the other end answers, not even with a refusal.
    Closed,
}

/// What happens to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Got {
    /// It arrived. A refused connection counts: only who was reached can refuse.
    Passed,
    /// Egress refused it, and said so.
    Denied,
    /// The network refused it here.
    Unreachable,
    /// No answer in the time there was.
    Silent,
    /// It could not be tried as meant, so nothing is known.
    Failed,
}

impl Check {
    /// Judges an attempt.
    #[must_use]
    pub fn new(name: &str, target: String, expect: Expect, got: Got, detail: String) -> Self {
        let ok = match expect {
            Expect::Passed => got == Got::Passed,
            Expect::Denied => got == Got::Denied,
            Expect::Closed => !matches!(got, Got::Passed | Got::Failed),
        };
        Self { name: name.to_owned(), target, expect, got, detail, ok }
    }

    /// Whether it got through although it had to stay out.
    #[must_use]
    pub fn open(&self) -> bool {
        self.expect != Expect::Passed && self.got == Got::Passed
    }
}

impl Verdict {
    /// Sums up a run.
    #[must_use]
    pub fn new(plan: Option<String>, ms: u64, checks: Vec<Check>) -> Self {
        let verdict = if checks.iter().any(Check::open) { Finding::Open } else { Finding::Closed };
        Self { plan, verdict, ms, checks }
    }

    /// The attempts that did not end as they had to.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expect: Expect, got: Got) -> Check {
        Check::new("x", "y".to_owned(), expect, got, String::new())
    }

    #[test]
    fn whatever_arrives_where_it_must_not_opens_the_bottle() {
        for expect in [Expect::Denied, Expect::Closed] {
            let verdict = Verdict::new(None, 1, vec![check(expect, Got::Passed)]);
            assert_eq!(verdict.verdict, Finding::Open);
            assert_eq!(verdict.failures().count(), 1);
        }
    }

    #[test]
    fn allowed_route_that_is_denied_fails_but_leaves_the_bottle_closed() {
        let verdict = Verdict::new(None, 1, vec![check(Expect::Passed, Got::Denied)]);
        assert_eq!(verdict.verdict, Finding::Closed);
        assert_eq!(verdict.failures().count(), 1);
    }

    #[test]
    fn what_could_not_be_tried_is_never_a_success() {
        for expect in [Expect::Passed, Expect::Denied, Expect::Closed] {
            assert!(!check(expect, Got::Failed).ok);
        }
    }

    #[test]
    fn silence_is_closed_but_is_no_denial() {
        assert!(check(Expect::Closed, Got::Silent).ok);
        assert!(!check(Expect::Denied, Got::Silent).ok);
    }
}
