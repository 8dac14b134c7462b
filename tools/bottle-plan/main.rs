//! `bottle-plan`.

fn main() {}
