//! The images of a bottle: present before anything is written, pulled or built where they are
//! not, and the one thing that is read out of them: the agent's `/etc/passwd`.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use bottle::docker::{Docker, complaint, label};
use bottle::owner::Owner;
use bottle::plan::{Build, Plan};
use bottle::run::progress;
use bottle::state::{self, State};
use bottle::{Blame, Slug, image, world};

use crate::{TOOL, passwd};

/// How long a pull or a build may take.
const PULL: Duration = Duration::from_hours(1);

/// What the engine is asked for.
pub(crate) struct Engine {
    docker: Docker,
}

impl Engine {
    pub(crate) fn find() -> Result<Self> {
        Ok(Self { docker: Docker::find()? })
    }

    /// Sees to it that all of `images` are there, the agent's first, and gives the agent's id.
    pub(crate) fn ready(&self, plan: &Plan, images: &[String]) -> Result<String> {
        if let Some(build) = &plan.build {
            self.build(build, &images[0])?;
        }
        let mut found = image::look(&self.docker, images)?;
        if let Err(missing) = &found {
            for image in missing {
                self.pull(image)?;
            }
            found = image::look(&self.docker, images)?;
        }
        found.map_err(|missing| {
            world(format!("find image '{}': it is not there", missing.join("', '")))
        })
    }

    fn pull(&self, image: &str) -> Result<()> {
        if image.starts_with("bottle-") && !image.contains('/') {
            return Err(world(format!(
                "find image '{image}': it is not there: run 'bottle images', or 'make images' in a checkout"
            )));
        }
        progress(TOOL, &format!("pull image '{image}'"));
        self.docker.start(&["pull", "--quiet", image])?.text(PULL).map(drop).map_err(|e| {
            world(format!("find image '{image}': it is not there, and cannot be pulled: {e:#}"))
        })
    }

    fn build(&self, build: &Build, tag: &str) -> Result<()> {
        progress(TOOL, &format!("build image '{tag}'"));
        let context = build.context.to_string_lossy().into_owned();
        let mut args = vec!["build".to_owned(), "--quiet".into(), "--tag".into(), tag.to_owned()];
        args.extend(["--label".into(), format!("{}=build", label::IMAGE)]);
        if let Some(file) = &build.dockerfile {
            args.extend(["--file".into(), build.context.join(file).to_string_lossy().into_owned()]);
        }
        if let Some(target) = &build.target {
            args.extend(["--target".into(), target.clone()]);
        }
        for (name, value) in &build.args {
            args.extend(["--build-arg".into(), format!("{name}={value}")]);
        }
        args.push(context.clone());
        self.docker
            .start(&args)?
            .text(PULL)
            .map(drop)
            .world(format!("build the agent's image from '{context}'"))
    }

    /// The `/etc/passwd` of an image, read once and then kept, because that takes a container.
    pub(crate) fn passwd(
        &self,
        state: &State,
        slug: &Slug,
        plan: &Plan,
        id: &str,
    ) -> Result<String> {
        let cache = state.root().join("cache");
        let kept = cache.join(format!("passwd-{}", id.trim_start_matches("sha256:")));
        if let Ok(text) = fs::read_to_string(&kept) {
            return Ok(text);
        }
        let mut args = vec!["create".to_owned(), "--network".into(), "none".into()];
        let labels = [
            (label::SLUG, slug.to_string()),
            (label::PROJECT, state.project(slug)),
            (label::OWNER, Owner::pipeline()?.to_string()),
            (label::PLAN, plan.digest.clone()),
        ];
        for (name, value) in labels {
            args.extend(["--label".into(), format!("{name}={value}")]);
        }
        args.extend([id.to_owned(), "true".into()]);
        let container = self.docker.text(&args).world("look into the agent's image")?;
        let copied = self
            .docker
            .start(&["cp", "--follow-link", &format!("{container}:/etc/passwd"), "-"])
            .and_then(|call| call.output(bottle::docker::PATIENCE));
        self.docker
            .text(&["rm", "--volumes", &container])
            .world("remove the container that the agent's image was looked into with")?;
        let copied = copied?;
        let told = String::from_utf8_lossy(&copied.stderr);
        // Images without the file are common: `FROM scratch`.
        if !copied.status.success() && !told.to_lowercase().contains("could not find the file") {
            return Err(world(format!("look into the agent's image: {}", complaint(&told))));
        }
        let text = passwd::untar(&copied.stdout).unwrap_or_default();
        state::make_folder(&cache, None)?;
        state::write_unsynced(&kept, text.as_bytes(), 0o600, None)?;
        Ok(text)
    }
}
