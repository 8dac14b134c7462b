//! Transcripts, by trycmd: every `tests/cmd/**/*.toml` is one call of one tool, every
//! `tests/cmd/**/*.trycmd` a session, whose lines a shell runs, pipelines included.
//! `tests/README.md` says how to add one.
//!
//! Around trycmd, because it would let them pass: a case whose program is not built, whose stdout or
//! stderr nobody stated, or that called docker in a way nobody taught, fails.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::common::{SIDECARS, Scratch, TOOLS, bin, root, sidecar};

#[test]
fn every_transcript_holds() {
    let mut cases = Vec::new();
    collect(&root().join("tests/cmd"), &mut cases);
    // Not "trycmd=", which trycmd itself would apply to the copies.
    let wanted: Vec<String> =
        std::env::args().filter_map(|arg| Some(arg.strip_prefix("case=")?.to_owned())).collect();
    cases.retain(|case| {
        wanted.is_empty() || wanted.iter().any(|name| case.to_string_lossy().contains(name))
    });
    hold(cases);
}

/// Runs cases side by side, and names at the end all that failed.
pub(crate) fn hold(cases: Vec<PathBuf>) {
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let (queue, failed) = (Mutex::new(cases), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().pop() else { return };
                    if catch_unwind(AssertUnwindSafe(|| run(&case))).is_err() {
                        failed.lock().unwrap().push(case);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these do not hold (bless with 'scripts/bless'): {failed:#?}");
}

fn collect(folder: &Path, cases: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml" | "trycmd") => cases.push(path),
            Some("in" | "out") => {}
            _ if path.is_dir() => collect(&path, cases),
            _ => {}
        }
    }
}

fn run(case: &Path) {
    let text = fs::read_to_string(case).unwrap();
    if SIDECARS.iter().any(|name| text.contains(name) && sidecar(name).is_none()) {
        return;
    }
    let scratch = Scratch::new();
    if let Ok(lessons) = fs::read_to_string(case.with_extension("docker")) {
        scratch.teach(&lessons);
    }
    let runner = trycmd::TestCases::new();
    for name in TOOLS {
        runner.register_bin(name, bin(name));
    }
    runner.register_bin("sh", Path::new("/bin/sh"));
    for (name, value) in scratch.env() {
        // The defaults of a runner win over what a case sets.
        if !sets(&text, name) {
            runner.env(name, value.to_str().unwrap());
        }
    }
    runner.insert_var("[SCRATCH]", scratch.path().to_str().unwrap().to_owned()).unwrap();
    runner.insert_var("[VERSION]", env!("CARGO_PKG_VERSION")).unwrap();
    if case.extension().is_some_and(|extension| extension == "toml") {
        states_all(case, &text);
        runner.case(case).run();
    } else {
        let session = Session::prepare(case, &text, &scratch);
        let outcome = catch_unwind(AssertUnwindSafe(|| runner.case(&session.copy).run()));
        session.bring_back(case, &text);
        if let Err(failure) = outcome {
            std::panic::resume_unwind(failure);
        }
    }
    let untaught = scratch.untaught();
    assert!(untaught.is_empty(), "{}: not taught: {untaught:#?}", case.display());
}

fn sets(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let key = line.trim().trim_start_matches("env.add.");
        key.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
    })
}

/// A case that names its program and says what each stream holds, and so is compared whole.
fn states_all(case: &Path, text: &str) {
    let program = text.lines().find_map(|line| {
        line.trim().strip_prefix("bin.name")?.trim().strip_prefix('=')?.trim().split('"').nth(1)
    });
    let program = program.unwrap_or_else(|| panic!("{}: no 'bin.name'", case.display()));
    assert!(
        program == "sh" || bin(program).is_file(),
        "{}: no program '{program}'",
        case.display()
    );
    for stream in ["stdout", "stderr"] {
        assert!(
            sets(text, stream) || case.with_extension(stream).is_file(),
            "{}: says nothing of {stream}: add 'case.{stream}', or a line '{stream} = \"\"'",
            case.display()
        );
    }
}

/// A transcript whose commands are files, because trycmd itself knows no pipes. Each runs in
/// `work/`, which starts as a copy of the case's `.in`.
struct Session {
    copy: PathBuf,
    /// Each command: its line in the copy, its lines in the transcript.
    commands: Vec<(String, String)>,
}

impl Session {
    fn prepare(case: &Path, text: &str, scratch: &Scratch) -> Self {
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
                copy.push_str(line);
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
            });
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
