//! `bottle-probe get`: one request, for images that have no curl.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::{Blame, no};

use crate::args::Get;
use crate::fetch::{Client, Url};

pub(crate) fn get(args: &Get) -> Result<ExitCode> {
    let url: Url = args.url.parse()?;
    let client = Client::new(args.proxy.as_deref(), &args.ca)?;
    let end = Instant::now() + Duration::from_millis(args.timeout_ms);
    let what = format!("{} '{url}'", args.method);
    let body = args.data.as_deref().unwrap_or_default().as_bytes();
    let mut answer = client.send(&args.method, &url, body, end).world(&what)?;
    let mut stdout = std::io::stdout().lock();
    if args.method != "HEAD" {
        answer
            .body(&mut |piece| {
                stdout.write_all(piece)?;
                stdout.flush()
            })
            .world(&what)?;
    }
    if (200..300).contains(&answer.status) {
        return Ok(ExitCode::SUCCESS);
    }
    let denied = answer.head.header("x-bottle-denied");
    let why =
        denied.map_or_else(String::new, |reason| format!(": denied by bottle-egress: {reason}"));
    Err(no(format!("{what}: status {}{why}", answer.status)))
}
