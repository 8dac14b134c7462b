//! An agent's way to push what it may not yet, on the real engine: its git is refused, it proposes the
//! ref by a real MCP client, the operator grants it, and a real upstream gets it.

use std::fs;
use std::time::{Duration, Instant};

use bottle::docker::image;
use serde_json::{Value, json};

use crate::common::{Run, root, skip};
use crate::gate::Place;
use crate::supervise::{ask, events, id};
use crate::support::docker;
use crate::up::container;

/// A push of a new commit to a branch.
fn push(branch: &str) -> String {
    format!("cd app && git commit -q --allow-empty -m x && git push -q origin HEAD:{branch}")
}

/// A place of which the agent may ask for more, and has a clone.
fn asking(remote: impl FnOnce(&Place) -> Value, more: &[(&str, Value)]) -> Option<Place> {
    let place = Place::new()?;
    let client = root().join("target/mcp");
    let image = image("supervise");
    if docker(["image", "inspect", "--format", "{{.Id}}", &image]).status != 0 {
        skip(&format!("image '{image}' is missing: run 'make images'"));
        return None;
    }
    if !client.join("mcp").is_dir() {
        skip("the MCP client is missing: run 'make mcp'");
        return None;
    }
    let fixtures = root().join("tests/fixtures/mcp");
    let mount = |source, target| json!({ "source": source, "target": target, "read_only": true });
    let remote = remote(&place);
    let mut manifest = place
        .manifest(&remote)
        .set("bottles.dev.supervise", json!({ "max_open": 3 }))
        .set("bottles.dev.env.PYTHONPATH", "/opt/mcp")
        .set(
            "bottles.dev.mounts",
            json!([mount(client, "/opt/mcp"), mount(fixtures, "/opt/client")]),
        );
    for (field, value) in more {
        manifest = manifest.set(field, value.clone());
    }
    place.start(&manifest);
    place.says(&format!("git clone -q {} app && cat app/README.md", remote["url"]), "app");
    Some(place)
}

fn propose(place: &Place, refs: &str) -> String {
    let wish = json!({ "remote": "origin", "ref": refs, "reason": "to show it to somebody" });
    id(&ask(&place.bottle, "propose_git_ref", &wish).ok())
}

fn approve(place: &Place, args: &[&str]) -> Run {
    place.bottle.tool("bottle-approve").args(["implementer"]).args(args).run()
}

#[test]
fn refused_ref_is_proposed_granted_pushed_and_closed_again() {
    let Some(place) = asking(Place::by_ssh, &[]) else { return };
    let refused = |branch: &str| format!("'refs/heads/{branch}' is none of 'refs/heads/agent/*'");
    place.fails(&push("topic"), &refused("topic"));
    let policy = ask(&place.bottle, "policy", &json!({})).ok();
    assert!(policy.contains("git remote 'origin'"), "{policy}");
    assert!(policy.contains("fetch, and push 'refs/heads/agent/*'"), "{policy}");
    for (remote, refs, why) in [
        ("orgin", "refs/heads/x", "did you mean 'origin'"),
        ("origin", "refs/heads/agent/x", "it is allowed already"),
        ("origin", "refs/*", "it begins with"),
    ] {
        let run = ask(
            &place.bottle,
            "propose_git_ref",
            &json!({ "remote": remote, "ref": refs, "reason": "x" }),
        );
        assert!(run.status == 1 && run.stdout.contains(why), "{}", run.report());
    }

    let first = propose(&place, "refs/heads/topic");
    let shown = approve(&place, &[&first]).ok();
    let url = format!("git@{}:/home/git/app.git", place.address);
    assert!(shown.starts_with(&format!("implementer {first}  git ref, ")), "{shown}");
    assert!(shown.contains(&format!("    push 'refs/heads/agent/*' to '{url}'\n")), "{shown}");
    assert!(shown.contains(&format!("  + push 'refs/heads/topic' to '{url}'\n")), "{shown}");
    // It is asked for, and no more than that.
    place.fails(&push("topic"), &refused("topic"));
    let told = approve(&place, &[&first, "--for", "20s"]).ok();
    let line = format!(
        "approved implementer {first}: push 'refs/heads/topic' to git remote 'origin', by grant '{first}' until "
    );
    assert!(told.starts_with(&line), "{told}");
    place.says(&push("topic"), "");
    place.fails(&push("topics"), "'refs/heads/topics' is none of");
    assert_eq!(place.refs("app"), "refs/heads/main\nrefs/heads/topic\n");
    let status = ask(&place.bottle, "proposal_status", &json!({ "id": first })).ok();
    assert!(status.contains("is approved"), "{status}");
    // Nobody of the host has anything to do with its end.
    let end = Instant::now() + Duration::from_mins(2);
    while place.sh(&push("topic")).status == 0 {
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_secs(1));
    }
    place.fails(&push("topic"), &refused("topic"));

    // One of what was asked for, for one push, which nothing revives.
    let second = propose(&place, "refs/heads/once/*");
    let wider = approve(&place, &[&second, "--until-push", "--ref", "refs/heads/main"]);
    assert_eq!(wider.status, 2, "{}", wider.report());
    approve(&place, &[&second, "--until-push", "--ref", "refs/heads/once/a"]).ok();
    place.fails(&push("once/b"), "'refs/heads/once/b' is none of");
    place.says(&push("once/a"), "");
    place.fails(&push("once/a"), &refused("once/a"));
    docker(["restart", "--time", "2", &container(&place.bottle, "git-gate")]).ok();
    let end = Instant::now() + Duration::from_mins(1);
    while place.sh("cd app && git fetch -q").status != 0 {
        assert!(Instant::now() < end, "the gate does not come back");
        std::thread::sleep(Duration::from_millis(200));
    }
    place.fails(&push("once/a"), &refused("once/a"));
    // Nor do other grants, or one that is taken back.
    let third = propose(&place, "refs/heads/third");
    approve(&place, &[&third, "--forever"]).ok();
    place.says(&push("third"), "");
    place.fails(&push("once/a"), "'refs/heads/once/a' is none of");
    approve(&place, &[&third, "--revoke"]).ok();
    place.fails(&push("third"), &refused("third"));

    place.bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    let archive = fs::read_dir(place.bottle.state().join("archive")).unwrap().next().unwrap();
    let archive = archive.unwrap().path();
    let story = fs::read_to_string(archive.join("supervise/story.jsonl")).unwrap();
    assert_eq!(events(&story, &first), ["proposed", "approved", "expired"], "{story}");
    assert_eq!(events(&story, &second), ["proposed", "approved", "pushed"], "{story}");
    assert_eq!(events(&story, &third), ["proposed", "approved", "revoked"], "{story}");
    // What the gate did about the first one, in order.
    let decisions = fs::read_to_string(archive.join("git-gate/run/decisions.jsonl")).unwrap();
    let mut of_topic: Vec<(String, String, Value)> = decisions
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["updates"][0]["name"] == "refs/heads/topic")
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (text("kind"), text("decision"), line["grants"].clone())
        })
        .collect();
    of_topic.dedup();
    let is = |kind: &str, decision: &str, grants: Value| (kind.into(), decision.into(), grants);
    assert_eq!(of_topic[0], is("push", "deny", Value::Null), "{decisions}");
    assert_eq!(of_topic[1], is("push", "allow", json!([first])), "{decisions}");
    assert_eq!(of_topic[2], is("upstream", "allow", json!([first])), "{decisions}");
    assert_eq!(*of_topic.last().unwrap(), is("push", "deny", Value::Null), "{decisions}");
}

#[test]
fn approval_that_the_gate_does_not_acknowledge_is_taken_back() {
    let Some(place) = asking(Place::by_ssh, &[]) else { return };
    let id = propose(&place, "refs/heads/topic");
    let gate = container(&place.bottle, "git-gate");
    docker(["pause", &gate]).ok();
    let run = approve(&place, &[&id, "--forever", "--timeout", "1"]);
    docker(["unpause", &gate]).ok();
    assert_eq!((run.status, run.stdout.as_str()), (3, ""), "{}", run.report());
    assert!(run.stderr.contains("git-gate did not say in 1 s"), "{}", run.report());
    assert!(run.stderr.contains("it is taken back, and stays open"), "{}", run.report());
    place.fails(&push("topic"), "'refs/heads/topic' is none of");
    // The control: the same is approved once the gate answers.
    approve(&place, &[&id, "--forever"]).ok();
    place.says(&push("topic"), "");
}

#[test]
fn granted_push_goes_out_by_https_too() {
    let by_https = |place: &Place| json!({ "url": format!("https://{}/app.git", place.address), "secret": "forge" });
    let more = [
        ("bottles.dev.egress.ca_certificates", json!(["keys/cert.pem"])),
        ("bottles.dev.secrets.forge", json!({ "from_file": "keys/token" })),
    ];
    let Some(place) = asking(by_https, &more) else { return };
    place.fails(&push("topic"), "remote 'origin' can only be fetched from");
    let id = propose(&place, "refs/heads/topic");
    let shown = approve(&place, &[&id]).ok();
    assert!(shown.contains("! a remote that is only fetched from"), "{shown}");
    approve(&place, &[&id, "--uses", "2"]).ok();
    for _ in 0..2 {
        place.says(&push("topic"), "");
    }
    assert_eq!(place.refs("app"), "refs/heads/main\nrefs/heads/topic\n");
    place.fails(&push("topic"), "what allowed a push to 'origin' has ended");
}
