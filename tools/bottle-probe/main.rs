//! `bottle-probe`.

fn main() {}
