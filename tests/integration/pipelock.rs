//! pipelock behind egress, on the real engine. Where no registry is at hand its image is a stand-in,
//! `tests/pipelock`, which keeps to the real one's schema; the canary runs the real one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::agent::holds;
use crate::common::manifest::Manifest;
use crate::common::{Run, sidecar};
use crate::origin::{BODY, Origin, SITE};
use crate::support::{Bottle, Image, docker, images};
use crate::up::{container, probe, up};

/// A bottle with pipelock, rendered and not started, with a site next door.
struct Behind {
    /// Goes first: while it is on the network, that cannot be removed.
    origin: Origin,
    bottle: Bottle,
    doc: String,
    /// Goes last: containers are of it.
    _image: Image,
}

/// The stand-in's image; `None`, aloud, where it cannot be had.
pub(crate) fn image(test: &str) -> Option<Image> {
    let program = images().then(|| sidecar("pipelock")).flatten()?;
    let name = format!("pipelock-{test}");
    Some(Image::of(&name, &[("/pipelock", &program)], &[r#"ENTRYPOINT ["/pipelock"]"#]))
}

/// A manifest with a route to the site, and pipelock in `mode` behind it.
fn manifest(bottle: &Bottle, image: &Image, mode: &str) -> Manifest {
    let route = json!({ "paths": ["/", "/echo"], "ports": [80, 443] });
    probe()
        .route(Origin::route(bottle.pool(), &route))
        .set("bottles.dev.egress.ca_certificates", json!(["origin.pem"]))
        .set("bottles.dev.pipelock", json!({ "mode": mode, "image": image.name() }))
}

impl Behind {
    fn rendered(test: &str, mode: &str, change: impl Fn(Manifest) -> Manifest) -> Option<Self> {
        let image = image(test)?;
        let bottle = Bottle::new(&probe());
        let origin = Origin::start();
        bottle.file("origin.pem", &origin.ca);
        bottle.file("bottle.yaml", change(manifest(&bottle, &image, mode)).text());
        let chosen = bottle.sh("bottle-plan implementer | bottle-net").run().ok();
        origin.join(&serde_json::from_str(&chosen).unwrap());
        let doc = bottle.tool("bottle-render").stdin(&chosen).run().ok();
        Some(Self { origin, bottle, doc, _image: image })
    }

    fn up(&self, args: &[&str]) -> Run {
        up(&self.bottle, &self.doc, args)
    }

    fn conf(&self, name: &str) -> PathBuf {
        self.bottle.state().join("implementer/pipelock/conf").join(name)
    }

    /// Changes what was rendered for pipelock.
    fn change(&self, from: &str, to: &str) {
        let path = self.conf("pipelock.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(text, changed);
        fs::write(&path, changed).unwrap();
    }

    fn inside(&self, args: &[&str]) -> Run {
        let agent = container(&self.bottle, "agent");
        docker(["exec", &agent, "bottle-probe"].iter().chain(args))
    }

    /// What pipelock logged.
    fn log(&self) -> String {
        docker(["logs", &container(&self.bottle, "pipelock")]).ok()
    }

    fn net(&self, field: &str) -> String {
        let doc: Value = serde_json::from_str(&self.doc).unwrap();
        doc["net"]["bridge"][field].as_str().unwrap().to_owned()
    }

    fn services(&self) -> Vec<String> {
        let left = self.bottle.leftovers();
        let all = left.iter().filter_map(|it| it.strip_prefix("container "));
        all.map(|name| name.rsplit('-').next().unwrap().to_owned()).collect()
    }
}

fn same(manifest: Manifest) -> Manifest {
    manifest
}

#[test]
fn what_leaves_goes_by_pipelock_and_only_egress_reaches_it() {
    let Some(behind) = Behind::rendered("chain", "strict", same) else { return };
    let document = behind.up(&[]).json();
    assert_eq!(document["up"]["selftest"]["verdict"], "closed", "{document:#}");
    assert_eq!(document["up"]["services"], json!(["agent", "egress", "pipelock"]));
    for scheme in ["https", "http"] {
        let run = behind.inside(&["get", &format!("{scheme}://{SITE}/")]);
        assert_eq!((run.status, run.stdout.as_str()), (0, BODY), "{}", run.report());
    }
    let denied = behind.inside(&["get", &format!("https://{SITE}/secret")]);
    assert!(denied.stderr.contains("path"), "{}", denied.report());
    let log = behind.log();
    // Intercepted: egress took a certificate of pipelock's CA for the site.
    assert!(log.contains(&format!(r#""event":"tls_intercept","target":"{SITE}:443""#)), "{log}");
    assert!(log.contains(&format!(r#""url":"http://{SITE}:80/""#)), "{log}");
    assert!(!log.contains("secret"), "{log}");

    // The agent does not reach it, past egress or by it.
    let address = behind.net("pipelock");
    let health = format!("http://{address}:8888/health");
    let direct = behind.inside(&["get", "--proxy", "none", &health]);
    assert_ne!(direct.status, 0, "{}", direct.report());
    assert!(!direct.stdout.contains("healthy"), "{}", direct.report());
    let by_egress = behind.inside(&["get", &health]);
    assert!(by_egress.stderr.contains("denied by bottle-egress"), "{}", by_egress.report());
    // The control: from the network that egress goes out on.
    let bridge = behind.net("name");
    let run =
        behind.origin.outside(&bridge, &["get", "--ca", "/ca.pem", "--proxy", "none", &health]);
    assert!(run.stdout.contains("healthy"), "{}", run.report());
    // Figures are not told there.
    let metrics = format!("http://{address}:8888/metrics");
    let run =
        behind.origin.outside(&bridge, &["get", "--ca", "/ca.pem", "--proxy", "none", &metrics]);
    assert!(run.stderr.contains("404"), "{}", run.report());
    let Behind { origin, bottle, .. } = behind;
    drop(origin);
    bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    bottle.is_gone();
}

#[test]
fn keys_of_both_are_nowhere_where_the_agent_looks() {
    let Some(behind) = Behind::rendered("keys", "balanced", same) else { return };
    behind.up(&[]).ok();
    let read = |file: &str| {
        fs::read_to_string(behind.bottle.state().join("implementer").join(file)).unwrap()
    };
    let agent = container(&behind.bottle, "agent");
    for service in ["egress", "pipelock"] {
        let key = read(&format!("{service}/conf/ca-key.pem"));
        assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----"), "{service}");
        assert!(!holds(&agent, &key), "{service}");
        // The control.
        assert!(holds(&container(&behind.bottle, service), &key), "{service}");
    }
    // Nor does either hold the other's.
    assert!(!holds(&container(&behind.bottle, "egress"), &read("pipelock/conf/ca-key.pem")));
    assert!(!holds(&container(&behind.bottle, "pipelock"), &read("egress/conf/ca-key.pem")));
    // egress trusts pipelock's CA; the agent does not.
    let ca = read("pipelock/conf/ca.pem");
    assert!(read("egress/conf/roots.pem").contains(&ca));
    assert!(!read("agent/conf/bundle.pem").contains(&ca));
    for (file, mode) in [("conf", 0o700), ("conf/ca-key.pem", 0o600), ("conf/ca-both.pem", 0o600)] {
        let path = behind.bottle.state().join("implementer/pipelock").join(file);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }
}

#[test]
fn host_that_passes_through_is_not_looked_into() {
    let passed = |manifest: Manifest| {
        manifest.set("bottles.dev.pipelock.passthrough_domains", json!([SITE]))
    };
    let Some(behind) = Behind::rendered("passed", "balanced", passed) else { return };
    behind.up(&[]).ok();
    let run = behind.inside(&["get", &format!("https://{SITE}/")]);
    assert_eq!((run.status, run.stdout.as_str()), (0, BODY), "{}", run.report());
    let log = behind.log();
    assert!(log.contains(&format!(r#""event":"tunnel_open","target":"{SITE}:443""#)), "{log}");
    assert!(!log.contains("tls_intercept"), "{log}");
}

#[test]
fn private_address_is_refused_by_pipelock_too_unless_a_rule_names_it() {
    let quiet = |manifest: Manifest| manifest.set("bottles.dev.selftest", "off");
    let Some(behind) = Behind::rendered("ssrf", "balanced", quiet) else { return };
    // As if no rule had named it; that it is exempt otherwise, the other tests show.
    behind.change(&format!("- \"{}\"\n", behind.bottle.pool()), "- \"198.51.100.0/24\"\n");
    behind.up(&[]).ok();
    let run = behind.inside(&["get", &format!("https://{SITE}/")]);
    assert_eq!(run.status, 1, "{}", run.report());
    assert!(run.stderr.contains("denied by bottle-egress: parent"), "{}", run.report());
    let words = format!("refuses: CONNECT blocked: SSRF blocked: {SITE} resolves to internal IP");
    assert!(run.stdout.contains(&words), "{}", run.report());
    let decisions = behind.bottle.state().join("implementer/egress/run/decisions.jsonl");
    let decisions = fs::read_to_string(decisions).unwrap();
    assert!(decisions.contains(r#""reason":"parent""#), "{decisions}");
}

#[test]
fn pipelock_is_started_and_stopped_alone() {
    let Some(behind) = Behind::rendered("alone", "balanced", same) else { return };
    let alone = behind.up(&["--only", "pipelock"]).ok();
    assert_eq!(behind.services(), ["pipelock"]);
    assert_eq!(behind.up(&["--only", "pipelock"]).ok(), alone);
    let reap = || {
        let run = behind.bottle.tool("bottle-reap").args(["--only", "pipelock", "implementer"]);
        run.run().ok();
        assert_eq!(behind.services(), Vec::<String>::new());
    };
    reap();
    reap();
    // And the rest joins it.
    behind.up(&["--only", "pipelock"]).ok();
    behind.up(&[]).ok();
    assert_eq!(behind.services().len(), 3);
}

#[test]
fn pipelock_that_does_not_start_leaves_its_last_words() {
    let Some(behind) = Behind::rendered("words", "balanced", same) else { return };
    for args in [&["--only", "pipelock"][..], &[]] {
        fs::set_permissions(behind.conf("ca-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        behind.up(args).fails(
            3,
            "bottle-up: wait for sidecar 'pipelock': it ended with 1: Error: CA key file /etc/bottle/ca-key.pem has mode 0644",
        );
        assert_eq!(behind.services(), Vec::<String>::new());
        fs::set_permissions(behind.conf("ca-key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    behind.change("mode: balanced", "mood: balanced");
    let run = behind.up(&["--only", "pipelock"]);
    assert!(run.stderr.contains("unknown field 'mood'"), "{}", run.report());
    behind.change("mood: balanced", "mode: balanced");
    behind.up(&["--only", "pipelock"]).ok();
}

#[test]
fn pipelock_that_is_gone_is_told_to_the_agent() {
    let Some(behind) = Behind::rendered("gone", "balanced", same) else { return };
    behind.up(&[]).ok();
    docker(["kill", &container(&behind.bottle, "pipelock")]).ok();
    let run = behind.inside(&["get", &format!("http://{SITE}/")]);
    assert_ne!(run.status, 0, "{}", run.report());
    assert!(run.stdout.contains("pipelock, by which all that leaves goes, does not answer"));
    assert!(!run.stdout.contains(BODY), "{}", run.report());
    // A second start sees it, and is an honest no.
    behind.up(&[]).fails(
        1,
        "bottle-up: start bottle 'implementer': it was up, and its 'pipelock' has ended: clear it away with 'bottle-reap implementer' first",
    );
}

#[test]
fn change_that_pipelock_had_to_be_told_of_needs_a_restart() {
    let quiet = |manifest: Manifest| manifest.set("bottles.dev.selftest", "off");
    let Some(behind) = Behind::rendered("apply", "balanced", quiet) else { return };
    behind.up(&[]).ok();
    let bottle = &behind.bottle;
    let routes = || fs::read(bottle.state().join("implementer/egress/conf/routes.yaml")).unwrap();
    let before = routes();
    let apply = |route: Value| {
        let text = fs::read_to_string(bottle.work().join("bottle.yaml")).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        let routes = manifest["bottles"]["dev"]["egress"]["routes"].as_array_mut().unwrap();
        routes.truncate(1);
        routes.push(route);
        bottle.file("bottle.yaml", manifest.to_string());
        bottle.sh("bottle-plan implementer | bottle-apply").run()
    };
    apply(json!({ "host": "new.example.test" })).fails(
        1,
        "bottle-apply: change the plan: its routes are another list of hosts or networks for pipelock, which needs a restart: stop the bottle with 'bottle stop implementer' and start it anew",
    );
    assert_eq!(routes(), before);
    // The control: what is no news to pipelock changes live.
    apply(Origin::route(bottle.pool(), &json!({ "paths": ["/more"] }))).ok();
    assert_ne!(routes(), before);
}
