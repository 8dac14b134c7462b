//! `bottle-apply`.

fn main() {}
