//! Watches the folders of configuration and secrets, and tells in `loaded.json` what is in force and
//! in `secrets.json` how the secrets are.
//!
//! inotify says at once when a file is renamed into the folder. A uid has few inotify instances, and
//! any container of that uid may use them up: without one the folder is looked at every 100 ms. Once
//! a second it is looked at in any case, because some file systems bring no events; SIGHUP looks too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bottle::credentials::Told;
use bottle::error::{Blame, visible};
use bottle::policy::{Loaded, Refused};
use bottle::run::say;
use bottle::{record, state};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::conf::{Conf, Force, Look};
use crate::secrets;

/// Between two looks, with and without inotify.
const SLOW: Duration = Duration::from_secs(1);
const FAST: Duration = Duration::from_millis(100);

/// The folder's watcher and the teller of `loaded.json`.
pub(crate) struct Watch {
    conf: Arc<Conf>,
    folders: [PathBuf; 2],
    run: PathBuf,
    loaded: Loaded,
    secrets: Option<Told>,
    hup: Signal,
}

impl Watch {
    /// Tells what is in force; called once the listeners are bound.
    pub(crate) fn start(conf: Arc<Conf>, folders: [&Path; 2], run: &Path) -> Result<Self> {
        let loaded = loaded(&conf.force());
        // Whoever has read `loaded.json` may send it.
        let hup = signal(SignalKind::hangup()).world("take SIGHUP")?;
        let (folders, run) = (folders.map(Path::to_owned), run.to_owned());
        let mut watch = Self { conf, folders, run, loaded, secrets: None, hup };
        watch.tell_secrets()?;
        watch.tell()?;
        Ok(watch)
    }

    /// Goes on until the program ends.
    pub(crate) async fn run(mut self) {
        let changed = self.inotify();
        let mut tick = tokio::time::interval(if changed.is_some() { SLOW } else { FAST });
        let mut seen = None;
        loop {
            let surely = tokio::select! {
                _ = self.hup.recv() => true,
                () = told(changed.as_deref()) => true,
                _ = tick.tick() => false,
            };
            let now = stamp(&self.folders);
            if surely || seen.as_ref() != Some(&now) {
                seen = Some(now);
                self.look();
            }
            self.conf.sweep();
            // They also change by time, and by what servers answer.
            if let Err(error) = self.tell_secrets() {
                say("bottle-egress", &format!("{error:#}"));
            }
        }
    }

    fn look(&mut self) {
        let told = match self.conf.look() {
            Look::Same if self.loaded.refused.is_none() => return,
            Look::Same => {
                self.loaded.refused = None;
                self.tell()
            }
            Look::New(force) => {
                self.loaded = loaded(&force);
                self.tell()
            }
            Look::Refused { sha256, error } => {
                let error = visible(&format!("{error:#}"));
                let refused = Some(Refused { sha256, error });
                if self.loaded.refused == refused {
                    return;
                }
                if let Some(refused) = &refused {
                    let kept = self.loaded.generation;
                    say(
                        "bottle-egress",
                        &format!(
                            "take 'routes.yaml': {}: generation {kept} stays in force",
                            refused.error
                        ),
                    );
                }
                self.loaded.refused = refused;
                self.tell()
            }
        };
        if let Err(error) = told {
            say("bottle-egress", &format!("{error:#}"));
        }
    }

    fn tell(&self) -> Result<()> {
        self.write("loaded.json", &self.loaded)
    }

    /// Tells how the secrets are, where that has changed.
    fn tell_secrets(&mut self) -> Result<()> {
        let told = self.conf.told();
        if self.secrets.as_ref() == Some(&told) {
            return Ok(());
        }
        self.write("secrets.json", &told)?;
        self.secrets = Some(told);
        Ok(())
    }

    fn write(&self, name: &str, what: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(what).world(format!("write '{name}'"))?;
        text.push('\n');
        state::write(&self.run.join(name), text.as_bytes(), 0o600, None)
    }

    /// Something that is told of changes in the folder.
    fn inotify(&self) -> Option<Arc<Notify>> {
        let watch = || -> std::io::Result<_> {
            let fd = inotify::init(CreateFlags::CLOEXEC)?;
            let flags = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
            inotify::add_watch(&fd, &self.folders[0], flags)?;
            // Nothing that is missing comes later: both folders are mounted.
            if self.folders[1].is_dir() {
                inotify::add_watch(&fd, &self.folders[1], flags)?;
            }
            let changed = Arc::new(Notify::new());
            let told = changed.clone();
            std::thread::Builder::new().name("inotify".into()).spawn(move || {
                let mut events = [0_u8; 4096];
                // Which events they are does not matter.
                while rustix::io::read(&fd, &mut events).is_ok() {
                    told.notify_one();
                }
            })?;
            Ok(changed)
        };
        watch()
            .inspect_err(|error| {
                let text =
                    format!("watch the configuration: {error}: looking every 100 ms instead");
                say("bottle-egress", &text);
            })
            .ok()
    }
}

fn loaded(force: &Force) -> Loaded {
    let routes = force.policy.routes();
    Loaded {
        sha256: force.sha256.clone(),
        generation: routes.generation,
        plan: routes.plan.clone(),
        loaded_at: record::now(),
        refused: None,
    }
}

async fn told(changed: Option<&Notify>) {
    match changed {
        Some(changed) => changed.notified().await,
        None => std::future::pending().await,
    }
}

/// What changes when a file is replaced or rewritten.
type Stamp = [Option<(u64, u64, SystemTime)>; 3];

fn stamp([conf, secrets]: &[PathBuf; 2]) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    [(conf, "routes.yaml"), (conf, "roots.pem"), (secrets, secrets::FILE)].map(|(folder, name)| {
        let found = std::fs::metadata(folder.join(name)).ok()?;
        Some((found.ino(), found.len(), found.modified().ok()?))
    })
}
