//! The agent's way to ask for more, on the real engine: a real MCP client in the bottle, the
//! operator's tool outside, and a grant that ends by itself.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bottle::docker::image;
use serde_json::{Value, json};

use crate::common::manifest::Manifest;
use crate::common::{Run, root, skip};
use crate::origin::{Origin, SITE};
use crate::support::{Bottle, docker, images};
use crate::trust::debian;

/// The reason of the agent, with what must not reach a terminal.
const REASON: &str = "to read \u{1b}[2J\u{202e} the page";

/// A bottle of Debian with the client in it, and a site next door that it may not reach yet.
pub(crate) fn asking(more: impl FnOnce(Manifest) -> Manifest) -> Option<(Bottle, Origin)> {
    if !images() {
        return None;
    }
    let image = image("supervise");
    if docker(["image", "inspect", &image]).status != 0 {
        skip(&format!("image '{image}' is missing: run 'make images'"));
        return None;
    }
    let debian = debian()?;
    let client = root().join("target/mcp");
    if !client.join("mcp").is_dir() {
        skip("the MCP client is missing: run 'make mcp'");
        return None;
    }
    let mount = |source: PathBuf, target: &str| json!({ "source": source, "target": target, "read_only": true });
    let manifest = Manifest::new()
        .image(&debian)
        .set("bottles.dev.selftest", "off")
        .set("bottles.dev.supervise", json!({ "max_open": 3 }))
        .set("bottles.dev.env.PYTHONPATH", "/opt/mcp")
        .set("bottles.dev.egress.ca_certificates", json!(["origin.pem"]))
        .set(
            "bottles.dev.mounts",
            json!([
                mount(client, "/opt/mcp"),
                mount(root().join("tests/fixtures/mcp"), "/opt/client"),
            ]),
        );
    let origin = Origin::start();
    let bottle = Bottle::new(&more(manifest));
    bottle.file("origin.pem", &origin.ca);
    let chosen = bottle.sh("bottle-plan implementer | bottle-net").run().ok();
    origin.join(&serde_json::from_str(&chosen).unwrap());
    bottle.sh("bottle-render | bottle-up").stdin(&chosen).run().ok();
    Some((bottle, origin))
}

/// What a tool of the server says to the agent.
pub(crate) fn ask(bottle: &Bottle, tool: &str, arguments: &Value) -> Run {
    bottle.exec(&["python3", "/opt/client/call.py", tool, &arguments.to_string()])
}

/// Proposes the site's page; gives the id.
pub(crate) fn propose(bottle: &Bottle, paths: &[&str]) -> String {
    let wish = json!({ "host": SITE, "methods": ["GET"], "paths": paths, "addresses": [bottle.pool()], "reason": REASON });
    id(&ask(bottle, "propose_route", &wish).ok())
}

pub(crate) fn id(told: &str) -> String {
    told.split(' ').nth(1).unwrap_or_else(|| panic!("{told}")).to_owned()
}

/// What the agent gets of a page.
fn get(bottle: &Bottle, path: &str) -> String {
    let run = bottle.exec(&["curl", "-sS", "--max-time", "20", &format!("https://{SITE}{path}")]);
    run.stdout + &run.stderr
}

fn approve(bottle: &Bottle, args: &[&str]) -> Run {
    bottle.tool("bottle-approve").args(["implementer"]).args(args).run()
}

/// The events of a story, each as `EVENT`, of one proposal.
pub(crate) fn events(story: &str, id: &str) -> Vec<String> {
    let lines = story.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|event| event["proposal"] == id)
        .map(|event| event["event"].as_str().unwrap().to_owned())
        .collect()
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !is() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn denied_route_is_proposed_approved_and_ends_by_itself() {
    let Some((bottle, origin)) = asking(|manifest| manifest) else { return };
    let tools = bottle.exec(&["python3", "/opt/client/call.py", "--tools"]).ok();
    assert_eq!(
        tools.trim(),
        "policy proposal_status propose_git_ref propose_route propose_secret_use propose_ssh_host why_denied"
    );
    assert!(ask(&bottle, "policy", &json!({})).ok().contains("Nothing may leave"));
    assert!(get(&bottle, "/").contains("denied this request (host)"));
    let why = ask(&bottle, "why_denied", &json!({})).ok();
    assert!(why.contains(&format!("no rule names host '{SITE}'")), "{why}");
    assert!(why.contains("propose_route {") && why.contains(r#""paths":["/"]"#), "{why}");

    let id = propose(&bottle, &["/"]);
    // The operator sees what would be opened, and nothing of it moves a cursor.
    let shown = approve(&bottle, &[&id]).ok();
    assert!(shown.contains("why: to read \\u{1b}[2J\\u{202e} the page"), "{shown}");
    assert!(
        shown.contains(&format!("  + GET https://{SITE}:443/ at {}", bottle.pool())),
        "{shown}"
    );
    let listed = bottle.tool("bottle-approve").args(["--json"]).run().ok();
    assert!(listed.is_ascii(), "{listed}");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["reason"]), (&json!(id), &json!(REASON)));
    let status = ask(&bottle, "proposal_status", &json!({ "id": id })).ok();
    assert!(status.contains("is open"), "{status}");
    assert!(get(&bottle, "/").contains("denied this request (host)"));

    let told = approve(&bottle, &[&id, "--for", "8s"]).ok();
    assert!(told.starts_with(&format!("approved implementer {id}: GET https://{SITE}")), "{told}");
    // Nobody of the host has anything to do with it from here on.
    assert!(get(&bottle, "/").contains("this is the origin"));
    assert!(get(&bottle, "/echo").contains("denied this request (path)"));
    let status = ask(&bottle, "proposal_status", &json!({ "id": id, "wait": 5 })).ok();
    assert!(status.contains("is approved"), "{status}");
    until("the grant has ended", || get(&bottle, "/").contains("denied this request (grant)"));
    let why = ask(&bottle, "why_denied", &json!({ "last": 1 })).ok();
    assert!(why.contains("has ended: propose it again"), "{why}");
    assert!(ask(&bottle, "policy", &json!({})).ok().contains("Nothing may leave"));

    // What has ended is not revived by other rules, nor by a restart.
    let manifest = fs::read_to_string(bottle.work().join("bottle.yaml")).unwrap();
    let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["bottles"]["dev"]["egress"]["routes"] = json!([{ "host": "a.invalid" }]);
    bottle.file("bottle.yaml", manifest.to_string());
    bottle.sh("bottle-plan implementer | bottle-apply").run().ok();
    assert!(get(&bottle, "/").contains("denied this request"));
    approve(&bottle, &[&id, "--for", "8s"])
        .fails(1, "bottle-approve: decide about '[..]': that is done: see --story");

    // Its network is the bottle's.
    drop(origin);
    bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    let archive = fs::read_dir(bottle.state().join("archive")).unwrap().next().unwrap().unwrap();
    let story = fs::read_to_string(archive.path().join("supervise/story.jsonl")).unwrap();
    assert_eq!(events(&story, &id), ["proposed", "approved", "expired"], "{story}");
    let times: Vec<Value> = story
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["time"].clone())
        .collect();
    assert!(times.is_sorted_by_key(|time| time.as_str().unwrap().to_owned()), "{times:?}");
    assert!(archive.path().join(format!("grants/{id}.json")).is_file());
}

#[test]
fn uses_survive_other_rules_and_a_restart_of_egress() {
    let Some((bottle, _origin)) = asking(|manifest| manifest) else { return };
    let id = propose(&bottle, &["/", "/other"]);
    // Less than was asked for, and never more.
    for wider in ["/**", "/x"] {
        let run = approve(&bottle, &[&id, "--uses", "3", "--path", wider]);
        assert_eq!(run.status, 2, "{}", run.report());
        assert!(run.stderr.contains("approve no more than that"), "{}", run.report());
    }
    approve(&bottle, &[&id, "--uses", "3", "--path", "/"]).ok();
    assert!(get(&bottle, "/").contains("this is the origin"));
    assert!(get(&bottle, "/other").contains("denied this request (path)"));
    let egress = format!("bottle-implementer-{}-egress", bottle.id());
    docker(["restart", "--time", "2", &egress]).ok();
    until("egress serves again", || get(&bottle, "/").contains("this is the origin"));
    // A second grant writes the rules anew.
    let other = propose(&bottle, &["/echo/**"]);
    approve(&bottle, &[&other, "--forever"]).ok();
    assert!(get(&bottle, "/").contains("this is the origin"));
    assert!(get(&bottle, "/").contains("denied this request (grant)"));
    assert!(!get(&bottle, "/echo/a").contains("denied"));
    // Taken back is taken back at once.
    approve(&bottle, &[&other, "--revoke"]).ok();
    assert!(get(&bottle, "/echo/a").contains("denied this request"));
    let story = approve(&bottle, &["--story", "--json"]).ok();
    assert_eq!(events(&story, &id), ["proposed", "approved", "used-up"], "{story}");
    assert_eq!(events(&story, &other), ["proposed", "approved", "revoked"], "{story}");
}

#[test]
fn approval_that_egress_does_not_acknowledge_is_taken_back() {
    let Some((bottle, _origin)) = asking(|manifest| manifest) else { return };
    let id = propose(&bottle, &["/"]);
    let egress = format!("bottle-implementer-{}-egress", bottle.id());
    docker(["kill", "--signal", "STOP", &egress]).ok();
    let run = approve(&bottle, &[&id, "--forever", "--timeout", "1"]);
    docker(["kill", "--signal", "CONT", &egress]).ok();
    assert_eq!((run.status, run.stdout.as_str()), (3, ""), "{}", run.report());
    assert!(run.stderr.contains("it is taken back, and stays open"), "{}", run.report());
    assert!(get(&bottle, "/").contains("denied this request"));
    assert!(approve(&bottle, &[&id]).ok().contains("+ GET"));
    let status = ask(&bottle, "proposal_status", &json!({ "id": id })).ok();
    assert!(status.contains("is open"), "{status}");
    // The next time it is another grant.
    approve(&bottle, &[&id, "--forever"]).ok();
    assert!(get(&bottle, "/").contains("this is the origin"));
}

#[test]
fn flood_of_proposals_costs_neither_disk_nor_overview() {
    let Some((bottle, _origin)) = asking(|manifest| manifest) else { return };
    let flood =
        |count: &str| bottle.exec(&["python3", "/opt/client/call.py", "--flood", count]).ok();
    assert_eq!(flood("1500").trim(), "3 of 1500 were taken");
    let run = bottle.state().join("implementer/supervise/run");
    let proposals = run.join("proposals");
    let sizes: Vec<u64> = fs::read_dir(&proposals)
        .unwrap()
        .chain(fs::read_dir(&run).unwrap())
        .map(|entry| entry.unwrap().metadata().unwrap())
        .filter(fs::Metadata::is_file)
        .map(|found| found.len())
        .collect();
    assert!(sizes.len() <= 3 + 2, "{sizes:?}");
    assert!(sizes.iter().sum::<u64>() < 16 << 10, "{sizes:?}");
    let listed = bottle.tool("bottle-approve").run().ok();
    assert_eq!(listed.matches("  why: ").count(), 3, "{listed}");
    assert!(listed.lines().all(|line| line.chars().count() < 250), "{listed}");
    // What is rejected is not asked again at once.
    let one: Value = bottle.tool("bottle-approve").args(["--json"]).run().json();
    let one = one[0]["id"].as_str().unwrap().to_owned();
    approve(&bottle, &[&one, "--reject", "not in this bottle"]).ok();
    let status = ask(&bottle, "proposal_status", &json!({ "id": one })).ok();
    assert!(status.contains("rejected: not in this bottle"), "{status}");
}

#[test]
fn nothing_that_an_agent_can_do_approves_anything() {
    let Some((bottle, _origin)) = asking(|manifest| manifest) else { return };
    let id = propose(&bottle, &["/"]);
    let rejected = |tool: &str, arguments: Value, why: &str| {
        let run = ask(&bottle, tool, &arguments);
        assert_eq!(run.status, 1, "{}", run.report());
        assert!(run.stdout.contains(why), "{}", run.report());
    };
    rejected(
        "propose_route",
        json!({ "host": SITE, "method": ["GET"], "reason": "x" }),
        "unknown field `method`",
    );
    rejected("propose_route", json!({ "host": "a b", "reason": "x" }), "a b");
    rejected("propose_route", json!({ "host": SITE, "reason": " " }), "say why");
    rejected(
        "propose_secret_use",
        json!({ "host": SITE, "secret": "t", "reason": "x" }),
        "is none that this bottle adds",
    );
    rejected(
        "propose_git_ref",
        json!({ "remote": "o", "ref": "refs/heads/x", "reason": "x" }),
        "no git gate",
    );
    rejected("propose_ssh_host", json!({ "address": "h", "reason": "x" }), "no further ssh hosts");
    rejected("proposal_status", json!({ "id": "../../answers/x" }), "32 hex digits");
    for tool in ["approve", "bottle-approve", "answer"] {
        let run = ask(&bottle, tool, &json!({ "id": id }));
        assert_ne!(run.status, 0, "{}", run.report());
    }
    // The sidecar itself, whatever became of it: answers, rules and what egress tells are read-only,
    // and grants are nowhere in it.
    let supervise = format!("bottle-implementer-{}-supervise", bottle.id());
    let format = "{{range .Mounts}}{{.Destination}} {{.RW}}\n{{end}}";
    let mounts = docker(["inspect", "--format", format, &supervise]).ok();
    let mut mounts: Vec<&str> = mounts.lines().filter(|line| !line.is_empty()).collect();
    mounts.sort_unstable();
    assert_eq!(mounts, ["/etc/bottle false", "/run/bottle true", "/run/egress false"]);
    let networks = docker([
        "inspect",
        "--format",
        "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}\n{{end}}",
        &supervise,
    ])
    .ok();
    assert_eq!(networks.trim().lines().count(), 1, "{networks}");
    // By attempt, as whoever runs in it: with the control that what is its own can be written.
    let attempt = |path: &str| {
        let user = docker(["inspect", "--format", "{{.Config.User}}", &supervise]).ok();
        let debian = debian().unwrap();
        let fixed = ["run", "--rm", "--network", "none", "--volumes-from", &supervise, "--user"];
        docker(fixed.into_iter().chain([user.trim(), &debian, "touch", path])).status == 0
    };
    assert!(attempt("/run/bottle/control"));
    for path in ["/etc/bottle/answers/x.json", "/etc/bottle/routes.yaml", "/run/egress/grants.json"]
    {
        assert!(!attempt(path), "{path}");
    }
    // A forged proposal under the name of one that was seen is no such.
    let file = bottle.state().join(format!("implementer/supervise/run/proposals/{id}.json"));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(SITE, "evil.example.test")).unwrap();
    let run = approve(&bottle, &[&id, "--forever"]);
    assert_eq!(run.status, 1, "{}", run.report());
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    let run = approve(&bottle, &[&id]);
    assert_eq!(run.status, 1, "{}", run.report());
    assert!(!run.stdout.contains("root:"), "{}", run.report());
    assert!(get(&bottle, "/").contains("denied this request"));
}

#[test]
fn secret_is_added_where_its_use_was_granted() {
    let token = std::env::temp_dir().join(format!("bottle-test-token-{}", std::process::id()));
    fs::write(&token, "Zx81-token\n").unwrap();
    let path = token.to_str().unwrap().to_owned();
    let made = asking(|manifest| {
        manifest
            .set("bottles.dev.secrets.token", json!({ "from_file": path }))
            .route(json!({ "host": "a.invalid", "inject": { "secret": "token", "bearer": true } }))
    });
    fs::remove_file(token).unwrap();
    let Some((bottle, _origin)) = made else { return };
    let wish = json!({ "host": SITE, "paths": ["/echo/**"], "secret": "token", "addresses": [bottle.pool()], "reason": "the API wants it" });
    let id = id(&ask(&bottle, "propose_secret_use", &wish).ok());
    let shown = approve(&bottle, &[&id]).ok();
    assert!(shown.contains("with secret 'token'"), "{shown}");
    assert!(shown.contains("! secret 'token' has not been sent to this host before"), "{shown}");
    approve(&bottle, &[&id, "--uses", "1"]).ok();
    assert!(get(&bottle, "/echo/a").contains("Zx81-token"));
    assert!(get(&bottle, "/echo/a").contains("denied this request (grant)"));
}

#[test]
fn supervise_alone_shows_that_its_image_works() {
    if !images() {
        return;
    }
    let manifest = Manifest::new()
        .image(&image("probe"))
        .set("bottles.dev.selftest", "off")
        .set("bottles.dev.supervise", json!({}));
    let bottle = Bottle::new(&manifest);
    let up = "bottle-plan implementer | bottle-net | bottle-render | bottle-up --only supervise";
    let doc = bottle.sh(up).run().json();
    assert_eq!(doc["up"]["services"], json!(["supervise"]));
    let run = bottle.state().join("implementer/supervise/run/loaded.json");
    let loaded: Value = serde_json::from_str(&fs::read_to_string(run).unwrap()).unwrap();
    assert_eq!(loaded["sha256"], doc["render"]["routes_sha256"]);
}
