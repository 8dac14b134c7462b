//! The proposals of one bottle: files, of which there are never more than may be open.
//!
//! Identical ones collapse, what comes too fast is counted and not kept, and what the operator has
//! answered, or nobody for a day, gives its place back; so an agent that floods it fills neither a
//! disk nor the operator's list.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;
use bottle::proposal::{self, Answer, Id, Proposal, Said, Settings, What};
use bottle::record::unix_now;
use bottle::run::say;
use bottle::story::{self, Event, Kind};
use bottle::{Blame, caller, no, state, strict};

use crate::TOOL;
use crate::pace::Pace;

/// How long the same proposal is not put to the operator again after a no, in seconds.
const REST: u64 = 60 * 60;

/// How many rejections are remembered for that.
const REMEMBERED: usize = 64;

/// The desk.
pub(crate) struct Desk {
    conf: PathBuf,
    run: PathBuf,
    papers: Mutex<Papers>,
}

/// What lies on it.
struct Papers {
    open: Vec<Proposal>,
    rejected: Vec<(Proposal, Answer)>,
    pace: Pace,
}

/// How a proposal stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody has decided yet.
    Open,
    /// Somebody has.
    Answered(Said),
    /// There is none, or none any more.
    Unknown,
}

impl Desk {
    /// Goes on with the proposals that an earlier process left.
    pub(crate) fn open(conf: &Path, run: &Path) -> Result<Self> {
        let folder = run.join("proposals");
        state::make_folder(&folder, None)?;
        let (files, _) = state::reports(&folder, proposal::MAX_OPEN as usize)?;
        let mut open = Vec::new();
        for (name, bytes) in files {
            let id = name.strip_suffix(".json").map(str::parse::<Id>);
            match (id, bytes) {
                (Some(Ok(id)), Ok(bytes)) => open.extend(Proposal::parse(&bytes, &id)),
                _ => state::remove(&folder.join(name))?,
            }
        }
        let papers = Papers { open, rejected: Vec::new(), pace: Pace::new(Instant::now()) };
        let desk = Self { conf: conf.to_owned(), run: run.to_owned(), papers: Mutex::new(papers) };
        desk.tidy();
        Ok(desk)
    }

    /// What the host says of this bottle.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let text = std::fs::read_to_string(self.conf.join("supervise.json"))
            .world("read 'supervise.json'")?;
        strict::json(&text, "supervise.json")
    }

    /// Puts a proposal before the operator; gives its id, and whether it lay there already.
    pub(crate) fn propose(&self, what: What, reason: &str) -> Result<(Id, bool)> {
        let asked = Proposal::new(what, reason, unix_now())?;
        let most = self.settings()?.max_open.min(proposal::MAX_OPEN) as usize;
        let mut papers = self.lock();
        if let Some(same) = papers.open.iter().find(|it| it.what == asked.what)
            && self.answer(&same.id)?.is_none()
        {
            return Ok((same.id.clone(), true));
        }
        self.clear(&mut papers);
        let now = asked.asked_at;
        papers.rejected.retain(|(_, answer)| answer.at.saturating_add(REST) > now);
        let refusal = papers.rejected.iter().find(|(it, _)| it.what == asked.what);
        if let Some((_, Answer { answer: Said::Rejected(words), .. })) = refusal {
            let words = words.clone();
            papers.pace.turn_away();
            return Err(no(format!("the operator has just rejected the same: {words}")));
        }
        if papers.open.len() >= most {
            papers.pace.turn_away();
            return Err(no(format!(
                "{most} proposals are open already, and no more may be: wait for an answer with 'proposal_status'"
            )));
        }
        if !papers.pace.take(Instant::now()) {
            papers.pace.turn_away();
            return Err(no(
                "proposals come too fast: put into one what belongs together, and wait some seconds",
            ));
        }
        self.keep(&asked)?;
        let id = asked.id.clone();
        papers.open.push(asked);
        Ok((id, false))
    }

    /// How a proposal stands.
    pub(crate) fn standing(&self, id: &Id) -> Result<Standing> {
        if let Some(answer) = self.answer(id)? {
            return Ok(Standing::Answered(answer.answer));
        }
        let is_open = self.lock().open.iter().any(|it| it.id == *id && !it.is_stale(unix_now()));
        Ok(if is_open { Standing::Open } else { Standing::Unknown })
    }

    /// The proposals that are open.
    pub(crate) fn all(&self) -> Vec<Proposal> {
        let mut papers = self.lock();
        self.clear(&mut papers);
        papers.open.clone()
    }

    /// Gives back the places of what is over, and tells what was turned away.
    pub(crate) fn tidy(&self) {
        let mut papers = self.lock();
        self.clear(&mut papers);
        if let Some(count) = papers.pace.tell(Instant::now()) {
            self.note(&Event { count: Some(count), ..Event::new(Kind::TurnedAway) });
        }
    }

    fn clear(&self, papers: &mut Papers) {
        let now = unix_now();
        let Papers { open, rejected, .. } = papers;
        open.retain(|proposal| {
            let answer = self.answer(&proposal.id).ok().flatten();
            if answer.is_none() && !proposal.is_stale(now) {
                return true;
            }
            match answer {
                None => self.note(&Event {
                    proposal: Some(proposal.id.clone()),
                    ..Event::new(Kind::Lapsed)
                }),
                Some(answer) => {
                    if matches!(answer.answer, Said::Rejected(_)) {
                        rejected.push((proposal.clone(), answer));
                    }
                }
            }
            if let Err(error) = state::remove(&self.path(&proposal.id)) {
                say(TOOL, &format!("{error:#}"));
            }
            false
        });
        let many = rejected.len().saturating_sub(REMEMBERED);
        rejected.drain(..many);
    }

    fn keep(&self, proposal: &Proposal) -> Result<()> {
        let mut text = serde_json::to_string(proposal).world("write a proposal")?;
        text.push('\n');
        if text.len() as u64 > state::MAX_REPORT {
            return Err(caller("it is too long: ask for less"));
        }
        state::write_unsynced(&self.path(&proposal.id), text.as_bytes(), 0o600, None)?;
        self.note(&Event {
            proposal: Some(proposal.id.clone()),
            allows: Some(proposal.what.to_line()),
            words: Some(proposal.reason.clone()),
            ..Event::new(Kind::Proposed)
        });
        Ok(())
    }

    fn note(&self, event: &Event) {
        if let Err(error) = event.append(&self.run.join(story::FILE)) {
            say(TOOL, &format!("{error:#}"));
        }
    }

    fn answer(&self, id: &Id) -> Result<Option<Answer>> {
        proposal::answer_at(&self.conf.join("answers"), id)
    }

    fn path(&self, id: &Id) -> PathBuf {
        self.run.join("proposals").join(format!("{id}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has a folder of its own")]
mod tests {
    use bottle::proposal::{VERSION, Wish};

    use super::*;

    fn desk(name: &str, max_open: u32) -> (PathBuf, Desk) {
        let base = std::env::temp_dir().join(format!("desk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(base.join("conf/answers")).unwrap();
        let settings = format!(r#"{{"version":1,"max_open":{max_open}}}"#);
        std::fs::write(base.join("conf/supervise.json"), settings).unwrap();
        let desk = Desk::open(&base.join("conf"), &base.join("run")).unwrap();
        (base, desk)
    }

    fn what(host: &str) -> What {
        What::Route(Wish { host, ..Wish::default() }.rule(None).unwrap())
    }

    fn answer(base: &Path, id: &Id, said: Said) {
        let answer = Answer { version: VERSION, id: id.clone(), at: unix_now(), answer: said };
        let text = serde_json::to_string(&answer).unwrap();
        std::fs::write(base.join(format!("conf/answers/{id}.json")), text).unwrap();
    }

    fn files(base: &Path) -> usize {
        std::fs::read_dir(base.join("run/proposals")).unwrap().count()
    }

    #[test]
    fn flood_keeps_no_more_than_may_be_open() {
        let (base, desk) = desk("flood", 3);
        let taken =
            (0..5000).filter(|n| desk.propose(what(&format!("h{n}.example")), "x").is_ok()).count();
        assert_eq!((taken, files(&base)), (3, 3));
        // The same again takes no place.
        for _ in 0..1000 {
            assert!(desk.propose(what("h0.example"), "another reason").unwrap().1);
        }
        assert_eq!(files(&base), 3);
        desk.tidy();
        let record = std::fs::read_to_string(base.join("run/record.jsonl")).unwrap();
        assert_eq!(record.lines().count(), 4, "{record}");
        assert!(record.lines().last().unwrap().contains(r#""count":4997"#), "{record}");
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn answer_gives_the_place_back_and_a_no_is_not_asked_again() {
        let (base, desk) = desk("answer", 1);
        let (id, _) = desk.propose(what("a.example"), "x").unwrap();
        assert!(desk.propose(what("b.example"), "x").is_err());
        assert_eq!(desk.standing(&id).unwrap(), Standing::Open);
        answer(&base, &id, Said::Rejected("not that one".to_owned()));
        let told = desk.propose(what("a.example"), "please").unwrap_err().to_string();
        assert!(told.contains("not that one"), "{told}");
        let (other, _) = desk.propose(what("b.example"), "x").unwrap();
        assert!(matches!(desk.standing(&id).unwrap(), Standing::Answered(Said::Rejected(_))));
        answer(&base, &other, Said::Approved("line".to_owned()));
        assert!(desk.all().is_empty());
        assert_eq!(files(&base), 0);
        assert_eq!(
            desk.standing(&"0123456789abcdef0123456789abcdef".parse().unwrap()).unwrap(),
            Standing::Unknown
        );
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn restart_goes_on_with_what_was_open() {
        let (base, desk) = desk("restart", 2);
        let (id, _) = desk.propose(what("a.example"), "x").unwrap();
        std::fs::write(base.join("run/proposals/odd"), "odd").unwrap();
        let desk = Desk::open(&base.join("conf"), &base.join("run")).unwrap();
        assert_eq!(desk.propose(what("a.example"), "x").unwrap(), (id, true));
        assert_eq!(files(&base), 1);
        std::fs::remove_dir_all(base).unwrap();
    }
}
