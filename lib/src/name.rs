//! The name of one bottle.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::caller;

/// Names of the state folder that are not bottles.
const RESERVED: [&str; 4] = ["archive", "leases", "trust", "cache"];

/// The longest slug. A compose project is `bottle-<slug>-<8 hex>`, a service adds `-supervise`, and
/// a host name ends at 63.
pub const MAX_SLUG: usize = 36;

/// What one bottle is called: in the state folder, in labels, on the command line. Lower-case
/// letters, digits and single hyphens, beginning and ending with a letter or digit, so that it is
/// a valid compose project, file and host name everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

impl Slug {
    /// The slug as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = !text.is_empty()
            && text.len() <= MAX_SLUG
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--");
        if !fits {
            return Err(caller(format!(
                "name '{text}' is not a slug: use up to {MAX_SLUG} lower-case letters, digits and single hyphens"
            )));
        }
        if RESERVED.contains(&text) {
            return Err(caller(format!(
                "name '{text}' is reserved for the state folder: choose another with --slug"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Slug {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_slugs() {
        for text in ["a", "implementer", "dev-2", "0x"] {
            assert_eq!(text.parse::<Slug>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn names_that_could_leave_the_state_folder_are_refused() {
        for text in ["", ".", "..", "a/b", "A", "a_b", "-a", "a-", "a--b", "archive", "leases", "é"]
        {
            assert!(text.parse::<Slug>().is_err(), "'{text}' was taken");
        }
        assert!("a".repeat(MAX_SLUG + 1).parse::<Slug>().is_err());
    }
}
