//! Resolves a manifest to a plan.
fn main() {}
