//! Paths put together to patterns, and no further than is asked for. Pure.

use std::collections::BTreeMap;

use crate::args::Widen;

/// From how many different names on a segment becomes `*`, and from how many patterns on what
/// follows becomes `**`.
const MANY_NAMES: usize = 3;
const MANY_PATTERNS: usize = 8;

/// Paths by their segments.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    ends: bool,
    below: BTreeMap<String, Paths>,
}

impl Paths {
    /// Adds a path in normal form, and gives the nodes that it made. What becomes a wildcard anyway
    /// does so at once, so that no number of paths needs more than a few nodes.
    pub(crate) fn add(&mut self, path: &str, widen: Widen) -> usize {
        let mut node = self;
        let mut made = 0;
        for segment in path.trim_start_matches('/').split('/') {
            let any = node.below.contains_key("*") && widen >= Widen::Segment;
            let name = if any { "*" } else { segment };
            if !node.below.contains_key(name) {
                node.below.insert(name.to_owned(), Self::default());
                made += 1;
            }
            if widen >= Widen::Segment && node.below.len() > MANY_NAMES {
                node.merge();
            }
            let name = if node.below.contains_key(name) { name } else { "*" };
            let Some(next) = node.below.get_mut(name) else { return made };
            node = next;
        }
        node.ends = true;
        made
    }

    /// Makes one wildcard of all names.
    fn merge(&mut self) {
        let mut all = Self::default();
        for (_, below) in std::mem::take(&mut self.below) {
            all.take(below);
        }
        self.below.insert("*".to_owned(), all);
    }

    fn take(&mut self, other: Self) {
        self.ends |= other.ends;
        for (name, below) in other.below {
            self.below.entry(name).or_default().take(below);
        }
        if self.below.len() > MANY_NAMES {
            self.merge();
        }
    }

    /// The patterns, sorted; none stands for every path.
    pub(crate) fn patterns(&self, widen: Widen) -> Vec<String> {
        let mut patterns = Vec::new();
        if widen < Widen::Host {
            self.collect("", widen, &mut patterns);
        }
        patterns.sort();
        patterns
    }

    fn collect(&self, above: &str, widen: Widen, into: &mut Vec<String>) {
        let mut own = Vec::new();
        for (name, below) in &self.below {
            below.collect(&format!("{above}/{name}"), widen, &mut own);
        }
        if widen >= Widen::Tail && own.len() > MANY_PATTERNS && !above.is_empty() {
            own = vec![format!("{above}/**")];
        }
        if self.ends {
            own.push(above.to_owned());
        }
        into.append(&mut own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(paths: &[&str], widen: Widen) -> Vec<String> {
        let mut all = Paths::default();
        for path in paths {
            all.add(path, widen);
        }
        all.patterns(widen)
    }

    #[test]
    fn paths_are_widened_as_far_as_was_asked_and_no_further() {
        let few = ["/v1/models", "/v1/messages", "/"];
        assert_eq!(patterns(&few, Widen::None), ["/", "/v1/messages", "/v1/models"]);
        assert_eq!(patterns(&few, Widen::Tail), ["/", "/v1/messages", "/v1/models"]);
        assert_eq!(patterns(&few, Widen::Host), [""; 0]);
        let ids = ["/u/1/x", "/u/2/x", "/u/3/x", "/u/4/y", "/u/5", "/t"];
        assert_eq!(patterns(&ids, Widen::None).len(), 6);
        assert_eq!(patterns(&ids, Widen::Segment), ["/t", "/u/*", "/u/*/x", "/u/*/y"]);
        let deep: Vec<String> =
            (0..9).map(|n| format!("/s/{}/{}", n % 3, "x/".repeat(n + 1))).collect();
        let deep: Vec<&str> = deep.iter().map(String::as_str).chain(["/s", "/t"]).collect();
        assert_eq!(patterns(&deep, Widen::Segment).len(), 11);
        assert_eq!(patterns(&deep, Widen::Tail), ["/s", "/s/**", "/t"]);
    }

    #[test]
    fn any_number_of_paths_needs_few_nodes() {
        let mut all = Paths::default();
        let made: usize =
            (0..10_000).map(|n| all.add(&format!("/o/{n}/r/{}", n * 7), Widen::Segment)).sum();
        assert!(made < 100, "{made}");
        assert_eq!(all.patterns(Widen::Segment), ["/o/*/r/*"]);
    }
}
