//! `bottle-up` and `bottle-render` with an engine that answers as it was taught: how often they call
//! it, because each call costs a start what it takes.

use crate::common::manifest::Manifest;
use crate::common::{Scratch, sidecar};

/// The plain course of things. The fake Compose says for egress that it serves.
const LESSONS: &str = r#"
$ docker info *
> {"version":"20.10.24","security":["name=seccomp,profile=default"]}
$ docker network ls *
$ docker network create *
> 0123456789ab
$ docker image inspect *
> sha256:0000000000000000000000000000000000000000000000000000000000000000
$ docker create *
> fedcba9876543210
$ docker cp *
! Error response from daemon: Could not find the file /etc/passwd in container fedcba9876543210
? 1
$ docker rm *
$ docker ps *
$ docker-compose -p bottle-implementer-* -f * up *
+ cd "$BOTTLE_STATE/implementer/egress" && sha=$(sha256sum <conf/routes.yaml)
+ printf '{"sha256":"%s","generation":1,"plan":"","loaded_at":""}' "${sha%% *}" >run/loaded.json
"#;

/// The calls of one tool, without their arguments' values.
fn calls(scratch: &Scratch, tool: &str, text: &str) -> Vec<String> {
    let before = scratch.calls().len();
    scratch.sh(text).run().ok();
    assert_eq!(scratch.untaught(), Vec::<String>::new(), "{tool}");
    let words = |call: &String| call.split(' ').take(2).collect::<Vec<_>>().join(" ");
    scratch.calls()[before..].iter().map(words).collect()
}

#[test]
fn start_asks_the_engine_once_beside_compose() {
    if sidecar("bottle-egress").is_none() {
        return;
    }
    let scratch = Scratch::new();
    scratch.teach(LESSONS);
    scratch.file("bottle.yaml", Manifest::new().set("bottles.dev.selftest", "off").text());
    scratch.sh("bottle-plan implementer | bottle-net >net.json").run().ok();
    let render = "bottle-render <net.json >render.json";
    // The image is looked into once.
    let first = ["docker image", "docker create", "docker cp", "docker rm"];
    assert_eq!(calls(&scratch, "bottle-render", render), first);
    assert_eq!(calls(&scratch, "bottle-render", render), ["docker image"]);
    assert_eq!(
        calls(&scratch, "bottle-up", "bottle-up <render.json >up.json"),
        ["docker ps", "docker-compose -p"]
    );
    let compose = scratch.calls().pop().unwrap();
    assert!(
        compose.ends_with("/implementer/docker-compose.yml up --detach --no-recreate"),
        "{compose}"
    );
}
