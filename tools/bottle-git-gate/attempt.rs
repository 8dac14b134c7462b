//! `bottle-git-gate try`: whether the image has what the gate needs, and the gate answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use bottle::error::{Blame, no, world};
use bottle::spawn::{self, Group};

use crate::args::Try;
use crate::git::CONNECT;

/// How long each step may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What the gate runs, and how each says that it is there.
const PROGRAMS: [(&str, &str); 5] = [
    ("git", "version"),
    ("ssh", "-V"),
    ("ssh-keygen", "-?"),
    ("gitleaks", "version"),
    (CONNECT, "--version"),
];

/// Tries all of it.
pub(crate) fn attempt(args: &Try) -> Result<()> {
    for (program, flag) in PROGRAMS {
        let what = format!("try '{program}'");
        let ends = [Stdio::null(), Stdio::null(), Stdio::null()];
        let child = spawn::start(program.as_ref(), &[flag], &[], ends, Group::Own).world(&what)?;
        let status = spawn::wait(child, Group::Own, LIMIT).world(&what)?;
        // ssh-keygen knows no question that it answers with success.
        if !status.is_some_and(|status| status.success() || program == "ssh-keygen") {
            return Err(world(format!("{what}: it does not work")));
        }
    }
    let what = format!("ask the gate at {}", args.address);
    let mut stream = TcpStream::connect_timeout(&args.address, LIMIT).world(&what)?;
    stream.set_read_timeout(Some(LIMIT)).world(&what)?;
    // Of no remote, and by somebody who is not the agent.
    stream.write_all(b"0029git-upload-pack /.\0host=localhost\0\0").world(&what)?;
    let mut answer = Vec::new();
    stream.take(1000).read_to_end(&mut answer).world(&what)?;
    let refusal = b"ERR bottle: refused by rule";
    if answer.get(4..).is_some_and(|answer| answer.starts_with(refusal)) {
        return Ok(());
    }
    Err(no(format!("{what}: it does not refuse what it has to")))
}
