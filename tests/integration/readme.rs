//! The README's tour, whole.

use std::fs;
use std::os::unix::fs::symlink;

use crate::common::manifest::Manifest;
use crate::common::{root, transcript};
use crate::support::{Bottle, images};

#[test]
fn readme_tells_the_truth_on_a_real_engine() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let readme = root().join("README.md");
    transcript::manifest_of(&readme, bottle.scratch());
    // A home of its own, whose state folder is that of the test.
    let home = bottle.scratch().path().join("home");
    fs::create_dir_all(home.join(".local/state")).unwrap();
    symlink(bottle.state(), home.join(".local/state/bottle")).unwrap();
    let mut env = bottle.env();
    let real = std::env::home_dir().unwrap();
    if !env.iter().any(|(name, _)| *name == "DOCKER_CONFIG") {
        env.push(("DOCKER_CONFIG", real.join(".docker").into()));
    }
    env.retain(|(name, _)| *name != "HOME");
    env.push(("HOME", home.into()));
    transcript::play(&readme, bottle.scratch(), env, true);
}
