//! Removes what the engine is still making after Compose gave up: where one container cannot be
//! made, Compose ends without waiting for the others, and the engine goes on with them.

use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::docker::{Docker, PATIENCE, complaint, label};
use bottle::{Blame, world};

use crate::job::Job;

/// How long the engine may take to make one container.
const LIMIT: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(50);

/// Sees to it that no container of a service is there or on its way. The engine reserves the name
/// of a container when it begins to make it, and lists it only at the end; so whoever can take the
/// name knows that nobody else is at it.
pub(crate) fn sweep(docker: &Docker, job: &Job, service: &str, image: &str) -> Result<()> {
    let name = bottle::render::container(&job.render.compose_project, service);
    let end = Instant::now() + LIMIT;
    loop {
        let taken = take(docker, job, &name, image)?;
        let removed = docker.start(&["rm", "--force", "--volumes", &name])?.output(PATIENCE)?;
        let told = String::from_utf8_lossy(&removed.stderr);
        match removed.status.success() || told.contains("No such container") {
            true if taken => return Ok(()),
            true if Instant::now() < end => std::thread::sleep(TICK),
            true => return Err(world(format!("remove '{name}': the engine is still making it"))),
            false => return Err(world(format!("remove '{name}': {}", complaint(&told)))),
        }
    }
}

/// Takes the name by a container that never runs; `false` where it is somebody's.
fn take(docker: &Docker, job: &Job, name: &str, image: &str) -> Result<bool> {
    let project = format!("{}={}", label::PROJECT, job.render.compose_project);
    let slug = format!("{}={}", label::SLUG, job.slug);
    let args = [
        "create",
        "--pull",
        "never",
        "--name",
        name,
        "--network",
        "none",
        "--label",
        &project,
        "--label",
        &slug,
        image,
        "true",
    ];
    let made = docker.start(&args)?.output(PATIENCE)?;
    if made.status.success() {
        return Ok(true);
    }
    let told = String::from_utf8_lossy(&made.stderr);
    if told.contains("is already in use") {
        return Ok(false);
    }
    // Then nobody else is making one of it either.
    if told.contains("No such image") {
        return Ok(true);
    }
    Err(world(complaint(&told))).world(format!("take the name '{name}'"))
}
