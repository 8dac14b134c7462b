//! `bottle-egress`.

fn main() {}
