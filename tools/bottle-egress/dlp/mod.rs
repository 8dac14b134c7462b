//! The scan of what leaves.

use hyper::http::request::Parts;

use crate::conf::Force;
use crate::reply::Refusal;

/// Looks at a request's URL and headers, before a credential is added.
#[expect(clippy::unnecessary_wraps, reason = "a request may hold what must not leave")]
pub(crate) fn head(_force: &Force, _rule: usize, _parts: &Parts) -> Result<(), Refusal> {
    Ok(())
}

/// The scan of a request's body, where `rule` wants one.
pub(crate) fn body(_force: &Force, _rule: usize, _parts: &Parts) -> Option<Box<Scan>> {
    None
}

/// The scan of one body.
pub(crate) struct Scan(());

#[expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "a body may hold what must not leave"
)]
impl Scan {
    /// Looks at the next bytes; after an error neither they nor what follows leave.
    pub(crate) fn look(&mut self, _bytes: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }

    /// Looks at what only the end shows.
    pub(crate) fn end(&mut self) -> Result<(), Refusal> {
        Ok(())
    }
}
