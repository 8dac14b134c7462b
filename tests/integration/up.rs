//! `bottle-up` with a real engine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bottle::docker::image;
use serde_json::{Value, json};

use crate::common::manifest::Manifest;
use crate::common::{Run, Tool, skip};
use crate::support::{Bottle, docker, images};

const RENDER: &str = "bottle-plan implementer | bottle-net | bottle-render";

pub(crate) fn probe() -> Manifest {
    Manifest::new().image(&image("probe"))
}

pub(crate) fn rendered(manifest: &Manifest) -> (Bottle, String) {
    let bottle = Bottle::new(manifest);
    let doc = bottle.sh(RENDER).run().ok();
    (bottle, doc)
}

pub(crate) fn up(bottle: &Bottle, doc: &str, args: &[&str]) -> Run {
    bottle.tool("bottle-up").args(args).stdin(doc).run()
}

pub(crate) fn container(bottle: &Bottle, service: &str) -> String {
    format!("bottle-implementer-{}-{service}", bottle.id())
}

fn id(name: &str) -> String {
    docker(["inspect", "--format", "{{.Id}}", name]).ok()
}

/// The containers of a bottle.
fn containers(bottle: &Bottle) -> Vec<String> {
    let left = bottle.leftovers();
    left.iter().filter_map(|it| it.strip_prefix("container ")).map(str::to_owned).collect()
}

/// Changes the rendered compose file, as a fault of a sidecar.
fn compose_file(bottle: &Bottle, change: impl Fn(&str) -> String) {
    let path = bottle.state().join("implementer/docker-compose.yml");
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(text, changed);
    fs::write(&path, changed).unwrap();
}

#[test]
fn started_bottle_says_what_runs_and_a_second_start_changes_nothing() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let owner = std::process::id().to_string();
    let started = up(&bottle, &doc, &["--owner", &owner]).ok();
    let section: Value = serde_json::from_str::<Value>(&started).unwrap()["up"].clone();
    assert_eq!(section["agent"], container(&bottle, "agent"));
    assert_eq!(section["services"], json!(["agent", "egress"]));
    assert_eq!(section["generation"], 1);
    assert_eq!(section["selftest"]["verdict"], "closed");
    assert_eq!(section["selftest"]["plan"], section["plan"]);
    assert!(section["selftest_ms"].as_u64().unwrap() > 0);
    let owner = section["owner"].as_str().unwrap();
    assert!(owner.starts_with(&format!("process:{}:", std::process::id())), "{owner}");
    for service in ["agent", "egress"] {
        let format = "{{index .Config.Labels \"bottle.owner\"}}";
        let label = docker(["inspect", "--format", format, &container(&bottle, service)]).ok();
        assert_eq!(label.trim(), owner);
    }
    let record = fs::read_to_string(bottle.state().join("implementer/metadata.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!((&record["phase"], record["owner"].as_str()), (&json!("up"), Some(owner)));

    let agent = id(&container(&bottle, "agent"));
    for again in [&doc, &started] {
        assert_eq!(up(&bottle, again, &[]).ok(), started);
    }
    assert_eq!(bottle.tool("bottle-render").stdin(&started).run().ok(), started);
    assert_eq!(id(&container(&bottle, "agent")), agent);
}

#[test]
fn bottle_that_is_up_refuses_another_plan() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    up(&bottle, &doc, &[]).ok();
    bottle.file("bottle.yaml", probe().route(json!({ "host": "other.example" })).text());
    let plan = bottle.sh("bottle-plan implementer").run().json();
    let mut other: Value = serde_json::from_str(&doc).unwrap();
    other["plan"] = plan["plan"].clone();
    bottle.tool("bottle-render").stdin(other.to_string()).run().fails(1, "bottle-render: write the files: bottle 'implementer' is up with another plan: change it with 'bottle-apply', or stop it with 'bottle-reap implementer'");
    other["render"]["plan"] = plan["plan"]["digest"].clone();
    up(&bottle, &other.to_string(), &[]).fails(1, "bottle-up: start bottle 'implementer': it is up with another plan: change it with 'bottle-apply', or stop it with 'bottle-reap implementer'");
}

#[test]
fn bottle_whose_container_ended_is_no_bottle_that_is_up() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    up(&bottle, &doc, &[]).ok();
    docker(["kill", &container(&bottle, "egress")]).ok();
    up(&bottle, &doc, &[]).fails(1, "bottle-up: start bottle 'implementer': it was up, and its 'egress' has ended: clear it away with 'bottle-reap implementer' first");
}

#[test]
fn sidecar_that_dies_leaves_its_last_words_and_nothing_else() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    compose_file(&bottle, |text| text.replace("- serve\n", "- sevre\n"));
    let run = up(&bottle, &doc, &["--keep"]);
    assert_eq!((run.status, run.stdout.as_str()), (3, ""), "{}", run.report());
    assert_eq!(containers(&bottle).len(), 2);
    let run = up(&bottle, &doc, &[]);
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("bottle-up: wait for sidecar 'egress': it ended with 2: bottle-egress: ")
            && last.contains("sevre"),
        "{}",
        run.report()
    );
    assert_eq!(run.status, 3);
    assert_eq!(containers(&bottle), Vec::<String>::new());
}

#[test]
fn sidecar_that_never_says_that_it_serves_is_taken_down() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let egress = format!("image: {}\n", image("egress"));
    let idle = format!("image: {}\n    entrypoint: [sleep, infinity]\n", image("probe"));
    compose_file(&bottle, |text| text.replace(&egress, &idle).replace("- serve\n", "- --\n"));
    // What an earlier container said must not count.
    let run_folder = bottle.state().join("implementer/egress/run");
    let doc_value: Value = serde_json::from_str(&doc).unwrap();
    let stale = json!({
        "sha256": doc_value["render"]["routes_sha256"], "generation": 1, "plan": "x",
        "loaded_at": "2026-01-01T00:00:00Z",
    });
    fs::write(run_folder.join("loaded.json"), stale.to_string()).unwrap();
    compose_file(&bottle, |text| {
        let at = text.find("    command:\n      - --\n").unwrap();
        let end = at + text[at..].find("    user:").unwrap();
        [&text[..at], &text[end..]].concat()
    });
    up(&bottle, &doc, &["--timeout", "1"]).fails(3, "bottle-up: wait for sidecar 'egress': it did not say in 1 s that it serves: it logged nothing");
    assert_eq!(containers(&bottle), Vec::<String>::new());
}

#[test]
fn project_with_containers_of_others_is_left_alone() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let project = format!("bottle-implementer-{}", bottle.id());
    let name = format!("{project}-theirs");
    let label = format!("com.docker.compose.project={project}");
    let service = "com.docker.compose.service=agent";
    docker(["create", "--name", &name, "--label", &label, "--label", service, &image("probe")])
        .ok();
    let before = id(&name);
    let run = up(&bottle, &doc, &[]);
    let after = id(&name);
    docker(["rm", "-f", &name]).ok();
    run.fails(1, &format!("bottle-up: start project '{project}': its container '{name}' is none of bottle's, and would be replaced: remove it first"));
    assert_eq!(after, before);
}

#[test]
fn closed_stdout_takes_the_bottle_down() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let run = bottle.tool("bottle-up").stdin(&doc).stdout_to(full).run();
    run.fails(3, "bottle-up: write the document to stdout: No space left on device (os error 28)");
    assert_eq!(containers(&bottle), Vec::<String>::new());
    // And it can be started again.
    up(&bottle, &doc, &[]).ok();
}

#[test]
fn sidecar_is_started_alone_and_joined_by_the_rest() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let alone = up(&bottle, &doc, &["--only", "egress"]).ok();
    assert_eq!(containers(&bottle), [container(&bottle, "egress")]);
    let egress = id(&container(&bottle, "egress"));
    assert_eq!(up(&bottle, &doc, &["--only", "egress"]).ok(), alone);
    up(&bottle, &doc, &["--only", "pipelock"]).fails(
        2,
        "bottle-up: start 'pipelock' alone: it is no sidecar of this bottle: known are 'egress'",
    );
    up(&bottle, &doc, &[]).ok();
    assert_eq!(id(&container(&bottle, "egress")), egress);
    assert_eq!(containers(&bottle).len(), 2);
}

#[test]
fn way_out_beside_egress_is_found_by_the_self_test() {
    if !images() {
        return;
    }
    for selftest in ["enforce", "warn", "off"] {
        let (bottle, doc) = rendered(&probe().set("bottles.dev.selftest", selftest));
        let net = &serde_json::from_str::<Value>(&doc).unwrap()["net"];
        let free = net["bridge"]["pipelock"].as_str().unwrap();
        // The agent on the bridge too: it then reaches the host.
        compose_file(&bottle, |text| {
            let own = text.find("    networks:\n      internal:\n").unwrap();
            let (before, after) = text.split_at(own + "    networks:\n".len());
            format!("{before}      bridge: {{ipv4_address: {free}}}\n{after}")
        });
        let run = up(&bottle, &doc, &[]);
        match selftest {
            "enforce" => {
                assert_eq!((run.status, run.stdout.as_str()), (3, ""), "{}", run.report());
                assert!(run.stderr.contains("bottle-up: self-test: "), "{}", run.report());
                assert_eq!(containers(&bottle), Vec::<String>::new());
            }
            "warn" => {
                assert!(run.stderr.contains("warning: self-test: "), "{}", run.report());
                assert_eq!(run.json()["up"]["selftest"]["verdict"], "open");
            }
            _ => {
                assert_eq!(run.stderr, "");
                assert_eq!(run.json()["up"]["selftest"], Value::Null);
            }
        }
    }
}

#[test]
fn missing_source_is_not_made_by_the_engine() {
    if !images() {
        return;
    }
    let mounts = json!([{ "source": "cache", "target": "/cache" }]);
    let bottle = Bottle::new(&probe().set("bottles.dev.mounts", mounts));
    let cache = bottle.work().join("cache");
    fs::create_dir(&cache).unwrap();
    let doc = bottle.sh(RENDER).run().ok();
    fs::remove_dir(&cache).unwrap();
    let run = up(&bottle, &doc, &[]);
    assert_eq!(run.status, 3, "{}", run.report());
    assert!(run.stderr.contains("bind source path does not exist"), "{}", run.report());
    assert!(!cache.exists());
    assert_eq!(containers(&bottle), Vec::<String>::new());
}

#[test]
fn two_bottles_run_side_by_side() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&probe());
    let start = "start() { bottle-plan implementer --slug $1 | bottle-net | bottle-render | bottle-up >$1.json; }
        start one & one=$!; start two & two=$!; wait $one && wait $two";
    bottle.sh(start).run().ok();
    let names = containers(&bottle);
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn ordinary_user_of_the_group_docker_starts_a_bottle() {
    if !images() || user_of_docker("true").is_none() {
        return;
    }
    let bottle = Bottle::new(&probe());
    // The scratch folder of the test itself stays root's.
    std::os::unix::fs::chown(bottle.work(), Some(4242), Some(4242)).unwrap();
    let top = bottle.work().parent().unwrap().to_owned();
    fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
    let exports: Vec<String> = bottle
        .env()
        .iter()
        .map(|(name, value)| format!("export {name}='{}'", value.to_str().unwrap()))
        .collect();
    let run = |text: &str| {
        let (exports, work) = (exports.join("\n"), bottle.work());
        let home = work.display();
        user_of_docker(&format!(
            "{exports}\nexport HOME='{home}' BOTTLE_STATE='{home}/state'; cd '{home}'\n{text}"
        ))
        .unwrap()
    };
    let started = run(&format!("{RENDER} | bottle-up"));
    let reaped = run("bottle-reap implementer");
    let doc = started.json();
    assert_eq!(doc["render"]["user"], "4242:4242");
    assert_eq!(doc["render"]["run_as"], "4242:4242");
    assert_eq!(doc["up"]["selftest"]["verdict"], "closed");
    reaped.ok();
}

/// Runs shell text as a user who is in the group `docker` and nothing else.
fn user_of_docker(text: &str) -> Option<Run> {
    if bottle::state::caller_ids().0 != 0 {
        skip("only root becomes another user");
        return None;
    }
    let args = ["--reuid=4242", "--regid=4242", "--groups=docker", "--inh-caps=-all", "sh", "-c"];
    let run = Tool::new(Path::new("setpriv")).args(args).args([text]).run();
    Some(run)
}

#[test]
fn compose_that_is_missing_is_told() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let path = tempfile::tempdir().unwrap();
    let docker = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("docker"))
        .find(|path| path.is_file())
        .unwrap();
    std::os::unix::fs::symlink(docker, path.path().join("docker")).unwrap();
    let run = bottle.tool("bottle-up").stdin(&doc);
    let run = run.env("PATH", path.path()).env("HOME", path.path()).env("BOTTLE_COMPOSE", "").run();
    if run.status == 0 {
        return skip("Compose is installed for the whole system");
    }
    run.fails(3, "bottle-up: find Compose: neither the 'docker compose' plugin nor 'docker-compose' is there: install one of them");
}

#[test]
fn image_without_sleep_is_told() {
    if !images() {
        return;
    }
    for selftest in ["enforce", "warn"] {
        let manifest = probe().image(&image("egress")).set("bottles.dev.selftest", selftest);
        let (bottle, doc) = rendered(&manifest);
        let run = up(&bottle, &doc, &[]);
        assert_eq!(run.status, 3, "{selftest}: {}", run.report());
        let line = run.stderr.lines().last().unwrap_or_default();
        assert!(
            line.starts_with("bottle-up: start the agent: it ended with 127: "),
            "{selftest}: {}",
            run.report()
        );
        assert!(line.ends_with(": its image needs 'sleep infinity'"), "{}", run.report());
        assert_eq!(containers(&bottle), Vec::<String>::new());
    }
}

#[test]
fn docker_compose_v1_starts_a_bottle_too() {
    if !images() {
        return;
    }
    let found = Tool::new(Path::new("/bin/sh")).args(["-c", "command -v docker-compose"]).run();
    if found.status != 0 {
        return skip("no docker-compose");
    }
    let (bottle, doc) = rendered(&probe());
    let run = bottle.tool("bottle-up").env("BOTTLE_COMPOSE", "docker-compose").stdin(&doc).run();
    assert_eq!(run.json()["up"]["selftest"]["verdict"], "closed");
    assert_eq!(containers(&bottle).len(), 2);
}

#[test]
fn docker_compose_v1_is_understood_when_it_fails() {
    if !images() {
        return;
    }
    let found = Tool::new(Path::new("/bin/sh")).args(["-c", "command -v docker-compose"]).run();
    if found.status != 0 {
        return skip("no docker-compose");
    }
    let (bottle, doc) = rendered(&probe());
    compose_file(&bottle, |text| {
        text.replacen(
            "    init: true\n",
            "    init: true\n    devices: [\"/dev/nope:/dev/nope\"]\n",
            1,
        )
    });
    let run = bottle.tool("bottle-up").env("BOTTLE_COMPOSE", "docker-compose").stdin(&doc).run();
    run.fails(3, "bottle-up: start bottle 'implementer': run 'docker-compose': for agent  Cannot start service agent: error gathering device information while adding custom device \"/dev/nope\": no such file or directory");
    assert_eq!(containers(&bottle), Vec::<String>::new());
}

#[test]
fn engine_that_is_away_is_told() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let run = bottle.tool("bottle-up").env("DOCKER_HOST", "unix:///nonexistent").stdin(&doc).run();
    run.fails(3, "bottle-up: run 'docker ps': cannot connect to the Docker engine: is it running: start it, or set DOCKER_HOST");
}

#[test]
fn network_that_is_gone_is_told() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let network = container(&bottle, "bridge");
    docker(["network", "rm", &network]).ok();
    let run = up(&bottle, &doc, &[]);
    assert_eq!(run.status, 3, "{}", run.report());
    assert!(run.stderr.contains(&network), "{}", run.report());
    assert_eq!(containers(&bottle), Vec::<String>::new());
}

#[test]
fn image_that_went_away_is_told_and_nothing_is_pulled() {
    if !images() {
        return;
    }
    let (bottle, doc) = rendered(&probe());
    let agent = format!("image: {}\n", image("probe"));
    compose_file(&bottle, |text| text.replace(&agent, "image: bottle-gone:1\n"));
    let doc =
        doc.replace(&format!("\"agent\":\"{}\"", image("probe")), "\"agent\":\"bottle-gone:1\"");
    let run = up(&bottle, &doc, &[]);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.report());
    assert!(run.stderr.contains("bottle-gone:1"), "{}", run.report());
    // What Compose 1.29 says when it has asked a registry.
    assert!(!run.stderr.contains("repository"), "{}", run.report());
    assert_eq!(run.status, 3);
    assert_eq!(containers(&bottle), Vec::<String>::new());
}
