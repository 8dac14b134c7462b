//! Every compose file that `bottle-render` is held to is one that both composes read; the goldens
//! themselves are compared in `tools/bottle-render/model/goldens.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use bottle::docker::Docker;

use crate::common::{Tool, root, skip};

/// The golden compose files.
fn goldens() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/fixtures/render")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "yml")).collect()
}

/// What a Compose says of a file; `config` needs no engine.
fn config(program: &Path, file: &Path) -> crate::common::Run {
    let args = ["-p", "x", "-f", file.to_str().unwrap(), "config", "-q"];
    Tool::new(program).args(args).run()
}

#[test]
fn compose_v2_reads_every_golden() {
    let Ok(compose) = Docker::find().and_then(|docker| docker.compose()) else {
        return skip("no Compose");
    };
    let files = goldens();
    assert!(files.len() > 8);
    for file in files {
        config(compose.program(), &file).ok();
    }
}

#[test]
fn compose_v1_reads_every_golden() {
    let Some(program) = program("docker-compose") else { return skip("no docker-compose") };
    for file in goldens() {
        // It has no word for it; engines with SELinux are newer than it.
        if !file.to_string_lossy().ends_with("selinux_engine.yml") {
            config(&program, &file).ok();
        }
    }
}

#[test]
fn oracle_refuses_what_is_no_compose_file() {
    let Some(program) = program("docker-compose") else { return skip("no docker-compose") };
    let broken = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    fs::write(&broken, "services:\n  agent:\n    image: x\n    cap_dorp: [ALL]\n").unwrap();
    assert_ne!(config(&program, broken.path()).status, 0);
}

/// A program on the caller's PATH.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}
