//! A document for another reader than the next tool.

use std::io::Write;

use anyhow::Result;
use bottle::plan::Plan;
use bottle::{Blame, Document, strict};

/// As YAML, in the order of the document.
pub(crate) fn yaml() -> Result<()> {
    let document = Document::from_stdin()?;
    print(&strict::json_to_yaml(&document.to_text())?)
}

/// The plan's command, each word quoted for a shell: `eval "set -- $(…)"` gives it its words back.
pub(crate) fn command() -> Result<()> {
    let plan: Plan = Document::from_stdin()?.need("plan")?;
    plan.check_seal()?;
    let words: Vec<String> = plan.command.iter().map(|word| quoted(word)).collect();
    print(&(words.join(" ") + "\n"))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).world("write to stdout")
}

/// In single quotes a shell takes every character for itself, except the quote.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quote_within_a_word_is_kept() {
        assert_eq!(quoted("a 'b' $c"), r"'a '\''b'\'' $c'");
        assert_eq!(quoted(""), "''");
    }
}
