//! What would be decided otherwise, counted. The examples are bounded, the counts are not.

use std::collections::HashMap;
use std::fmt::Write;

use anyhow::Result;
use bottle::policy::Policy;
use serde::Serialize;

use crate::record::Record;

/// The most different requests of which each is counted by itself.
const KEPT: usize = 10_000;

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// All lines.
    decisions: u64,
    /// Those of which rules have a say.
    judged: u64,
    now_denied: u64,
    newly_allowed: u64,
    denied: HashMap<String, u64>,
    allowed: HashMap<String, u64>,
}

/// A request and how often it was made.
#[derive(Debug, Serialize)]
struct Example<'a> {
    request: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    decisions: u64,
    judged: u64,
    unchanged: u64,
    now_denied: u64,
    newly_allowed: u64,
    denied: Vec<Example<'a>>,
    allowed: Vec<Example<'a>>,
}

impl Tally {
    /// Decides one line anew.
    pub(crate) fn add(&mut self, line: &[u8], policy: &Policy) -> Result<()> {
        self.decisions += 1;
        let record = Record::parse(line)?;
        let Some(question) = record.question()? else { return Ok(()) };
        self.judged += 1;
        let is_allowed = question.decide(&record.method, policy);
        if is_allowed == record.was_allowed() {
            return Ok(());
        }
        let (count, examples) = if is_allowed {
            (&mut self.newly_allowed, &mut self.allowed)
        } else {
            (&mut self.now_denied, &mut self.denied)
        };
        *count += 1;
        let shown = question.shown(&record.method);
        let room = examples.len() < KEPT;
        if let Some(count) = examples.get_mut(&shown) {
            *count += 1;
        } else if room {
            examples.insert(shown, 1);
        }
        Ok(())
    }

    /// Whether anything would be decided otherwise.
    pub(crate) fn differs(&self) -> bool {
        self.now_denied + self.newly_allowed > 0
    }

    fn report(&self, examples: usize) -> Report<'_> {
        let most = |of| most(of, examples);
        Report {
            decisions: self.decisions,
            judged: self.judged,
            unchanged: self.decisions - self.now_denied - self.newly_allowed,
            now_denied: self.now_denied,
            newly_allowed: self.newly_allowed,
            denied: most(&self.denied),
            allowed: most(&self.allowed),
        }
    }

    /// As JSON, a line.
    pub(crate) fn to_json(&self, examples: usize) -> serde_json::Result<String> {
        serde_json::to_string(&self.report(examples)).map(|text| text + "\n")
    }

    /// For a person.
    pub(crate) fn to_text(&self, examples: usize) -> String {
        let report = self.report(examples);
        let mut text = format!(
            "{} decisions: {} unchanged, {} now denied, {} newly allowed\n",
            report.decisions, report.unchanged, report.now_denied, report.newly_allowed
        );
        for (sign, examples) in [('-', &report.denied), ('+', &report.allowed)] {
            for Example { request, count } in examples {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{sign} {count} {request}");
            }
        }
        text
    }
}

/// The most frequent ones.
fn most(of: &HashMap<String, u64>, examples: usize) -> Vec<Example<'_>> {
    let mut all: Vec<_> =
        of.iter().map(|(request, count)| Example { request, count: *count }).collect();
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.request.cmp(b.request)));
    all.truncate(examples);
    all
}
