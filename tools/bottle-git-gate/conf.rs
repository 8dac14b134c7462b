//! The configuration: what is in force, and the thread that reads it again when it changes.
//!
//! The folder is looked at ten times a second, which needs no inotify instance, of which a uid has
//! few, and works on every file system. What cannot be taken is told, and the last good one stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Result;
use bottle::error::{Blame, visible};
use bottle::gate::{FILE, Gate};
use bottle::policy::{Loaded, Refused};
use bottle::run::say;
use bottle::{caller, record, state};

use crate::TOOL;

/// Between two looks.
const TICK: Duration = Duration::from_millis(100);

/// The largest `gate.json`.
const MAX: u64 = 4 << 20;

/// What is in force.
#[derive(Debug)]
pub(crate) struct Force {
    pub(crate) gate: Gate,
    /// SHA-256 of the bytes that it came from.
    pub(crate) sha256: String,
}

impl Force {
    /// Reads what lies in a folder now.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        Self::of(&bytes(folder)?)
    }

    fn of(bytes: &[u8]) -> Result<Self> {
        Ok(Self { gate: Gate::parse(bytes)?, sha256: state::sha256_hex(bytes) })
    }
}

fn bytes(folder: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let what = || format!("read '{FILE}'");
    let mut bytes = Vec::new();
    let file = std::fs::File::open(folder.join(FILE)).caller(what())?;
    file.take(MAX + 1).read_to_end(&mut bytes).world(what())?;
    if bytes.len() as u64 > MAX {
        return Err(caller(format!("{}: it is larger than {} MiB", what(), MAX >> 20)));
    }
    Ok(bytes)
}

/// The folder, and what of it is in force.
pub(crate) struct Conf {
    folder: PathBuf,
    run: PathBuf,
    force: RwLock<Arc<Force>>,
}

impl Conf {
    /// Reads it for the first time.
    pub(crate) fn open(folder: &Path, run: &Path) -> Result<Self> {
        let force = RwLock::new(Arc::new(Force::read(folder)?));
        Ok(Self { folder: folder.to_owned(), run: run.to_owned(), force })
    }

    /// What is in force.
    pub(crate) fn force(&self) -> Arc<Force> {
        self.force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells what is in force, and watches from then on, in a thread of its own.
    pub(crate) fn watch(self: Arc<Self>) -> Result<()> {
        let mut loaded = loaded(&self.force());
        self.tell(&loaded)?;
        let watch = move || {
            loop {
                std::thread::sleep(TICK);
                if let Err(error) = self.look(&mut loaded) {
                    say(TOOL, &format!("{error:#}"));
                }
            }
        };
        std::thread::Builder::new().name("watch".into()).spawn(watch).world("start the watch")?;
        Ok(())
    }

    fn look(&self, loaded: &mut Loaded) -> Result<()> {
        let (sha256, read) = match bytes(&self.folder) {
            Ok(bytes) => {
                let sha256 = state::sha256_hex(&bytes);
                if sha256 == loaded.sha256 && loaded.refused.is_none() {
                    return Ok(());
                }
                (sha256, Force::of(&bytes))
            }
            Err(error) => (String::new(), Err(error)),
        };
        match read {
            Ok(force) => {
                let force = Arc::new(force);
                *loaded = self::loaded(&force);
                *self.force.write().unwrap_or_else(PoisonError::into_inner) = force;
            }
            Err(error) => {
                let refused = Some(Refused { sha256, error: visible(&format!("{error:#}")) });
                if loaded.refused == refused {
                    return Ok(());
                }
                let kept = loaded.generation;
                say(TOOL, &format!("take '{FILE}': {error:#}: generation {kept} stays in force"));
                loaded.refused = refused;
            }
        }
        self.tell(loaded)
    }

    fn tell(&self, loaded: &Loaded) -> Result<()> {
        let mut text = serde_json::to_string(loaded).world("write 'loaded.json'")?;
        text.push('\n');
        state::write(&self.run.join("loaded.json"), text.as_bytes(), 0o600, None)
    }
}

fn loaded(force: &Force) -> Loaded {
    Loaded {
        sha256: force.sha256.clone(),
        generation: force.gate.generation,
        plan: force.gate.plan.clone(),
        loaded_at: record::now(),
        refused: None,
    }
}
