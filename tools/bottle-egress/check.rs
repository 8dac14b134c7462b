//! `bottle-egress check`: whether `serve` would take a `routes.yaml`.

use std::io::Read;
use std::path::Path;

use anyhow::Result;
use bottle::error::Blame;

use crate::args::Check;
use crate::conf;

/// Checks one file; silent when it is valid.
pub(crate) fn check(args: &Check) -> Result<()> {
    let what = args.file.display();
    let mut bytes = Vec::new();
    if args.file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).caller("read stdin")?;
    } else {
        bytes = std::fs::read(&args.file).caller(format!("read '{what}'"))?;
    }
    conf::policy(&bytes).map(drop).caller(format!("check '{what}'"))
}
