//! `rules.yaml`, which is compiled in, and its regular expressions, which are compiled when they are
//! first needed.

use std::sync::{LazyLock, OnceLock};

use anyhow::Result;
use bottle::error::Blame;
use regex_automata::dfa::{StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use serde::Deserialize;

use super::Place;
use super::check::Check;

/// The file.
static TEXT: &str = include_str!("rules.yaml");

/// The rules; none where the file is bad, which a test forbids.
pub(super) static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| read().unwrap_or_default());

/// Names of all rules, in the order of the file.
#[must_use]
pub fn names() -> Vec<&'static str> {
    RULES.iter().map(|rule| &*rule.name).collect()
}

/// One rule; see the head of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: String,
    #[expect(dead_code, reason = "for those who read the file, and the manual page")]
    description: String,
    #[serde(default)]
    pub(super) prefixes: Vec<String>,
    pub(super) regex: Option<String>,
    pub(super) check: Option<Check>,
    #[serde(default = "everywhere")]
    pub(super) at: Vec<Place>,
    #[serde(default)]
    pub(super) any_before: bool,
    #[serde(default)]
    digits_before: usize,
    #[serde(default)]
    pub(super) unless_after: Vec<String>,
    #[serde(default)]
    fine_at: Vec<String>,
    #[serde(default)]
    pub(super) own: Vec<String>,
    #[serde(default)]
    pub(super) private: bool,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "for the rule's own tests"))]
    pub(super) leaks: Vec<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "for the rule's own tests"))]
    pub(super) fine: Vec<String>,
    #[serde(skip)]
    dfa: OnceLock<Option<dense::DFA<Vec<u32>>>>,
}

fn everywhere() -> Vec<Place> {
    vec![Place::Url, Place::Header, Place::Body, Place::Host]
}

/// Reads the rules.
pub(super) fn read() -> Result<Vec<Rule>> {
    bottle::strict::yaml(TEXT, "rules.yaml")
}

impl Rule {
    /// The automaton of its regular expression, matched at a prefix.
    pub(super) fn dfa(&self) -> Option<&dense::DFA<Vec<u32>>> {
        let regex = self.regex.as_ref()?;
        self.dfa.get_or_init(|| compile(regex).ok()).as_ref()
    }

    /// Whether what comes before the prefix lets it begin there.
    pub(super) fn may_begin(&self, before: &[u8]) -> bool {
        if self.digits_before > 0 {
            let from = before.len().saturating_sub(self.digits_before);
            let digits = &before[from..];
            return digits.len() == self.digits_before && digits.iter().all(u8::is_ascii_digit);
        }
        let begins = self.any_before
            || match before {
                // The letter of an escape as JSON and programs have it ends no word.
                [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f'] | [] => true,
                [.., last] => !last.is_ascii_alphanumeric(),
            };
        begins && !self.unless_after.iter().any(|text| before.ends_with(text.as_bytes()))
    }

    /// Whether it is no leak there: the host hands such a thing out itself, or it is the provider's own
    /// key in a header.
    pub(super) fn is_fine_at(&self, host: &str, place: Place) -> bool {
        let own = if place == Place::Header { &self.own[..] } else { &[] };
        self.fine_at.iter().chain(own).any(|fine| match fine.strip_prefix('*') {
            Some(end) => host.ends_with(end),
            None => host == fine,
        })
    }
}

/// Bytes, not characters: what is scanned is seldom sure to be UTF-8.
pub(super) fn plain() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

/// An automaton that matches where it starts.
pub(super) fn compile(regex: &str) -> Result<dense::DFA<Vec<u32>>> {
    dense::Builder::new()
        .syntax(plain())
        .thompson(thompson::Config::new().utf8(false))
        .configure(dense::Config::new().start_kind(StartKind::Anchored))
        .build(regex)
        .caller(format!("compile '{regex}'"))
}
