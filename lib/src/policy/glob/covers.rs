//! Whether all that one glob covers, another one covers too: both run side by side, as automata
//! whose states are sets of positions, over every text that keeps the inner one alive.

use std::collections::{BTreeSet, VecDeque};

use super::{Glob, Token};

/// How many pairs of states are looked at before the answer is no: patterns that need more are
/// nobody's honest wish, and no is the safe answer.
const EFFORT: usize = 256;

impl Glob {
    /// Whether every path that `inner` covers is covered by `self`.
    #[must_use]
    pub fn covers(&self, inner: &Self) -> bool {
        if self == inner || (&*self.prefix == "/" && *self.rest == [Token::Any]) {
            return true;
        }
        let (outer, inner) = (Automaton::new(self), Automaton::new(inner));
        let mut letters: BTreeSet<u8> = outer.letters().chain(inner.letters()).collect();
        letters.insert(b'/');
        // All letters that neither pattern names behave alike, so one stands for them.
        letters.extend((1..=u8::MAX).find(|byte| !letters.contains(byte)));

        let start = (inner.start(), outer.start());
        let mut seen = BTreeSet::from([start.clone()]);
        let mut queue = VecDeque::from([start]);
        while let Some((inside, outside)) = queue.pop_front() {
            if inner.accepts(&inside) && !outer.accepts(&outside) {
                return false;
            }
            for &letter in &letters {
                let inside = inner.step(&inside, letter);
                if inside.is_empty() {
                    continue;
                }
                let next = (inside, outer.step(&outside, letter));
                if seen.insert(next.clone()) {
                    queue.push_back(next);
                }
            }
            if seen.len() > EFFORT {
                return false;
            }
        }
        true
    }
}

/// The whole pattern as tokens.
struct Automaton(Vec<Token>);

/// The positions that what was read so far can have led to.
type Positions = BTreeSet<usize>;

impl Automaton {
    fn new(glob: &Glob) -> Self {
        let prefix = glob.prefix.bytes().map(Token::Byte);
        Self(prefix.chain(glob.rest.iter().copied()).collect())
    }

    fn letters(&self) -> impl Iterator<Item = u8> {
        self.0.iter().filter_map(|token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        })
    }

    fn start(&self) -> Positions {
        self.with_skips([0].into())
    }

    fn accepts(&self, positions: &Positions) -> bool {
        positions.contains(&self.0.len())
    }

    fn step(&self, from: &Positions, letter: u8) -> Positions {
        let moved = from.iter().filter_map(|at| match self.0.get(*at)? {
            Token::Byte(byte) => (*byte == letter).then_some(at + 1),
            Token::Segment => (letter != b'/').then_some(*at),
            Token::Any => Some(*at),
            Token::Optional => None,
        });
        self.with_skips(moved.collect())
    }

    /// Wildcards may match nothing.
    fn with_skips(&self, mut positions: Positions) -> Positions {
        for (at, token) in self.0.iter().enumerate() {
            if positions.contains(&at) && !matches!(token, Token::Byte(_)) {
                positions.insert(at + 1);
                if *token == Token::Optional {
                    positions.insert(at + 3);
                }
            }
        }
        positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(outer: &str, inner: &str) -> bool {
        Glob::parse(outer).unwrap().covers(&Glob::parse(inner).unwrap())
    }

    #[test]
    fn globs_cover_what_they_say_and_nothing_else() {
        for (outer, inner) in [
            ("/**", "/v1/**"),
            ("/**", "/"),
            ("/v1/*", "/v1/a"),
            ("/v1/**", "/v1/*/x"),
            ("/**/x", "/x"),
            ("/**/x", "/a/b/x"),
            ("/*/x", "/a*/x"),
            ("/a**", "/a/b"),
            ("/**/*", "/*/**"),
        ] {
            assert!(covers(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [
            ("/v1/**", "/**"),
            ("/v1/**", "/v1"),
            ("/v1/*", "/v1/**"),
            ("/v1/*", "/v1/a/b"),
            ("/a*/x", "/*/x"),
            ("/**/x", "/**"),
            ("/v1", "/v1/"),
            ("/a**/b", "/**/b"),
        ] {
            assert!(!covers(outer, inner), "{outer} {inner}");
        }
    }

    #[test]
    fn hostile_patterns_end_in_no() {
        let many = format!("/{}", "*a".repeat(200));
        assert!(!covers(&many, &format!("/{}", "**b".repeat(100))));
        assert!(covers(&many, &many));
    }
}
