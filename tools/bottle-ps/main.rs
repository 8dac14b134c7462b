//! `bottle-ps`.

fn main() {}
