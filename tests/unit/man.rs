//! The man pages: made from clap and `man/src/`, and held against what the tools really take.
//!
//! A page is its tool's `args.rs` (NAME, SYNOPSIS, DESCRIPTION, OPTIONS) followed by the prose of
//! `man/src/<tool>.man`, in man(7). `scripts/bless` writes `man/<tool>.1`.

use std::fmt::Write;
use std::fs;

use clap::{ArgAction, Command, CommandFactory};
use clap_mangen::Man;

use crate::common::{SIDECARS, TOOLS, root};
use crate::contract::released;

/// The command of each tool, by including its `args.rs`.
macro_rules! tools {
    ($($name:literal $module:ident $path:literal)*) => {
        $(
            #[path = $path]
            #[allow(dead_code, missing_docs, unreachable_pub, reason = "only its shape is asked for")]
            mod $module;
        )*

        fn commands() -> Vec<(&'static str, Command)> {
            vec![$(($name, $module::Args::command())),*]
        }
    };
}

tools! {
    "bottle-apply" apply "../../tools/bottle-apply/args.rs"
    "bottle-approve" approve "../../tools/bottle-approve/args.rs"
    "bottle-connect" connect "../../tools/bottle-connect/args.rs"
    "bottle-egress" egress "../../tools/bottle-egress/args.rs"
    "bottle-diff" diff "../../tools/bottle-diff/args.rs"
    "bottle-git-gate" git_gate "../../tools/bottle-git-gate/args.rs"
    "bottle-ps" ps "../../tools/bottle-ps/args.rs"
    "bottle-supervise" supervise "../../tools/bottle-supervise/args.rs"
    "bottle-reap" reap "../../tools/bottle-reap/args.rs"
    "bottle-replay" replay "../../tools/bottle-replay/args.rs"
    "bottle-trust" trust "../../tools/bottle-trust/args.rs"
    "bottle-net" net "../../tools/bottle-net/args.rs"
    "bottle-plan" plan "../../tools/bottle-plan/args.rs"
    "bottle-render" render "../../tools/bottle-render/args.rs"
    "bottle-up" up "../../tools/bottle-up/args.rs"
    "bottle-probe" probe "../../tools/bottle-probe/args.rs"
    "bottle-ssh-agent" ssh_agent "../../tools/bottle-ssh-agent/args.rs"
}

/// What the help of a tool ends with, and its page says first: who it is for.
const PLUMBING: &str = " This is plumbing: people use bottle(1).";
const AUDIENCE: &str = "This is a part of bottle for scripts, Makefiles and pipelines of your own. \
    To run an agent by hand, see \\fBbottle\\fR(1).";

#[test]
fn every_program_has_a_page() {
    let with_page: Vec<&str> = commands().iter().map(|(name, _)| *name).collect();
    for name in TOOLS.iter().chain(&SIDECARS) {
        assert!(
            with_page.contains(name),
            "'{name}' has no page: add it to 'tools!' in {}",
            file!()
        );
    }
}

#[test]
fn pages_say_what_the_tools_take() {
    for (name, command) in commands() {
        let page = root().join(format!("man/{name}.1"));
        // Else `\fB` in an overwritten page would become `/fB`.
        snapbox::assert_data_eq!(render(command), snapbox::Data::read_from(&page, None).raw());
    }
}

/// One page, whole.
fn render(command: Command) -> String {
    let name = command.get_name().to_owned();
    let mut command =
        command.disable_help_subcommand(true).mut_subcommands(|sub| sub.disable_help_flag(true));
    command.build();
    let prose = root().join(format!("man/src/{name}.man"));
    let prose = fs::read_to_string(&prose).unwrap_or_else(|e| panic!("{}: {e}", prose.display()));
    // What stands before the first section goes on with the description.
    let (details, sections) = prose.split_at(prose.find(".SH ").unwrap_or(prose.len()));
    let subcommands: Vec<Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .map(|sub| sub.clone().bin_name(format!("{name} {}", sub.get_name())))
        .collect();
    let alone = std::slice::from_ref(&command);
    let callable = if subcommands.is_empty() { alone } else { &subcommands };
    let synopsis = callable.iter().map(synopsis).collect::<Vec<_>>().join(".br\n");
    let options = if subcommands.is_empty() {
        format!(".SH OPTIONS\n{}", options(&command))
    } else {
        subcommands.iter().fold(".SH COMMANDS\n".to_owned(), |mut text, sub| {
            let _ = writeln!(text, ".SS {}", sub.get_name());
            text + &description(sub, true) + &options(sub)
        })
    };
    format!(
        ".\\\" Made from tools/{name}/args.rs and man/src/{name}.man by scripts/bless.\n\
         .ie \\n(.g .ds Aq \\(aq\n.el .ds Aq \'\n\
         .TH {title} 1 \"{date}\" \"bottle {version}\" \"bottle\"\n\
         .SH NAME\n{escaped} \\- {about}\n\
         .SH SYNOPSIS\n{synopsis}\
         .SH DESCRIPTION\n{AUDIENCE}\n.PP\n{description}{details}{options}{sections}",
        title = name.to_uppercase(),
        date = released(),
        version = env!("CARGO_PKG_VERSION"),
        escaped = name.replace('-', "\\-"),
        about = uncapitalised(&command.get_about().map(ToString::to_string).unwrap_or_default()),
        description = description(&command, false),
    )
}

/// One part of what `clap_mangen` renders, without its heading.
fn part(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let mut out = String::new();
    for line in text.lines().map(str::trim_end) {
        if line.starts_with(".SH") || line.starts_with(".ie") || line.starts_with(".el") {
            continue;
        }
        // A blank line within an option's text: a paragraph that keeps its indent.
        out.push_str(if line.is_empty() { ".IP" } else { line });
        out.push('\n');
    }
    out
}

/// `bottle-probe get [-X METHOD] [--ca FILE] URL`: `clap_mangen` leaves out what an option takes.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut line = format!(".B {}\n", name.replace('-', "\\-"));
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    for arg in shown.filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
        let values = arg.get_num_args().is_some_and(|count| count.takes_values());
        let value = arg.get_value_names().unwrap_or_default().first().filter(|_| values);
        let value = value.map(|value| format!("\\fI{value}\\fR")).unwrap_or_default();
        let flag = match (arg.get_short(), arg.get_long()) {
            (Some(short), _) => format!("\\fB\\-{short}\\fR"),
            (None, Some(long)) => format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-")),
            (None, None) => String::new(),
        };
        let gap = if flag.is_empty() || value.is_empty() { "" } else { "\\ " };
        let several = matches!(arg.get_action(), ArgAction::Append | ArgAction::Count);
        let several = if several { "\\&..." } else { "" };
        let (open, close) = if arg.is_required_set() { ("", "") } else { ("[", "]") };
        let _ = writeln!(line, "{open}{flag}{gap}{value}{close}{several}");
    }
    line
}

/// What follows the title in the help of a tool; of a command within it, the title too.
fn description(command: &Command, with_title: bool) -> String {
    let text = part(|out| Man::new(command.clone()).render_description_section(out));
    let (title, rest) = text.trim_end().split_once("\n.PP\n").unwrap_or((text.trim_end(), ""));
    let rest = rest.replace(PLUMBING, "");
    match (with_title, rest.as_str()) {
        (false, rest) => format!("{rest}\n"),
        (true, "") => format!("{title}.\n"),
        (true, rest) => format!("{title}.\n.PP\n{rest}\n"),
    }
}

fn options(command: &Command) -> String {
    part(|out| Man::new(command.clone()).render_options_section(out))
}

fn uncapitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
