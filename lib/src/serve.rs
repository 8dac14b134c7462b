//! What this version cannot serve yet. Nothing of a plan is silently left out.

use crate::error::caller;
use crate::plan::{Engine, Plan};
use anyhow::Result;

/// Refuses a plan that asks for what no sidecar serves yet, naming all of it.
pub fn check(plan: &Plan) -> Result<()> {
    let asked = [
        ("egress.engine: mitmproxy", plan.egress.engine == Engine::Mitmproxy),
        ("git", !plan.git.is_empty()),
        ("ssh", !plan.ssh.is_empty()),
        ("supervise", plan.supervise.as_ref().is_some_and(|supervise| supervise.enabled)),
    ];
    let asked: Vec<&str> = asked.iter().filter(|(_, asks)| *asks).map(|(name, _)| *name).collect();
    if asked.is_empty() {
        return Ok(());
    }
    Err(caller(format!(
        "serve the plan: this version cannot serve '{}' yet: take it out of bottle '{}' in the manifest",
        asked.join("', '"),
        plan.bottle
    )))
}
