//! A web site for a bottle to be allowed to: a container of the probe's image, on the bridge network
//! of the bottle, and on the engine's own network too, where an ordinary container reaches it.

use std::time::{Duration, Instant};

use bottle::docker::image;
use serde_json::{Value, json};

use crate::common::{Run, Scratch};
use crate::support::docker;

/// What the site is called.
pub(crate) const SITE: &str = "origin.example.test";

/// What the site says at `/`.
pub(crate) const BODY: &str = "this is the origin\n";

/// A running site; removed when it is dropped.
pub(crate) struct Origin {
    container: String,
    /// The certificate of its CA.
    pub(crate) ca: String,
}

impl Origin {
    /// Starts one and waits until it says that it serves.
    pub(crate) fn start() -> Self {
        let label = "bottle.test=origin";
        let probe = image("probe");
        let container = docker(["run", "-d", "--label", label, &probe, "origin", "--name", SITE]);
        let container = container.ok().trim().to_owned();
        let end = Instant::now() + Duration::from_secs(30);
        let mut origin = Self { container, ca: String::new() };
        while !origin.ca.contains("END CERTIFICATE") {
            assert!(Instant::now() < end, "the origin does not serve");
            origin.ca = docker(["logs", &origin.container]).ok();
        }
        origin
    }

    /// Moves in next door to a bottle, between `bottle-net` and `bottle-render`; gives its address.
    pub(crate) fn join(&self, document: &Value) -> String {
        let bridge = &document["net"]["bridge"];
        let gateway = bridge["gateway"].as_str().unwrap();
        let (network, last) = gateway.rsplit_once('.').unwrap();
        let address = format!("{network}.{}", last.parse::<u8>().unwrap() + 13);
        let name = bridge["name"].as_str().unwrap();
        docker(["network", "connect", "--ip", &address, "--alias", SITE, name, &self.container])
            .ok();
        address
    }

    /// A route of a manifest to it, with the pool that its address comes from.
    pub(crate) fn route(pool: &str, rest: &Value) -> Value {
        let mut route = json!({ "host": SITE, "addresses": [pool] });
        for (name, value) in rest.as_object().unwrap() {
            route[name] = value.clone();
        }
        route
    }

    /// Runs the probe in an ordinary container on `network`.
    pub(crate) fn outside(&self, network: &str, args: &[&str]) -> Run {
        let scratch = Scratch::new();
        let ca = scratch.file("ca.pem", &self.ca);
        let mount = format!("{}:/ca.pem:ro", ca.display());
        let probe = image("probe");
        let fixed = ["run", "--rm", "--network", network, "--volume", &mount, &probe];
        docker(fixed.iter().chain(args))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = docker(["rm", "-f", &self.container]);
    }
}
