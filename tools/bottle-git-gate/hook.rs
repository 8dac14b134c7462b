//! `pre-receive`: git calls it when all of a push has arrived, apart from the repository, and before
//! anything of it is kept. It judges the push, passes it on to upstream, and lets git keep it only
//! where upstream has it.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bottle::error::{Blame, visible, world};
use bottle::gate::{Kind, Remote, Rule, Update};
use bottle::run::say;

use crate::commits::{Commits, Refusal};
use crate::conf::Force;
use crate::git::{CONF, DATA, Git, REMOTE, RUN, words};
use crate::{grants, journal};

/// What the lines begin with that the agent reads.
const SAYS: &str = "bottle";

/// How long upstream may take for a push.
const PUSH: Duration = Duration::from_mins(20);

/// Most lines of one refusal that are told.
const LINES: usize = 12;

/// Judges a push.
pub(crate) fn run() -> ExitCode {
    match judge() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(SAYS, &format!("refused by rule 'gate': {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Result<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).ok_or_else(|| world(format!("find '{name}'")))
}

fn judge() -> Result<bool> {
    let (conf, run, data) = (variable(CONF)?, variable(RUN)?, variable(DATA)?);
    let name = std::env::var(REMOTE).world("find the remote")?;
    // As it is now, not when the push began.
    let force = Force::read(&conf)?;
    let updates = updates(std::io::stdin().lock())?;
    let mut line = journal::line(Kind::Push, &name, &force);
    line.updates.clone_from(&updates);
    let git = Git::of_hook();
    let outcome = match force.gate.remote(&name) {
        Some(remote) => check(&git, remote, &updates, &run, &data),
        None => Ok(Err(refusal(Rule::Remote, "it is no remote any more"))),
    };
    let outcome = outcome.unwrap_or_else(|error| Err(refusal(Rule::Gate, &format!("{error:#}"))));
    match &outcome {
        Ok(grants) => line.grants = grants.iter().map(|grant| grant.clone().into()).collect(),
        Err(refusal) => journal::refuse(&mut line, refusal.rule, &refusal.why),
    }
    // Before anything leaves.
    journal::record(&run, &line)?;
    let used = match outcome {
        Ok(used) => used,
        Err(refusal) => {
            tell(&refusal);
            return Ok(false);
        }
    };
    let Some(remote) = force.gate.remote(&name) else { return Ok(false) };
    let passed = pass_on(&git, remote, &updates);
    // What upstream may have is as good as what it has.
    let counted = match &passed {
        Ok((Err(_), true)) => grants::give_back(&run, remote, &used),
        _ => grants::settle(&run, remote, &used),
    };
    let (said, _) = passed?;
    if let Err(error) = counted {
        say(SAYS, &format!("{error:#}"));
    }
    line.kind = Kind::Upstream;
    line.time = bottle::record::now().into();
    if let Err(refusal) = &said {
        journal::refuse(&mut line, refusal.rule, &refusal.why);
    }
    let written = journal::record(&run, &line);
    match said {
        Ok(words) => {
            // Upstream has it, whatever else.
            if let Err(error) = written {
                say(SAYS, &format!("{error:#}"));
            }
            for line in &words {
                say("upstream", line);
            }
            Ok(true)
        }
        Err(refusal) => {
            tell(&refusal);
            Ok(false)
        }
    }
}

/// What is to be changed, as git tells it.
fn updates(stdin: impl BufRead) -> Result<Vec<Update>> {
    let update = |line: std::io::Result<String>| {
        let line = line.world("read what is pushed")?;
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        match (words.next(), words.next(), words.next()) {
            (Some(old), Some(new), Some(name)) => Ok(Update { name, old, new }),
            _ => Err(world("read what is pushed: git speaks differently")),
        }
    };
    stdin.lines().map(update).collect()
}

/// The checks, the cheap ones first; last, the grants that it needs are counted.
fn check(
    git: &Git,
    remote: &Remote,
    updates: &[Update],
    run: &Path,
    data: &Path,
) -> Result<Result<Vec<String>, Refusal>> {
    let remote = &grants::open(run, remote)?;
    let commits = Commits { git, remote, updates };
    let used = match commits.refs()? {
        Ok(used) => used,
        refused => return Ok(refused),
    };
    let checks: [&dyn Fn() -> Result<Option<Refusal>>; 5] = [
        &|| commits.growth(),
        &|| commits.size(),
        &|| commits.protected(),
        &|| commits.signed(),
        &|| commits.secrets(data),
    ];
    for check in checks {
        if let Some(refusal) = check()? {
            return Ok(Err(refusal));
        }
    }
    if !grants::take(run, remote, &used)? {
        return Ok(Err(refusal(Rule::Push, "the grant for it has ended")));
    }
    Ok(Ok(used))
}

/// Pushes to upstream, all of it or nothing; gives what upstream says to it, and whether a no is
/// upstream's own, so that it has nothing of it.
fn pass_on(
    git: &Git,
    remote: &Remote,
    updates: &[Update],
) -> Result<(Result<Vec<String>, Refusal>, bool)> {
    let specs: Vec<String> = updates.iter().map(|it| format!("{}:{}", it.new, it.name)).collect();
    let mut args = vec!["push", "--porcelain", "--no-verify", "--no-progress"];
    if updates.len() > 1 {
        args.push("--atomic");
    }
    args.extend(["--", remote.url.as_str()]);
    args.extend(specs.iter().map(String::as_str));
    let said = git.run(&args, b"", PUSH)?;
    if said.status.success() {
        let told = said.stderr.lines().filter(|line| line.starts_with("remote:"));
        return Ok((Ok(told.flat_map(words).collect()), true));
    }
    let mut why = words(&said.stderr);
    why.retain(|line| !line.starts_with("failed to push some refs to"));
    let mut is_certain = false;
    for line in String::from_utf8_lossy(&said.stdout).lines() {
        // Not so '[remote failure]', where upstream has not reported.
        is_certain |= line.contains("\t[remote rejected]") || line.contains("\t[rejected]");
        if let Some(rest) = line.strip_prefix("!\t") {
            let (names, reason) = rest.split_once('\t').unwrap_or((rest, ""));
            let name = names.split_once(':').map_or(names, |(_, name)| name);
            why.push(format!("{name}: {reason}"));
        }
    }
    if why.is_empty() {
        why.push("it said nothing".to_owned());
    }
    Ok((Err(Refusal { rule: Rule::Upstream, why }), is_certain))
}

fn refusal(rule: Rule, why: &str) -> Refusal {
    Refusal { rule, why: vec![why.to_owned()] }
}

/// Tells the agent why.
fn tell(refusal: &Refusal) {
    let rule = refusal.rule.as_str();
    for why in refusal.why.iter().take(LINES) {
        say(SAYS, &format!("refused by rule '{rule}': {}", visible(why)));
    }
    if let more @ 1.. = refusal.why.len().saturating_sub(LINES) {
        say(SAYS, &format!("and {more} more"));
    }
    say(SAYS, "nothing of this push was kept");
}
