//! Paths of the host as a manifest writes them: absolute, below `~`, or relative to its folder.

use std::cell::RefCell;
use std::path::PathBuf;

use anyhow::Result;
use bottle::caller;
use bottle::path::{Found, follow};

/// What paths are relative to.
pub(crate) struct Base {
    /// The manifest's folder, links resolved.
    pub(crate) folder: PathBuf,
    /// The caller's home.
    pub(crate) home: Option<PathBuf>,
    /// The links that paths have led through so far, each with the text of the path: whoever can
    /// write where a link lies decides where the path leads.
    pub(crate) links: RefCell<Vec<(String, PathBuf)>>,
}

impl Base {
    /// Finds a path, which must be there. A relative one may not leave the manifest's folder: what
    /// is far away is written as such.
    pub(crate) fn find(&self, text: &str) -> Result<Found> {
        let path = self.absolute(text)?;
        let found = follow(&path).map_err(|why| {
            let hint = if text.contains('$') { ": variables are not expanded here" } else { "" };
            let why = format!("{why:#}{hint}");
            // A path that was written in full need not be named twice.
            if why.contains(&format!("'{text}'")) {
                caller(why)
            } else {
                caller(format!("'{text}': {why}"))
            }
        })?;
        let relative = !text.starts_with(['~', '/']);
        if relative && !found.path.starts_with(&self.folder) {
            return Err(caller(format!(
                "'{text}' leaves the manifest's folder '{}': write it absolute, '{}'",
                self.folder.display(),
                found.path.display()
            )));
        }
        let links = found.links.iter().map(|link| (text.to_owned(), link.clone()));
        self.links.borrow_mut().extend(links);
        Ok(found)
    }

    /// Where a path leads, if it does.
    pub(crate) fn locate(&self, text: &str) -> Option<PathBuf> {
        Some(follow(&self.absolute(text).ok()?).ok()?.path)
    }

    fn absolute(&self, text: &str) -> Result<PathBuf> {
        match (text.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                Ok(home.join(rest.trim_start_matches('/')))
            }
            (Some(_), None) => {
                Err(caller(format!("'{text}': there is no home folder: write it absolute")))
            }
            (Some(_), Some(_)) => Err(caller(format!(
                "'{text}': only the caller's own '~/' is known: write it absolute"
            ))),
            (None, _) => Ok(self.folder.join(text)),
        }
    }
}
