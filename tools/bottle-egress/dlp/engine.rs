//! The search for all prefixes at once, and what is done where one is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use aho_corasick::packed::{self, Searcher};
use aho_corasick::{AhoCorasick, Input, MatchKind, Span};
use regex_automata::dfa::{Automaton, dense};
use regex_automata::{Anchored, Input as Text};

use super::needles;
use super::rules::{RULES, Rule};

/// The shortest secret that is looked for: a shorter one is part of too much that is none.
pub const SHORTEST: usize = 8;

/// The most bytes after a prefix that a rule looks at.
pub(super) const WINDOW: usize = 640;

/// The most prefixes that one vectorised search takes.
const PACKED: usize = 56;

/// What a prefix leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lead {
    /// A rule that is matched there.
    Rule(usize),
    /// A form of a secret that may lie there.
    Needle {
        /// The secret's place among the names.
        secret: usize,
        /// All of the form.
        form: Box<[u8]>,
    },
    /// A compressed stream.
    Gzip,
    /// A file of a ZIP archive.
    Zip,
    /// The objects of a git push.
    Pack,
}

/// What a look at a place says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Found,
    None,
    /// More has to come before that can be said.
    Open,
}

/// All that is looked for.
pub struct Engine {
    secrets: Vec<String>,
    needles: Vec<Group>,
    private: bool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("secrets", &self.secrets).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that knows the secrets of a bottle, by their names; ones shorter than [`SHORTEST`]
    /// are not looked for. `private` is whether private data is looked for too.
    #[must_use]
    pub fn new(secrets: &BTreeMap<String, Vec<u8>>, private: bool) -> Self {
        let mut leads: BTreeMap<Vec<u8>, Vec<Lead>> = BTreeMap::new();
        for (at, value) in secrets.values().enumerate().filter(|(_, v)| v.len() >= SHORTEST) {
            for form in needles::forms(value) {
                let lead = Lead::Needle { secret: at, form: form.as_slice().into() };
                leads.entry(form[..SHORTEST].to_vec()).or_default().push(lead);
            }
        }
        let names = secrets.keys().map(|name| format!("secret:{name}")).collect();
        // The rules' automatons, before the first request waits for them.
        LazyLock::force(&KNOWN);
        Self { secrets: names, needles: groups(leads), private }
    }

    /// Everything that is searched for at once.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        KNOWN.iter().chain(&self.needles)
    }

    /// The longest prefix.
    pub(super) fn longest(&self) -> usize {
        self.groups().map(|group| group.longest).max().unwrap_or(1)
    }

    /// What a secret is called in findings and exemptions.
    pub(super) fn secret(&self, at: usize) -> &str {
        &self.secrets[at]
    }

    /// The rules that begin with no prefix, if they are asked for.
    pub(super) fn private(&self) -> &'static [usize] {
        if self.private { &PRIVATE } else { &[] }
    }
}

/// The prefixes of the rules and of what can be decoded.
static KNOWN: LazyLock<Vec<Group>> = LazyLock::new(|| {
    let mut leads: BTreeMap<Vec<u8>, Vec<Lead>> = BTreeMap::new();
    for (at, rule) in RULES.iter().enumerate() {
        for prefix in &rule.prefixes {
            leads.entry(prefix.clone().into_bytes()).or_default().push(Lead::Rule(at));
        }
    }
    for (magic, lead) in [
        (&b"\x1f\x8b\x08"[..], Lead::Gzip),
        (b"PK\x03\x04", Lead::Zip),
        (b"PACK\0\0\0\x02", Lead::Pack),
    ] {
        leads.entry(magic.to_vec()).or_default().push(lead);
    }
    groups(leads)
});

/// The rules for private data, which have no prefixes: they are matched wherever a word begins.
static PRIVATE: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let private = RULES.iter().enumerate().filter(|(_, rule)| rule.private);
    private.map(|(at, _)| at).collect()
});

/// Prefixes that are searched for in one pass.
pub(super) struct Group {
    search: Search,
    leads: Vec<Vec<Lead>>,
    longest: usize,
}

enum Search {
    Packed(Box<Searcher>),
    Automaton(Box<AhoCorasick>),
}

fn groups(leads: BTreeMap<Vec<u8>, Vec<Lead>>) -> Vec<Group> {
    // A prefix of another one is found wherever that is, so it takes over what that leads to.
    let mut merged: Vec<(Vec<u8>, Vec<Lead>)> = Vec::new();
    for (prefix, leads) in leads {
        match merged.last_mut() {
            Some((shorter, theirs)) if prefix.starts_with(shorter) => {
                for lead in leads {
                    if !theirs.contains(&lead) {
                        theirs.push(lead);
                    }
                }
            }
            _ => merged.push((prefix, leads)),
        }
    }
    // Many are searched for by one automaton, whose speed does not depend on their number.
    let size = if merged.len() > 2 * PACKED { merged.len() } else { PACKED };
    let parts = merged.chunks(size.max(1));
    parts.filter_map(Group::new).collect()
}

impl Group {
    fn new(part: &[(Vec<u8>, Vec<Lead>)]) -> Option<Self> {
        let prefixes: Vec<&[u8]> = part.iter().map(|(prefix, _)| &prefix[..]).collect();
        let packed = (prefixes.len() <= PACKED)
            .then(|| packed::Builder::new().extend(&prefixes).build())
            .flatten();
        let search = match packed {
            Some(searcher) => Search::Packed(Box::new(searcher)),
            None => Search::Automaton(Box::new(
                AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostFirst)
                    .build(&prefixes)
                    .ok()?,
            )),
        };
        let longest = prefixes.iter().map(|prefix| prefix.len()).max()?;
        Some(Self { search, leads: part.iter().map(|(_, leads)| leads.clone()).collect(), longest })
    }

    /// The first prefix at or after `from`, and what it leads to.
    pub(super) fn find(&self, bytes: &[u8], from: usize) -> Option<(usize, &[Lead])> {
        if from >= bytes.len() {
            return None;
        }
        let (start, which) = match &self.search {
            Search::Packed(searcher) => {
                let found = searcher.find_in(bytes, Span { start: from, end: bytes.len() })?;
                (found.start(), found.pattern())
            }
            Search::Automaton(automaton) => {
                let found = automaton.find(Input::new(bytes).range(from..))?;
                (found.start(), found.pattern())
            }
        };
        Some((start, &self.leads[which.as_usize()]))
    }
}

/// Whether a form of a secret lies where its beginning does.
pub(super) fn needle(form: &[u8], bytes: &[u8], last: bool) -> Look {
    if bytes.starts_with(form) {
        Look::Found
    } else if !last && form.starts_with(bytes) {
        Look::Open
    } else {
        Look::None
    }
}

/// Whether a rule matches where its prefix is.
pub(super) fn rule(rule: &Rule, before: &[u8], bytes: &[u8], last: bool) -> Look {
    if !rule.may_begin(before) {
        return Look::None;
    }
    let Some(dfa) = rule.dfa() else { return Look::None };
    let (end, open) = matched(dfa, bytes, last);
    match end {
        Some(end) if rule.check.is_none_or(|check| check.holds(&bytes[..end])) => Look::Found,
        _ if open => Look::Open,
        _ => Look::None,
    }
}

/// How far the automaton matches at the beginning of the bytes, and whether more of them may lead it
/// further.
fn matched(dfa: &dense::DFA<Vec<u32>>, bytes: &[u8], last: bool) -> (Option<usize>, bool) {
    let input = Text::new(bytes).anchored(Anchored::Yes);
    let Ok(mut state) = dfa.start_state_forward(&input) else { return (None, false) };
    let mut end = None;
    for (at, byte) in bytes.iter().take(WINDOW).enumerate() {
        state = dfa.next_state(state, *byte);
        if dfa.is_special_state(state) {
            if dfa.is_match_state(state) {
                // An automaton says so one byte late.
                end = Some(at);
            } else if dfa.is_dead_state(state) || dfa.is_quit_state(state) {
                return (end, false);
            }
        }
    }
    let whole = bytes.len() < WINDOW;
    if whole && last && dfa.is_match_state(dfa.next_eoi_state(state)) {
        end = Some(bytes.len());
    }
    (end, whole && !last)
}
