//! Policy that changes while egress runs.

use std::process::Command;

use crate::support::{Bottle, RULES, have, read, until};

/// [`RULES`] without the path `/x`.
fn narrower() -> String {
    RULES.replace(", /x]", "]")
}

#[test]
fn renamed_file_is_in_force_and_told() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let before = bottle.loaded().unwrap();
    let sum = |text: &str| bottle::state::sha256_hex(text.as_bytes());
    assert_eq!(before.sha256, sum(&read(&bottle.folder, "conf/routes.yaml")));
    assert_eq!(
        (before.generation, &*before.plan, before.refused.is_none()),
        (1, "sha256:00", true)
    );
    // One connection all the time: what counts is the policy at the request.
    let mut client = bottle.tunnel("origin.test:8443");
    assert_eq!(client.get("/x", "origin.test:8443").status, 200);
    let text = bottle.rules(2, &narrower());
    bottle.replace("routes.yaml", &text);
    let told = until("generation 2", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    assert_eq!(told.sha256, sum(&text));
    assert_eq!(client.get("/x", "origin.test:8443").denied(), Some("path"));
    bottle.replace("routes.yaml", &bottle.rules(3, RULES));
    until("generation 3", || bottle.loaded().filter(|loaded| loaded.generation == 3));
    assert_eq!(client.get("/x", "origin.test:8443").status, 200);
}

#[test]
fn half_written_and_invalid_files_change_nothing_and_are_told() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let mut client = bottle.tunnel("origin.test:8443");
    let good = bottle.rules(2, &narrower());
    // Cut off before `methods`, the first rule would allow them all.
    let half = &good[..good.find(", methods").unwrap()].to_owned();
    for (text, why) in [
        (half.clone() + "}\n", "it is not whole"),
        (half.clone() + "}\n# end\n", ""),
        (good.replace("version: 1", "version: 9"), "this egress knows 1"),
        (good.replace("hots", "host").replace("methods", "mehtods"), "did you mean 'methods'"),
        (good.replace("name, ports: [8444]", "name, ports: []"), "routes[4]"),
        (good.replace("- {host: 127.", "- {passthrough: true, host: 127."), "names no server"),
        (String::new(), "it is not whole"),
    ] {
        if why.is_empty() {
            // The control: with the mark, the same text is taken.
            bottle.replace("routes.yaml", &text);
            until("the cut policy is in force", || {
                (client
                    .ask("PUT /any HTTP/1.1\r\nhost: origin.test:8443\r\ncontent-length: 0\r\n\r\n")
                    .status
                    == 403)
                    .then_some(())
            });
            bottle.replace("routes.yaml", &bottle.rules(1, RULES));
            until("the first policy is back", || {
                (client.get("/x", "origin.test:8443").status == 200).then_some(())
            });
            continue;
        }
        bottle.replace("routes.yaml", &text);
        let sum = bottle::state::sha256_hex(text.as_bytes());
        let refused = until("the refusal is told", || {
            bottle.loaded()?.refused.filter(|refused| refused.sha256 == sum)
        });
        assert!(refused.error.contains(why), "{why}: {}", refused.error);
        assert_eq!(bottle.loaded().unwrap().generation, 1);
        assert_eq!(client.get("/x", "origin.test:8443").status, 200);
        assert!(bottle.stderr().contains(&refused.error), "{}", bottle.stderr());
    }
    bottle.replace("routes.yaml", &good);
    let told = until("generation 2", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    assert_eq!(told.refused, None);
    assert_eq!(client.get("/x", "origin.test:8443").denied(), Some("path"));
}

#[test]
fn file_written_in_place_is_taken_when_it_is_whole() {
    let bottle = Bottle::start();
    let text = bottle.rules(2, &narrower());
    let path = bottle.folder.join("conf/routes.yaml");
    std::fs::write(path, text).unwrap();
    until("generation 2", || bottle.loaded().filter(|loaded| loaded.generation == 2));
}

#[test]
fn sighup_looks_at_once_and_ends_nothing() {
    let bottle = Bottle::start();
    bottle.signal("HUP");
    bottle.replace("routes.yaml", &bottle.rules(2, RULES));
    bottle.signal("HUP");
    until("generation 2", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    assert_eq!(bottle.plain().get("http://evil.test/", "evil.test").status, 403);
}

#[test]
fn without_an_inotify_instance_the_folder_is_polled() {
    if !have("unshare") || !namespaces() {
        return;
    }
    let bottle = Bottle::prepared(RULES, |egress| {
        // A user namespace counts its own instances; here it may have none.
        let mut wrapped = Command::new("unshare");
        wrapped
            .args(["--user", "--map-root-user", "sh", "-c"])
            .arg("echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"")
            .arg("sh")
            .arg(egress.get_program())
            .args(egress.get_args())
            .envs(egress.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped
    });
    bottle.replace("routes.yaml", &bottle.rules(2, RULES));
    until("generation 2", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    assert!(bottle.stderr().contains("looking every 100 ms instead"), "{}", bottle.stderr());
}

#[test]
fn with_inotify_nothing_is_said_about_polling() {
    let bottle = Bottle::start();
    bottle.replace("routes.yaml", &bottle.rules(2, RULES));
    until("generation 2", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    assert_eq!(bottle.stderr(), "");
}

/// Whether this machine lets us make a user namespace.
fn namespaces() -> bool {
    let there = Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        eprintln!("SKIPPED: no user namespaces here");
    }
    there
}
