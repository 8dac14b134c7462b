//! A folder of a sidecar's files, which is as untrusted as they are.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use rustix::fs::{Dir, Mode, OFlags};

use super::MAX_REPORT;
use crate::error::{Blame, world};

/// The bytes of a file, or why it was not read.
type Report = (String, Result<Vec<u8>>);

/// Reads up to `most` small files of a folder that a sidecar writes; says whether there are more. No
/// link is followed, not even in place of the folder. Files whose name begins with a dot are passed
/// over: they are being written.
pub fn reports(folder: &Path, most: usize) -> Result<(Vec<Report>, bool)> {
    let what = || format!("list '{}'", folder.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(folder, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok((Vec::new(), false)),
        other => other.world(what())?,
    };
    let mut found = Vec::new();
    for (seen, entry) in Dir::read_from(&opened).world(what())?.enumerate() {
        // The two dots are two more.
        if seen >= most + 2 {
            return Ok((found, true));
        }
        let entry = entry.world(what())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            let read = read(&opened, &name);
            found.push((name, read));
        }
    }
    Ok((found, false))
}

fn read(folder: &impl std::os::fd::AsFd, name: &str) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty()).world("read it")?);
    if !file.metadata().world("read it")?.is_file() {
        return Err(world("it is not a regular file: the sidecar cannot be trusted"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_REPORT + 1).read_to_end(&mut bytes).world("read it")?;
    if bytes.len() as u64 > MAX_REPORT {
        return Err(world(format!("it is larger than {} KiB", MAX_REPORT >> 10)));
    }
    Ok(bytes)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test has a folder of its own")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_pipes_and_masses_are_not_read() {
        let base = std::env::temp_dir().join(format!("reports-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        let folder = base.join("folder");
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        std::fs::write(base.join("secret"), "secret").unwrap();
        std::fs::write(folder.join("good"), "good").unwrap();
        std::fs::write(folder.join(".part"), "part").unwrap();
        std::fs::write(folder.join("large"), vec![0; 65 << 10]).unwrap();
        symlink(base.join("secret"), folder.join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), Mode::RWXU).unwrap();
        let (found, more) = reports(&folder, 9).unwrap();
        assert!(!more && found.len() == 5);
        for (name, read) in found {
            assert_eq!(read.ok(), (name == "good").then(|| b"good".to_vec()), "{name}");
        }
        assert!(reports(&folder, 2).unwrap().1);
        symlink(&folder, base.join("other")).unwrap();
        assert!(reports(&base.join("other"), 9).is_err());
        assert!(reports(&base.join("none"), 9).unwrap().0.is_empty());
        std::fs::remove_dir_all(base).unwrap();
    }
}
