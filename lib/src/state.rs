//! The state folder: the only module that writes files.
//!
//! Every write is temp-then-rename inside the folder it ends in, with owner and mode set before
//! the rename, so that a reader, a container with the folder mounted included, sees the old file or
//! the new one and never a part. A lock is an open file: it ends with its holder and cannot go
//! stale.

mod copy;
mod reports;

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use atomicwrites::{AtomicFile, OverwriteBehavior};
use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use sha2::{Digest, Sha256};

use crate::error::{Blame, caller, world};
use crate::name::Slug;

pub use copy::copy_folder;
pub use reports::reports;

/// The largest file that is read from a sidecar's `run/` folder, whose contents are untrusted.
pub const MAX_REPORT: u64 = 64 << 10;

/// The state folder of one user.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
}

/// Who a file below the state folder belongs to: `None` leaves it the caller's.
pub type Ids = Option<(u32, u32)>;

/// The uid and gid of this process.
#[must_use]
pub fn caller_ids() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

/// A held lock. Child processes inherit it: it is free again when the last of them has ended.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl State {
    /// `$BOTTLE_STATE`, else `$XDG_STATE_HOME/bottle`, else `~/.local/state/bottle`. Nothing is
    /// created yet, and nothing need be there.
    pub fn find() -> Result<Self> {
        let set =
            |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("BOTTLE_STATE")
            .or_else(|| set("XDG_STATE_HOME").map(|home| home.join("bottle")))
            .or_else(|| std::env::home_dir().map(|home| home.join(".local/state/bottle")))
            .ok_or_else(|| {
                caller("find the state folder: there is no home folder: set BOTTLE_STATE")
            })?;
        Self::at(&root)
    }

    /// The state folder at an absolute path, which need not be there yet.
    pub fn at(root: &Path) -> Result<Self> {
        if !root.is_absolute() {
            return Err(caller(format!(
                "find the state folder: '{}' is not absolute: set BOTTLE_STATE to an absolute path",
                root.display()
            )));
        }
        match fs::symlink_metadata(root) {
            Ok(found) if found.uid() != rustix::process::getuid().as_raw() => Err(caller(format!(
                "use the state folder '{}': it belongs to uid {}: set BOTTLE_STATE to a folder of your own",
                root.display(),
                found.uid()
            ))),
            Ok(found) if !found.is_dir() => Err(caller(format!(
                "use the state folder '{}': it is not a folder: set BOTTLE_STATE to one",
                root.display()
            ))),
            _ => Ok(Self { root: canonical(root)? }),
        }
    }

    /// The state folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one bottle.
    #[must_use]
    pub fn bottle(&self, slug: &Slug) -> PathBuf {
        self.root.join(slug.as_str())
    }

    /// The folder of leases, one file a subnet.
    #[must_use]
    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// What is kept of reaped bottles.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.root.join("archive")
    }

    /// The compose project of a bottle. The hash keeps bottles of one name apart, of other users
    /// and other state folders: another file with the same `-p` replaces containers.
    #[must_use]
    pub fn project(&self, slug: &Slug) -> String {
        format!("bottle-{slug}-{}", self.id())
    }

    /// The 8 hex digits that end the compose projects of this state folder.
    #[must_use]
    pub fn id(&self) -> String {
        let uid = rustix::process::getuid().as_raw();
        let key = format!("{}\0{uid}\0{}", crate::owner::machine(), self.root.display());
        sha256_hex(key.as_bytes())[..8].to_owned()
    }

    /// Makes the folder of a bottle and takes its lock, waiting up to `patience`.
    pub fn lock(&self, slug: &Slug, patience: Duration) -> Result<Lock> {
        let folder = self.bottle(slug);
        // Reap deletes the folder while it holds the lock; whoever waited then holds a lock on a
        // file that is gone, and has to begin again.
        loop {
            make_folder(&folder, None)?;
            if let Some(lock) = lock_file(&folder.join("lock"), patience)? {
                return Ok(lock);
            }
        }
    }

    /// Takes back what [`State::lock`] made, while its lock is held: the folder of a bottle, where
    /// nothing else is in it.
    pub fn forget(&self, slug: &Slug) -> Result<()> {
        let folder = self.bottle(slug);
        if names(&folder)? == ["lock"] {
            remove(&folder.join("lock"))?;
            // Somebody who waits for the lock may have made a new one.
            let _ = fs::remove_dir(&folder);
        }
        Ok(())
    }

    /// The slugs that have a folder.
    pub fn slugs(&self) -> Result<Vec<Slug>> {
        let mut slugs: Vec<Slug> =
            names(&self.root)?.iter().filter_map(|name| name.parse().ok()).collect();
        slugs.retain(|slug| self.holds(slug));
        slugs.sort();
        Ok(slugs)
    }

    /// Whether a bottle has a folder. A folder of that name that no tool has ever locked is none:
    /// somebody's `BOTTLE_STATE` may be a folder that is used for something else as well.
    #[must_use]
    pub fn holds(&self, slug: &Slug) -> bool {
        self.bottle(slug).join("lock").is_file()
    }
}

/// Resolves the links of a path, also where its end is still missing: the state folder must have
/// the same name, and so the same [`State::id`], before it is made and after.
fn canonical(path: &Path) -> Result<PathBuf> {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Err(e), Some(parent), Some(name)) if e.kind() == ErrorKind::NotFound => {
            Ok(canonical(parent)?.join(name))
        }
        (found, ..) => found.world(format!("find the state folder '{}'", path.display())),
    }
}

/// Takes a lock on a file, which is created where it is missing, for this process and the calls of
/// the engine. `None`: the file was deleted meanwhile.
pub fn lock_file(path: &Path, patience: Duration) -> Result<Option<Lock>> {
    let lock = lock_alone(path, patience)?;
    if let Some(Lock { file }) = &lock {
        // Inherited by the calls of the engine, so that the lock outlives a killed tool until they
        // end.
        rustix::io::fcntl_setfd(file.as_fd(), rustix::io::FdFlags::empty())
            .world(format!("lock '{}'", path.display()))?;
    }
    Ok(lock)
}

/// The same for this process alone.
pub fn lock_alone(path: &Path, patience: Duration) -> Result<Option<Lock>> {
    let what = || format!("lock '{}'", path.display());
    #[expect(clippy::disallowed_methods, reason = "the only writer")]
    let mut options = fs::OpenOptions::new();
    let file = match options.create(true).append(true).mode(0o600).open(path) {
        Err(gone) if gone.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.world(what())?,
    };
    let end = Instant::now() + patience;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(world(format!(
                    "{}: another tool has held it for {} s",
                    what(),
                    patience.as_secs()
                )));
            }
            Err(e) => return Err(world(format!("{}: {e}", what()))),
        }
    }
    let same = fs::metadata(path)
        .is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino()));
    Ok(same.then_some(Lock { file }))
}

/// Makes a folder, 0700, and its parents; sets its owner where it is new or another's.
pub fn make_folder(path: &Path, ids: Ids) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .world(format!("make folder '{}'", path.display()))?;
    if let Some((uid, gid)) = ids {
        let found = fs::symlink_metadata(path).world(format!("look at '{}'", path.display()))?;
        if (found.uid(), found.gid()) != (uid, gid) {
            rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .world(format!("give '{}' to {uid}:{gid}", path.display()))?;
        }
    }
    Ok(())
}

/// Sets the mode of a folder that is to be read by others than its owner.
pub fn set_mode(folder: &Path, mode: u32) -> Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty())
        .and_then(|open| rustix::fs::fchmod(open, Mode::from_raw_mode(mode)))
        .world(format!("set the mode of '{}'", folder.display()))
}

/// Writes a file that outlives a crash of the machine: temporary, mode and owner, fsync, rename,
/// fsync of the folder.
pub fn write(path: &Path, bytes: &[u8], mode: u32, ids: Ids) -> Result<()> {
    AtomicFile::new(path, OverwriteBehavior::AllowOverwrite)
        .write(|file| fill(file, bytes, mode, ids))
        .map_err(|e| world(format!("write '{}': {}", path.display(), std::io::Error::from(e))))
}

/// Writes a file of a bottle: temporary, mode and owner, rename. Without fsync, which costs 10 ms a
/// file: no bottle outlives a crash of its machine, and reap finds what is left by its labels.
pub fn write_unsynced(path: &Path, bytes: &[u8], mode: u32, ids: Ids) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let whole = || {
        fill(&mut create_new(&part)?, bytes, mode, ids)
            .world(format!("write '{}'", path.display()))?;
        rename(&part, path)
    };
    // The error that led here is the one to tell.
    whole().inspect_err(|_| drop(remove(&part)))
}

/// Owner and mode first: nobody else may see a byte of it.
fn fill(file: &mut File, bytes: &[u8], mode: u32, ids: Ids) -> std::io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Some((uid, gid)) = ids {
        rustix::fs::fchown(&*file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    file.write_all(bytes)
}

/// Appends to a file, in one write: what is there is never changed. No link is followed.
pub fn append(path: &Path, bytes: &[u8], ids: Ids) -> Result<()> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    #[expect(clippy::disallowed_methods, reason = "the only writer")]
    let mut options = fs::OpenOptions::new();
    let what = || format!("write '{}'", path.display());
    let opened = options.create(true).append(true).mode(0o600).custom_flags(flags).open(path);
    let mut file = opened.world(what())?;
    if let Some((uid, gid)) = ids {
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .world(what())?;
    }
    file.write_all(bytes).world(what())
}

/// Opens a new file to be written bit by bit, 0600; [`rename`] gives it its name when it is whole.
pub fn create_new(path: &Path) -> Result<File> {
    #[expect(clippy::disallowed_methods, reason = "the only writer")]
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    opened.world(format!("write '{}'", path.display()))
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the only writer")]
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(world(format!("remove '{}': {e}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Removes a folder and all below it, never following a link; one that is not there is no error.
pub fn remove_folder(path: &Path) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the only writer")]
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(world(format!("remove '{}': {e}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Moves a file or folder within the state folder.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the only writer")]
    fs::rename(from, to).world(format!("move '{}' to '{}'", from.display(), to.display()))
}

/// Opens a file that a sidecar wrote, which is untrusted: no link is followed, no pipe blocks, only
/// a regular file is read. `None`: it is not there.
pub fn open_report(path: &Path) -> Result<Option<File>> {
    let what = || format!("read '{}'", path.display());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(world(format!("{}: {e}", what()))),
    };
    if !file.metadata().world(what())?.is_file() {
        return Err(world(format!(
            "{}: it is not a regular file: the sidecar cannot be trusted",
            what()
        )));
    }
    Ok(Some(file))
}

/// Reads a small file that a sidecar wrote, at most [`MAX_REPORT`] bytes.
pub fn read_report(path: &Path) -> Result<Option<Vec<u8>>> {
    use std::io::Read;
    let Some(file) = open_report(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_REPORT + 1)
        .read_to_end(&mut bytes)
        .world(format!("read '{}'", path.display()))?;
    if bytes.len() as u64 > MAX_REPORT {
        return Err(world(format!(
            "read '{}': it is larger than {} KiB",
            path.display(),
            MAX_REPORT >> 10
        )));
    }
    Ok(Some(bytes))
}

/// The names in a folder; none where the folder is missing.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.world(format!("list '{}'", folder.display()))?,
    };
    entries
        .map(|entry| {
            Ok(entry
                .world(format!("list '{}'", folder.display()))?
                .file_name()
                .to_string_lossy()
                .into_owned())
        })
        .collect()
}

/// SHA-256 as 64 hex digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
