//! `bottle-up`.

fn main() {}
