//! The scan of what leaves: how fast it is, and how often it is wrong about what agents send.
//!
//! The corpus is what is found on the machine: the sources of crates and of this repository as they
//! are, inside a request to an LLM, and as the pack of a git push; and in `tests/fixtures/dlp-corpus`
//! a lock file of npm and the URLs of pip, cargo, npm, git, registries and LLMs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use bottle_egress::dlp::{self, Coding, Engine, Finding, Lens, Place, Scanner};
use serde_json::json;

use crate::Bench;
use crate::report::{Aim, Report};

/// Bytes of sources that are looked at.
const SOURCES: usize = 48 << 20;

/// Sources whose text is to be like a credential: rules of those who look for such, and their tests.
const ABOUT: [&str; 2] = ["secret", "token"];

/// Measures `dlp_*`.
pub(crate) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let secrets = [("db", "correct horse battery"), ("api", "a-key-of-a-provider-0123456789")]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let engine = Arc::new(Engine::new(&BTreeMap::from(secrets), false));
    let lens = Lens::new(engine, Vec::new(), "api.example.com".to_owned());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = sources(&root)?;
    let mut wrong: Vec<(String, Finding)> = Vec::new();
    let mut all = Vec::new();
    for (name, bytes) in &files {
        let text = String::from_utf8_lossy(bytes);
        let request = json!({ "model": "m", "messages": [{ "role": "user", "content": text }] });
        for body in [bytes, request.to_string().as_bytes()] {
            let found = dlp::scan_slice(&lens, Place::Body, body);
            wrong.extend(found.into_iter().map(|finding| (name.clone(), finding)));
        }
        all.extend_from_slice(bytes);
    }
    let corpus = root.join("tests/fixtures/dlp-corpus");
    let lock = std::fs::read(corpus.join("package-lock.json"))?;
    let pack = pack(&root)?;
    for (name, bytes) in [("package-lock.json", &lock), ("git push", &pack)] {
        let found = dlp::scan_slice(&lens, Place::Body, bytes);
        wrong.extend(found.into_iter().map(|finding| (name.to_owned(), finding)));
    }
    for line in std::fs::read_to_string(corpus.join("urls.txt"))?.lines() {
        let (host, path) = line
            .split_once("://")
            .and_then(|(_, rest)| rest.split_at_checked(rest.find('/')?))
            .with_context(|| format!("read '{line}'"))?;
        let lens = lens.to(host);
        let found = dlp::url(&lens, path).into_iter().chain(dlp::host(&lens, host));
        wrong.extend(found.map(|finding| (line.to_owned(), finding)));
    }
    for (name, finding) in &wrong {
        eprintln!("bench: {finding} at {} of {name}", finding.offset);
    }
    #[expect(clippy::cast_precision_loss, reason = "they are few")]
    report.plain("dlp_false_positives", &[wrong.len() as f64], "findings", Aim::AtMost(0.0));
    let coded = base64(&all[..all.len().min(16 << 20)]);
    let (mut plain, mut decoded) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds(7) {
        plain.push(rate(&lens, &all, None));
        decoded.push(rate(&lens, &coded, None));
    }
    report.plain("dlp_mb_per_s", &plain, "MB/s a core of sources", Aim::AtLeast(500.0));
    // No aim: what is decoded is looked at twice.
    report.plain("dlp_decoded_mb_per_s", &decoded, "MB/s a core of Base64", Aim::AtLeast(0.0));
    Ok(())
}

/// Millions of bytes a second, in pieces as they come off the network.
fn rate(lens: &Lens, bytes: &[u8], coding: Option<Coding>) -> f64 {
    let begin = Instant::now();
    let mut scanner = Scanner::new(lens, Place::Body, coding);
    bytes.chunks(16 << 10).for_each(|piece| scanner.feed(piece));
    scanner.end();
    #[expect(clippy::cast_precision_loss, reason = "they are no more than fit")]
    let length = bytes.len() as f64;
    length / begin.elapsed().as_secs_f64() / 1e6
}

/// Files of this repository and of the crates that cargo has unpacked.
fn sources(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let listed = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut open: Vec<PathBuf> =
        listed.split_terminator('\0').map(|name| root.join(name)).collect();
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    open.extend(cargo.map(|cargo| cargo.join("registry/src")));
    let (mut files, mut size) = (Vec::new(), 0);
    while let Some(path) = open.pop().filter(|_| size < SOURCES) {
        if path.is_dir() {
            let mut inside: Vec<_> =
                std::fs::read_dir(&path)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
            inside.sort();
            open.extend(inside);
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.len() < 4 << 20
        {
            let name = path.display().to_string();
            if !ABOUT.iter().any(|about| name.contains(about)) {
                size += bytes.len();
                files.push((name, bytes));
            }
        }
    }
    Ok(files)
}

/// What a push of the last commits sends, less the samples of the scan itself.
fn pack(root: &Path) -> Result<Vec<u8>> {
    let script = "git rev-list --objects --max-count=200 HEAD -- lib man scripts tools/bottle-plan | git pack-objects --stdout -q";
    let packed = Command::new("sh").current_dir(root).args(["-c", script]).output()?;
    Ok([&b"0000"[..], &packed.stdout].concat())
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.as_chunks::<3>().0.iter();
    groups
        .flat_map(|[a, b, c]| {
            let bits = u32::from_be_bytes([0, *a, *b, *c]);
            [18, 12, 6, 0].map(|by| DIGITS[(bits >> by & 63) as usize])
        })
        .collect()
}
