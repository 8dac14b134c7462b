//! Strict parsing of YAML and JSON: the path of the field, the nearest known name, line and column,
//! no key twice. The only module that knows `serde_yaml`, which is archived upstream.

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Blame, Exit, blame, caller};

mod place;
mod shapes;
mod words;

pub use shapes::{Parsed, Text, is_default, some, some_of, text_or, unique};
use words::helpful;
pub use words::{did_you_mean, nearest};

/// Parses YAML (and so JSON too, which is YAML) read from `source`, a file name for messages.
pub fn yaml<T: DeserializeOwned>(text: &str, source: &str) -> Result<T> {
    serde_yaml::from_str(text).or_else(|e| {
        let original = text;
        if let Some(text) = merged(text) {
            // What was merged has no place of its own in the text: that of what it was merged into.
            return serde_yaml::from_str(&text)
                .map_err(|e| placed(caller(helpful(&e.to_string())), original, source));
        }
        let place = e.location().map(|at| format!(":{}:{}", at.line(), at.column()));
        let place = place.unwrap_or_default();
        Err(caller(format!("{source}{place}: {}", helpful(&e.to_string()))))
    })
}

/// Adds to an error, whose message begins with the path of a field, the file and the field's place in
/// its text. For what is found only when all of a file has been parsed.
#[must_use]
pub fn placed(error: anyhow::Error, text: &str, source: &str) -> anyhow::Error {
    let message = format!("{error:#}");
    let mut path = String::new();
    for part in message.split(": ") {
        let word = |c: char| c.is_ascii_alphanumeric() || "._-[]".contains(c);
        if part.is_empty() || !part.chars().all(word) {
            break;
        }
        if !path.is_empty() && !part.starts_with('[') {
            path.push('.');
        }
        path.push_str(part);
    }
    let place = (!path.is_empty()).then(|| place::of(text, &path)).flatten();
    let place = place.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
    blame(error, Exit::Caller, &format_args!("{source}{place}"))
}

/// The text with its merge keys (`<<: *base`), of which `serde_yaml` makes plain fields, resolved;
/// `None` where there are none.
fn merged(text: &str) -> Option<String> {
    if !text.contains("<<:") {
        return None;
    }
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
    value.apply_merge().ok()?;
    serde_yaml::to_string(&value).ok()
}

/// Parses the JSON text of one section; errors carry the path of the field below `section`.
pub fn json<T: DeserializeOwned>(text: &str, section: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| {
        // serde_json knows no paths. Only where it fails is the text read again, by the YAML
        // parser, which does. Where that one is content, the plain message has to do.
        let text = match serde_yaml::from_str::<T>(text) {
            Err(with_path) => with_path.to_string(),
            Ok(_) => e.to_string(),
        };
        caller(helpful(&under(section, &text)))
    })
}

/// Writes YAML that every parser reads alike. `serde_yaml` leaves `yes`, `12:30` and `2026-11-24`
/// plain, which YAML 1.1, and so docker-compose 1.29, reads as a boolean, a number and a date; so
/// all text is quoted here but what no parser takes for anything else.
pub fn to_yaml<T: Serialize>(value: &T) -> Result<String> {
    let value = serde_yaml::to_value(value).world("write YAML")?;
    let mut out = String::new();
    emit(&value, 0, &mut out);
    Ok(out)
}

/// Writes one value in block style; the cursor stands behind `key:`, behind `-`, or at the top.
fn emit(value: &serde_yaml::Value, depth: usize, out: &mut String) {
    use serde_yaml::Value;
    let indent = "  ".repeat(depth);
    match value {
        Value::Mapping(map) if !map.is_empty() => {
            // The first key of a mapping in a list stands on the line of its hyphen.
            let mut lead = if out.ends_with('-') { " " } else { indent.as_str() };
            if out.ends_with(':') {
                out.push('\n');
            }
            for (key, value) in map {
                out.push_str(lead);
                scalar(key, out);
                out.push(':');
                emit(value, depth + 1, out);
                lead = indent.as_str();
            }
        }
        Value::Sequence(items) if !items.is_empty() => {
            if !out.is_empty() {
                out.push('\n');
            }
            for item in items {
                out.push_str(&indent);
                out.push('-');
                emit(item, depth + 1, out);
            }
        }
        plain => {
            if !out.is_empty() {
                out.push(' ');
            }
            scalar(plain, out);
            out.push('\n');
        }
    }
}

fn scalar(value: &serde_yaml::Value, out: &mut String) {
    use serde_yaml::Value;
    use std::fmt::Write;
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "{number}");
        }
        Value::String(text) => quoted(text, out),
        Value::Sequence(_) => out.push_str("[]"),
        Value::Mapping(_) => out.push_str("{}"),
        Value::Tagged(tagged) => scalar(&tagged.value, out),
    }
}

/// A string, plain where nothing can take it for something else, else in double quotes.
fn quoted(text: &str, out: &mut String) {
    use std::fmt::Write;
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._=@,:${}+-".contains(&b))
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // What YAML does not take raw, or folds as a line break.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Turns JSON into YAML of the same order.
pub fn json_to_yaml(text: &str) -> Result<String> {
    let value: serde_yaml::Value = serde_yaml::from_str(text).caller("read JSON")?;
    to_yaml(&value)
}

/// JSON in ASCII: what is in it can be shown in a terminal, and moves no cursor.
pub fn ascii_json(value: &impl Serialize) -> Result<String> {
    use std::fmt::Write;
    let text = serde_json::to_string(value).world("write JSON")?;
    let mut out = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    Ok(out)
}

/// Puts `section` before the path that a message of `serde_yaml` begins with.
fn under(section: &str, message: &str) -> String {
    let path_end = message.find(": ").filter(|end| {
        let path = &message[..*end];
        !path.is_empty() && !path.contains(' ') && !path.contains('`')
    });
    match path_end {
        Some(_) if message.starts_with('[') => format!("{section}{message}"),
        Some(_) => format!("{section}.{message}"),
        None => format!("{section}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default, deserialize_with = "unique")]
        #[expect(dead_code, reason = "only parsed")]
        boxes: BTreeMap<String, Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only parsed")]
        routes: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Merged {
        #[expect(dead_code, reason = "only merged from")]
        a: BTreeMap<String, u8>,
        b: BTreeMap<String, u8>,
    }

    fn yaml_error(text: &str) -> String {
        format!("{:#}", yaml::<Outer>(text, "f.yaml").unwrap_err())
    }

    #[test]
    fn misspelt_field_names_its_path_its_place_and_the_nearest_name() {
        assert_eq!(
            yaml_error("boxes:\n  a:\n    rotues: 1\n"),
            "f.yaml:3:5: boxes.a: unknown field 'rotues': did you mean 'routes'"
        );
    }

    #[test]
    fn merge_keys_are_merged() {
        let merged: Merged = yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", "f.yaml").unwrap();
        assert_eq!(merged.b, BTreeMap::from([("x".to_owned(), 1), ("y".to_owned(), 3)]));
    }

    #[test]
    fn key_that_is_there_twice_is_refused() {
        assert!(yaml_error("boxes:\n  a: {}\n  a: {}\n").contains("'a' is there twice"));
    }

    #[test]
    fn json_error_carries_the_path() {
        let error = json::<Outer>(r#"{"boxes":{"a":{"routes":"x"}}}"#, "plan").unwrap_err();
        let text = format!("{error:#}");
        assert_eq!(text, "plan.boxes.a.routes: the string 'x' is here, where u8 belongs");
        let error = json::<Outer>(r#"{"boks":{}}"#, "plan").unwrap_err();
        assert_eq!(format!("{error:#}"), "plan: unknown field 'boks': did you mean 'boxes'");
    }

    #[test]
    fn written_yaml_reads_back_and_leaves_nothing_to_guess() {
        let words = [
            "yes",
            "NO",
            "33:33",
            "12:30:45",
            "2026-11-24",
            "1_000",
            "~",
            "",
            " x",
            "a: b",
            "a #b",
            "a:",
            "-",
            "{}",
            "line1\nline2\n",
            "\u{1b}[2J",
            "\u{85}",
            "\u{2028}",
            "\u{7f}",
            "é\"\\",
        ];
        let value = serde_json::json!({
            "list": words, "empty": {"list": [], "map": {}}, "n": 1.5, "t": true, "nil": null,
            "nested": [{"a": 1, "b": {"c": ["d"]}}, [["x"], "y"]],
        });
        let text = to_yaml(&value).unwrap();
        assert_eq!(yaml::<serde_json::Value>(&text, "x").unwrap(), value, "{text}");
        for word in &words[..6] {
            assert!(text.contains(&format!("- \"{word}\"\n")), "{word}: {text}");
        }
        assert_eq!(
            to_yaml(&serde_json::json!({"a": [{"b": "c-d:1", "e": {"f": ["/g"]}}]})).unwrap(),
            "a:\n  - b: c-d:1\n    e:\n      f:\n        - /g\n"
        );
    }

    #[test]
    fn ascii_json_moves_no_cursor_and_reads_back() {
        let odd = "a\u{1b}[2J\u{202e}b\u{7f}\u{1f37e}\"\\";
        let text = ascii_json(&odd).unwrap();
        assert!(text.is_ascii() && !text.bytes().any(|b| b < b' ' || b == 0x7f), "{text}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), odd);
    }

    #[test]
    fn far_names_are_not_guessed() {
        assert_eq!(nearest("zzz", &["routes", "image"]), None);
        assert_eq!(nearest("metods", &["methods", "mounts"]), Some("methods"));
        assert_eq!(nearest("mem", &["memory", "cpus"]), Some("memory"));
    }
}
