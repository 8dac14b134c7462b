//! What this version cannot serve yet. Nothing of a plan is silently left out.

use crate::error::caller;
use crate::plan::{Engine, Plan};
use anyhow::Result;

/// Refuses a plan that asks for what no sidecar serves yet, naming all of it.
pub fn check(plan: &Plan) -> Result<()> {
    let rules = &plan.egress.routes;
    let mitmproxy = plan.egress.engine == Engine::Mitmproxy;
    let asked = [
        ("egress.engine: mitmproxy with pipelock", mitmproxy && plan.pipelock.is_some()),
        (
            "egress.engine: mitmproxy with egress.routes: passthrough",
            mitmproxy && rules.iter().any(|rule| rule.passthrough),
        ),
        ("egress.engine: mitmproxy with supervise", mitmproxy && plan.supervised().is_some()),
        ("egress.engine: mitmproxy with git", mitmproxy && !plan.git.is_empty()),
        ("egress.engine: mitmproxy with ssh", mitmproxy && !plan.ssh.is_empty()),
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
