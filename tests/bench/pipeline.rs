//! The pipeline without an engine against three `cat`s.

use std::fs::File;
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
            tools.push(time(ours())?);
            cat.push(time(cats())?);
        } else {
            cat.push(time(cats())?);
            tools.push(time(ours())?);
        }
    }
    report.ratio("pipeline_vs_cat", &tools, &cat, "ms", Aim::AtMost(1.0));
    Ok(())
}

/// Milliseconds from the start of the first to the end of the last; no shell in between, which would
/// add the same to both.
fn time(mut pipeline: Vec<Command>) -> Result<f64> {
    let begin = Instant::now();
    let mut children: Vec<Child> = Vec::new();
    let last = pipeline.len() - 1;
    for (at, command) in pipeline.iter_mut().enumerate() {
        let stdin = match children.last_mut() {
            Some(before) => before.stdout.take().context("take a pipe")?.into(),
            None => Stdio::null(),
        };
        let stdout = if at == last {
            File::options().write(true).open("/dev/null")?.into()
        } else {
            Stdio::piped()
        };
        children.push(command.stdin(stdin).stdout(stdout).spawn()?);
    }
    for mut child in children {
        ensure!(child.wait()?.success(), "a tool of the pipeline failed");
    }
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}
