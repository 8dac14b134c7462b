//! Images of the engine: which of those that a bottle needs are there.

use anyhow::Result;

use crate::docker::{Docker, PATIENCE, complaint};
use crate::error::world;

/// The id of the first of some images, or those of them that are missing.
pub fn look(docker: &Docker, images: &[String]) -> Result<Result<String, Vec<String>>> {
    let mut args = vec!["image", "inspect", "--format", "{{.Id}}"];
    args.extend(images.iter().map(String::as_str));
    let output = docker.start(&args)?.output(PATIENCE)?;
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let ids = String::from_utf8_lossy(&output.stdout);
        return Ok(Ok(ids.lines().next().unwrap_or_default().to_owned()));
    }
    let named: Vec<&str> = told
        .lines()
        .filter_map(|line| Some(line.split_once("No such image: ")?.1.trim()))
        .collect();
    if named.is_empty() {
        return Err(world(format!("look at the images: {}", complaint(&told))));
    }
    let is_named = |image: &&String| named.iter().any(|name| is(name, image));
    let mut missing: Vec<String> = images.iter().filter(is_named).cloned().collect();
    missing.dedup();
    Ok(Err(missing))
}

/// Whether the engine's name of an image is the one that was asked for: it leaves out what goes
/// without saying, and puts in the tag.
fn is(engine: &str, asked: &str) -> bool {
    let short = asked.strip_prefix("docker.io/").unwrap_or(asked);
    let short = short.strip_prefix("library/").unwrap_or(short);
    [asked, short]
        .iter()
        .any(|name| engine == *name || engine.strip_prefix(name) == Some(":latest"))
}

#[cfg(test)]
mod tests {
    use super::is;

    #[test]
    fn engines_name_of_an_image_is_known_again() {
        for (engine, asked) in [
            ("debian:12", "debian:12"),
            ("debian:latest", "debian"),
            ("debian:12", "docker.io/library/debian:12"),
            ("docker.io/library/debian:12", "docker.io/library/debian:12"),
            ("me/x:1", "docker.io/me/x:1"),
            ("ghcr.io/me/x@sha256:00", "ghcr.io/me/x@sha256:00"),
        ] {
            assert!(is(engine, asked), "{engine} {asked}");
        }
        assert!(!is("debian:12", "debian:11"));
        assert!(!is("debian:12", "debian"));
    }
}
