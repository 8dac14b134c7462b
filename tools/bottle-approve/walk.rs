//! All that is open, one key each, in a terminal.

use std::io::Read;
use std::time::Duration;

use anyhow::Result;
use bottle::grant::Length;
use bottle::run::say;
use bottle::state::State;
use bottle::{Blame, Slug, world};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::TOOL;
use crate::decide::{Desk, Less};
use crate::list;
use crate::show::print;

const QUESTION: &str =
    "[1] once  [3] 30 minutes  [h] an hour  [f] for ever  [r] reject  [s] skip  [q] quit: ";

/// Walks through what is open.
pub(crate) fn walk(state: &State, slug: Option<&Slug>, limit: Duration) -> Result<()> {
    let open = list::open(state, slug)?;
    if open.is_empty() {
        return print("nothing is open\n");
    }
    for (slug, proposal, shown) in open {
        print(&format!("{}{QUESTION}", shown.text(usize::MAX)))?;
        let desk = Desk { state, slug: &slug, limit };
        let approve = |seconds, uses| {
            let length = Length { seconds, uses, until_push: false };
            let grant = desk.approve(&proposal.id, &Less::default(), length)?;
            Ok(format!("approved: {}\n\n", grant.to_line()))
        };
        let outcome = loop {
            match key()? {
                b'1' => break approve(None, Some(1)),
                b'3' => break approve(Some(30 * 60), None),
                b'h' => break approve(Some(60 * 60), None),
                b'f' => break approve(None, None),
                b'r' => {
                    print("rejected, because: ")?;
                    break desk.reject(&proposal.id, &line()?).map(|()| "\n".to_owned());
                }
                b's' => break Ok("skipped\n\n".to_owned()),
                b'q' | 4 => return print("quit\n"),
                _ => {}
            }
        };
        // What goes wrong with one is told, and the next one comes.
        match outcome {
            Ok(told) => print(&told)?,
            Err(error) => say(TOOL, &format!("{error:#}")),
        }
    }
    Ok(())
}

/// One key, without its echo.
fn key() -> Result<u8> {
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).world("read the terminal's modes")?;
    let mut raw = before.clone();
    raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
    let _back = Back(before);
    tcsetattr(&stdin, OptionalActions::Now, &raw).world("set the terminal's modes")?;
    let mut one = [0];
    match stdin.lock().read(&mut one).world("read a key")? {
        0 => Err(world("read a key: the terminal is gone")),
        _ => Ok(one[0]),
    }
}

/// A line, as it is typed.
fn line() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_line(&mut text).world("read a line")?;
    Ok(text)
}

/// The modes that a terminal is given back.
struct Back(Termios);

impl Drop for Back {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
