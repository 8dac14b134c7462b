//! `bottle-trust`.

fn main() {}
