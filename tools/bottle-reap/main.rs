//! `bottle-reap`.

fn main() {}
