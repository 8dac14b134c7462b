//! The bottle's own certificate authorities, one of egress and one of pipelock: made by
//! `bottle-egress ca`, kept while they are young.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bottle::{Slug, docker, world};

use crate::roots;

/// For how many days a new one is valid.
const DAYS: &str = "30";
/// How old one may be to be used again, by the time its file was written.
const YOUNG: Duration = Duration::from_hours(20 * 24);

/// A key and its certificate, PEM.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) key: String,
    pub(crate) certificate: String,
}

impl Authority {
    /// That in a sidecar's file of key and certificate, with each in a file of its own beside it,
    /// else a new one.
    pub(crate) fn of(both: &Path, slug: &Slug) -> Result<Self> {
        match Self::kept(both) {
            Some(kept) => Ok(kept),
            None => Self::parse(&docker::sibling(
                "bottle-egress",
                &["ca", "--name", slug.as_str(), "--days", DAYS],
                b"",
            )?)
            .ok_or_else(|| world("read what 'bottle-egress ca' printed: no key and certificate")),
        }
    }

    /// One that was written before, whole, and young.
    fn kept(both: &Path) -> Option<Self> {
        let conf = both.parent()?;
        let age = SystemTime::now().duration_since(fs::metadata(both).ok()?.modified().ok()?);
        if age.is_ok_and(|age| age > YOUNG) {
            return None;
        }
        let kept = Self::parse(&fs::read_to_string(both).ok()?)?;
        let matches = fs::read_to_string(conf.join("ca.pem")).ok()? == kept.certificate
            && fs::read_to_string(conf.join("ca-key.pem")).ok()? == kept.key;
        matches.then_some(kept)
    }

    /// Splits a SEC1 key and a certificate that stand one after the other.
    fn parse(text: &str) -> Option<Self> {
        const END: &str = "-----END EC PRIVATE KEY-----\n";
        let key =
            &text[text.find("-----BEGIN EC PRIVATE KEY-----\n")?..text.find(END)? + END.len()];
        let certificate = roots::certificates(text);
        (!certificate.is_empty()).then(|| Self { key: key.to_owned(), certificate })
    }

    /// Both in one text, as mitmproxy reads them; and a pair that is whole.
    pub(crate) fn both(&self) -> String {
        [self.key.as_str(), &self.certificate].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_certificate_are_told_apart() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nKK==\n-----END EC PRIVATE KEY-----\n";
        let certificate = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let both = [key, certificate].concat();
        let found = Authority::parse(&both).unwrap();
        assert_eq!((found.key.as_str(), found.certificate.as_str()), (key, certificate));
        assert_eq!(found.both(), both);
        for part in [key, certificate, "", &both[..60]] {
            assert_eq!(Authority::parse(part), None);
        }
    }
}
