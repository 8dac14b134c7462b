//! The pages of section 5: their prose is `man/src/*.5`, their lists of fields are the doc comments of
//! the types that really parse them. A line `@Rule` in the prose becomes the fields, or the values, of
//! the type `Rule` in lib, so a field cannot be there without being documented.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use crate::common::root;

/// Each page with the modules of lib whose types it has to list, every one of them.
const PAGES: [(&str, &[&str]); 2] = [
    ("bottle-manifest.5", &["manifest"]),
    ("bottle-plan.5", &["plan", "net", "render", "up", "verdict", "apply", "reap"]),
];

/// Modules of lib whose types a page may list.
const FURTHER: [&str; 2] = ["plan", "policy"];

#[test]
fn pages_list_every_field_and_value() {
    for (page, modules) in PAGES {
        let mut types = BTreeMap::new();
        // Where two modules have a type of one name, the page's own is meant.
        for module in FURTHER.iter().chain(modules) {
            types.extend(types_of(module));
        }
        let prose = fs::read_to_string(root().join("man/src").join(page)).unwrap();
        let mut made = format!(
            ".\\\" Made from man/src/{page} and the types in lib by scripts/bless.\n{prose}"
        )
        .replace("@RELEASED@", &released())
        .replace("@EXAMPLE@", &example())
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        for (name, fields) in &types {
            made = made.replace(&format!("\n@{name}\n"), &format!("\n{fields}"));
        }
        let unknown: Vec<&str> = made.lines().filter(|line| line.starts_with('@')).collect();
        assert!(unknown.is_empty(), "{page} asks for types that are not in lib: {unknown:?}");
        for module in modules {
            for name in types_of(module).keys() {
                assert!(
                    prose.contains(&format!("\n@{name}\n")),
                    "{page} does not list '{name}' of lib/src/{module}.rs: add a line '@{name}'"
                );
            }
        }
        let golden = snapbox::Data::read_from(&root().join("man").join(page), None).raw();
        snapbox::assert_data_eq!(made, golden);
    }
}

/// The manifest that `bottle-manifest(5)` shows, and tests parse, in man(7).
fn example() -> String {
    let text = fs::read_to_string(root().join("man/examples/bottle.yaml")).unwrap();
    text.trim_end().replace('\\', "\\e").replace('-', "\\-")
}

/// The public types of a module that serde reads, each with its fields or values in man(7).
fn types_of(module: &str) -> BTreeMap<String, String> {
    let source = fs::read_to_string(root().join(format!("lib/src/{module}.rs"))).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut types = BTreeMap::new();
    let mut current: Option<(String, bool, String)> = None;
    let (mut docs, mut attributes) = (String::new(), String::new());
    for line in source.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push_str(doc.trim());
            docs.push(' ');
        } else if line.starts_with("#[") {
            attributes.push_str(line);
        } else {
            let wanted = attributes.contains("Deserialize");
            if let Some((name, is_struct)) = type_name(line).filter(|_| wanted) {
                let snake = attributes.contains("snake_case");
                current = Some((name, is_struct || snake, String::new()));
                if is_struct {
                    current = current.map(|(name, _, text)| (name, true, text));
                }
            } else if line == "}" {
                types.extend(current.take().map(|(name, _, text)| (name, text)));
            } else if let Some((_, snake, text)) = &mut current {
                let tag = match line.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
                    Some((name, kind)) => {
                        let optional = attributes.contains("skip_serializing_if")
                            || attributes.contains("serde(default");
                        let kind = in_words(kind.trim_end_matches(','));
                        let name = name.trim_start_matches("r#");
                        let optional = if optional { ", optional" } else { "" };
                        Some(format!(".BR {name} \" ({kind}{optional})\""))
                    }
                    None => line
                        .strip_suffix(',')
                        .filter(|value| value.chars().all(char::is_alphanumeric))
                        .map(|value| format!(".B {}", cased(value, *snake))),
                };
                if let Some(tag) = tag {
                    let _ = writeln!(text, ".TP\n{tag}\n{}", roff(docs.trim()));
                }
            }
            docs.clear();
            attributes.clear();
        }
    }
    types
}

/// `pub struct Net {` or `pub enum Engine {`, and which of them.
fn type_name(line: &str) -> Option<(String, bool)> {
    let (rest, is_struct) = match line.strip_prefix("pub struct ") {
        Some(rest) => (rest, true),
        None => (line.strip_prefix("pub enum ")?, false),
    };
    Some((rest.strip_suffix(" {")?.to_owned(), is_struct))
}

/// What JSON a Rust type is.
fn in_words(kind: &str) -> String {
    let within = |outer: &str| kind.strip_prefix(outer)?.strip_suffix('>');
    if let Some(inner) = within("Option<").or_else(|| within("Parsed<")) {
        return in_words(inner);
    }
    if let Some(inner) = within("Vec<") {
        return format!("array of {}", plural(&in_words(inner)));
    }
    if let Some(inner) = within("BTreeMap<String, ") {
        return format!("object of {}", plural(&in_words(inner)));
    }
    match kind {
        "bool" => "boolean",
        "u8" | "u16" | "u32" | "u64" | "Count" | "Port" | "Version" => "integer",
        "Cpus" => "number",
        "PathBuf" => "path",
        "IpNet" | "Ipv4Net" => "network",
        "IpAddr" | "Ipv4Addr" => "address",
        "Build" | "Workspace" => "string or object",
        "String" | "Text" | "Engine" | "Env" | "Expect" | "Finding" | "Got" | "Owner" | "Host"
        | "HostKind" | "Memory" | "Method" | "Net" | "PathGlob" | "PipelockMode" | "Selftest"
        | "Size" | "Slug" | "User" | "WorkspaceMode" => "string",
        _ => "object",
    }
    .to_owned()
}

fn plural(word: &str) -> String {
    if word.ends_with('s') { format!("{word}es") } else { format!("{word}s") }
}

/// Prose of a doc comment in man(7): one sentence a line, code in bold.
fn roff(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text
        .replace('\\', "\\e")
        .replace('…', "\\&...")
        .replace("[`", "`")
        .replace("`]", "`")
        .split('`')
        .enumerate()
    {
        if at % 2 == 1 {
            let _ = write!(out, "\\fB{}\\fR", part.replace('-', "\\-"));
        } else {
            out.push_str(&part.replace(". ", ".\n"));
        }
    }
    out.lines()
        .map(|line| if line.starts_with('.') { format!("\\&{line}") } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

/// `PrivateNetwork` as serde writes it: `private_network` or `privatenetwork`.
fn cased(value: &str, snake: bool) -> String {
    let mut out = String::new();
    for c in value.chars() {
        if snake && c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The day of the newest entry of the changelog: a page changes with a release.
pub(crate) fn released() -> String {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let entry = changelog.lines().find_map(|line| line.strip_prefix("## [")?.split_once("] - "));
    entry.unwrap().1.to_owned()
}
