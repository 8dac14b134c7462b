//! A manifest as it lies there: found, read once, not yet parsed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::{Blame, caller};
use crate::path::follow;
use crate::plan::ManifestSource;
use crate::state::sha256_hex;
use crate::strict;

/// The names that a manifest is looked for by.
const NAMES: [&str; 3] = ["bottle.yaml", "bottle.yml", "bottle.json"];

/// The largest manifest that is read.
const MAX_BYTES: u64 = 1 << 20;

/// A manifest that was read.
#[derive(Debug)]
pub struct Source {
    /// What messages call it.
    pub label: String,
    /// Absolute, links resolved; `-` for stdin.
    pub path: PathBuf,
    /// The links that led there.
    pub links: Vec<PathBuf>,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Reads stdin.
    pub fn stdin() -> Result<Self> {
        let text = read(std::io::stdin().lock(), "stdin")?;
        Ok(Self { label: "stdin".to_owned(), path: "-".into(), links: Vec::new(), text })
    }

    /// Names this manifest, and the place of the field that the error is about.
    #[must_use]
    pub fn placed(&self, error: anyhow::Error) -> anyhow::Error {
        strict::placed(error, &self.text, &self.label)
    }

    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        let what = || format!("read manifest '{label}'");
        let found = std::path::absolute(path).map_err(Into::into).and_then(|it| follow(&it));
        let found = found.caller(what())?;
        // A pipe would block for as long as nobody writes to it.
        if !found.path.is_file() {
            return Err(caller(format!("{}: it is not a file: use '-' for a pipe", what())));
        }
        let text = read(File::open(&found.path).caller(what())?, &label)?;
        Ok(Self { label, path: found.path, links: found.links, text })
    }

    /// Reads the manifest in a folder, or in the nearest one above it.
    pub fn nearest(here: &Path) -> Result<Self> {
        for folder in here.ancestors() {
            let found: Vec<PathBuf> =
                NAMES.iter().map(|name| folder.join(name)).filter(|path| path.exists()).collect();
            match &found[..] {
                [] => {}
                [one] => {
                    own(one)?;
                    let label = one.strip_prefix(here).unwrap_or(one).display().to_string();
                    return Ok(Self { label, ..Self::open(one)? });
                }
                [one, other, ..] => {
                    return Err(caller(format!(
                        "find the manifest: both '{}' and '{}' are there: name one of them",
                        one.display(),
                        other.display()
                    )));
                }
            }
        }
        Err(caller(format!(
            "find the manifest: there is no 'bottle.yaml' in '{}' or above it: write one, or name another file",
            here.display()
        )))
    }

    /// Whether it is a file, and not stdin.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.path.is_absolute()
    }

    /// SHA-256 of its bytes, 64 hex digits.
    #[must_use]
    pub fn sha256(&self) -> String {
        sha256_hex(self.text.as_bytes())
    }

    /// As a plan names it.
    #[must_use]
    pub fn named(&self) -> ManifestSource {
        ManifestSource { path: self.path.clone(), sha256: self.sha256() }
    }
}

/// Refuses to pick up what somebody else put into a folder above: a manifest names commands that
/// the caller then runs.
fn own(path: &Path) -> Result<()> {
    let found = std::fs::metadata(path).caller(format!("look at '{}'", path.display()))?;
    let caller_id = rustix::process::getuid().as_raw();
    let why = match found.uid() {
        _ if found.mode() & 0o002 != 0 => "everybody can write it".to_owned(),
        0 => return Ok(()),
        uid if uid == caller_id => return Ok(()),
        uid => format!("it belongs to uid {uid}"),
    };
    Err(caller(format!(
        "find the manifest: '{}' is there, and {why}: if it is meant, name it",
        path.display()
    )))
}

fn read(from: impl Read, label: &str) -> Result<String> {
    let what = || format!("read manifest '{label}'");
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes).caller(what())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(caller(format!("{}: it is larger than {} MiB", what(), MAX_BYTES >> 20)));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(caller(format!("{}: it is empty", what())));
    }
    String::from_utf8(bytes).map_err(|_| caller(format!("{}: it is not UTF-8", what())))
}
