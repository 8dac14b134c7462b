//! The JSON document that the tools pass along; `bottle-plan(5)` is its contract.
//!
//! Sections stay the text they came as until a tool asks for one, so what a tool does not know
//! leaves it exactly as it came in.

use std::fmt;
use std::io::{IsTerminal, Read, Write};

use anyhow::Result;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::error::{Blame, caller, world};
use crate::name::Slug;
use crate::strict;

/// The version of the contract. A new optional field does not raise it; a removal or a change of
/// meaning does.
pub const VERSION: u64 = 1;

/// The largest document that is read. A plan of ten thousand routes takes about 2 MiB.
pub const MAX_BYTES: u64 = 64 << 20;

/// The tool that sets a section, for the message when the section is missing.
const SETTERS: [(&str, &str); 6] = [
    ("plan", "bottle-plan"),
    ("net", "bottle-net"),
    ("render", "bottle-render"),
    ("up", "bottle-up"),
    ("apply", "bottle-apply"),
    ("reap", "bottle-reap"),
];

/// One document: a name and its sections, in the order in which they came.
#[derive(Debug, Clone)]
pub struct Document {
    name: Slug,
    sections: Vec<(String, Box<RawValue>)>,
}

impl Document {
    /// A document without sections.
    #[must_use]
    pub fn new(name: Slug) -> Self {
        Self { name, sections: Vec::new() }
    }

    /// The name of the bottle.
    #[must_use]
    pub fn name(&self) -> &Slug {
        &self.name
    }

    /// Reads stdin to its end and parses it.
    pub fn from_stdin() -> Result<Self> {
        let mut stdin = std::io::stdin().lock();
        if stdin.is_terminal() {
            return Err(caller(
                "read a document: stdin is a terminal: pipe one in, as in 'bottle-plan AGENT | …'",
            ));
        }
        let mut text = Vec::new();
        (&mut stdin).take(MAX_BYTES + 1).read_to_end(&mut text).world("read stdin")?;
        if text.len() as u64 > MAX_BYTES {
            return Err(caller(format!(
                "read a document: it is larger than {} MiB",
                MAX_BYTES >> 20
            )));
        }
        Self::parse(&text)
    }

    /// Parses a document, which must be the whole of `text`.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(caller(
                "read a document: stdin is empty: did the tool before this one fail",
            ));
        }
        let text = std::str::from_utf8(text).caller("read a document: it is not UTF-8")?;
        let top: Top = serde_json::from_str(text).caller("read a document")?;
        Self::from_top(top)
    }

    fn from_top(Top(mut members): Top) -> Result<Self> {
        let mut take = |key: &str| {
            let at = members.iter().position(|(name, _)| name == key)?;
            Some(members.remove(at).1)
        };
        let version = take("bottle").ok_or_else(|| {
            caller("read a document: field 'bottle' is missing: this is not a document of bottle")
        })?;
        match version.get().parse::<u64>() {
            Ok(VERSION) => {}
            Ok(newer) if newer > VERSION => {
                return Err(caller(format!(
                    "read a document: its version {newer} is newer than {VERSION}, the newest this tool knows: upgrade bottle"
                )));
            }
            _ => {
                return Err(caller(format!(
                    "read a document: field 'bottle' is '{}': it must be {VERSION}",
                    version.get()
                )));
            }
        }
        let name =
            take("name").ok_or_else(|| caller("read a document: field 'name' is missing"))?;
        let name: Slug = strict::json(name.get(), "name").caller("read a document")?;
        Ok(Self { name, sections: members })
    }

    /// Whether a section is there.
    #[must_use]
    pub fn has(&self, section: &str) -> bool {
        self.raw(section).is_some()
    }

    /// The text of a section, as it came.
    #[must_use]
    pub fn raw(&self, section: &str) -> Option<&str> {
        self.sections.iter().find(|(name, _)| name == section).map(|(_, raw)| raw.get())
    }

    /// A section, if it is there. Unknown fields are refused with their path.
    pub fn get<T: DeserializeOwned>(&self, section: &str) -> Result<Option<T>> {
        self.raw(section)
            .map(|text| strict::json(text, section).caller("read a document"))
            .transpose()
    }

    /// A section that the tool cannot do without.
    pub fn need<T: DeserializeOwned>(&self, section: &str) -> Result<T> {
        self.get(section)?.ok_or_else(|| {
            let hint = SETTERS
                .iter()
                .find(|(name, _)| *name == section)
                .map_or_else(String::new, |(_, tool)| format!(": pipe it through '{tool}' first"));
            caller(format!("read a document: section '{section}' is missing{hint}"))
        })
    }

    /// Sets a section, in place where it is there already.
    pub fn set<T: Serialize>(&mut self, section: &str, value: &T) -> Result<()> {
        let raw =
            serde_json::value::to_raw_value(value).world(format!("write section '{section}'"))?;
        match self.sections.iter_mut().find(|(name, _)| name == section) {
            Some((_, old)) => *old = raw,
            None => self.sections.push((section.to_owned(), raw)),
        }
        Ok(())
    }

    /// The document as text, with a newline at its end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(r#"{{"bottle":{VERSION},"name":"{}""#, self.name);
        for (name, raw) in &self.sections {
            text.push(',');
            // A string always serialises.
            text.push_str(&serde_json::to_string(name).unwrap_or_default());
            text.push(':');
            text.push_str(raw.get());
        }
        text.push_str("}\n");
        text
    }

    /// Writes the document to stdout, once. Where this fails, a tool that acted undoes what it did.
    pub fn to_stdout(&self) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(self.to_text().as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|e| world(format!("write the document to stdout: {e}")))
    }
}

/// The members of the top-level object, in order, each once.
struct Top(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Top;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, raw)) = map.next_entry()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(serde::de::Error::custom(format_args!(
                            "section '{name}' is there twice"
                        )));
                    }
                    members.push((name, raw));
                }
                Ok(Top(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        format!("{:#}", Document::parse(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn unknown_sections_pass_through_to_the_byte() {
        let text = r#"{"bottle":1,"name":"x","later":{ "b":1.50, "a" : [1e400]},"plan":{}}"#;
        let mut doc = Document::parse(text.as_bytes()).unwrap();
        doc.set("plan", &serde_json::json!({"a": 1})).unwrap();
        assert_eq!(
            doc.to_text(),
            "{\"bottle\":1,\"name\":\"x\",\"later\":{ \"b\":1.50, \"a\" : [1e400]},\"plan\":{\"a\":1}}\n"
        );
    }

    #[test]
    fn broken_input_is_refused() {
        assert!(refusal(" \n").contains("stdin is empty"));
        assert!(refusal(r#"{"bottle":1,"name":"x""#).contains("EOF"));
        assert!(refusal(r#"{"bottle":2,"name":"x"}"#).contains("newer than 1"));
        assert!(refusal(r#"{"bottle":"1","name":"x"}"#).contains("it must be 1"));
        assert!(refusal(r#"{"name":"x"}"#).contains("'bottle' is missing"));
        assert!(refusal(r#"{"bottle":1}"#).contains("'name' is missing"));
        assert!(refusal(r#"{"bottle":1,"name":"../x"}"#).contains("not a slug"));
        assert!(refusal(r#"{"bottle":1,"name":"x","net":1,"net":2}"#).contains("there twice"));
        assert!(refusal(r#"{"bottle":1,"name":"x"}{"bottle":1,"name":"x"}"#).contains("trailing"));
        assert!(refusal("[]").contains("a JSON object"));
    }

    #[test]
    fn missing_section_names_the_tool_that_sets_it() {
        let doc = Document::parse(br#"{"bottle":1,"name":"x"}"#).unwrap();
        let error = doc.need::<serde_json::Value>("net").unwrap_err();
        assert!(format!("{error:#}").contains("pipe it through 'bottle-net' first"));
    }
}
