use std::path::{Path, PathBuf};

use super::Config;

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

#[test]
fn what_the_real_one_takes_is_taken() {
    let files = files("pipelock/valid", "yaml");
    assert!(files.len() > 4);
    for file in files {
        Config::read(&file).unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
    }
}

#[test]
fn what_the_real_one_refuses_is_refused() {
    let files = files("pipelock/invalid", "yaml");
    assert!(files.len() > 15);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# error: ").unwrap();
        let told = format!("{:#}", Config::read(&file).unwrap_err());
        assert!(told.contains(expected), "{}: {told}", file.display());
    }
}

#[test]
fn whatever_bottle_renders_is_taken() {
    let files = files("render", "pipelock");
    assert!(files.len() > 1);
    for file in files {
        let config = Config::read(&file).unwrap();
        // Nothing is left to a default that bites.
        assert_eq!(config.fetch_proxy.listen, "0.0.0.0:8888");
        assert!(config.fetch_proxy.monitoring.max_requests_per_minute > 10_000);
        assert!(config.forward_proxy.enabled && config.forward_proxy.max_tunnel_seconds > 300);
        assert_eq!(config.metrics_listen, "127.0.0.1:9090");
        assert_eq!(config.request_body_scanning.action, "block");
    }
}
