//! Globs of paths: `*` is any text within a segment, `**` any text across them, and `/**/` also a
//! single `/`. Matching takes time in proportion to pattern times path, whatever both are: the path
//! is an agent's.

use anyhow::Result;

use super::path;
use crate::error::caller;

mod covers;

/// The longest pattern, so that matching needs no memory but the stack's.
const MAX: usize = 512;

/// More than the longest pattern has tokens: `**/` makes four of three bytes.
const STATES: usize = 2 * MAX;

/// A compiled glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// What the path begins with, up to the first wildcard; all of it where there is none.
    prefix: Box<str>,
    /// What comes then.
    rest: Box<[Token]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `*`
    Segment,
    /// `**`
    Any,
    /// Before the `**` of `/**/`: that and the `/` after it may also be nothing.
    Optional,
}

impl Glob {
    /// Parses a pattern, which must be in the normal form of paths itself, or it would never match.
    pub fn parse(pattern: &str) -> Result<Self> {
        let refuse = |why: &str| Err(caller(format!("path '{pattern}': {why}")));
        if pattern.len() > MAX {
            return refuse(&format!("it is longer than {MAX} bytes"));
        }
        if !pattern.starts_with('/') {
            return refuse("it begins with '/', as '/v1/**'");
        }
        if pattern.contains(['?', '#']) {
            return refuse("it ends before the query: what follows '?' or '#' is not judged");
        }
        if pattern.contains("***") {
            return refuse("a wildcard is '*' or '**'");
        }
        match path::normalise(pattern) {
            Err(odd) => return refuse(odd.0),
            Ok(normal) if normal.as_str() != pattern => {
                return refuse(&format!("write it as '{}'", normal.as_str()));
            }
            Ok(_) => {}
        }
        let literal = pattern.find('*').unwrap_or(pattern.len());
        let bytes = pattern.as_bytes();
        let mut rest = Vec::new();
        let mut at = literal;
        while at < bytes.len() {
            at += match bytes[at..] {
                [b'*', b'*', ref after @ ..] => {
                    if bytes[at - 1] == b'/' && after.first() == Some(&b'/') {
                        rest.push(Token::Optional);
                    }
                    rest.push(Token::Any);
                    2
                }
                [b'*', ..] => {
                    rest.push(Token::Segment);
                    1
                }
                _ => {
                    rest.push(Token::Byte(bytes[at]));
                    1
                }
            };
        }
        Ok(Self { prefix: pattern[..literal].into(), rest: rest.into() })
    }

    /// Whether the glob covers the whole of `path`.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let Some(tail) = path.as_bytes().strip_prefix(self.prefix.as_bytes()) else {
            return false;
        };
        match *self.rest {
            [] => tail.is_empty(),
            [Token::Any] => true,
            [Token::Segment] => !tail.contains(&b'/'),
            _ => self.simulate(tail),
        }
    }

    /// Runs the tokens as an automaton: `here[i]` says whether the first `i` tokens can have
    /// matched what was read so far. None is set outside `low..=high`.
    fn simulate(&self, tail: &[u8]) -> bool {
        let tokens = &*self.rest;
        let mut here = [false; STATES];
        here[0] = true;
        let (mut low, mut high) = self.skip(&mut here, 0, 0);
        for &byte in tail {
            let end = (high + 1).min(tokens.len());
            for at in (low..=end).rev() {
                let stays = here[at]
                    && match tokens.get(at) {
                        Some(Token::Any) => true,
                        Some(Token::Segment) => byte != b'/',
                        _ => false,
                    };
                let comes = at > low && here[at - 1] && tokens[at - 1] == Token::Byte(byte);
                here[at] = stays || comes;
            }
            while !here[low] {
                if low == end {
                    return false;
                }
                low += 1;
            }
            (low, high) = self.skip(&mut here, low, end);
        }
        here[tokens.len()]
    }

    /// Wildcards may match nothing. Gives the new bounds: what comes before a `**` that is reached
    /// cannot match anything that the `**` does not.
    fn skip(&self, here: &mut [bool; STATES], from: usize, to: usize) -> (usize, usize) {
        let (mut low, mut high) = (from, to);
        let mut at = from;
        while at <= high {
            match self.rest.get(at).filter(|_| here[at]) {
                Some(Token::Byte(_)) | None => {}
                Some(token) => {
                    here[at + 1] = true;
                    high = high.max(at + 1);
                    if *token == Token::Optional {
                        here[at + 3] = true;
                        high = high.max(at + 3);
                    } else if *token == Token::Any {
                        here[low..at].fill(false);
                        low = at;
                    }
                }
            }
            at += 1;
        }
        (low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str) -> Glob {
        Glob::parse(pattern).unwrap_or_else(|e| panic!("{pattern}: {e:#}"))
    }

    #[test]
    fn stars_stay_in_their_segment_and_double_stars_do_not() {
        for (pattern, yes, no) in [
            ("/v1", &["/v1"][..], &["/v1/", "/v", "/v11", "/"][..]),
            ("/v1/*", &["/v1/", "/v1/a"], &["/v1", "/v1/a/b", "/v2/a"]),
            ("/v1/**", &["/v1/", "/v1/a", "/v1/a/b"], &["/v1", "/v2/a", "/v1x"]),
            ("/**", &["/", "/a/b"], &[]),
            ("/a/**/b", &["/a/b", "/a/x/b", "/a/x/y/b"], &["/ab", "/a/xb", "/a/b/c"]),
            ("/*/b", &["/a/b", "//b"], &["/a/x/b", "/b"]),
            ("/**/x/*.git", &["/x/a.git", "/a/b/x/c.git"], &["/x/a/b.git", "/ax/a.git"]),
            ("/a*b*c", &["/abc", "/axbxc"], &["/ab/c", "/abcx"]),
            ("/a**c", &["/ac", "/a/b/c"], &["/a/b"]),
        ] {
            for path in yes {
                assert!(glob(pattern).matches(path), "{pattern} {path}");
            }
            for path in no {
                assert!(!glob(pattern).matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn patterns_that_could_never_match_are_refused() {
        for pattern in
            ["", "v1", "*", "/a?b", "/a#b", "/***", "/a/../b", "/%41", "/a%2fb", "/\\", "/ü"]
        {
            assert!(Glob::parse(pattern).is_err(), "'{pattern}' was taken");
        }
        let error = Glob::parse("/a/../%41ü").unwrap_err();
        assert!(format!("{error:#}").ends_with("write it as '/A%C3%BC'"), "{error:#}");
    }

    /// The plainest matcher there is.
    fn naive(pattern: &[u8], path: &[u8], before: u8) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*', rest @ ..] => {
                (0..=path.len()).any(|n| naive(rest, &path[n..], b'*'))
                    || (before == b'/'
                        && rest.first() == Some(&b'/')
                        && naive(&rest[1..], path, b'/'))
            }
            [b'*', rest @ ..] => (0..=path.len())
                .take_while(|n| !path[..*n].contains(&b'/'))
                .any(|n| naive(rest, &path[n..], b'*')),
            [byte, rest @ ..] => path.first() == Some(byte) && naive(rest, &path[1..], *byte),
        }
    }

    #[test]
    fn agrees_with_a_naive_matcher() {
        let mut random = crate::policy::tests::Random(7);
        let (mut hits, mut tried) = (0, 0);
        while tried < 50_000 {
            let mut text = |most: usize, letters: &[u8]| {
                let mut out = String::from("/");
                for _ in 0..random.below(most) {
                    out.push(char::from(letters[random.below(letters.len())]));
                }
                out
            };
            let (pattern, path) = (text(12, b"a/**/**b"), text(12, b"a/b"));
            let Ok(glob) = Glob::parse(&pattern) else { continue };
            tried += 1;
            let expected = naive(pattern.as_bytes(), path.as_bytes(), 0);
            hits += u32::from(expected);
            assert_eq!(glob.matches(&path), expected, "{pattern} {path}");
        }
        assert!(hits > 5_000, "{hits} matches: the generator tests nothing");
    }

    #[test]
    fn hostile_paths_take_no_exponential_time() {
        let glob = glob(&format!("/{}b", "a*".repeat(250)));
        assert!(!glob.matches(&format!("/{}", "a".repeat(8_000))));
    }
}
