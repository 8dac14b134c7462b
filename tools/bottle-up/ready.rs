//! Ready means that a sidecar said so: `loaded.json` with the digest of the policy that was
//! rendered. What it says is a claim, read with care; the self-test is the proof. pipelock is not
//! ours and writes no such file: it is asked for its health by its own program, run in its own
//! container, because the host does not reach the bridge of every engine, and because a health check
//! of Compose asks only once a second, and then for as long as the bottle lives.

use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::docker::{Docker, PATIENCE, complaint};
use bottle::error::visible;
use bottle::policy::Loaded;
use bottle::render::{AGENT, GIT_GATE, PIPELOCK, SSH_AGENT, container};
use bottle::run::say;
use bottle::state::sha256_hex;
use bottle::{Blame, gate, report, world};

use crate::TOOL;
use crate::job::Job;

/// How often the file is looked for.
const TICK: Duration = Duration::from_millis(2);
/// How often the engine is asked whether the sidecar still runs; it rarely has to be.
const PULSE: Duration = Duration::from_millis(200);
/// How often pipelock is asked; each question starts a program.
const ASK: Duration = Duration::from_millis(20);
/// How many lines of its log a dead sidecar leaves.
const LAST_WORDS: &str = "10";

/// Waits until a sidecar serves; gives the generation of its policy.
pub(crate) fn wait(docker: &Docker, job: &Job, service: &str, limit: Duration) -> Result<u64> {
    until(docker, job, service, limit, || serves(job, service))
}

/// Waits until the keeper of keys has taken them, and serves.
pub(crate) fn keys(docker: &Docker, job: &Job, limit: Duration) -> Result<()> {
    until(docker, job, SSH_AGENT, limit, || Ok(keeps(job)?.then_some(())))
}

fn until<T>(
    docker: &Docker,
    job: &Job,
    service: &str,
    limit: Duration,
    said: impl Fn() -> Result<Option<T>>,
) -> Result<T> {
    let what = format!("wait for sidecar '{service}'");
    let begun = Instant::now();
    let mut pulse = begun + PULSE;
    loop {
        if let Some(said) = said().world(&what)? {
            return Ok(said);
        }
        let now = Instant::now();
        if now < pulse {
            std::thread::sleep(TICK);
            continue;
        }
        pulse = now + PULSE;
        if let Some(why) = ended(docker, job, service)? {
            return Err(world(format!("{what}: {why}")));
        }
        if begun.elapsed() < limit {
            continue;
        }
        let last = match loaded(job, service)?.and_then(|loaded| loaded.refused) {
            Some(refused) => format!("it refused the policy: {}", visible(&refused.error)),
            None => last_words(docker, job, service)?,
        };
        let limit = limit.as_secs();
        return Err(world(format!("{what}: it did not say in {limit} s that it serves: {last}")));
    }
}

/// Refuses an agent that has ended. The commonest cause is an image without a `sleep` that knows
/// `infinity`.
pub(crate) fn agent(docker: &Docker, job: &Job) -> Result<()> {
    match ended(docker, job, AGENT)? {
        Some(why) => {
            Err(world(format!("start the agent: {why}: its image needs 'sleep infinity'")))
        }
        None => Ok(()),
    }
}

/// Waits until pipelock is healthy. It read its file, key and certificate before it listened, so
/// what it serves by is what was rendered.
pub(crate) fn health(docker: &Docker, job: &Job, limit: Duration) -> Result<()> {
    let what = format!("wait for sidecar '{PIPELOCK}'");
    let begun = Instant::now();
    while !is_healthy(docker, job)? {
        if let Some(why) = ended(docker, job, PIPELOCK)? {
            return Err(world(format!("{what}: {why}")));
        }
        if begun.elapsed() > limit {
            let (limit, last) = (limit.as_secs(), last_words(docker, job, PIPELOCK)?);
            return Err(world(format!(
                "{what}: it did not say in {limit} s that it is healthy: {last}"
            )));
        }
        std::thread::sleep(ASK);
    }
    Ok(())
}

/// Whether the keeper of keys has taken those that it was told of.
fn keeps(job: &Job) -> Result<bool> {
    let path = job.keys();
    let told = std::fs::read(&path).world(format!("read '{}'", path.display()))?;
    Ok(loaded(job, SSH_AGENT)?.is_some_and(|loaded| loaded.sha256 == sha256_hex(&told)))
}

/// Whether pipelock says that it is healthy.
fn is_healthy(docker: &Docker, job: &Job) -> Result<bool> {
    let name = container(&job.render.compose_project, PIPELOCK);
    // Its image may be the owner's, so its program is the one that runs.
    let program = docker.text(&["inspect", "--format", "{{.Path}}", &name])?;
    let asked = docker.start(&["exec", &name, &program, "healthcheck"])?.output(PATIENCE)?;
    Ok(asked.status.success())
}

/// Whether a sidecar that runs serves what was rendered.
pub(crate) fn is_ready(docker: &Docker, job: &Job, service: &str) -> Result<bool> {
    match service {
        PIPELOCK => is_healthy(docker, job),
        SSH_AGENT => keeps(job),
        _ => Ok(serves(job, service)?.is_some()),
    }
}

/// Lets the git gate try what it needs, and ask itself something.
pub(crate) fn attempt(docker: &Docker, job: &Job) -> Result<()> {
    let name = container(&job.render.compose_project, GIT_GATE);
    let address = format!("{}:{}", job.net.internal.git_gate, gate::PORT);
    let asked = docker.start(&["exec", &name, "bottle-git-gate", "try", &address])?;
    asked.text(PATIENCE).map(drop).world(format!("try sidecar '{GIT_GATE}'"))
}

/// How a container ended, with its last words; `None` while it runs.
fn ended(docker: &Docker, job: &Job, service: &str) -> Result<Option<String>> {
    let name = container(&job.render.compose_project, service);
    let format = "{{.State.Status}} {{.State.ExitCode}}";
    let state = docker.text(&["inspect", "--format", format, &name])?;
    match state.split_once(' ') {
        Some(("exited" | "dead", code)) => {
            let last = last_words(docker, job, service)?;
            Ok(Some(format!("it ended with {code}: {last}")))
        }
        _ => Ok(None),
    }
}

/// The generation that a sidecar serves, if it is the policy that was rendered.
fn serves(job: &Job, service: &str) -> Result<Option<u64>> {
    let loaded = loaded(job, service)?;
    let wanted = match service {
        GIT_GATE => job.render.gate_sha256.as_ref(),
        _ => Some(&job.render.routes_sha256),
    };
    let same = loaded.filter(|loaded| Some(&loaded.sha256) == wanted);
    Ok(same.map(|loaded| loaded.generation))
}

/// What a sidecar says that it has loaded.
fn loaded(job: &Job, service: &str) -> Result<Option<Loaded>> {
    report::loaded(&job.render.state, service)
}

/// Shows the end of a container's log, and gives its last line.
fn last_words(docker: &Docker, job: &Job, service: &str) -> Result<String> {
    let name = container(&job.render.compose_project, service);
    let output = docker.start(&["logs", "--tail", LAST_WORDS, &name])?.output(PATIENCE)?;
    if !output.status.success() {
        return Ok(complaint(&String::from_utf8_lossy(&output.stderr)));
    }
    let log = [output.stdout, output.stderr].concat();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let Some((last, before)) = lines.split_last() else {
        return Ok("it logged nothing".to_owned());
    };
    for line in before {
        say(TOOL, &format!("{service}: {line}"));
    }
    Ok(visible(last))
}
