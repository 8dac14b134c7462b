//! Grants: what an operator has approved while a bottle runs, `grants/ID.json` each; an overlay on
//! the plan, which stays as it is.
//!
//! A grant holds from when every sidecar has acknowledged it until it ends; what has ended stays so,
//! and no file is ever removed, so that nothing that is put back revives one. Sidecars end grants
//! themselves; [`settle`] writes down what they tell, which can end a grant and never lengthen one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::{Blame, caller, no};
use crate::gate::{self, Push};
use crate::plan::Plan;
use crate::policy::{End, Rule, Spents, Term, check_together};
use crate::proposal::{Id, Proposal, VERSION, What};
use crate::record::{time_of, unix_now};
use crate::render::{EGRESS, GIT_GATE};
use crate::seal::check_known;
use crate::story::{self, Event};
use crate::{state, strict};

/// The most grants that one bottle has, ended ones included: what egress tells of them has to fit
/// into one report.
pub const MOST: usize = 400;

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// 1.
    pub version: u32,
    /// The proposal's id; with a number, where that one was approved before and it did not come into
    /// force.
    pub id: String,
    /// The proposal.
    pub proposal: Id,
    /// The agent's reason.
    pub reason: String,
    /// What is allowed: no more than was proposed.
    pub what: What,
    /// When it was granted, in seconds of Unix time.
    pub granted_at: u64,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// How many requests it allows, all in all; of a git ref, how many pushes that upstream takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// Whether every sidecar has acknowledged it.
    pub in_force: bool,
    /// How many requests it has allowed, where they are counted.
    #[serde(default, skip_serializing_if = "strict::is_default")]
    pub used: u64,
    /// How it ended; not set while it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
}

/// How long a grant is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Length {
    /// Seconds from now.
    pub seconds: Option<u64>,
    /// Requests, or pushes.
    pub uses: Option<u64>,
    /// The first push that upstream takes ends it.
    pub until_push: bool,
}

impl Grant {
    /// A grant of what was proposed, or of less, which does not hold yet.
    pub fn new(folder: &Path, proposal: &Proposal, what: What, length: Length) -> Result<Self> {
        if length.until_push && !matches!(what, What::GitRef(_)) {
            return Err(caller(format!(
                "approve '{}': '--until-push' is for a git ref: write '--for', '--uses' or '--forever'",
                proposal.id
            )));
        }
        let before = all(folder)?;
        if before.len() >= MOST {
            return Err(no(format!(
                "approve '{}': this bottle has had {MOST} grants: write what it needs into its manifest, and use 'bottle-apply'",
                proposal.id
            )));
        }
        let times = before.iter().filter(|grant| grant.proposal == proposal.id).count();
        let id = match times {
            0 => proposal.id.to_string(),
            n => format!("{}-{}", proposal.id, n + 1),
        };
        let now = unix_now();
        Ok(Self {
            version: VERSION,
            id,
            proposal: proposal.id.clone(),
            reason: proposal.reason.clone(),
            what,
            granted_at: now,
            expires: length.seconds.map(|seconds| now.saturating_add(seconds)),
            uses: if length.until_push { Some(1) } else { length.uses },
            in_force: false,
            used: 0,
            end: None,
            ended_at: None,
        })
    }

    /// Writes it.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let folder = grants_in(folder);
        state::make_folder(&folder, None)?;
        let mut text = serde_json::to_string_pretty(self).world("write a grant")?;
        text.push('\n');
        state::write(&folder.join(format!("{}.json", self.id)), text.as_bytes(), 0o600, None)
    }

    /// Ends it and says so in the record. What has ended stays as it is.
    pub fn finish(
        &mut self,
        folder: &Path,
        end: End,
        at: u64,
        words: Option<String>,
    ) -> Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        (self.end, self.ended_at) = (Some(end), Some(at));
        self.write(folder)?;
        let mut event = Event { words, ..self.event(end.into()) };
        if end == End::Expired {
            event.time = time_of(at).replace('Z', ".000Z");
        }
        event.append(&story::path(folder))
    }

    /// Something that happens to it now.
    #[must_use]
    pub fn event(&self, kind: story::Kind) -> Event {
        Event {
            proposal: Some(self.proposal.clone()),
            grant: Some(self.id.clone()),
            allows: Some(self.to_line()),
            ..Event::new(kind)
        }
    }

    fn term(&self) -> Term {
        Term { id: self.id.clone(), expires: self.expires, uses: self.uses }
    }

    /// The rule that egress enforces, where it is one.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        match &self.what {
            What::Route(rule) | What::SecretUse(rule) => {
                Some(Rule { grant: Some(self.term()), ..rule.clone() })
            }
            What::GitRef(_) => None,
        }
    }

    /// What the git gate lets through, where it is that: the remote's name and the refs.
    #[must_use]
    pub fn push(&self) -> Option<(&str, Push)> {
        let What::GitRef(asked) = &self.what else { return None };
        let (refs, grant) = (asked.refs.clone(), Some(self.id.clone()));
        Some((&asked.remote, Push { refs, grant, until: self.expires, uses: self.uses }))
    }

    /// What it allows, and for how long.
    #[must_use]
    pub fn to_line(&self) -> String {
        if let Some(rule) = self.rule() {
            return crate::error::visible(&rule.to_line());
        }
        let term = self.term().described_for("push", "pushes");
        format!("{}, by {term}", self.what.to_line())
    }

    /// Whether it can hold beside a plan, whose secrets and passages may have changed.
    fn fits(&self, plan: &Plan) -> Result<()> {
        if let Some((name, _)) = self.push()
            && !plan.git.iter().any(|remote| remote.name == name)
        {
            return Err(caller(format!("git remote '{name}' is none of this bottle")));
        }
        let mut rules = with_pushes(plan, std::slice::from_ref(self)).rules()?;
        if let Some(rule) = self.rule() {
            if let Some(inject) = &rule.inject {
                check_known(&inject.secret, &plan.secrets)?;
            }
            rules.push(rule);
        }
        check_together(&rules)
    }
}

/// The plan with what may be pushed by grants too: what egress has to let the git gate do.
fn with_pushes(plan: &Plan, held: &[Grant]) -> Plan {
    let mut plan = plan.clone();
    for (name, push) in held.iter().filter_map(Grant::push) {
        for remote in plan.git.iter_mut().filter(|remote| remote.name == name) {
            remote.push.push(push.refs.clone());
        }
    }
    plan
}

/// All grants of the bottle in `folder`, the oldest first.
pub fn all(folder: &Path) -> Result<Vec<Grant>> {
    let folder = grants_in(folder);
    let mut found = Vec::new();
    for name in state::names(&folder)? {
        if name.starts_with('.') || name.strip_suffix(".json").is_none() {
            continue;
        }
        let path = folder.join(&name);
        let what = || format!("read '{}'", path.display());
        let text = fs::read_to_string(&path).world(what())?;
        found.push(strict::json::<Grant>(&text, "grant").world(what())?);
    }
    found.sort_by(|a, b| (a.granted_at, &a.id).cmp(&(b.granted_at, &b.id)));
    Ok(found)
}

/// The rules of a plan and, after them, those of the grants that hold beside it; with one that is
/// about to.
pub fn rules(folder: &Path, plan: &Plan, coming: Option<&Grant>) -> Result<Vec<Rule>> {
    let held = held(folder, plan, coming)?;
    let mut rules = with_pushes(plan, &held).rules()?;
    rules.extend(held.iter().filter_map(Grant::rule));
    Ok(rules)
}

/// What the git gate is told of each remote: what the plan lets it push and, after that, what the
/// grants do that hold beside it; with one that is about to.
pub fn remotes(folder: &Path, plan: &Plan, coming: Option<&Grant>) -> Result<Vec<gate::Remote>> {
    let mut remotes: Vec<gate::Remote> = plan.git.iter().map(gate::Remote::of).collect();
    let held = held(folder, plan, coming)?;
    for (name, push) in held.iter().filter_map(Grant::push) {
        remotes.iter_mut().filter(|it| it.name == name).for_each(|it| it.push.push(push.clone()));
    }
    Ok(remotes)
}

/// The grants that hold beside a plan, and one that is about to.
fn held(folder: &Path, plan: &Plan, coming: Option<&Grant>) -> Result<Vec<Grant>> {
    let found = all(folder)?.into_iter().filter(|grant| grant.in_force && grant.end.is_none());
    let mut held = Vec::new();
    for grant in found.chain(coming.cloned()) {
        match grant.fits(plan) {
            Ok(()) => held.push(grant),
            // The one that is asked for now has to fit; the others rest.
            Err(error) if coming.is_some_and(|it| it.id == grant.id) => {
                return Err(error).caller(format!("approve '{}'", grant.proposal));
            }
            Err(_) => {}
        }
    }
    Ok(held)
}

/// Writes down which grants of the bottle in `folder` have ended, as the clock and its sidecars tell.
/// The lock of the bottle is held.
pub fn settle(folder: &Path) -> Result<()> {
    let [of_egress, of_gate] = [EGRESS, GIT_GATE].map(|it| spent(folder, it).unwrap_or_default());
    let now = unix_now();
    for mut grant in all(folder)? {
        if grant.end.is_some() {
            continue;
        }
        if !grant.in_force {
            // Of a tool that was killed.
            grant.finish(folder, End::NotInForce, now, None)?;
            continue;
        }
        // Each sidecar tells of its own grants alone.
        let told = if grant.push().is_some() { &of_gate } else { &of_egress };
        let said = told.grants.get(&grant.id).cloned().unwrap_or_default();
        if said.used > grant.used {
            grant.used = said.used;
            grant.write(folder)?;
        }
        if let Some(end) = grant.expires.filter(|end| *end <= now) {
            grant.finish(folder, End::Expired, end, None)?;
        } else if let Some(end) = said.end {
            grant.finish(folder, end, said.at.unwrap_or(now).min(now), None)?;
        }
    }
    Ok(())
}

/// What a sidecar tells of grants.
fn spent(folder: &Path, service: &str) -> Result<Spents> {
    let path = folder.join(service).join("run/grants.json");
    let Some(bytes) = state::read_report(&path)? else { return Ok(Spents::default()) };
    strict::json(&String::from_utf8_lossy(&bytes), "grants.json")
}

fn grants_in(folder: &Path) -> PathBuf {
    folder.join("grants")
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has a folder of its own")]
mod tests {
    use super::*;
    use crate::proposal::{GitRef, Wish};

    fn bottle(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("grant-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("supervise")).unwrap();
        fs::create_dir_all(folder.join("egress/run")).unwrap();
        folder
    }

    fn plan() -> Plan {
        strict::json(
            r#"{"digest":"sha256:0","agent":"a","bottle":"b","image":"i","resources":{"pids":9},
                "egress":{"engine":"embedded"},"selftest":"off"}"#,
            "plan",
        )
        .unwrap()
    }

    fn granted(folder: &Path, length: Length) -> Grant {
        let rule = Wish { host: "a.example", ..Wish::default() }.rule(None).unwrap();
        let asked = Proposal::new(What::Route(rule), "because", 1).unwrap();
        let mut grant = Grant::new(folder, &asked, asked.what.clone(), length).unwrap();
        grant.in_force = true;
        grant.write(folder).unwrap();
        grant
    }

    fn held(folder: &Path) -> usize {
        settle(folder).unwrap();
        rules(folder, &plan(), None).unwrap().len()
    }

    #[test]
    fn what_has_ended_is_over_for_good() {
        let folder = bottle("ended");
        let grant = granted(&folder, Length { uses: Some(2), ..Length::default() });
        assert_eq!(held(&folder), 1);
        let told = folder.join("egress/run/grants.json");
        let says = |text: &str| {
            fs::write(&told, text.replace("ID", &grant.id)).unwrap();
            held(&folder)
        };
        assert_eq!(says(r#"{"grants":{"ID":{"used":1}}}"#), 1);
        assert_eq!(says(r#"{"grants":{"ID":{"used":2,"end":"used-up","at":7}}}"#), 0);
        // Whatever is told later.
        assert_eq!(says(r#"{"grants":{"ID":{}}}"#), 0);
        fs::remove_file(&told).unwrap();
        assert_eq!(held(&folder), 0);
        let events = story::all(&folder).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].event, story::Kind::UsedUp);
        // The next approval of the same proposal is another grant.
        let next = granted(&folder, Length::default());
        assert!(next.id.ends_with("-2"));
        next.rule().unwrap().check().unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn sidecar_that_lies_lengthens_nothing() {
        let folder = bottle("lies");
        let grant = granted(&folder, Length { seconds: Some(0), ..Length::default() });
        let told = format!(r#"{{"grants":{{"{}":{{"used":0,"at":99999999999}}}}}}"#, grant.id);
        fs::write(folder.join("egress/run/grants.json"), told).unwrap();
        assert_eq!(held(&folder), 0);
        fs::write(folder.join("egress/run/grants.json"), "not json").unwrap();
        assert_eq!(held(&folder), 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn grant_that_was_never_acknowledged_does_not_hold() {
        let folder = bottle("pending");
        let mut grant = granted(&folder, Length::default());
        grant.in_force = false;
        grant.write(&folder).unwrap();
        assert_eq!(rules(&folder, &plan(), None).unwrap().len(), 0);
        assert_eq!(rules(&folder, &plan(), Some(&grant)).unwrap().len(), 1);
        assert_eq!(held(&folder), 0);
        assert_eq!(all(&folder).unwrap()[0].end, Some(End::NotInForce));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn granted_push_is_told_to_the_gate_and_opens_its_way() {
        let folder = bottle("push");
        fs::create_dir_all(folder.join("git-gate/run")).unwrap();
        let mut plan = plan();
        let remote = r#"{"name":"origin","url":"https://git.example/a"}"#;
        plan.git.push(strict::json(remote, "remote").unwrap());
        let asked = GitRef { remote: "origin".into(), refs: "refs/heads/x".into() };
        let asked = Proposal::new(What::GitRef(asked), "because", 1).unwrap();
        let length = Length { until_push: true, ..Length::default() };
        let mut grant = Grant::new(&folder, &asked, asked.what.clone(), length).unwrap();
        let state = |coming: Option<&Grant>| {
            let pushes = remotes(&folder, &plan, coming).unwrap()[0].push.len();
            let rules = rules(&folder, &plan, coming).unwrap();
            let way = rules[0].paths.iter().any(|path| path.ends_with("/git-receive-pack"));
            (rules.len(), pushes, way)
        };
        assert_eq!(state(None), (1, 0, false));
        assert_eq!(state(Some(&grant)), (1, 1, true));
        grant.in_force = true;
        grant.write(&folder).unwrap();
        assert_eq!(state(None), (1, 1, true));
        let line = grant.to_line();
        let (_, end) = line.split_once(", by grant '").unwrap();
        assert!(end.ends_with("' for one push"), "{line}");
        // Egress has nothing to say of it.
        let told = format!(r#"{{"grants":{{"{}":{{"used":1,"end":"pushed","at":7}}}}}}"#, grant.id);
        fs::write(folder.join("egress/run/grants.json"), &told).unwrap();
        settle(&folder).unwrap();
        assert_eq!(state(None), (1, 1, true));
        fs::write(folder.join("git-gate/run/grants.json"), &told).unwrap();
        settle(&folder).unwrap();
        assert_eq!(state(None), (1, 0, false));
        assert_eq!(story::all(&folder).unwrap()[0].event, story::Kind::Pushed);
        // For a remote that is none there is no grant, and for a route no push to wait for.
        let other = GitRef { remote: "other".into(), refs: "refs/heads/x".into() };
        let other = Proposal::new(What::GitRef(other), "because", 1).unwrap();
        let other = Grant::new(&folder, &other, other.what.clone(), length).unwrap();
        let told = format!("{:#}", rules(&folder, &plan, Some(&other)).unwrap_err());
        assert!(told.contains("git remote 'other' is none"), "{told}");
        let route = Wish { host: "a.example", ..Wish::default() }.rule(None).unwrap();
        let route = Proposal::new(What::Route(route), "because", 1).unwrap();
        assert!(Grant::new(&folder, &route, route.what.clone(), length).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
