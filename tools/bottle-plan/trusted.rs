//! A manifest that an agent can write is not yet the owner's word.

use anyhow::Result;
use bottle::run::say;
use bottle::source::Source;
use bottle::{caller, trust};

use crate::facts::World;

/// The most lines of a difference that are shown.
const MAX_LINES: usize = 40;

/// Refuses a manifest that lies where an agent could have written it, unless the operator trusts it
/// as it is. What comes by stdin is the word of whoever started this.
pub(crate) fn check(source: &Source, world: &World) -> Result<()> {
    if !source.is_file() {
        return Ok(());
    }
    let path = source.path.display();
    for link in &source.links {
        if let Some(folder) = world.written(link) {
            return Err(caller(format!(
                "manifest '{}' is reached through link '{}', which an agent can turn elsewhere, because '{}' is writable: name '{path}' itself",
                source.label,
                link.display(),
                folder.display()
            )));
        }
    }
    let Some(folder) = world.written(&source.path) else { return Ok(()) };
    let lies =
        format!("manifest '{path}' lies in '{}', which an agent can write", folder.display());
    let Some(trusted) = trust::of(&world.state, &source.path)? else {
        return Err(caller(format!(
            "{lies}, and is not trusted: read it, then run 'bottle trust {path}'"
        )));
    };
    if trusted.sha256 == source.sha256() {
        return Ok(());
    }
    let difference = trust::difference(&trusted.text, &source.text);
    for line in difference.iter().take(MAX_LINES) {
        say("bottle-plan", line);
    }
    if let Some(more @ 1..) = difference.len().checked_sub(MAX_LINES) {
        say("bottle-plan", &format!("… and {more} lines more"));
    }
    Err(caller(format!(
        "{lies}, and differs as shown from what was trusted at {}: read it, then run 'bottle trust {path}'",
        trusted.trusted_at
    )))
}
