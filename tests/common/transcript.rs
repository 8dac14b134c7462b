//! Sessions, by trycmd: a Markdown-like file whose `$ ` lines are run by a shell, because trycmd itself
//! knows no pipes, in one folder and with one state folder.

use std::ffi::OsString;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::{Scratch, TOOLS, bin};

/// Blocks that begin so are left out where there is no engine.
const WITH_ENGINE: &str = "```console,engine";
const LEFT_OUT: &str = "```console,ignore";

/// trycmd with our programs, in a scratch folder.
pub(crate) fn runner(scratch: &Scratch, env: Vec<(&'static str, OsString)>) -> trycmd::TestCases {
    let runner = trycmd::TestCases::new();
    for name in TOOLS {
        runner.register_bin(name, bin(name));
    }
    runner.register_bin("sh", Path::new("/bin/sh"));
    for (name, value) in env {
        runner.env(name, value.to_str().unwrap());
    }
    runner.insert_var("[SCRATCH]", scratch.path().to_str().unwrap().to_owned()).unwrap();
    runner.insert_var("[VERSION]", env!("CARGO_PKG_VERSION")).unwrap();
    runner
}

/// Runs the session in `case` and compares all that it says.
pub(crate) fn play(
    case: &Path,
    scratch: &Scratch,
    env: Vec<(&'static str, OsString)>,
    with_engine: bool,
) {
    let text = fs::read_to_string(case).unwrap();
    let session = Session::prepare(case, &text, scratch, with_engine);
    let runner = runner(scratch, env);
    let outcome = catch_unwind(AssertUnwindSafe(|| runner.case(&session.copy).run()));
    session.bring_back(case, &text);
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure);
    }
}

/// Writes the first YAML block of a Markdown file as `bottle.yaml` to where its session runs.
pub(crate) fn manifest_of(case: &Path, scratch: &Scratch) {
    let text = fs::read_to_string(case).unwrap();
    let (_, block) = text.split_once("```yaml\n").unwrap();
    scratch.file("bottle.yaml", block.split("```").next().unwrap());
}

/// A transcript whose commands are files, because trycmd itself knows no pipes. Each runs in
/// `work/`, which starts as a copy of the case's `.in`.
struct Session {
    copy: PathBuf,
    /// Each command: its line in the copy, its lines in the transcript.
    commands: Vec<(String, String)>,
}

impl Session {
    fn prepare(case: &Path, text: &str, scratch: &Scratch, with_engine: bool) -> Self {
        let given = case.with_extension("in");
        if given.is_dir() {
            copy_folder(&given, &scratch.work());
        }
        let mut session =
            Self { copy: scratch.path().join(case.file_name().unwrap()), commands: Vec::new() };
        let mut copy = String::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(first) = line.strip_prefix("$ ") else {
                copy.push_str(if line == WITH_ENGINE && !with_engine { LEFT_OUT } else { line });
                copy.push('\n');
                continue;
            };
            let (mut command, mut original) = (first.to_owned(), format!("{line}\n"));
            while let Some(more) = lines.next_if(|line| line.starts_with("> ")) {
                command.push('\n');
                command.push_str(&more[2..]);
                original.push_str(more);
                original.push('\n');
            }
            let file = scratch.path().join(format!("{}.sh", session.commands.len()));
            let work = scratch.work();
            fs::write(&file, format!("cd '{}' || exit 125\n{command}\n", work.display())).unwrap();
            let call = format!("$ sh {}\n", file.display());
            copy.push_str(&call);
            session.commands.push((call, original));
        }
        fs::write(&session.copy, copy).unwrap();
        session
    }

    /// Brings what `TRYCMD=overwrite` wrote into the copy back into the transcript.
    fn bring_back(&self, case: &Path, before: &str) {
        let after = self
            .commands
            .iter()
            .fold(fs::read_to_string(&self.copy).unwrap(), |text, (call, original)| {
                text.replacen(call, original, 1)
            })
            .replace(LEFT_OUT, WITH_ENGINE);
        if after != before && std::env::var_os("TRYCMD").is_some_and(|mode| mode == "overwrite") {
            fs::write(case, after).unwrap();
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
