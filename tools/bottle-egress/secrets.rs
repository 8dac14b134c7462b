//! The values of secrets that egress holds: `secrets.json`, read again when it changes, and what is
//! known of each value. They are only in memory, and what is told of them in `run/secrets.json` is
//! whether reading their sources again may help.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bottle::credentials::{Credentials, Standing, Value};
use bottle::error::{Blame, caller};

/// The file, in a folder that only egress has mounted.
pub(crate) const FILE: &str = "secrets.json";

/// The largest `secrets.json`.
const MAX: u64 = 8 << 20;

/// Seconds before its end at which a value is asked for anew.
const EARLY: u64 = 60;

/// All values in use.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// The generation of the file; 0: there is none.
    pub(crate) generation: u64,
    held: BTreeMap<String, Held>,
    /// The bytes they came from, to see whether those have changed.
    bytes: Vec<u8>,
}

/// One value.
#[derive(Debug)]
pub(crate) struct Held {
    value: Value,
    /// When it says that it ends, in seconds since 1970.
    expires_at: Option<u64>,
    /// Whether the server last answered 401 to it.
    refused: AtomicBool,
}

impl Secrets {
    /// Reads the file, if its bytes are others than those of `before`; a missing one holds nothing.
    pub(crate) fn read(folder: &Path, before: &Self) -> Result<Option<Self>> {
        let bytes = bytes(folder)?;
        if bytes == before.bytes {
            return Ok(None);
        }
        if bytes.is_empty() {
            return Ok(Some(Self::default()));
        }
        let read = Credentials::parse(&bytes)?;
        let held = read.secrets.into_iter().map(|(name, value)| {
            let expires_at = expiry(value.expose());
            (name, Held { value, expires_at, refused: AtomicBool::new(false) })
        });
        Ok(Some(Self { generation: read.generation, held: held.collect(), bytes }))
    }

    /// A value that can be used now; else how it is.
    pub(crate) fn usable(&self, name: &str) -> Result<&Held, Standing> {
        let held = self.held.get(name).ok_or(Standing::Missing)?;
        match held.standing(now()) {
            Standing::Expired => Err(Standing::Expired),
            _ => Ok(held),
        }
    }

    /// How a secret is.
    pub(crate) fn standing(&self, name: &str) -> Standing {
        self.held.get(name).map_or(Standing::Missing, |held| held.standing(now()))
    }

    /// Every value with its name, for the scan of what leaves.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.held.iter().map(|(name, held)| (&**name, held.value.expose()))
    }
}

impl Held {
    /// The value.
    pub(crate) fn expose(&self) -> &str {
        self.value.expose()
    }

    /// Notes what a server answered to it.
    pub(crate) fn answered(&self, status: u16) {
        let refused = status == 401;
        // Most often it is so already, and the line of memory is shared by all threads.
        if self.refused.load(Ordering::Relaxed) != refused {
            self.refused.store(refused, Ordering::Relaxed);
        }
    }

    fn standing(&self, now: u64) -> Standing {
        match self.expires_at {
            Some(end) if end <= now => Standing::Expired,
            _ if self.refused.load(Ordering::Relaxed) => Standing::Refused,
            Some(end) if end <= now + EARLY => Standing::Expiring,
            _ => Standing::Good,
        }
    }
}

/// When a value says that it ends: the claim `exp` of a JSON Web Token, RFC 7519. Of other kinds
/// only the server's 401 tells.
fn expiry(value: &str) -> Option<u64> {
    let mut parts = value.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    // Some issuers write a fraction; what is before 1970 ended long ago.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let end = claims.get("exp")?.as_f64()?.max(0.0) as u64;
    Some(end)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn bytes(folder: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let file = match std::fs::File::open(folder.join(FILE)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.caller("read 'secrets.json'")?,
    };
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes).caller("read 'secrets.json'")?;
    if bytes.len() as u64 > MAX {
        return Err(caller("read 'secrets.json': it is too large"));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Values, without a file.
    pub(crate) fn of<const N: usize>(values: [(&str, &str); N]) -> Secrets {
        let held = values.map(|(name, value)| {
            let (value, expires_at) = (Value::new(value.to_owned()), expiry(value));
            (name.to_owned(), Held { value, expires_at, refused: AtomicBool::new(false) })
        });
        Secrets { generation: 1, held: held.into(), bytes: Vec::new() }
    }

    /// A token that ends then.
    pub(crate) fn token(exp: &str) -> String {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{exp}}}"));
        format!("eyJhbGciOiJub25lIn0.{claims}.x")
    }

    #[test]
    fn token_says_when_it_ends_and_other_values_do_not() {
        assert_eq!(expiry(&token("1800000000")), Some(1_800_000_000));
        assert_eq!(expiry(&token("1800000000.5")), Some(1_800_000_000));
        assert_eq!(expiry(&token("-1")), Some(0));
        for other in ["ghp_abc", "a.b.c", "..", &token("\"soon\""), &token("null")] {
            assert_eq!(expiry(other), None, "{other}");
        }
    }

    #[test]
    fn value_that_has_ended_is_not_used_and_one_that_is_refused_is() {
        let [gone, soon, later] = [0, 30, 3600].map(|ahead| {
            token(&(ahead * u64::from(ahead > 0) + now() * u64::from(ahead > 0)).to_string())
        });
        let secrets = of([("gone", &gone), ("soon", &soon), ("later", &later), ("plain", "x")]);
        assert_eq!(secrets.usable("gone").map(Held::expose), Err(Standing::Expired));
        assert_eq!(secrets.usable("none").map(Held::expose), Err(Standing::Missing));
        assert!(secrets.usable("soon").is_ok());
        let of_all = |secrets: &Secrets| ["soon", "later", "plain"].map(|n| secrets.standing(n));
        assert_eq!(of_all(&secrets), [Standing::Expiring, Standing::Good, Standing::Good]);
        secrets.usable("plain").unwrap().answered(401);
        assert_eq!(secrets.standing("plain"), Standing::Refused);
        assert!(secrets.usable("plain").is_ok());
        secrets.usable("plain").unwrap().answered(200);
        assert_eq!(secrets.standing("plain"), Standing::Good);
    }
}
