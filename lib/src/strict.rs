//! Strict parsing of YAML and JSON: the path of the field, the nearest known name, line and column,
//! no key twice. The only module that knows `serde_yaml`, which is archived upstream.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use anyhow::Result;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Blame, caller};

/// Parses YAML (and so JSON too, which is YAML) read from `source`, a file name for messages.
pub fn yaml<T: DeserializeOwned>(text: &str, source: &str) -> Result<T> {
    serde_yaml::from_str(text).map_err(|e| {
        let place =
            e.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
        caller(format!("{source}{place}: {}", helpful(&e.to_string())))
    })
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

/// serde's message in our words: subject in single quotes, the nearest known name in place of the
/// list of all, no position (the caller of this shows it in front).
fn helpful(message: &str) -> String {
    let message = match message.rfind(" at line ") {
        Some(end) => &message[..end],
        None => message,
    };
    let Some((before, rest)) = message.split_once("unknown ") else {
        return message.replace('`', "'");
    };
    // "unknown field `x`, expected one of `a`, `b`", "unknown variant `x`, expected `a` or `b`".
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let (Some(kind), Some(name)) = (rest.split(' ').next(), quoted.next()) else {
        return message.replace('`', "'");
    };
    let known: Vec<&str> = quoted.collect();
    let kind = if kind == "variant" { "value" } else { kind };
    format!("{before}unknown {kind} '{name}'{}", did_you_mean(name, &known))
}

/// The end of a message about an unknown name: the nearest known one, else all of them.
#[must_use]
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!(": did you mean '{near}'"),
        None if known.is_empty() => String::new(),
        None => format!(": known are '{}'", known.join("', '")),
    }
}

/// The known name nearest to `name`, if one is near enough to be meant: at most two fifths of
/// the letters differ, or one is the beginning of the other.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = known
        .iter()
        .map(|candidate| (edits(name, candidate), *candidate))
        .min_by_key(|(d, _)| *d)?;
    let longest = name.chars().count().max(best.chars().count());
    let extends = |a: &str, b: &str| a.len() > 2 && b.starts_with(a);
    (distance * 5 <= longest * 2 || extends(name, best) || extends(best, name)).then_some(best)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn one word into the other.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// For `#[serde(deserialize_with = "strict::unique")]`: a map that refuses a key that is there
/// twice. The plain one keeps the last, so that of two agents of one name the first would vanish.
pub fn unique<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Unique<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out = BTreeMap::new();
            while let Some(key) = map.next_key::<String>()? {
                if out.contains_key(&key) {
                    return Err(serde::de::Error::custom(format_args!("'{key}' is there twice")));
                }
                let value = map.next_value()?;
                out.insert(key, value);
            }
            Ok(out)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

/// For `#[serde(default, deserialize_with = "strict::some")]`: a field may be left out, but not be
/// there without a value, which serde would take for left out.
pub fn some<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// As [`some`], of a list that is not empty: for fields whose absence means "all".
pub fn some_of<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    match Vec::deserialize(deserializer) {
        Ok(list) if list.is_empty() => Err(serde::de::Error::custom(
            "an empty list would mean nothing here: leave the field out",
        )),
        other => other.map(Some),
    }
}

/// Text that is meant as text: YAML's numbers, booleans and null are refused, because what they
/// are as text depends on who reads them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(String);

impl Text {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfText(
            "a string that is not empty",
            |text: &str| match text {
                "" => Err("it is empty: give it a value, or leave it out"),
                _ => Ok(Self(text.to_owned())),
            },
        ))
    }
}

/// A value with a text form, parsed while its place in the file is known. Plain numbers of YAML
/// come here as they are written, so `0x10` is not 16 and `1.50` stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed<T>(pub T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(OfText("one value", |text: &str| text.parse().map(Self)))
    }
}

/// A visitor of text that gives what a function makes of it.
struct OfText<F>(&'static str, F);

impl<T, E: fmt::Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'_> for OfText<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<D: serde::de::Error>(self, text: &str) -> Result<T, D> {
        (self.1)(text).map_err(D::custom)
    }
}

/// A mapping, or the text that stands for it: Compose's short forms.
pub fn text_or<'de, D, T>(deserializer: D, from: fn(Text) -> T) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Either<T>(fn(Text) -> T);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping, or a string")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            Ok((self.0)(Text(text.to_owned())))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(serde::de::value::MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_any(Either(from))
}

#[cfg(test)]
mod tests {
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
    fn key_that_is_there_twice_is_refused() {
        assert!(yaml_error("boxes:\n  a: {}\n  a: {}\n").contains("'a' is there twice"));
    }

    #[test]
    fn json_error_carries_the_path() {
        let error = json::<Outer>(r#"{"boxes":{"a":{"routes":"x"}}}"#, "plan").unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("plan.boxes.a.routes: invalid type"), "{text}");
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
    fn far_names_are_not_guessed() {
        assert_eq!(nearest("zzz", &["routes", "image"]), None);
        assert_eq!(nearest("metods", &["methods", "mounts"]), Some("methods"));
        assert_eq!(nearest("mem", &["memory", "cpus"]), Some("memory"));
    }
}
