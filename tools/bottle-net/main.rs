//! `bottle-net`.

fn main() {}
