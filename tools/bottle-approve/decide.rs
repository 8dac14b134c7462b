//! A decision, as one transaction under the bottle's lock: either all of it holds and is written
//! down, or the proposal stays open.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bottle::docker::Docker;
use bottle::grant::{self, Grant, Length};
use bottle::live::{Live, Next};
use bottle::policy::End;
use bottle::proposal::{self, Answer, Id, MAX_WORDS, Proposal, Said, VERSION, What, narrow};
use bottle::record::unix_now;
use bottle::run::say;
use bottle::state::{self, Lock, State};
use bottle::story::{self, Event, Kind};
use bottle::{Blame, Slug, caller, no};

use crate::TOOL;

/// How long another tool may hold the bottle's lock.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What is approved of a proposal, where it is less than all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Less<'a> {
    pub(crate) host: Option<&'a str>,
    pub(crate) methods: &'a [String],
    pub(crate) paths: &'a [String],
    pub(crate) refs: Option<&'a str>,
}

impl Less<'_> {
    pub(crate) fn is_set(&self) -> bool {
        self.refs.is_some() || self.is_of_rule()
    }

    fn is_of_rule(&self) -> bool {
        self.host.is_some() || !self.methods.is_empty() || !self.paths.is_empty()
    }

    /// That part of what was asked for.
    fn of(&self, what: &What) -> Result<What> {
        let rule = |rule| match self.refs {
            Some(_) => Err(caller("narrow it: '--ref' is for a git ref")),
            None => narrow(rule, self.host, self.methods, self.paths),
        };
        match what {
            What::Route(it) => rule(it).map(What::Route),
            What::SecretUse(it) => rule(it).map(What::SecretUse),
            What::GitRef(_) if self.is_of_rule() => {
                Err(caller("narrow it: it is a git ref, which '--ref' narrows"))
            }
            What::GitRef(it) => it.narrow(self.refs).map(What::GitRef),
        }
    }
}

/// Where decisions about one bottle are made.
pub(crate) struct Desk<'a> {
    pub(crate) state: &'a State,
    pub(crate) slug: &'a Slug,
    /// How long a sidecar may take.
    pub(crate) limit: Duration,
}

impl Desk<'_> {
    /// Approves a proposal, or a part of it.
    pub(crate) fn approve(&self, id: &Id, less: &Less, length: Length) -> Result<Grant> {
        let (live, folder, _lock) = self.live()?;
        let proposal = open(&folder, id)?;
        let what = less.of(&proposal.what)?;
        what.check()?;
        let mut grant = Grant::new(&folder, &proposal, what, length)?;
        let next = live.next(&live.plan, Some(&grant))?;
        live.keeps_pipelock(&live.plan, &next)?;
        let docker = Docker::find()?;
        grant.write(&folder)?;
        match self.bring(&live, &docker, &next, &mut grant, &folder) {
            Ok(()) => Ok(grant),
            Err(error) => {
                let taken_back = state::remove(&answer_path(&folder, id)).and_then(|()| {
                    grant.in_force = false;
                    grant.finish(&folder, End::NotInForce, unix_now(), None)
                });
                if let Err(error) = taken_back {
                    say(TOOL, &format!("take the grant back: {error:#}"));
                }
                Err(error).world(format!("approve '{id}': it is taken back, and stays open"))
            }
        }
    }

    /// Puts a grant in force, writes that down, and tells the agent.
    fn bring(
        &self,
        live: &Live,
        docker: &Docker,
        next: &Next,
        grant: &mut Grant,
        folder: &Path,
    ) -> Result<()> {
        let section = live.put(docker, next, self.limit)?;
        let mut write = || -> Result<()> {
            live.note(&live.plan, section.generation)?;
            grant.in_force = true;
            grant.write(folder)?;
            answer(folder, &grant.proposal, Said::Approved(grant.to_line()))?;
            let words = Some(grant.reason.clone());
            Event { words, ..grant.event(Kind::Approved) }.append(&story::path(folder))
        };
        write().inspect_err(|_| live.back(docker, self.limit))
    }

    /// Rejects a proposal.
    pub(crate) fn reject(&self, id: &Id, words: &str) -> Result<()> {
        let words = words.trim();
        if words.is_empty() || words.chars().count() > MAX_WORDS {
            return Err(caller(format!("reject '{id}': say why, in 1 to {MAX_WORDS} characters")));
        }
        let (_, folder, _lock) = self.live()?;
        let proposal = open(&folder, id)?;
        answer(&folder, id, Said::Rejected(words.to_owned()))?;
        Event {
            proposal: Some(id.clone()),
            allows: Some(proposal.what.to_line()),
            words: Some(words.to_owned()),
            ..Event::new(Kind::Rejected)
        }
        .append(&story::path(&folder))
    }

    /// Takes back what was approved of a proposal.
    pub(crate) fn revoke(&self, id: &Id) -> Result<()> {
        let (live, folder, _lock) = self.live()?;
        let mut held = grant::all(&folder)?;
        held.retain(|grant| grant.proposal == *id && grant.end.is_none());
        if held.is_empty() {
            return Err(no(format!("revoke '{id}': no grant of it holds: see --story")));
        }
        for grant in &mut held {
            grant.finish(&folder, End::Revoked, unix_now(), None)?;
        }
        let next = live.next(&live.plan, None)?;
        live.take_back(&Docker::find()?, &next, self.limit).map(drop).world(format!(
            "revoke '{id}': it is written down, but whether every sidecar goes by it is unknown: to be sure, stop the bottle"
        ))
    }

    /// The bottle, which is up and locked from now on.
    fn live(&self) -> Result<(Live, PathBuf, Lock)> {
        let slug = self.slug;
        let away = || no(format!("decide for bottle '{slug}': it is not up: see 'bottle ps'"));
        let folder = self.state.bottle(slug);
        // Taking the lock would make the folder of a bottle that never was.
        if !Live::is_up(&folder)? {
            return Err(away());
        }
        let lock = self.state.lock(slug, PATIENCE)?;
        let live = Live::read(TOOL, &folder)?.ok_or_else(away)?;
        live.check_plan()?;
        if live.plan.supervised().is_none() {
            return Err(no(format!(
                "decide for bottle '{slug}': it has no 'supervise': nothing is proposed there"
            )));
        }
        grant::settle(&folder)?;
        Ok((live, folder, lock))
    }
}

/// A proposal that nobody has decided about.
fn open(folder: &Path, id: &Id) -> Result<Proposal> {
    if proposal::answer(folder, id)?.is_some() {
        return Err(no(format!("decide about '{id}': that is done: see --story")));
    }
    let proposal = proposal::one(folder, id)?;
    if proposal.is_stale(unix_now()) {
        return Err(no(format!(
            "decide about '{id}': it is older than a day: the agent can propose it again"
        )));
    }
    Ok(proposal)
}

fn answer_path(folder: &Path, id: &Id) -> PathBuf {
    proposal::answers_in(folder).join(format!("{id}.json"))
}

/// Writes an answer for the sidecar to read.
fn answer(folder: &Path, id: &Id, said: Said) -> Result<()> {
    let place = proposal::answers_in(folder);
    let found =
        std::fs::symlink_metadata(&place).world(format!("look at '{}'", place.display()))?;
    let answer = Answer { version: VERSION, id: id.clone(), at: unix_now(), answer: said };
    let mut text = serde_json::to_string(&answer).world("write an answer")?;
    text.push('\n');
    let ids = Some((found.uid(), found.gid()));
    state::write_unsynced(&answer_path(folder, id), text.as_bytes(), 0o600, ids)
}
