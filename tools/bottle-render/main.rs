//! `bottle-render`.

fn main() {}
