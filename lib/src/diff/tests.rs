//! Differences as lines, each with its opposite.

use serde_json::{Value, json};

use super::*;

fn plan(more: &Value) -> Plan {
    let mut plan = json!({
        "digest": "sha256:0",
        "agent": "implementer",
        "bottle": "dev",
        "image": "debian",
        "resources": { "pids": 512 },
        "egress": { "engine": "embedded" },
        "selftest": "enforce",
    });
    plan.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(plan).unwrap()
}

fn route(host: &str) -> Value {
    json!({ "host": host, "kind": "name", "ports": [443] })
}

/// The lines both ways.
fn both(old: &Value, new: &Value) -> (String, String) {
    let (old, new) = (plan(old), plan(new));
    (Diff::of(&old, &new).to_text(), Diff::of(&new, &old).to_text())
}

#[test]
fn more_is_gained_and_the_same_is_lost_the_other_way_round() {
    let workspace = |mode: &str, protected: &[&str]| {
        json!({ "workspace": { "source": "/w", "target": "/workspace", "mode": mode,
                "read_only": false, "protected": protected } })
    };
    let remote = |more: Value| {
        let mut remote = json!({ "name": "r", "url": "git@h:r", "require_signed": true });
        remote.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "git": [remote] })
    };
    for (old, new, lines) in [
        (
            json!({}),
            json!({ "egress": { "engine": "embedded", "routes": [route("a.example")] } }),
            "egress: * https://a.example:443/**",
        ),
        (
            json!({ "mounts": [{ "source": "/d", "target": "/data", "read_only": true }] }),
            json!({ "mounts": [{ "source": "/d", "target": "/data", "read_only": false }] }),
            "mounts: write '/d' of the host at '/data'",
        ),
        (
            workspace("bind", &["/w/.git"]),
            workspace("bind", &[]),
            "workspace: write '/w/.git' of the host (was protected)",
        ),
        (
            json!({ "resources": { "pids": 512, "memory": 4 } }),
            json!({ "resources": { "pids": 512 } }),
            "resources.memory: without limit (was 4 bytes)",
        ),
        (
            json!({ "resources": { "pids": 512, "cpus": "1.5" } }),
            json!({ "resources": { "pids": 512, "cpus": "10" } }),
            "resources.cpus: 10 (was 1.5)",
        ),
        (
            remote(json!({})),
            remote(json!({ "push": ["refs/heads/agent/*"] })),
            "git: push 'refs/heads/agent/*' to 'git@h:r'",
        ),
        (
            remote(json!({ "push": ["refs/heads/a"] })),
            remote(json!({ "push": ["refs/heads/a"], "require_signed": false })),
            "git: push commits that are not signed to 'git@h:r'",
        ),
        (
            json!({}),
            json!({ "secrets": { "t": { "from_env": "TOKEN" } } }),
            "secrets: use secret 't', which is in variable 'TOKEN'",
        ),
        (
            json!({}),
            json!({ "selftest": "warn" }),
            "selftest: run although the self-test finds a way out",
        ),
        (
            json!({ "pipelock": { "mode": "strict" } }),
            json!({ "pipelock": { "mode": "balanced" } }),
            "pipelock: send what it does not list",
        ),
        (
            json!({ "egress": { "engine": "embedded" } }),
            json!({ "egress": { "engine": "embedded", "audit": "allow" } }),
            "egress.audit: send requests whose decision cannot be written down",
        ),
    ] {
        let (there, back) = both(&old, &new);
        assert_eq!(there, format!("+ {lines}\n"));
        assert_eq!(back, format!("- {}\n", lines.replace("(was ", "(is ")));
    }
}

#[test]
fn what_is_only_other_is_changed() {
    let (there, _) = both(
        &json!({ "command": ["claude"], "env": { "A": "1", "B": "1" } }),
        &json!({ "command": ["codex", "--yes"], "env": { "B": "2" }, "user": "1000" }),
    );
    let lines = "~ user: none -> \"1000\"\n~ command: [\"claude\"] -> [\"codex\",\"--yes\"]\n\
                 ~ env: A=1 -> no A\n~ env: B=1 -> B=2\n";
    assert_eq!(there, lines);
    let (root, back) = both(&json!({ "user": "1000" }), &json!({ "user": "0:0" }));
    assert_eq!(root, "+ user: be root in its container\n~ user: \"1000\" -> \"0:0\"\n");
    assert_eq!(back, "- user: be root in its container\n~ user: \"0:0\" -> \"1000\"\n");
}

#[test]
fn copied_workspace_is_less_than_the_folder_itself() {
    let space = |mode: &str| {
        json!({ "workspace":
            { "source": "/w", "target": "/workspace", "mode": mode, "read_only": false } })
    };
    let (there, _) = both(&space("bind"), &space("copy"));
    let lines = "- workspace: write '/w' of the host at '/workspace'\n\
                 ~ workspace.mode: \"bind\" -> \"copy\"\n";
    assert_eq!(there, lines);
}

#[test]
fn plan_is_the_same_as_itself_and_as_its_rules_in_other_words() {
    let routes = |routes: Value| json!({ "egress": { "engine": "embedded", "routes": routes } });
    let split = json!([
        { "host": "a.example", "kind": "name", "ports": [443], "methods": ["GET"] },
        { "host": "a.example", "kind": "name", "ports": [443], "methods": ["POST"] },
    ]);
    let whole = json!([
        { "host": "a.example", "kind": "name", "ports": [443], "methods": ["GET", "POST"] },
    ]);
    let (old, new) = (plan(&routes(split)), plan(&routes(whole)));
    assert!(Diff::of(&old, &new).is_empty() && Diff::of(&new, &old).is_empty());
    assert!(Diff::of(&old, &old).is_empty());
}
