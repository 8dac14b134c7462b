//! A real terminal: its size, a resize, Ctrl-C, a hang-up, and the code of the command.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bottle::docker::image;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use crate::common::manifest::Manifest;
use crate::common::root;
use crate::supervise;
use crate::support::{Bottle, images};

/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_mins(2);

/// The person's end of a pseudo terminal, with a program at the other.
struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    child: Child,
    line: OwnedFd,
}

impl Terminal {
    /// Runs `bottle` with these arguments at a new terminal of that size.
    fn run(bottle: &Bottle, rows: u16, columns: u16, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let line = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        resize(&master, rows, columns);
        // A session of its own, with this terminal as the one that controls it.
        let end = || Stdio::from(line.try_clone().unwrap());
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(root().join("scripts/bottle"))
            .args(args)
            .env_clear()
            .envs(bottle.env())
            .current_dir(bottle.work())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = output.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { keyboard, screen, seen: String::new(), child, line }
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits until the screen has shown `text` since the last call.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            match self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("the terminal never showed '{text}', but:\n{}", self.seen)
                }
            }
        }
        self.seen.clear();
    }

    /// Waits for the end of the program and gives its code.
    fn code(&mut self) -> Option<i32> {
        wait(&mut self.child)
    }
}

fn resize(terminal: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

/// Waits for a program that a test must not outlive.
#[track_caller]
fn wait(child: &mut Child) -> Option<i32> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("the program hung");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn bottle() -> Bottle {
    Bottle::new(&Manifest::new().image(&image("probe")))
}

#[test]
fn size_and_resize_reach_the_command_and_ctrl_c_ends_it() {
    if !images() {
        return;
    }
    let bottle = bottle();
    let args = ["start", "implementer", "--", "bottle-probe", "winsize"];
    let mut terminal = Terminal::run(&bottle, 30, 100, &args);
    terminal.shows("30 rows 100 columns");
    // Once only, at a moment at which the docker client may not listen yet.
    resize(&terminal.keyboard, 41, 132);
    terminal.shows("41 rows 132 columns");
    terminal.type_in(b"\x03");
    assert_eq!(terminal.code(), Some(130));
    bottle.is_gone();
}

#[test]
fn code_of_the_command_passes_through_a_terminal() {
    if !images() {
        return;
    }
    let bottle = bottle();
    let args = ["start", "implementer", "--", "bottle-probe", "exit", "7"];
    let mut terminal = Terminal::run(&bottle, 24, 80, &args);
    assert_eq!(terminal.code(), Some(7));
    let modes = tcgetattr(&terminal.line).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    bottle.is_gone();
}

#[test]
fn ctrl_c_before_the_command_leaves_nothing() {
    if !images() {
        return;
    }
    let bottle = bottle();
    let args = ["start", "implementer", "--", "bottle-probe", "sleep"];
    let mut terminal = Terminal::run(&bottle, 24, 80, &args);
    // A network is there, so the start is under way.
    let end = Instant::now() + PATIENCE;
    while bottle.leftovers().is_empty() {
        assert!(Instant::now() < end, "no network was made");
    }
    terminal.type_in(b"\x03");
    assert_eq!(terminal.code(), Some(130));
    bottle.is_gone();
}

#[test]
fn hang_up_reaps_the_bottle_and_mends_the_terminal() {
    if !images() {
        return;
    }
    let bottle = bottle();
    let args = ["start", "implementer", "--", "bottle-probe", "winsize"];
    let mut terminal = Terminal::run(&bottle, 24, 80, &args);
    terminal.shows("24 rows 80 columns");
    // setsid became the script, because it had no need to fork.
    kill_process(Pid::from_child(&terminal.child), Signal::HUP).unwrap();
    assert_eq!(terminal.code(), Some(129));
    let modes = tcgetattr(&terminal.line).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO));
    bottle.is_gone();
}

#[test]
fn operator_decides_with_one_key() {
    let Some((bottle, _origin)) = supervise::asking(|manifest| manifest) else { return };
    let ids = ["/one", "/two", "/three"].map(|path| supervise::propose(&bottle, &[path]));
    let mut terminal = Terminal::run(&bottle, 24, 80, &["approve"]);
    terminal.shows("[q] quit: ");
    // What is no answer is waited over.
    terminal.type_in(b"x1");
    terminal.shows("[q] quit: ");
    terminal.type_in(b"r");
    terminal.shows("because: ");
    terminal.type_in(b"not this one\n");
    terminal.shows("[q] quit: ");
    terminal.type_in(b"s");
    assert_eq!(terminal.code(), Some(0));
    let modes = tcgetattr(&terminal.line).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    let said = ids.map(|id| supervise::ask(&bottle, "proposal_status", &json!({ "id": id })).ok());
    for words in ["for one request", "is rejected: not this one", "is open"] {
        assert_eq!(said.iter().filter(|said| said.contains(words)).count(), 1, "{said:?}");
    }
}
