//! The credential that a rule adds to a request, after all checks and just before it leaves.

use hyper::http::request::Parts;

use crate::conf::Force;
use crate::reply::Refusal;

/// Adds the credential of `rule`, if it has one.
#[expect(clippy::unnecessary_wraps, reason = "a credential may be missing")]
pub(crate) fn add(_force: &Force, _rule: usize, _parts: &mut Parts) -> Result<(), Refusal> {
    Ok(())
}
