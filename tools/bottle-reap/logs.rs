//! One log of several containers, merged by the engine's time stamps, a line at a time: the logs
//! may be larger than memory, and a container decides how long its lines are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::io::{BufRead, BufReader, Read, Write};

use anyhow::Result;
use bottle::docker::{Docker, PATIENCE};
use bottle::error::Blame;
use bottle::inventory::Container;
use serde::Deserialize;

/// How much of a line is held at once.
const CHUNK: u64 = 64 << 10;

/// What json-file writes around the text of a line:
/// `{"log":"\n","stream":"stdout","time":"2026-11-24T06:38:26.123456789Z"}` and a newline.
const FRAME: u64 = 70;

/// Writes the log of the containers, each line after the name of its service, as Compose does. Gives
/// those whose log could not be read to its end.
pub(crate) fn merge<'a>(
    docker: &Docker,
    containers: &'a [Container],
    out: File,
) -> Result<Vec<&'a Container>> {
    let mut args = vec!["inspect", "--format", LIMITS];
    args.extend(containers.iter().map(|container| container.id.as_str()));
    let limits = docker.start(&args)?;
    let width = containers.iter().map(|container| container.title().len()).max().unwrap_or(0);
    let mut sources = Vec::new();
    for container in containers {
        let said = docker.stream(&["logs", "--timestamps", &container.id])?;
        sources.push(Source::new(format!("{:width$} | ", container.title()), said));
    }
    let mut out = BufWriter::new(out);
    interleave(&mut sources, &mut out).world("write")?;
    // One that is gone meanwhile has no limit any more, and then nothing is said of any.
    let limits = limits.text(PATIENCE).unwrap_or_default();
    for ((source, container), limit) in sources.iter().zip(containers).zip(limits.lines()) {
        if let Some(cut) = self::limit(limit).and_then(|limit| limit.cut(source.bytes)) {
            writeln!(out, "bottle-reap: log of '{}': {cut}", container.title()).world("write")?;
        }
    }
    let mut unread = Vec::new();
    for (mut source, container) in sources.into_iter().zip(containers) {
        if let Some(error) = &source.trouble {
            writeln!(out, "bottle-reap: log of '{}': {error}", container.title()).world("write")?;
            unread.push(container);
        } else if !source.reader.get_mut().succeeds()? {
            unread.push(container);
        }
    }
    out.flush().world("write")?;
    Ok(unread)
}

/// The log of one container while it is read.
struct Source<R> {
    prefix: String,
    reader: BufReader<R>,
    /// The next line, or the beginning of a long one, with its newline; empty at the end.
    line: Vec<u8>,
    /// Its time stamp; that of the line before where it has none.
    stamp: Vec<u8>,
    /// Roughly what json-file stores of it.
    bytes: u64,
    /// Why it could not be read to its end.
    trouble: Option<std::io::Error>,
}

impl<R: Read> Source<R> {
    fn new(prefix: String, reader: R) -> Self {
        let reader = BufReader::new(reader);
        Self { prefix, reader, line: Vec::new(), stamp: Vec::new(), bytes: 0, trouble: None }
    }

    /// Reads on, to the end of the line or of the chunk. One log that cannot be read is at its end,
    /// and the others go on.
    fn read(&mut self) {
        self.line.clear();
        let read = (&mut self.reader).take(CHUNK).read_until(b'\n', &mut self.line);
        self.trouble = read.err();
    }

    /// Reads the next line and its stamp.
    fn advance(&mut self) {
        if self.trouble.is_some() {
            return self.line.clear();
        }
        self.read();
        let stamp = self.line.split(|byte| *byte == b' ').next().unwrap_or_default();
        if stamp.first().is_some_and(u8::is_ascii_digit) && stamp.ends_with(b"Z") {
            // All of the engine's stamps are of one length, so they sort as text.
            stamp.clone_into(&mut self.stamp);
            self.bytes += FRAME;
            self.bytes -= (stamp.len() as u64 + 2).min(self.line.len() as u64);
        }
    }

    /// Writes the line that is held, and the rest of it.
    fn write(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(self.prefix.as_bytes())?;
        while !self.line.is_empty() {
            out.write_all(&self.line)?;
            self.bytes += self.line.len() as u64;
            if self.line.ends_with(b"\n") {
                return Ok(());
            }
            if self.trouble.is_some() {
                break;
            }
            self.read();
        }
        out.write_all(b"\n")
    }
}

/// Writes all of them, the oldest line first.
fn interleave<R: Read>(sources: &mut [Source<R>], out: &mut impl Write) -> std::io::Result<()> {
    sources.iter_mut().for_each(Source::advance);
    loop {
        let next = sources
            .iter_mut()
            .filter(|source| !source.line.is_empty())
            .min_by(|a, b| a.stamp.cmp(&b.stamp));
        let Some(source) = next else { return Ok(()) };
        source.write(out)?;
        source.advance();
    }
}

/// What the engine keeps of a container's log.
const LIMITS: &str = "{{json .HostConfig.LogConfig}}";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LogConfig {
    #[serde(rename = "Type")]
    driver: String,
    config: Option<BTreeMap<String, String>>,
}

/// A limit of json-file: so many files of so many bytes.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    text: String,
    size: u64,
    files: u64,
}

fn limit(line: &str) -> Option<Limit> {
    let config: LogConfig = serde_json::from_str(line).ok()?;
    let options = config.config.filter(|_| config.driver == "json-file")?;
    let text = options.get("max-size")?;
    let files = options.get("max-file").map_or(Some(1), |files| files.parse().ok())?;
    Some(Limit { size: bytes(text)?, text: text.clone(), files })
}

impl Limit {
    /// What to say of a log of which `kept` bytes are left. The engine does not tell what it threw
    /// away; but as long as it threw nothing away there is less than all files but one can hold.
    fn cut(&self, kept: u64) -> Option<String> {
        // A file is closed when the next line does not fit; lines are at most 16 KiB.
        let least = (self.files - 1).saturating_mul(self.size.saturating_sub(16 << 10));
        (kept >= least).then(|| {
            format!(
                "the engine keeps {} files of {}: what came before may be cut",
                self.files, self.text
            )
        })
    }
}

/// `10m` of Docker's log options: powers of a thousand.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let text = text.trim_end_matches('b');
    let power = match text.as_bytes().last()? {
        b'k' => 1_000,
        b'm' => 1_000_000,
        b'g' => 1_000_000_000,
        _ => return text.parse().ok(),
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(logs: &[(&str, &str)]) -> String {
        let mut sources: Vec<_> = logs
            .iter()
            .map(|(name, log)| Source::new(format!("{name} | "), log.as_bytes()))
            .collect();
        let mut out = Vec::new();
        interleave(&mut sources, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_several_containers_are_sorted_by_time() {
        let log = merged(&[
            ("a", "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:03.000000000Z three\n"),
            (
                "b",
                "2026-01-01T00:00:02.000000000Z two\nno stamp\n2026-01-01T00:00:04.000000000Z four\n",
            ),
            ("c", ""),
        ]);
        let said: Vec<&str> = log.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(said, ["one", "two", "stamp", "three", "four"]);
        assert!(log.starts_with("a | 2026-01-01T00:00:01.000000000Z one\nb | "));
    }

    #[test]
    fn line_without_end_is_not_held_and_not_mixed_with_others() {
        let text = "x".repeat(3 * usize::try_from(CHUNK).unwrap());
        let log = merged(&[
            ("a", &format!("2026-01-01T00:00:01.000000000Z {text}")),
            ("b", "2026-01-01T00:00:02.000000000Z y\n"),
        ]);
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with(&text) && lines[1].ends_with(" y"));
    }

    #[test]
    fn limit_of_the_log_is_told_only_where_it_may_have_cut() {
        let config = r#"{"Type":"json-file","Config":{"max-file":"3","max-size":"10m"}}"#;
        let limit = limit(config).unwrap();
        assert_eq!((limit.size, limit.files), (10_000_000, 3));
        assert_eq!(limit.cut(19_000_000), None);
        assert!(limit.cut(20_000_000).unwrap().contains("3 files of 10m"));
        assert_eq!(super::limit(r#"{"Type":"json-file","Config":{}}"#), None);
        assert_eq!(super::limit(r#"{"Type":"local","Config":null}"#), None);
    }

    #[test]
    fn sizes_are_dockers() {
        assert_eq!(
            ["10m", "5kb", "1G", "7"].map(bytes),
            [10_000_000, 5_000, 1_000_000_000, 7].map(Some)
        );
        assert_eq!(["", "m", "x1"].map(bytes), [None; 3]);
    }
}
