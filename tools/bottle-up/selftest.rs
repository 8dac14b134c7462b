//! The first self-test: the probe, in the agent's own network, tries what an agent might.

use std::time::Instant;

use anyhow::Result;
use bottle::docker::{self, Call, Docker, PATIENCE, complaint, label};
use bottle::plan::Selftest;
use bottle::policy::{HostKind, Rule};
use bottle::render::{AGENT, PROXY_PORT, container};
use bottle::run::say;
use bottle::verdict::{Check, Expect, Got, Verdict};
use bottle::{Blame, strict, world};

use crate::job::Job;
use crate::{TOOL, ready};

/// Milliseconds in which nothing may answer that must not. What is near answers within one, also on
/// a loaded machine, because its kernel does.
const SILENCE: &str = "100";

/// A verdict, and what it took.
pub(crate) struct Tested {
    pub(crate) verdict: Verdict,
    pub(crate) ms: u64,
}

/// The container of the probe. It is made while Compose makes the others, which costs the start
/// nothing, and started once they serve.
pub(crate) struct Probe<'a> {
    docker: &'a Docker,
    job: &'a Job,
    made: Call,
    enforce: bool,
}

impl<'a> Probe<'a> {
    /// Begins to make it; `None` where the plan wants no self-test.
    pub(crate) fn make(docker: &'a Docker, job: &'a Job) -> Result<Option<Self>> {
        let enforce = match job.plan.selftest {
            Selftest::Off => return Ok(None),
            Selftest::Warn => false,
            Selftest::Enforce => true,
        };
        let made = docker.start(&arguments(job))?;
        Ok(Some(Self { docker, job, made, enforce }))
    }

    /// Runs the self-test and judges it. `None`: it could not be run, and need not.
    pub(crate) fn run(self) -> Result<Option<Tested>> {
        let Self { docker, job, made, enforce } = self;
        let begun = Instant::now();
        let tested = verdict(docker, job, made).map(|verdict| Tested {
            verdict,
            ms: begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
        });
        match tested {
            Ok(tested) => {
                judge(&tested.verdict, enforce)?;
                Ok(Some(tested))
            }
            Err(error) if enforce => Err(error),
            Err(error) => {
                say(TOOL, &format!("warning: {error:#}"));
                Ok(None)
            }
        }
    }

    /// Removes it unused. The error that led here is the one to tell, and reap finds the container
    /// by its label.
    pub(crate) fn discard(self) {
        let id = self.made.text(PATIENCE);
        let _ = id.and_then(|id| self.docker.text(&["rm", "--force", &id]));
    }
}

/// Starts the probe's container, which then removes itself, and reads what it says.
fn verdict(docker: &Docker, job: &Job, made: Call) -> Result<Verdict> {
    let id = made.text(PATIENCE).world("make the self-test")?;
    let output = docker.start(&["start", "--attach", &id])?.output(PATIENCE)?;
    if !matches!(output.status.code(), Some(0 | 1)) || output.stdout.is_empty() {
        // It was never started, and does not remove itself.
        let _ = docker.text(&["rm", "--force", &id]);
        ready::agent(docker, job)?;
        let told = complaint(&String::from_utf8_lossy(&output.stderr));
        return Err(world(format!("run the self-test: {told}")));
    }
    let verdict: Verdict = strict::json(&String::from_utf8_lossy(&output.stdout), "verdict")
        .world("read the verdict of the self-test")?;
    if verdict.plan.as_ref() != Some(&job.plan.digest) {
        return Err(world("read the verdict of the self-test: it is of another plan"));
    }
    Ok(verdict)
}

/// Everything that went otherwise than it had to is told; what matters ends the start.
fn judge(verdict: &Verdict, enforce: bool) -> Result<()> {
    let failures: Vec<&Check> = verdict.failures().collect();
    let (grave, light): (Vec<&Check>, Vec<&Check>) =
        failures.into_iter().partition(|check| grave(check));
    // An allowed server that does not answer is its own trouble, not the bottle's.
    for check in light.iter().chain(grave.iter().filter(|_| !enforce)) {
        say(TOOL, &format!("warning: self-test: {}", described(check)));
    }
    if !enforce || grave.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = grave.iter().map(|check| described(check)).collect();
    Err(world(format!("self-test: {}: look into it with --keep", told.join(", "))))
}

fn grave(check: &Check) -> bool {
    check.expect != Expect::Passed || check.got == Got::Denied
}

fn described(check: &Check) -> String {
    let got = match check.got {
        Got::Passed => "was open",
        Got::Denied => "was denied",
        Got::Unreachable | Got::Silent => "did not answer",
        Got::Failed => "could not be tried",
    };
    let detail =
        if check.detail.is_empty() { String::new() } else { format!(" ({})", check.detail) };
    format!("{} '{}' {got}{detail}", check.name, check.target)
}

/// `docker create` of the probe in the network of the agent, as the agent.
fn arguments(job: &Job) -> Vec<String> {
    let project = &job.render.compose_project;
    let conf = job.render.state.join("agent/conf");
    let mut args: Vec<String> = [
        "create",
        "--rm",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges:true",
        "--pids-limit",
        "64",
        "--memory",
        "64m",
    ]
    .map(str::to_owned)
    .into();
    let mut add = |name: &str, value: String| args.extend([name.to_owned(), value]);
    add("--network", format!("container:{}", container(project, AGENT)));
    add("--user", job.render.user.clone());
    if job.net.engine.as_ref().is_some_and(|engine| engine.selinux) {
        // The folder is labelled for the agent alone.
        add("--security-opt", "label=disable".to_owned());
    }
    let labels = [
        (label::SLUG, job.slug.as_str()),
        (label::PROJECT, project),
        (label::PLAN, &job.plan.digest),
        (label::OWNER, "none"),
    ];
    for (name, value) in labels {
        add("--label", format!("{name}={value}"));
    }
    add("--mount", format!("type=bind,readonly,destination=/etc/bottle,{}", source(&conf)));
    args.push(docker::image("probe"));
    args.extend(["check", "--json", "--ca", "/etc/bottle/ca.pem"].map(str::to_owned));
    let mut add = |name: &str, value: String| args.extend([name.to_owned(), value]);
    add("--plan", job.plan.digest.clone());
    add("--proxy", format!("http://{}:{PROXY_PORT}", job.net.internal.egress));
    add("--timeout-ms", SILENCE.to_owned());
    add("--host", job.net.bridge.gateway.to_string());
    for address in &job.net.host_addresses {
        add("--host", address.to_string());
    }
    if let Some(allowed) = job.plan.egress.routes.iter().find_map(harmless) {
        add("--allowed", allowed);
    }
    args
}

/// A field of `--mount`, which is read as CSV.
fn source(path: &std::path::Path) -> String {
    format!("\"source={}\"", path.display().to_string().replace('"', "\"\""))
}

/// A request that a rule allows and that changes nothing, as the probe takes it; `None` where the
/// rule has no such.
fn harmless(rule: &Rule) -> Option<String> {
    let method = ["HEAD", "GET"]
        .into_iter()
        .find(|method| rule.methods.is_empty() || rule.methods.iter().any(|m| m == method))?;
    let path = match rule.paths.iter().find(|path| !path.contains('*')) {
        Some(path) => path.as_str(),
        None if rule.paths.is_empty() => "/",
        None => return None,
    };
    let host = match rule.kind {
        HostKind::Wildcard | HostKind::Network | HostKind::PrivateNetwork => return None,
        _ if rule.host.contains(':') => format!("[{}]", rule.host),
        _ => rule.host.clone(),
    };
    let port = *rule.ports.first()?;
    let scheme = if port == 80 { "http" } else { "https" };
    Some(format!("{method}={scheme}://{host}:{port}{path}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(rule: serde_json::Value) -> Option<String> {
        harmless(&serde_json::from_value(rule).unwrap())
    }

    #[test]
    fn only_a_request_that_changes_nothing_is_tried() {
        let name = json!({ "host": "api.example.com", "kind": "name", "ports": [443, 8443] });
        assert_eq!(asked(name.clone()).unwrap(), "HEAD=https://api.example.com:443/");
        let mut rule = name.clone();
        rule["methods"] = json!(["GET", "POST"]);
        rule["paths"] = json!(["/v1/**", "/health"]);
        assert_eq!(asked(rule.clone()).unwrap(), "GET=https://api.example.com:443/health");
        rule["paths"] = json!(["/v1/**"]);
        assert_eq!(asked(rule), None);
        let mut rule = name;
        rule["methods"] = json!(["POST"]);
        assert_eq!(asked(rule), None);
        let wildcard = json!({ "host": "*.example.com", "kind": "wildcard", "ports": [443] });
        assert_eq!(asked(wildcard), None);
        let address = json!({ "host": "2001:db8::1", "kind": "address", "ports": [80] });
        assert_eq!(asked(address).unwrap(), "HEAD=http://[2001:db8::1]:80/");
    }

    fn judged(expect: Expect, got: Got, enforce: bool) -> Result<()> {
        let check = Check::new("direct TCP", "192.0.2.1:443".into(), expect, got, "why".into());
        judge(&Verdict::new(None, 1, vec![check]), enforce)
    }

    #[test]
    fn whatever_is_open_or_denied_against_the_plan_ends_an_enforced_start() {
        for (expect, got) in [
            (Expect::Closed, Got::Passed),
            (Expect::Denied, Got::Passed),
            (Expect::Denied, Got::Failed),
            (Expect::Passed, Got::Denied),
        ] {
            assert!(judged(expect, got, true).is_err(), "{expect:?} {got:?}");
            assert!(judged(expect, got, false).is_ok(), "{expect:?} {got:?}");
        }
        let error = judged(Expect::Closed, Got::Passed, true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "self-test: direct TCP '192.0.2.1:443' was open (why): look into it with --keep"
        );
    }

    #[test]
    fn allowed_server_that_does_not_answer_is_only_told() {
        for got in [Got::Silent, Got::Failed, Got::Unreachable] {
            assert!(judged(Expect::Passed, got, true).is_ok(), "{got:?}");
        }
    }
}
