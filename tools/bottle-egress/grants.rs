//! Grants: rules that end, by the clock or by their uses, whether or not a tool of the host lives.
//!
//! What has been used and what has ended is in `grants.json` of the run folder before a request is
//! let through, so that neither new rules nor a restart give any of it back; and a clock that is put
//! back revives nothing. Where that file cannot be read or written, the grants are what gives way.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bottle::error::Blame;
use bottle::policy::{End, Policy, Reason, Spent, Spents, Term};
use bottle::record::unix_now;
use bottle::run::say;
use bottle::{state, strict};

use crate::reply::Refusal;

/// What of grants is known here.
pub(crate) struct Grants {
    path: PathBuf,
    spent: Mutex<Spents>,
}

impl Grants {
    /// Goes on where the last egress of this bottle ended.
    pub(crate) fn open(run: &Path) -> Result<Self> {
        let path = run.join("grants.json");
        let spent = match state::read_report(&path)? {
            None => Spents::default(),
            Some(bytes) => strict::json(&String::from_utf8_lossy(&bytes), "grants.json")
                .world("read what is left of the grants")?,
        };
        Ok(Self { path, spent: Mutex::new(spent) })
    }

    /// Whether a grant allows no request any more.
    pub(crate) fn has_ended(&self, term: &Term) -> bool {
        self.has_expired(term)
            || self.lock().grants.get(&term.id).is_some_and(|it| is_used(it, term))
    }

    /// Whether a grant's time is over. What was let through by it is not cut off because it was the
    /// last one.
    pub(crate) fn has_expired(&self, term: &Term) -> bool {
        if term.expires.is_some_and(|end| end <= unix_now()) {
            return true;
        }
        let spent = self.lock();
        spent.grants.get(&term.id).is_some_and(|it| it.end.is_some_and(|end| end != End::UsedUp))
    }

    /// Takes one use of a grant; the request may go only where there was one.
    pub(crate) fn take(&self, term: &Term) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal { reason: Reason::Grant, why });
        if self.has_expired(term) {
            return refuse(format!("{} has ended: propose it again", term.described()));
        }
        let Some(uses) = term.uses else { return Ok(()) };
        let mut spent = self.lock();
        let before = spent.grants.get(&term.id).cloned().unwrap_or_default();
        if is_used(&before, term) {
            return refuse(format!("{} is used up: propose it again", term.described()));
        }
        let mut after = Spent { used: before.used + 1, ..before.clone() };
        if after.used >= uses {
            (after.end, after.at) = (Some(End::UsedUp), Some(unix_now()));
        }
        spent.grants.insert(term.id.clone(), after);
        if let Err(error) = self.write(&spent) {
            spent.grants.insert(term.id.clone(), before);
            say("bottle-egress", &format!("{error:#}"));
            return refuse(format!(
                "the uses of {} cannot be written down at the moment: try again",
                term.described()
            ));
        }
        Ok(())
    }

    /// Notes which grants of a policy have ended by the clock; whether there were any.
    pub(crate) fn sweep(&self, policy: &Policy) -> bool {
        let now = unix_now();
        let terms = policy.routes().routes.iter().filter_map(|rule| rule.grant.as_ref());
        let mut over: Vec<&Term> =
            terms.filter(|term| term.expires.is_some_and(|end| end <= now)).collect();
        if over.is_empty() {
            return false;
        }
        let mut spent = self.lock();
        over.retain(|term| spent.grants.get(&term.id).is_none_or(|it| it.end.is_none()));
        if over.is_empty() {
            return false;
        }
        for term in over {
            let it = spent.grants.entry(term.id.clone()).or_default();
            (it.end, it.at) = (Some(End::Expired), term.expires);
        }
        // Tried again with the next one: the clock ends them in any case.
        if let Err(error) = self.write(&spent) {
            say("bottle-egress", &format!("{error:#}"));
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Spents> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, spent: &Spents) -> Result<()> {
        let mut text = serde_json::to_string(spent).world("write 'grants.json'")?;
        text.push('\n');
        state::write_unsynced(&self.path, text.as_bytes(), 0o600, None)
    }
}

/// The end of something that goes on.
pub(crate) struct Ends {
    pub(crate) grants: Arc<Grants>,
    pub(crate) term: Term,
}

impl Ends {
    /// Why nothing more leaves, once that is so.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.grants.has_expired(&self.term).then(|| Refusal {
            reason: Reason::Grant,
            why: format!("{} has ended: propose it again", self.term.described()),
        })
    }
}

fn is_used(spent: &Spent, term: &Term) -> bool {
    spent.end.is_some() || term.uses.is_some_and(|uses| spent.used >= uses)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has a folder of its own")]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("grants-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn term(uses: Option<u64>, expires: Option<u64>) -> Term {
        Term { id: "a1".to_owned(), expires, uses }
    }

    #[test]
    fn uses_outlive_a_restart_and_no_new_rules_raise_them() {
        let folder = folder("restart");
        let three = term(Some(3), None);
        let grants = Grants::open(&folder).unwrap();
        assert!(grants.take(&three).is_ok() && grants.take(&three).is_ok());
        let grants = Grants::open(&folder).unwrap();
        assert!(!grants.has_ended(&three));
        assert!(grants.take(&three).is_ok());
        assert!(grants.has_ended(&three) && grants.take(&three).is_err());
        // What is under way by the last one goes on.
        assert!(!grants.has_expired(&three));
        let more = term(Some(9), None);
        assert!(grants.has_ended(&more) && grants.take(&more).is_err());
        assert!(Grants::open(&folder).unwrap().has_ended(&more));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn many_at_once_take_no_more_than_there_are() {
        let folder = folder("race");
        let (grants, five) = (Grants::open(&folder).unwrap(), term(Some(5), None));
        let taken: usize = std::thread::scope(|scope| {
            let crowd: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..5).filter(|_| grants.take(&five).is_ok()).count()))
                .collect();
            crowd.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(taken, 5);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn use_that_cannot_be_written_down_is_refused() {
        let folder = folder("unwritable");
        let (grants, five) = (Grants::open(&folder).unwrap(), term(Some(5), None));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(grants.take(&five).is_err());
        std::fs::create_dir(&folder).unwrap();
        assert!(grants.take(&five).is_ok());
        std::fs::write(folder.join("grants.json"), "{").unwrap();
        assert!(Grants::open(&folder).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn clock_that_is_put_back_revives_nothing() {
        let folder = folder("clock");
        let grants = Grants::open(&folder).unwrap();
        let over = term(None, Some(unix_now() - 1));
        let yaml = |expires: u64| {
            let text = format!(
                "version: 1\ngeneration: 1\nplan: x\nbottle: x\nnames: {{}}\nroutes:\n  - {{host: a.example, kind: name, ports: [443], grant: {{id: a1, expires: {expires}}}}}\n# end\n"
            );
            crate::conf::policy(text.as_bytes()).unwrap()
        };
        assert!(grants.has_expired(&over));
        assert!(grants.sweep(&yaml(unix_now() - 1)) && !grants.sweep(&yaml(unix_now() - 1)));
        // As the rule looks to a clock of an hour ago.
        let later = term(None, Some(unix_now() + 3600));
        assert!(grants.has_expired(&later) && grants.take(&later).is_err());
        assert!(Grants::open(&folder).unwrap().has_ended(&later));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
