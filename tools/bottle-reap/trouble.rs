//! What went wrong, gathered: a step that fails does not stop the next one.

use anyhow::Result;
use bottle::world;

/// Failures, in order, each one line.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Vec<String>);

impl Trouble {
    /// Notes a failure; the value where there is none.
    pub(crate) fn note<T>(&mut self, doing: &str, outcome: Result<T>) -> Option<T> {
        outcome.inspect_err(|error| self.0.push(format!("{doing}: {error:#}"))).ok()
    }

    /// Adds those of another.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// All of them as one error, if there is any.
    pub(crate) fn report(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(world(self.0.join("; "))) }
    }
}
