//! Patterns of refs: `*` is any text within a component, `**` any text across them, as in the paths
//! of routes; so `refs/heads/agent/*` covers `refs/heads/agent/x` and not `refs/heads/agent/x/y`.
//!
//! git's own patterns would let `*` cross `/`. The kind of ref is always spelled out, so that no
//! wildcard ever covers `refs/replace` or what else git takes orders from.

use anyhow::Result;

use crate::error::caller;
use crate::policy::Glob;

/// What a pattern begins with. Other kinds are never pushed.
pub const KINDS: [&str; 3] = ["refs/heads/", "refs/tags/", "refs/notes/"];

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern(Glob);

impl Pattern {
    /// Parses a pattern, which would be the name of a ref but for its wildcards.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |why: &str| caller(format!("push '{text}': {why}"));
        if !KINDS.iter().any(|kind| text.starts_with(kind)) {
            return Err(refuse(
                "it begins with 'refs/heads/', 'refs/tags/' or 'refs/notes/', as in 'refs/heads/agent/*'",
            ));
        }
        if text.contains("***") {
            return Err(refuse("a wildcard is '*' or '**'"));
        }
        if !is_ref(&text.replace('*', "x")) {
            return Err(refuse("git has no such name of a ref"));
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || "%;\\'\"".contains(*c)) {
            return Err(refuse(&format!("it holds '{}'", odd.escape_default())));
        }
        Glob::parse(&format!("/{text}")).map(Self).map_err(|_| refuse("it is no pattern"))
    }

    /// Whether it covers the whole name of a ref.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        is_ref(name)
            && KINDS.iter().any(|kind| name.starts_with(kind))
            && self.0.matches(&format!("/{name}"))
    }
}

/// Whether git would take a name for a full name of a ref, by `git check-ref-format`.
#[must_use]
pub fn is_ref(name: &str) -> bool {
    let odd = |c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c);
    name.len() <= 1024
        && name.starts_with("refs/")
        && !name.contains(odd)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && name.split('/').all(|part| {
            let lock = part.len() >= 5 && part.as_bytes().ends_with(b".lock");
            !part.is_empty() && !part.starts_with('.') && !lock
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().covers(name)
    }

    #[test]
    fn star_stays_within_a_component_and_two_cross() {
        for (pattern, name, expected) in [
            ("refs/heads/agent/*", "refs/heads/agent/x", true),
            ("refs/heads/agent/*", "refs/heads/agent/x/y", false),
            ("refs/heads/agent/**", "refs/heads/agent/x/y", true),
            ("refs/heads/agent/*", "refs/heads/agent", false),
            ("refs/heads/agent/*", "refs/heads/agents/x", false),
            ("refs/heads/agent/*", "refs/heads/agent/", false),
            ("refs/heads/agent-*", "refs/heads/agent-1", true),
            ("refs/heads/main", "refs/heads/main", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("refs/heads/main", "refs/heads/MAIN", false),
            ("refs/tags/v*", "refs/tags/v1", true),
            ("refs/tags/v*", "refs/heads/v1", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn no_wildcard_reaches_another_kind_of_ref() {
        for name in [
            "refs/replace/0123",
            "refs/notes/commits",
            "refs/heads/../replace/x",
            "refs/heads/agent/../main",
            "refs/heads//x",
            "refs/heads/x.lock",
            "refs/heads/agent/.x",
            "refs/heads/a b",
            "HEAD",
            "heads/x",
        ] {
            assert!(!covers("refs/heads/**", name), "{name}");
        }
        assert!(covers("refs/heads/**", "refs/heads/agent/x"));
    }

    #[test]
    fn pattern_without_its_kind_is_refused() {
        for text in [
            "refs/*",
            "refs/**",
            "**",
            "*",
            "refs/heads",
            "refs/heads/",
            "refs/*/x",
            "refs/replace/*",
            "refs/heads/***",
            "refs/heads/a..b",
            "heads/x",
            "refs/heads/a b",
            "refs/heads/%41",
            "refs/heads/../x",
            "refs/heads/[a]",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
