//! What the engine says of itself and of its networks.

use std::collections::BTreeMap;

use anyhow::Result;
use bottle::docker::{Docker, PATIENCE};
use bottle::error::{Blame, caller};
use bottle::net::{EngineFacts, Ipv4Net, Net};
use bottle::state::State;
use bottle::{Slug, world};
use serde::Deserialize;

/// The call that asks for what [`judge`] reads.
pub(crate) const FACTS: [&str; 3] = [
    "info",
    "--format",
    r#"{"version":{{json .ServerVersion}},"security":{{json .SecurityOptions}}}"#,
];

#[derive(Debug, Deserialize)]
struct Info {
    version: String,
    security: Option<Vec<String>>,
}

/// What later tools have to know of the engine; an engine that a bottle cannot live on is refused.
pub(crate) fn judge(text: &str) -> Result<EngineFacts> {
    let info: Info = serde_json::from_str(text).world("read what 'docker info' printed")?;
    // `name=seccomp,profile=default`
    let options: Vec<String> = info.security.unwrap_or_default();
    let has = |name: &str| {
        options.iter().any(|option| option.split(',').any(|part| part == format!("name={name}")))
    };
    if has("userns") {
        return Err(world(
            "use this engine: it remaps user ids, and bottles cannot read their folders then: remove 'userns-remap' from daemon.json, or set DOCKER_HOST to another engine",
        ));
    }
    Ok(EngineFacts { version: info.version, rootless: has("rootless"), selinux: has("selinux") })
}

/// Whether the engine refused a subnet because another of its networks has it.
pub(crate) fn is_overlap(told: &str) -> bool {
    told.contains("Pool overlaps with other one on this address space")
        || told.contains("networks have overlapping IPv4")
}

/// Whether the engine says that a network is not there.
pub(crate) fn is_missing(told: &str) -> bool {
    told.contains("No such network") || told.contains("not found")
}

/// The IPv4 subnets of all networks of the engine. One that goes away meanwhile is no error.
pub(crate) fn subnets(docker: &Docker) -> Result<Vec<Ipv4Net>> {
    let ids = docker.text(&["network", "ls", "--quiet", "--no-trunc"])?;
    let mut args =
        vec!["network", "inspect", "--format", "{{range .IPAM.Config}}{{println .Subnet}}{{end}}"];
    args.extend(ids.lines());
    let output = docker.start(&args)?.output(PATIENCE)?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// A network, as `docker network inspect` tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    name: String,
    internal: bool,
    labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    config: Option<Vec<IpamConfig>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IpamConfig {
    subnet: String,
}

/// Proves that both networks of a section are there and this bottle's.
pub(crate) fn verify(net: &Net, state: &State, slug: &Slug) -> Result<()> {
    use bottle::docker::label;

    let project = state.project(slug);
    if net.project != project {
        return Err(caller(format!(
            "use the networks of '{}': this state folder calls the project '{project}': set BOTTLE_STATE as it was when they were made",
            net.project
        )));
    }
    let names = [&net.internal.name, &net.bridge.name];
    let output = Docker::find()?
        .start(&["network", "inspect", "--format", "{{json .}}", names[0], names[1]])?
        .output(PATIENCE)?;
    let found: Vec<Network> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !line.is_empty())
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .world("read what 'docker network inspect' printed")?;
    for (name, subnet, internal) in
        [(names[0], net.internal.subnet, true), (names[1], net.bridge.subnet, false)]
    {
        let Some(network) = found.iter().find(|network| network.name == *name) else {
            let told = String::from_utf8_lossy(&output.stderr);
            let why = if is_missing(&told) {
                "it is gone".to_owned()
            } else {
                bottle::docker::complaint(&told)
            };
            return Err(world(format!(
                "find network '{name}': {why}: run 'bottle-reap {slug}' and start again"
            )));
        };
        let label = |key: &str| network.labels.as_ref().and_then(|labels| labels.get(key));
        let subnets = network.ipam.config.as_deref().unwrap_or_default();
        let ours = network.internal == internal
            && label(label::PROJECT) == Some(&project)
            && subnets.iter().any(|config| config.subnet == subnet.to_string());
        if !ours {
            return Err(world(format!(
                "use network '{name}': it is not the one that the document tells of: run 'bottle-reap {slug}' and start again"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remapped_user_ids_are_refused_and_the_rest_is_noted() {
        let facts = judge(r#"{"version":"27.0.1","security":["name=seccomp,profile=builtin","name=rootless","name=selinux"]}"#)
            .unwrap();
        assert!(facts.rootless && facts.selinux);
        let facts = judge(r#"{"version":"20.10.24+dfsg1","security":null}"#).unwrap();
        assert!(!facts.rootless && !facts.selinux);
        let error = judge(r#"{"version":"1","security":["name=userns"]}"#).unwrap_err();
        assert!(format!("{error:#}").contains("userns-remap"));
    }

    #[test]
    fn old_and_new_words_for_an_overlap_are_known() {
        for told in [
            "Error response from daemon: Pool overlaps with other one on this address space",
            "Error response from daemon: invalid pool request: Pool overlaps with other one on this address space",
            "Error response from daemon: cannot create network 1 (br-1): conflicts with network 2 (br-2): networks have overlapping IPv4",
        ] {
            assert!(is_overlap(told));
        }
        assert!(!is_overlap("Error response from daemon: network with name x already exists"));
    }
}
