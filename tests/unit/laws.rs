//! The contract of `bottle-plan(5)`, law by law, for every filter.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::common::manifest::Manifest;
use crate::common::{Run, SIDECARS, Scratch, TOOLS, Tool, sidecar};

/// A filter as it is tried here. There is no engine: what would call one, fails.
struct Filter {
    tool: &'static str,
    args: &'static [&'static str],
    /// The section that it sets.
    sets: &'static str,
    /// Whether it gets to its end without an engine.
    pure: bool,
}

const FILTERS: [Filter; 9] = [
    Filter { tool: "bottle-plan", args: &["--seal"], sets: "plan", pure: true },
    Filter { tool: "bottle-net", args: &["--dry-run"], sets: "net", pure: true },
    Filter { tool: "bottle-net", args: &[], sets: "net", pure: false },
    Filter { tool: "bottle-render", args: &["--dry-run"], sets: "render", pure: true },
    Filter { tool: "bottle-render", args: &[], sets: "render", pure: false },
    Filter { tool: "bottle-up", args: &["--check"], sets: "up", pure: true },
    Filter { tool: "bottle-up", args: &[], sets: "up", pure: false },
    Filter { tool: "bottle-apply", args: &[], sets: "apply", pure: false },
    Filter { tool: "bottle-reap", args: &[], sets: "reap", pure: false },
];

impl Filter {
    fn on(&self, scratch: &Scratch) -> Tool {
        scratch.tool(self.tool).args(self.args)
    }

    fn run(&self, document: &str) -> Run {
        self.on(&Scratch::new()).stdin(document).run()
    }

    /// The filter refuses a document, and says this of it.
    #[track_caller]
    fn refuses(&self, document: &str, why: &str) {
        self.run(document).fails(2, &format!("{}: read a document: {why}", self.tool));
    }
}

/// A document with every section that needs no engine.
fn document() -> String {
    let manifest = Manifest::new().route(serde_json::json!({ "host": "api.example.com" }));
    let scratch = Scratch::new();
    scratch.file("bottle.yaml", manifest.text());
    let pipeline = "bottle-plan implementer | bottle-net --dry-run | bottle-render --dry-run";
    scratch.sh(pipeline).run().ok()
}

#[test]
fn empty_stdin_is_refused() {
    for filter in FILTERS {
        for nothing in ["", "\n", " \t\n"] {
            filter.refuses(nothing, "stdin is empty: did the tool before this one fail");
        }
    }
}

#[test]
fn truncated_document_is_refused() {
    let whole = document();
    let whole = whole.trim_end();
    for filter in FILTERS {
        // A prime, so that the cuts fall on every kind of place.
        for end in (1..whole.len()).step_by(241).chain([whole.len() - 1]) {
            filter.refuses(&whole[..end], "[..]");
        }
    }
}

#[test]
fn two_documents_are_refused() {
    let one = document();
    for filter in FILTERS {
        filter.refuses(&format!("{one}{one}"), "trailing characters[..]");
    }
}

#[test]
fn newer_version_is_refused() {
    let newer = document().replacen("\"bottle\":1", "\"bottle\":2", 1);
    for filter in FILTERS {
        filter.refuses(
            &newer,
            "its version 2 is newer than 1, the newest this tool knows: upgrade bottle",
        );
    }
}

#[test]
fn section_that_is_there_twice_is_refused() {
    let twice = document().replacen('{', r#"{"plan":{},"#, 1);
    for filter in FILTERS {
        filter.refuses(&twice, "section 'plan' is there twice[..]");
    }
}

#[test]
fn name_that_is_no_slug_is_refused() {
    let outside = document().replacen(r#""name":"implementer""#, r#""name":"../../etc""#, 1);
    for filter in FILTERS {
        filter.refuses(
            &outside,
            "name: name '../../etc' is not a slug: use up to 36 lower-case letters, digits and single hyphens",
        );
    }
}

#[test]
fn terminal_is_refused() {
    for filter in FILTERS {
        let (_terminal, stdin) = terminal();
        let scratch = Scratch::new();
        let run = filter.on(&scratch).stdin_from(stdin).run();
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{}", run.report());
        assert!(run.stderr.contains("stdin is a terminal"), "{}", run.report());
        one_line(filter.tool, &run);
    }
}

#[test]
fn sections_that_nobody_knows_pass_through_to_the_byte() {
    let odd = r#""later":{ "b":1.50, "a" : [1e400,"\u00e9\/"],  "z":{}, "b":2 }"#;
    let whole = document().replacen('{', &format!("{{{odd},"), 1);
    for filter in FILTERS.iter().filter(|filter| filter.pure) {
        let out = filter.run(&whole).ok();
        assert!(out.contains(odd), "{} changed it:\n{out}", filter.tool);
    }
}

#[test]
fn one_section_is_set_and_no_other_touched() {
    let whole = document();
    let before: serde_json::Value = serde_json::from_str(&whole).unwrap();
    for filter in FILTERS.iter().filter(|filter| filter.pure) {
        let mut after = filter.run(&whole).json();
        let mut before = before.clone();
        for document in [&mut before, &mut after] {
            document.as_object_mut().unwrap().remove(filter.sets);
        }
        assert_eq!(before, after, "{}", filter.tool);
    }
}

#[test]
fn unknown_field_is_refused_with_its_path() {
    let whole = document();
    let plan = whole.replacen(r#""egress":{"#, r#""egress":{"rotues":[],"#, 1);
    for filter in FILTERS.iter().filter(|filter| filter.tool != "bottle-reap") {
        filter.refuses(&plan, "plan.egress: unknown field 'rotues': did you mean 'routes'");
    }
}

#[test]
fn edited_plan_is_refused_until_it_is_sealed() {
    let edited = document().replacen(r#""pids":512"#, r#""pids":513"#, 1);
    for filter in FILTERS.iter().filter(|f| !["bottle-plan", "bottle-reap"].contains(&f.tool)) {
        let run = filter.run(&edited);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{}", run.report());
        assert!(run.stderr.contains("bottle-plan --seal"), "{}", run.report());
        one_line(filter.tool, &run);
    }
    let sealed = Scratch::new().tool("bottle-plan").args(["--seal"]).stdin(&edited).run().ok();
    let net = FILTERS.iter().find(|filter| filter.tool == "bottle-net" && filter.pure).unwrap();
    net.run(&sealed).ok();
}

#[test]
fn doing_it_twice_is_doing_it_once() {
    let whole = document();
    for filter in FILTERS.iter().filter(|filter| filter.pure) {
        let scratch = Scratch::new();
        let once = filter.on(&scratch).stdin(&whole).run().ok();
        let twice = filter.on(&scratch).stdin(&once).run().ok();
        assert_eq!(once, twice, "{}", filter.tool);
        assert!(once.ends_with("}\n") && once.lines().count() == 1, "{once}");
    }
}

#[test]
fn same_input_gives_the_same_bytes() {
    let whole = document();
    for filter in FILTERS.iter().filter(|filter| filter.pure) {
        let scratch = Scratch::new();
        let outputs: Vec<String> =
            (0..3).map(|_| filter.on(&scratch).stdin(&whole).run().ok()).collect();
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{}", filter.tool);
    }
}

#[test]
fn pure_filters_change_nothing_and_call_no_engine() {
    let whole = document();
    for filter in FILTERS.iter().filter(|filter| filter.pure) {
        let scratch = Scratch::new();
        filter.on(&scratch).stdin(&whole).run().ok();
        assert!(!scratch.state().exists(), "{} made the state folder", filter.tool);
        assert_eq!(scratch.calls(), Vec::<String>::new(), "{}", filter.tool);
    }
}

#[test]
fn full_stdout_is_the_worlds_fault() {
    let whole = document();
    for filter in FILTERS.iter().filter(|filter| filter.pure) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let run = filter.on(&Scratch::new()).stdin(&whole).stdout_to(full).run();
        run.fails(
            3,
            &format!(
                "{}: write the document to stdout: No space left on device (os error 28)",
                filter.tool
            ),
        );
    }
}

#[test]
fn stdout_that_nobody_reads_is_the_worlds_fault() {
    let whole = document();
    for filter in FILTERS.iter().filter(|filter| filter.pure) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = filter.on(&Scratch::new()).stdin(&whole).stdout_to(writer).run();
        run.fails(
            3,
            &format!("{}: write the document to stdout: Broken pipe (os error 32)", filter.tool),
        );
    }
}

#[test]
fn every_program_tells_its_help_and_version() {
    for name in TOOLS.iter().chain(&SIDECARS) {
        if SIDECARS.contains(name) && sidecar(name).is_none() {
            continue;
        }
        let scratch = Scratch::new();
        let version = scratch.tool(name).args(["--version"]).run().ok();
        assert_eq!(version, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        for flag in ["-h", "--help"] {
            let help = scratch.tool(name).args([flag]).run();
            assert_eq!(help.stderr, "", "{}", help.report());
            assert!(help.stdout.contains("Usage:"), "{}", help.report());
        }
    }
}

#[test]
fn unknown_option_is_refused_in_one_line() {
    for name in TOOLS.iter().chain(&SIDECARS) {
        if SIDECARS.contains(name) && sidecar(name).is_none() {
            continue;
        }
        let run = Scratch::new().tool(name).args(["--no-such-option"]).run();
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{}", run.report());
        assert!(run.stderr.contains("'--no-such-option'"), "{}", run.report());
        assert!(run.stderr.ends_with(&format!(": see '{name} --help'\n")), "{}", run.report());
        one_line(name, &run);
    }
}

/// One line on stderr: `tool: verb phrase: cause`, lower case, no full stop.
#[track_caller]
pub(crate) fn one_line(tool: &str, run: &Run) {
    let line = run.stderr.strip_suffix('\n').unwrap_or_default();
    let said = line.strip_prefix(&format!("{tool}: ")).unwrap_or_default();
    let begins = said.chars().next().is_some_and(|c| !c.is_uppercase());
    assert!(
        begins && !line.contains('\n') && !line.ends_with('.'),
        "not one line in house style\n{}",
        run.report()
    );
}

/// A pseudo-terminal: the side that a person has, to be kept open, and the tool's.
fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (ours, theirs.into())
}
