//! What is allowed now, in words: the rules that the host shows here, without the grants that have
//! ended.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bottle::error::visible;
use bottle::gate::{self, Gate, refs};
use bottle::policy::{Policy, Routes, Rule, Spents, Term, check_together};
use bottle::proposal::{GitRef, What};
use bottle::record::unix_now;
use bottle::strict::did_you_mean;
use bottle::{Blame, caller, no, state, strict};

/// The most rules that are listed at once.
const LISTED: usize = 200;

/// The rules in force.
pub(crate) struct Rules {
    conf: PathBuf,
    egress: PathBuf,
}

impl Rules {
    pub(crate) fn new(conf: &Path, egress: &Path) -> Self {
        Self { conf: conf.to_owned(), egress: egress.to_owned() }
    }

    /// The bytes of `routes.yaml`.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        std::fs::read(self.conf.join("routes.yaml")).world("read 'routes.yaml'")
    }

    /// The rules that hold now.
    pub(crate) fn read(&self) -> Result<Routes> {
        let mut routes = Routes::parse(&self.bytes()?)?;
        let spent = self.spent();
        routes.routes.retain(|rule| !rule.grant.as_ref().is_some_and(|it| has_ended(&spent, it)));
        Ok(routes)
    }

    /// The policy with all rules, and whether one of its grants has ended.
    pub(crate) fn policy(&self) -> Result<(Policy, impl Fn(&Term) -> bool + use<>)> {
        let policy = Policy::new(Routes::parse(&self.bytes()?)?)?;
        let spent = self.spent();
        Ok((policy, move |term: &Term| has_ended(&spent, term)))
    }

    /// The `gate.json` in force, where there is a git gate.
    fn gate(&self) -> Result<Option<Gate>> {
        let what = "read 'gate.json'";
        match std::fs::read(self.conf.join(gate::FILE)) {
            Ok(bytes) => Gate::parse(&bytes).world(what).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).world(what),
        }
    }

    /// Refuses what would change nothing or cannot be enforced beside the rest.
    pub(crate) fn check(&self, what: &What) -> Result<()> {
        match what {
            What::Route(rule) | What::SecretUse(rule) => self.check_rule(rule),
            What::GitRef(asked) => self.check_ref(asked),
        }
    }

    fn check_ref(&self, asked: &GitRef) -> Result<()> {
        let gate = self.gate()?.ok_or_else(|| {
            no("this bottle has no git gate that could be asked for another ref: tell the person whom you work for what you need")
        })?;
        let remote = gate.remote(&asked.remote).ok_or_else(|| {
            let known: Vec<&str> = gate.remotes.iter().map(|it| it.name.as_str()).collect();
            caller(format!(
                "'{}' is no remote of this bottle{}",
                visible(&asked.remote),
                did_you_mean(&asked.remote, &known)
            ))
        })?;
        for push in remote.push.iter().filter(|push| push.grant.is_none()) {
            if push.refs == asked.refs || refs::Pattern::parse(&push.refs)?.covers(&asked.refs) {
                return Err(no(format!("it is allowed already, by '{}'", push.refs)));
            }
        }
        Ok(())
    }

    fn check_rule(&self, rule: &Rule) -> Result<()> {
        let mut rules = self.read()?.routes;
        if let Some(wide) = rules
            .iter()
            .find(|wide| wide.grant.is_none() && wide.from.is_none() && wide.contains(rule))
        {
            return Err(no(format!("it is allowed already, by '{}'", wide.to_line())));
        }
        rules.push(rule.clone());
        check_together(&rules)
    }

    /// The rules in words.
    pub(crate) fn described(&self, host: Option<&str>) -> Result<String> {
        let routes = self.read()?;
        let is_asked =
            |rule: &&Rule| rule.from.is_none() && host.is_none_or(|host| rule.host.contains(host));
        let found: Vec<&Rule> = routes.routes.iter().filter(is_asked).collect();
        let mut text = format!(
            "You are in bottle '{}'. All that leaves it goes through its proxy, which the environment names, and whatever no rule below allows is refused. Each line is METHODS SCHEME://HOST:PORTS/PATHS; '*' is any text in a path's segment, '**' across segments.\n",
            routes.bottle
        );
        if found.is_empty() {
            text.push_str(if host.is_some() {
                "No rule is for such a host.\n"
            } else {
                "Nothing may leave.\n"
            });
        }
        for rule in found.iter().take(LISTED) {
            let _ = writeln!(text, "- {}", visible(&rule.to_line()));
        }
        if found.len() > LISTED {
            let _ = writeln!(text, "and {} more: ask with 'host'", found.len() - LISTED);
        }
        let remotes = self.gate()?.map_or_else(Vec::new, |gate| gate.remotes);
        let now = unix_now();
        for remote in remotes.iter().filter(|_| host.is_none()) {
            let open: Vec<&str> = remote.open_at(now).map(|push| push.refs.as_str()).collect();
            let push = match open.len() {
                0 => "fetch only".to_owned(),
                _ => format!("fetch, and push '{}'", open.join("', '")),
            };
            let line = format!("git remote '{}', {}: {push}", remote.name, remote.url);
            let _ = writeln!(text, "- {}", visible(&line));
        }
        text.push_str(
            "To ask for more, use 'propose_route', 'propose_secret_use' or 'propose_git_ref'; a person decides.\n",
        );
        Ok(text)
    }

    /// What egress tells of grants; what cannot be read ends none here, and egress decides anyway.
    fn spent(&self) -> Spents {
        let told = state::read_report(&self.egress.join("grants.json")).ok().flatten();
        told.and_then(|bytes| strict::json(&String::from_utf8_lossy(&bytes), "grants").ok())
            .unwrap_or_default()
    }
}

fn has_ended(spent: &Spents, term: &Term) -> bool {
    term.expires.is_some_and(|end| end <= unix_now())
        || spent.grants.get(&term.id).is_some_and(|spent| spent.end.is_some())
}
