//! One proposal, for a person or for a program.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;
use bottle::error::visible;
use bottle::gate::{Remote, refs};
use bottle::plan::Plan;
use bottle::policy::{HostKind, Rule, gained};
use bottle::proposal::{GitRef, LIFE, Proposal, What};
use bottle::record::{time_of, unix_now};
use bottle::{Slug, world};
use serde::Serialize;

/// What there is to know about a proposal.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// The bottle.
    bottle: String,
    /// The proposal.
    pub(crate) id: String,
    /// Its kind.
    kind: &'static str,
    /// When it was made, RFC 3339.
    asked_at: String,
    /// Until when it is open.
    open_until: String,
    /// Why, in the agent's words.
    reason: String,
    /// What could be done that cannot be done now, as in a plan's `egress.allow` or its `push`.
    adds: Vec<String>,
    /// What can be done with the same host or remote already.
    has: Vec<String>,
    /// What to look at twice.
    notes: Vec<String>,
    #[serde(skip)]
    age: u64,
}

impl Shown {
    /// A proposal beside what is in force.
    pub(crate) fn of(
        slug: &Slug,
        proposal: &Proposal,
        plan: &Plan,
        rules: &[Rule],
        remotes: &[Remote],
    ) -> Self {
        let change = match &proposal.what {
            What::Route(rule) | What::SecretUse(rule) => Change::of_rule(rule, plan, rules),
            What::GitRef(asked) => Change::of_ref(asked, remotes),
        };
        Self {
            bottle: slug.to_string(),
            id: proposal.id.to_string(),
            kind: proposal.what.kind(),
            asked_at: time_of(proposal.asked_at),
            open_until: time_of(proposal.asked_at.saturating_add(LIFE)),
            reason: proposal.reason.clone(),
            adds: change.adds,
            has: change.has,
            notes: change.notes,
            age: unix_now().saturating_sub(proposal.asked_at),
        }
    }

    /// Some lines, with that many characters of the reason.
    pub(crate) fn text(&self, most: usize) -> String {
        let mut text = format!("{} {}  {}, {}\n", self.bottle, self.id, self.kind, ago(self.age));
        // Writing to a string cannot fail.
        let mut reason: String = self.reason.chars().take(most).collect();
        if reason.len() < self.reason.len() {
            reason.push('…');
        }
        let _ = writeln!(text, "  why: {}", visible(&reason));
        for line in &self.has {
            let _ = writeln!(text, "    {line}");
        }
        if self.adds.is_empty() {
            text.push_str("  = nothing that is not allowed already\n");
        }
        for line in &self.adds {
            let _ = writeln!(text, "  + {line}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "  ! {note}");
        }
        text
    }
}

/// What a proposal would change.
struct Change {
    adds: Vec<String>,
    has: Vec<String>,
    notes: Vec<String>,
}

impl Change {
    fn of_rule(rule: &Rule, plan: &Plan, rules: &[Rule]) -> Self {
        let line = |rule: &Rule| visible(&rule.to_line());
        let near = |other: &&Rule| {
            other.host == rule.host
                || (other.kind == HostKind::Wildcard && rule.host.ends_with(&other.host[1..]))
                || (rule.kind == HostKind::Wildcard && other.host.ends_with(&rule.host[1..]))
        };
        // What is only granted for a while counts as not there.
        let mut after: Vec<Rule> = rules.iter().filter(|it| it.grant.is_none()).cloned().collect();
        let before = after.clone();
        after.push(rule.clone());
        let adds = gained(&before, &after).into_iter().map(|gain| match gain.was {
            None => line(&gain.rule),
            Some((field, was)) => format!("{} (was {field} {})", line(&gain.rule), visible(&was)),
        });
        Self {
            adds: adds.collect(),
            has: rules.iter().filter(near).map(line).collect(),
            notes: notes(rule, plan),
        }
    }

    fn of_ref(asked: &GitRef, remotes: &[Remote]) -> Self {
        let Some(remote) = remotes.iter().find(|it| it.name == asked.remote) else {
            let notes = vec!["a git remote that this bottle does not have".to_owned()];
            return Self { adds: Vec::new(), has: Vec::new(), notes };
        };
        let line = |refs: &str| visible(&format!("push '{refs}' to '{}'", remote.url));
        let plain = |refs: &str| refs::Pattern::parse(refs).is_ok_and(|it| it.covers(&asked.refs));
        // What is only granted for a while counts as not there.
        let is_there = remote
            .push
            .iter()
            .any(|it| it.grant.is_none() && (it.refs == asked.refs || plain(&it.refs)));
        let mut notes = Vec::new();
        if remote.push.iter().all(|it| it.grant.is_some()) {
            notes.push("a remote that is only fetched from".to_owned());
        }
        if asked.refs.ends_with("/**") {
            notes.push("every ref below that".to_owned());
        }
        Self {
            adds: if is_there { Vec::new() } else { vec![line(&asked.refs)] },
            has: remote.push.iter().map(|it| line(&it.refs)).collect(),
            notes,
        }
    }
}

/// What to look at twice.
fn notes(rule: &Rule, plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(inject) = &rule.inject {
        let before = plan.egress.routes.iter().any(|it| {
            it.host == rule.host && it.inject.as_ref().is_some_and(|i| i.secret == inject.secret)
        });
        let name = visible(&inject.secret);
        if !before {
            notes.push(format!("secret '{name}' has not been sent to this host before"));
        }
    }
    match rule.kind {
        HostKind::Wildcard => notes.push("all subdomains".to_owned()),
        HostKind::PrivateAddress | HostKind::PrivateNetwork | HostKind::SingleLabel => {
            notes.push("a host that is not public".to_owned());
        }
        HostKind::Network => notes.push("a whole network".to_owned()),
        HostKind::Name | HostKind::Address => {}
    }
    if !rule.addresses.is_empty() {
        notes.push("private addresses behind a name".to_owned());
    }
    if rule.methods.is_empty() {
        notes.push("every method".to_owned());
    }
    if rule.paths.is_empty() {
        notes.push("every path".to_owned());
    }
    notes
}

/// How long ago something was.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}

/// Writes to stdout. A reader that went away has had what it wanted.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(world(format!("write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}
