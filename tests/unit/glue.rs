//! `bottle(1)`: its lists of commands and options are those of `bottle --help`.

use std::fmt::Write;
use std::fs;

use crate::common::{Scratch, root};
use crate::contract::released;

#[test]
fn page_lists_what_the_script_takes() {
    let help = Scratch::new().sh("bottle --help").run().ok();
    let prose = fs::read_to_string(root().join("man/src/bottle.1")).unwrap();
    let mut synopsis = String::new();
    let mut commands = String::new();
    let mut options = String::new();
    for line in help.lines() {
        if line.starts_with("Of ") {
            let _ = writeln!(options, ".SS {}", line.trim_end_matches(':'));
        }
        let Some((taken, text)) = line.strip_prefix("  ").and_then(row) else { continue };
        if taken.trim_start().starts_with('-') {
            let _ = writeln!(options, ".TP\n.B {}\n{}", roff(&taken), sentence(&text));
        } else {
            let (name, arguments) = taken.split_once(' ').unwrap_or((&taken, ""));
            let br = if synopsis.is_empty() { "" } else { ".br\n" };
            let _ = writeln!(synopsis, "{br}.B bottle {name}\n{}", roff(arguments));
            let _ = writeln!(commands, ".TP\n.B {}\n{}", roff(&taken), sentence(&text));
        }
    }
    let made =
        format!(".\\\" Made from man/src/bottle.1 and 'bottle --help' by scripts/bless.\n{prose}")
            .replace("@SYNOPSIS@\n", &synopsis.replace("\n\n", "\n"))
            .replace("@COMMANDS@\n", &commands)
            .replace("@OPTIONS@\n", &options)
            .replace("@RELEASED@", &released())
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    let golden = snapbox::Data::read_from(&root().join("man/bottle.1"), None).raw();
    snapbox::assert_data_eq!(made, golden);
}

/// A row of the help: what is taken, two blanks or more, what it does.
fn row(line: &str) -> Option<(String, String)> {
    let start = line.len() - line.trim_start().len();
    let (taken, text) = line[start..].split_once("  ")?;
    Some((taken.trim().to_owned(), text.trim().to_owned()))
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    let text: String = first.into_iter().flatten().chain(letters).collect();
    roff(&text) + "."
}

fn roff(text: &str) -> String {
    text.replace('-', "\\-").replace('…', "\\&...")
}
