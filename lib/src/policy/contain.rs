//! Containment: whether all that one rule allows, another one allows too.
//!
//! `bottle-plan` asks it of an agent's routes, which may narrow its bottle's and never widen them.
//! The answer is sound, not complete: a rule that only two others together cover is not contained.
//! Networks are kept or left out whole, because a part of one may open what the whole does not:
//! see [`super::Policy::address`].

use super::{Glob, HostKind, Rule};

/// In what a rule asks for more than another one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The field.
    pub field: &'static str,
    /// What it asks for.
    pub asks: String,
    /// What there is.
    pub has: String,
}

impl Rule {
    /// Whether every request that `inner` allows is allowed by this rule.
    #[must_use]
    pub fn contains(&self, inner: &Self) -> bool {
        self.excess(inner).is_none()
    }

    /// The first thing in which `inner` goes beyond this rule.
    #[must_use]
    pub fn excess(&self, inner: &Self) -> Option<Excess> {
        let more = |field, asks: String, has: String| Some(Excess { field, asks, has });
        if !self.covers_host(inner) {
            return more("host", inner.host.clone(), self.host.clone());
        }
        if !all_in(&inner.ports, &self.ports) {
            return more("ports", list(&inner.ports, "none"), list(&self.ports, "none"));
        }
        // An empty list of methods or paths is every one.
        let fewer = !inner.methods.is_empty() && all_in(&inner.methods, &self.methods);
        if !self.methods.is_empty() && !fewer {
            return more("methods", list(&inner.methods, "all"), list(&self.methods, "all"));
        }
        let fewer = !inner.paths.is_empty() && inner.paths.iter().all(|it| self.covers_path(it));
        if !self.paths.is_empty() && !fewer {
            return more("paths", list(&inner.paths, "all"), list(&self.paths, "all"));
        }
        if !all_in(&inner.addresses, &self.addresses) {
            return more(
                "addresses",
                list(&inner.addresses, "none"),
                list(&self.addresses, "none"),
            );
        }
        if inner.passthrough && !self.passthrough {
            return more("passthrough", "true".to_owned(), "false".to_owned());
        }
        if inner.inject.is_some() && inner.inject != self.inject {
            return more("inject", inner.injected(), self.injected());
        }
        None
    }

    fn covers_host(&self, inner: &Self) -> bool {
        let below = matches!(
            (self.kind, inner.kind),
            (HostKind::Wildcard, HostKind::Name | HostKind::Wildcard)
        );
        // "*.example.com" without its star begins with the dot that keeps "badexample.com" out.
        self.host == inner.host || (below && inner.host.ends_with(&self.host[1..]))
    }

    fn covers_path(&self, path: &str) -> bool {
        let Ok(inner) = Glob::parse(path) else { return false };
        self.globs().is_ok_and(|globs| globs.iter().any(|glob| glob.covers(&inner)))
    }

    fn injected(&self) -> String {
        self.inject
            .as_ref()
            .map_or_else(|| "none".to_owned(), |inject| format!("secret '{}'", inject.secret))
    }
}

fn all_in<T: PartialEq>(some: &[T], all: &[T]) -> bool {
    some.iter().all(|item| all.contains(item))
}

/// A list for a message.
fn list<T: ToString>(items: &[T], empty: &str) -> String {
    if items.is_empty() {
        return empty.to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
