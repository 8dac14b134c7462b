//! Certificates that others signed: the host's public roots, and those that a plan adds.

use std::fs;

use anyhow::Result;
use bottle::plan::Plan;
use bottle::{Blame, caller};

/// Where systems keep the bundle of public roots; the list of Go's `crypto/x509`.
const PLACES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The host's public roots as PEM; empty where it has none.
pub(crate) fn of_host() -> String {
    let found = PLACES.iter().find_map(|place| fs::read_to_string(place).ok());
    found.map_or_else(String::new, |text| certificates(&text))
}

/// The certificates in the files that a plan names, as PEM.
pub(crate) fn of_plan(plan: &Plan) -> Result<String> {
    let mut all = String::new();
    for path in &plan.egress.ca_certificates {
        let what = || format!("read CA certificates '{}'", path.display());
        let found = certificates(&fs::read_to_string(path).caller(what())?);
        if found.is_empty() {
            return Err(caller(format!("{}: there is none in it: give a PEM file", what())));
        }
        all.push_str(&found);
    }
    Ok(all)
}

/// The certificates of a PEM text and nothing else: such a file may hold a private key too.
pub(crate) fn certificates(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in text.lines().map(str::trim_end) {
        inside |= line == "-----BEGIN CERTIFICATE-----";
        if inside {
            out.push_str(line);
            out.push('\n');
        }
        inside &= line != "-----END CERTIFICATE-----";
    }
    // One that does not end would swallow the first of the next file.
    if inside { String::new() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

    #[test]
    fn keys_and_comments_are_left_out() {
        let text = format!(
            "# comment\n{CERT}-----BEGIN EC PRIVATE KEY-----\nKK==\n-----END EC PRIVATE KEY-----\n{CERT}"
        );
        assert_eq!(certificates(&text), format!("{CERT}{CERT}"));
    }

    #[test]
    fn file_that_ends_early_gives_nothing() {
        assert_eq!(certificates("-----BEGIN CERTIFICATE-----\nAA==\n"), "");
    }
}
