//! The reload: the configuration's folder is watched, SIGHUP reads too. What is invalid, or in strict
//! mode looser, changes nothing; only the log tells.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::config::Config;
use crate::log;

/// Changes that follow one another are one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// What is in force.
pub(crate) type Force = Arc<RwLock<Arc<Config>>>;

/// Goes on until the program ends.
pub(crate) async fn watch(file: &Path, force: Force) -> Result<()> {
    let mut hup = signal(SignalKind::hangup())?;
    let changed = Arc::new(Notify::new());
    let fd = inotify::init(CreateFlags::CLOEXEC)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    inotify::add_watch(&fd, folder, WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE)?;
    let told = changed.clone();
    std::thread::spawn(move || {
        let mut events = [0_u8; 4096];
        while rustix::io::read(&fd, &mut events).is_ok() {
            told.notify_one();
        }
    });
    loop {
        tokio::select! {
            _ = hup.recv() => {}
            () = changed.notified() => tokio::time::sleep(DEBOUNCE).await,
        }
        let now = force.read().map_or_else(|e| e.into_inner().clone(), |now| now.clone());
        let next = Config::read(file).and_then(|next| compare(&now, &next).map(|()| next));
        match next {
            Ok(next) if next == *now => {}
            Ok(next) => {
                *force.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(next);
                log("config_reload", &[("status", "success")]);
            }
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "config reload failed: {error:#}");
            }
        }
    }
}

/// Refuses what needs a restart, and in strict mode what would let more out than before; new names
/// in `api_allowlist` do not count.
fn compare(now: &Config, next: &Config) -> Result<()> {
    if now.fetch_proxy.listen != next.fetch_proxy.listen
        || now.forward_proxy.enabled != next.forward_proxy.enabled
    {
        bail!("listen addresses and forward_proxy.enabled need a restart");
    }
    if now.mode != "strict" {
        return Ok(());
    }
    let adds = |now: &[String], next: &[String]| next.iter().any(|item| !now.contains(item));
    let loosened = [
        ("mode", next.mode != "strict"),
        ("trusted_domains", adds(&now.trusted_domains, &next.trusted_domains)),
        (
            "tls_interception.passthrough_domains",
            adds(
                &now.tls_interception.passthrough_domains,
                &next.tls_interception.passthrough_domains,
            ),
        ),
        ("ssrf.ip_allowlist", adds(&now.ssrf.ip_allowlist, &next.ssrf.ip_allowlist)),
        (
            "dlp.patterns",
            now.dlp.patterns.iter().any(|pattern| !next.dlp.patterns.contains(pattern)),
        ),
    ];
    match loosened.iter().find(|(_, is)| *is) {
        Some((what, _)) => bail!("strict mode: {what} was downgraded: reload refused"),
        None => Ok(()),
    }
}
