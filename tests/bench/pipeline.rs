//! The pipeline without an engine against three `cat`s.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Bench;
use crate::report::{Aim, Report};

/// Measures `pipeline_vs_cat`.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let manifest = json!({
        "version": 1,
        "bottles": { "dev": { "image": "bottle-probe", "egress": { "routes": [
            { "host": "api.example.com", "methods": ["GET", "POST"], "paths": ["/v1/**"] },
            { "host": "*.example.org" },
            { "host": "registry.example.net", "ports": [443, 8443] },
        ] } } },
        "agents": { "implementer": { "bottle": "dev" } },
    });
    let manifest_file = folder.path().join("bottle.yaml");
    std::fs::write(&manifest_file, serde_json::to_string_pretty(&manifest)?)?;
    let ours = || -> Vec<Command> {
        let mut plan = Command::new(bench.bin("bottle-plan"));
        plan.arg("implementer").arg("-f").arg(&manifest_file);
        let mut net = Command::new(bench.bin("bottle-net"));
        net.arg("--dry-run");
        let mut render = Command::new(bench.bin("bottle-render"));
        render.arg("--dry-run");
        let mut all = vec![plan, net, render];
        for command in &mut all {
            command.env("BOTTLE_STATE", folder.path().join("state")).current_dir(folder.path());
            // Else every error that is made and then answered costs a walk through the stack.
            command.env_remove("RUST_BACKTRACE");
        }
        all
    };
    let cats = || -> Vec<Command> {
        let mut first = Command::new("cat");
        first.arg(&manifest_file);
        vec![first, Command::new("cat"), Command::new("cat")]
    };
    let rounds = if bench.quick { 50 } else { 400 };
    let (mut tools, mut cat) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            tools.push(run(ours())?.0);
            cat.push(run(cats())?.0);
        } else {
            cat.push(run(cats())?.0);
            tools.push(run(ours())?.0);
        }
    }
    report.ratio("pipeline_vs_cat", &tools, &cat, "ms", Aim::AtMost(1.0));
    Ok(())
}

/// Milliseconds from the start of the first to the end of the last, and what the last one wrote. No
/// shell in between, which would add the same to both sides.
pub(crate) fn run(mut pipeline: Vec<Command>) -> Result<(f64, String)> {
    let begin = Instant::now();
    let mut children: Vec<Child> = Vec::new();
    for command in &mut pipeline {
        let stdin = match children.last_mut() {
            Some(before) => before.stdout.take().context("take a pipe")?.into(),
            None => Stdio::null(),
        };
        children.push(command.stdin(stdin).stdout(Stdio::piped()).spawn()?);
    }
    let mut text = String::new();
    if let Some(mut last) = children.last_mut().and_then(|child| child.stdout.take()) {
        last.read_to_string(&mut text)?;
    }
    for (child, command) in children.iter_mut().zip(&pipeline) {
        let status = child.wait()?;
        ensure!(status.success(), "{} ended with {status}", command.get_program().display());
    }
    Ok((begin.elapsed().as_secs_f64() * 1e3, text))
}
