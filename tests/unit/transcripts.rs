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

use crate::common::{SIDECARS, Scratch, bin, root, sidecar, transcript};

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

#[test]
fn readme_tells_the_truth() {
    let scratch = Scratch::new();
    let readme = root().join("README.md");
    transcript::manifest_of(&readme, &scratch);
    transcript::play(&readme, &scratch, scratch.env(), false);
    assert_eq!(scratch.calls(), Vec::<String>::new());
}

/// Runs cases side by side, and names at the end all that failed.
fn hold(cases: Vec<PathBuf>) {
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
    if case.extension().is_some_and(|extension| extension == "toml") {
        states_all(case, &text);
        // The defaults of a runner win over what a case sets.
        let env = scratch.env().into_iter().filter(|(name, _)| !sets(&text, name)).collect();
        transcript::runner(&scratch, env).case(case).run();
    } else {
        transcript::play(case, &scratch, scratch.env(), false);
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
