//! Copies a folder into the state folder: what lies in it, and nothing that a link leads to.
//!
//! Everything is opened below an open folder, so a tree that changes while it is copied cannot
//! lead the copy elsewhere.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

use super::{Ids, remove_folder, rename};
use crate::error::Blame;

/// Copies the folder `from` to `to`, with modes and times, links as links, without sockets, pipes
/// and devices; everything in the copy belongs to `ids`. A copy that is there already is kept: it
/// may hold work.
pub fn copy_folder(from: &Path, to: &Path, ids: Ids) -> Result<()> {
    if to.symlink_metadata().is_ok() {
        return Ok(());
    }
    let what = || format!("copy '{}'", from.display());
    // Under another name until it is whole.
    let part = to.with_extension("part");
    remove_folder(&part)?;
    let source = rustix::fs::open(from, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let source = source.caller(what())?;
    let root = File::open("/").world(what())?;
    copy_entries(&source, root.as_fd(), &part, ids).world(what())?;
    rename(&part, to)
}

/// Makes the folder `name` in `at` after the pattern of `source`, and all that is in it.
fn copy_entries(source: &OwnedFd, at: BorrowedFd, name: &Path, ids: Ids) -> Result<()> {
    let pattern = rustix::fs::fstat(source)?;
    rustix::fs::mkdirat(at, name, Mode::RWXU)?;
    let folder = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(at, name, folder, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let found = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let text = || name.to_string_lossy().into_owned();
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let below = rustix::fs::openat(source, name, folder, Mode::empty()).world(text())?;
                let name = Path::new(OsStr::from_bytes(name.to_bytes()));
                copy_entries(&below, target.as_fd(), name, ids).world(text())?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let from = rustix::fs::openat(source, name, flags, Mode::empty()).world(text())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let to = rustix::fs::openat(&target, name, flags, Mode::RUSR).world(text())?;
                let (mut from, mut to) = (File::from(from), File::from(to));
                if from.metadata()?.is_file() {
                    std::io::copy(&mut from, &mut to).world(text())?;
                }
                finish(to.as_fd(), &found, ids)?;
            }
            FileType::Symlink => {
                let leads_to = rustix::fs::readlinkat(source, name, Vec::new())?;
                rustix::fs::symlinkat(leads_to.as_c_str(), &target, name).world(text())?;
                if let Some((uid, gid)) = ids {
                    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                    rustix::fs::chownat(&target, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
            _ => {}
        }
    }
    finish(target.as_fd(), &pattern, ids)
}

/// Sets owner, mode (without set-uid bits, which chown clears anyway) and times.
fn finish(made: BorrowedFd, pattern: &Stat, ids: Ids) -> Result<()> {
    if let Some((uid, gid)) = ids {
        rustix::fs::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    rustix::fs::fchmod(made, Mode::from_raw_mode(pattern.st_mode & 0o777))?;
    let time = |seconds: i64, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.try_into().unwrap_or_default(),
    };
    let times = Timestamps {
        last_access: time(pattern.st_atime, pattern.st_atime_nsec),
        last_modification: time(pattern.st_mtime, pattern.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(made, &times)?)
}
