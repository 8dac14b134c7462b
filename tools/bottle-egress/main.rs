//! The program; `lib.rs` is its table of contents.

use std::process::ExitCode;

fn main() -> ExitCode {
    bottle_egress::main()
}
