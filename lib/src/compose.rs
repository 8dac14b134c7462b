//! The compose file, in Compose's own terms; types only.
//!
//! The part of the specification that v2 and 1.29 read alike: no top-level `name` and no
//! `version`, environment and labels as lists, so that no value can be taken for a number or date,
//! and bind mounts in the long form, which the engine refuses where the source is missing, in
//! place of creating it as root. Text that is not ours goes through [`literal`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

/// A whole file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct File {
    /// Services by name.
    pub services: BTreeMap<&'static str, Service>,
    /// Networks by the name that services call them.
    pub networks: BTreeMap<&'static str, Network>,
}

/// One service. The fields stand in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Service {
    /// Name or id; never pulled by Compose.
    pub image: String,
    /// `never`: a missing image is our own error, before anything is started.
    pub pull_policy: &'static str,
    /// Fixed, because the two composes name containers differently.
    pub container_name: String,
    /// What the container calls itself.
    pub hostname: &'static str,
    /// OCI runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// In place of the image's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// `uid:gid`.
    pub user: String,
    /// Where commands start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// A small init as PID 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Read-only root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Capabilities to drop.
    pub cap_drop: Vec<&'static str>,
    /// Engine's security options.
    pub security_opt: Vec<&'static str>,
    /// Most processes and threads.
    pub pids_limit: u32,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_limit: Option<u64>,
    /// Decimal number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    /// Search domains; `.` keeps the host's out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<&'static str>,
    /// `none`: no network at all, and then none of those below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<&'static str>,
    /// Networks with the fixed address on each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<&'static str, Attachment>,
    /// Bind mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Bind>,
    /// File systems in memory, `PATH:options`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    /// Labels, `name=value`.
    pub labels: Vec<String>,
    /// Where its output goes.
    pub logging: Logging,
}

/// A service's place on a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attachment {
    /// Its fixed address.
    pub ipv4_address: Ipv4Addr,
}

/// A network that is there already.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    /// Name in the engine.
    pub name: String,
    /// `true`: Compose neither makes nor removes it.
    pub external: bool,
}

/// A bind mount in the long form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bind {
    /// `bind`.
    pub r#type: &'static str,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Whether the container can only read it.
    pub read_only: bool,
    /// What only engines with `SELinux` need; 1.29 does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<BindOptions>,
}

/// Further options of a bind mount.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BindOptions {
    /// `Z`: the source is labelled for this container alone; `z`: for those that share it.
    pub selinux: &'static str,
}

/// Logging of one service.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Logging {
    /// `json-file`, the one driver that `compose logs` reads on every engine.
    pub driver: &'static str,
    /// Options of the driver.
    pub options: BTreeMap<&'static str, &'static str>,
}

impl Bind {
    /// A bind mount whose paths are taken literally.
    #[must_use]
    pub fn new(source: &str, target: &str, read_only: bool, selinux: bool) -> Self {
        let bind = selinux.then_some(BindOptions { selinux: "Z" });
        Self { r#type: "bind", source: literal(source), target: literal(target), read_only, bind }
    }
}

/// Text that Compose is to take as it stands: it interpolates `$NAME` and `${NAME}` in every value
/// of the file, and reads `$$` as one `$`.
#[must_use]
pub fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dollar_is_doubled() {
        assert_eq!(literal("p$HOME${HOME}$$"), "p$$HOME$${HOME}$$$$");
    }
}
