//! Errors that know whose fault they are.
//!
//! Every error ends as one line on stderr and as one of three exit codes, so that a script can
//! branch without reading text. A message says what the error is first, in lower case, its subject
//! in single quotes, and ends with the way out when that is known: `widen 'egress.routes': agent
//! 'x' asks for …: ask the bottle's owner`.

use std::fmt;

/// Whose fault an error is, and so the exit code of the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 1: the honest no. Nothing is broken: a rule refuses, a change needs a restart, plans differ.
    No = 1,
    /// 2: the caller's fault: usage, a bad document, a bad manifest. Trying again cannot help.
    Caller = 2,
    /// 3: the world's fault: engine, disk, network. Trying again may help.
    World = 3,
}

/// A message with its exit code; used as the innermost error or as context around another.
#[derive(Debug)]
struct Fault {
    exit: Exit,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// An honest no (exit 1).
pub fn no(message: impl fmt::Display) -> anyhow::Error {
    Fault { exit: Exit::No, message: message.to_string() }.into()
}

/// A fault of the caller (exit 2).
pub fn caller(message: impl fmt::Display) -> anyhow::Error {
    Fault { exit: Exit::Caller, message: message.to_string() }.into()
}

/// A fault of the world (exit 3).
pub fn world(message: impl fmt::Display) -> anyhow::Error {
    Fault { exit: Exit::World, message: message.to_string() }.into()
}

/// Adds a verb phrase and a blame to whatever failed: `open(path).world("open the lock")?`.
pub trait Blame<T> {
    /// Blames the caller (exit 2).
    fn caller(self, doing: impl fmt::Display) -> anyhow::Result<T>;
    /// Blames the world (exit 3).
    fn world(self, doing: impl fmt::Display) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for Result<T, E> {
    fn caller(self, doing: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|e| blame(e, Exit::Caller, &doing))
    }

    fn world(self, doing: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|e| blame(e, Exit::World, &doing))
    }
}

pub(crate) fn blame(
    error: impl Into<anyhow::Error>,
    exit: Exit,
    doing: &dyn fmt::Display,
) -> anyhow::Error {
    error.into().context(Fault { exit, message: doing.to_string() })
}

/// The exit code of an error: that of its outermost blame; the world's where nobody is blamed.
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Fault>().map_or(Exit::World, |fault| fault.exit)
}

/// Text from elsewhere, made fit for a person's terminal: control and bidirectional-override
/// characters become visible escapes, so that nothing the text says can move a cursor.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if hidden {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outermost_blame_decides() {
        let error = Err::<(), _>(world("engine is away")).caller("read 'x'").unwrap_err();
        assert_eq!(exit_of(&error), Exit::Caller);
        assert_eq!(format!("{error:#}"), "read 'x': engine is away");
    }

    #[test]
    fn unblamed_error_is_the_worlds() {
        assert_eq!(exit_of(&anyhow::anyhow!("odd")), Exit::World);
    }

    #[test]
    fn escape_sequences_become_visible() {
        assert_eq!(visible("a\x1b[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\\nd");
    }
}
