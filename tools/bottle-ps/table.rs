//! Rows as text for a person, or as JSON.

use std::io::{ErrorKind, Write};

use anyhow::Result;
use bottle::error::{Blame, visible};

use crate::row::Row;

const HEAD: [&str; 7] = ["NAME", "STATE", "AGENT", "IMAGE", "OWNER", "UP", "SUBNETS"];

/// A line a bottle, in columns.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |cells: &[String; 7]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

fn cells(row: &Row) -> [String; 7] {
    let or_dash = |text: &Option<String>| visible(text.as_deref().unwrap_or("-"));
    let subnets: Vec<String> = row.subnets.iter().map(ToString::to_string).collect();
    [
        row.slug.to_string(),
        word(&row.state),
        or_dash(&row.agent),
        or_dash(&row.image),
        word(&row.owner),
        or_dash(&row.uptime),
        if subnets.is_empty() { "-".to_owned() } else { subnets.join(",") },
    ]
}

/// A value as serde names it.
fn word(value: &impl serde::Serialize) -> String {
    let quoted = serde_json::to_string(value).unwrap_or_default();
    quoted.trim_matches('"').to_owned()
}

/// A JSON array.
pub(crate) fn json(rows: &[Row]) -> Result<String> {
    Ok(serde_json::to_string(rows).world("write JSON")? + "\n")
}

/// Writes to stdout; a reader that went away has had what it wanted.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).world("write to stdout"),
        _ => Ok(()),
    }
}
