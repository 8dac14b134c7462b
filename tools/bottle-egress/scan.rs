//! `bottle-egress scan`: what the scan of outgoing requests would stop, without a bottle. Secrets of a
//! plan are not known here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use crate::dlp::{self, Engine, Finding, Lens, Place, Scanner};
use anyhow::Result;
use bottle::error::{Blame, no};
use serde_json::json;

use crate::args::Scan;

/// Looks at each file as at the body of a request, or at its lines as at URLs; says no where
/// something is found.
pub(crate) fn scan(args: &Scan) -> Result<()> {
    let engine = Arc::new(Engine::new(&BTreeMap::new(), args.private_data));
    let lens = Lens::new(engine, Vec::new(), String::new());
    let mut count = 0;
    for file in &args.files {
        let name = file.display().to_string();
        let found = if file == Path::new("-") {
            look(&lens, args.urls, std::io::stdin().lock())
        } else {
            let file = File::open(file).caller(format!("open '{name}'"))?;
            look(&lens, args.urls, BufReader::new(file))
        };
        for Finding { rule, place, offset } in found.caller(format!("read '{name}'"))? {
            count += 1;
            let line = json!({ "file": name, "rule": rule, "place": place, "offset": offset });
            writeln!(std::io::stdout(), "{line}").world("write stdout")?;
        }
    }
    match count {
        0 => Ok(()),
        1 => Err(no("1 finding would be stopped")),
        _ => Err(no(format!("{count} findings would be stopped"))),
    }
}

fn look(lens: &Lens, urls: bool, mut from: impl BufRead) -> std::io::Result<Vec<Finding>> {
    if urls {
        let mut found = Vec::new();
        let mut at = 0;
        for line in from.lines() {
            let line = line?;
            let path =
                line.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
            let of_line = dlp::url(lens, path.unwrap_or(&line));
            found.extend(of_line.into_iter().map(|it| Finding { offset: it.offset + at, ..it }));
            at += line.len() as u64 + 1;
        }
        return Ok(found);
    }
    let mut scanner = Scanner::new(lens, Place::Body, None);
    let mut bytes = vec![0; 64 << 10];
    loop {
        match from.read(&mut bytes)? {
            0 => return Ok(scanner.end().to_vec()),
            read => scanner.feed(&bytes[..read]),
        }
    }
}
