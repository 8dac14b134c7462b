//! Images of the engine: which of those that a bottle needs are there.

use anyhow::Result;

use crate::docker::{Docker, PATIENCE, complaint};
use crate::error::world;

/// The ids of images, or those of the images that are missing. At least one has to be asked for.
pub fn look(docker: &Docker, images: &[String]) -> Result<Result<Vec<String>, Vec<String>>> {
    let mut args = vec!["image", "inspect", "--format", "{{.Id}}"];
    args.extend(images.iter().map(String::as_str));
    let output = docker.start(&args)?.output(PATIENCE)?;
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        let ids: Vec<String> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        if ids.len() == images.len() {
            return Ok(Ok(ids));
        }
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
