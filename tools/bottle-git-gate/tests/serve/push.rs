//! What an agent writes: what the rules let through reaches upstream, or fails in upstream's words.

use std::fs;

use serde_json::json;

use crate::support::{World, token};

const AGENT: &[&str] = &["refs/heads/agent/*"];

#[test]
fn push_succeeds_when_upstream_has_it() {
    let Some(world) = World::new(AGENT) else { return };
    world
        .work("echo x >x && git add . && git commit -qm x && git push -q origin HEAD:agent/x")
        .ok();
    let id = world.work("git rev-parse HEAD").ok();
    assert!(world.refs().contains(&format!("refs/heads/agent/x {id}")), "{}", world.refs());
    assert_eq!(world.refs(), world.mirrored());
    // It goes on, and several at once.
    world
        .work("echo y >y && git add . && git commit -qm y && git push -q origin HEAD:agent/x HEAD:agent/y")
        .ok();
    assert_eq!(world.refs(), world.mirrored());
    let decisions = world.decisions();
    let last: Vec<_> = decisions.iter().rev().take(2).collect();
    assert_eq!((&last[0]["kind"], &last[1]["kind"]), (&json!("upstream"), &json!("push")));
    assert_eq!(last[1]["updates"][0]["name"], "refs/heads/agent/x");
}

#[test]
fn ref_that_no_pattern_covers_is_refused_with_the_ones_that_do() {
    let Some(world) = World::new(AGENT) else { return };
    let before = world.refs();
    world.work("echo x >x && git add . && git commit -qm x").ok();
    for to in
        ["main", "refs/heads/agent", "refs/heads/agent/x/y", "refs/heads/agents/x", "refs/tags/v1"]
    {
        let said = world.work(&format!("git push origin HEAD:{to}"));
        let said = said.fails("remote: bottle: refused by rule 'push': 'refs/");
        assert!(said.contains("is none of 'refs/heads/agent/*'"), "{said}");
        assert!(said.contains("remote: bottle: nothing of this push was kept"), "{said}");
    }
    assert_eq!(world.refs(), before);
    // One that is allowed goes down with one that is not.
    world.work("git push origin HEAD:agent/x HEAD:main").fails("rule 'push'");
    assert_eq!(world.refs(), before);
    world.work("git push -q origin HEAD:agent/x").ok();
    assert_ne!(world.refs(), before);
}

#[test]
fn remote_without_patterns_can_only_be_fetched_from() {
    let Some(world) = World::new(&[]) else { return };
    world.work("git fetch").ok();
    let said = world.work("git push origin HEAD:agent/x");
    said.fails("refused by rule 'push': remote 'origin' can only be fetched from");
}

#[test]
fn no_force_and_no_delete() {
    let Some(world) = World::new(&["refs/heads/agent/*", "refs/tags/*"]) else { return };
    world
        .work("echo x >x && git add . && git commit -qm x && git tag v1 && git push -q origin HEAD:agent/x v1")
        .ok();
    let before = world.refs();
    let rewrite = "git commit -q --amend -m rewritten";
    world
        .work(&format!("{rewrite} && git push -f origin HEAD:agent/x"))
        .fails("rule 'force': 'refs/heads/agent/x' would lose commits");
    world
        .work("git tag -f v1 && git push -f origin v1")
        .fails("rule 'force': 'refs/tags/v1' is there, and tags do not move");
    world
        .work("git push origin :agent/x")
        .fails("rule 'delete': 'refs/heads/agent/x' would be deleted");
    world.work("git push origin :v1").fails("rule 'delete'");
    assert_eq!(world.refs(), before);
    // The control: what grows, goes.
    world.work("git fetch -q && git checkout -q origin/agent/x && git commit -q --allow-empty -m more && git push -q origin HEAD:agent/x").ok();
    assert_ne!(world.refs(), before);
}

#[test]
fn upstreams_refusal_is_the_pushs_and_nothing_is_kept() {
    let Some(world) = World::new(AGENT) else { return };
    world.upstream_refuses("policy: ask Ada first");
    let before = (world.refs(), world.mirrored());
    world.work("echo x >x && git add . && git commit -qm x").ok();
    let said =
        world.work("git push origin HEAD:agent/x").fails("rule 'upstream': policy: ask Ada first");
    assert!(said.contains("pre-receive hook declined"), "{said}");
    assert_eq!((world.refs(), world.mirrored()), before);
    assert_eq!(world.leftovers(), Vec::<String>::new());
    let last = world.decisions().pop().unwrap();
    assert_eq!((&last["kind"], &last["decision"]), (&json!("upstream"), &json!("deny")));
    fs::remove_file(world.path("up/repo.git/hooks/pre-receive")).unwrap();
    world.work("git push -q origin HEAD:agent/x").ok();
}

#[test]
fn upstream_that_is_away_fails_the_push_and_keeps_nothing() {
    let Some(mut world) = World::new(AGENT) else { return };
    let before = world.refs();
    world.work("echo x >x && git add . && git commit -qm x").ok();
    world.stop_sshd();
    world.work("git push origin HEAD:agent/x").fails("Connection refused");
    world.restart_sshd();
    assert_eq!((world.refs(), world.mirrored()), (before.clone(), before));
    world.work("git push -q origin HEAD:agent/x").ok();
}

#[test]
fn branch_that_moved_upstream_is_not_overwritten() {
    let Some(world) = World::new(AGENT) else { return };
    world
        .work("echo x >x && git add . && git commit -qm x && git push -q origin HEAD:agent/x")
        .ok();
    world.git("git clone -q -b agent/x $UP/repo.git third && cd third && echo z >z && git add . && git commit -qm z && git push -q origin HEAD").ok();
    let theirs = world.refs();
    world.work("echo y >y && git add . && git commit -qm y").ok();
    world.work("git push origin HEAD:agent/x").fails("fetch first");
    world.work("git push -f origin HEAD:agent/x").fails("rule 'force'");
    assert_eq!(world.refs(), theirs);
    world.work("git pull -q --rebase origin agent/x && git push -q origin HEAD:agent/x").ok();
}

#[test]
fn limits_of_size_and_number_hold() {
    let Some(world) = World::new(AGENT) else { return };
    let before = world.refs();
    let push = "git add . && git commit -qm x && git push origin HEAD:agent/x";
    let undo = "git reset -q --hard origin/main && git clean -qfd";
    world
        .work(&format!("head -c 1048577 /dev/zero >big && {push}"))
        .fails("rule 'size': 'big' has 1048577 bytes, and may have 1048576");
    world
        .work(&format!("{undo} && for n in $(seq 101); do echo $n >f$n; done && {push}"))
        .fails("rule 'size': it has more than 100 new files");
    // Random bytes, so that the pack is as large.
    world
        .work(&format!(
            "{undo} && for n in $(seq 10); do head -c 1000000 /dev/urandom >f$n; done && {push}"
        ))
        .fails("pack exceeds maximum allowed size");
    assert_eq!(world.refs(), before);
    assert_eq!(world.leftovers(), Vec::<String>::new());
    // What is added and taken away again counts too.
    world
        .work(&format!("{undo} && head -c 1048577 /dev/zero >big && git add . && git commit -qm 1 && git rm -q big && echo x >x && {push}"))
        .fails("rule 'size': 'big'");
    world.work(&format!("{undo} && head -c 1048576 /dev/zero >big && for n in $(seq 99); do echo $n >f$n; done && {push}")).ok();
}

#[test]
fn protected_paths_are_left_alone_unless_the_owner_allows() {
    let Some(mut world) = World::new(AGENT) else { return };
    // Upstream has a workflow that changes on main.
    world
        .git("cd seed-repo && mkdir -p .github/workflows && echo a >.github/workflows/ci.yml && git add . && git commit -qm ci && git push -q $UP/repo.git main")
        .ok();
    world
        .work("echo x >x && git add . && git commit -qm x && git push -q origin HEAD:agent/x")
        .ok();
    // A merge that brings what upstream has is nobody's change.
    world
        .work("git pull -q --no-rebase --no-edit origin main && git push -q origin HEAD:agent/x")
        .ok();
    let push = "git add . && git commit -qm x && git push origin HEAD:agent/x";
    let undo = "git reset -q --hard && git fetch -q && git reset -q --hard origin/agent/x";
    for path in [
        ".github/workflows/new.yml",
        ".gitlab-ci.yml",
        ".GitHub/WORKFLOWS/x.yml",
        ".husky/pre-commit",
    ] {
        let said =
            world.work(&format!("{undo}; mkdir -p $(dirname {path}) && echo b >{path} && {push}"));
        let id = world.work("git rev-parse --short=12 HEAD").ok();
        said.fails(&format!("rule 'protected': commit {} touches '{path}'", id.trim()));
    }
    // Removing one, and one that is there no more at the end, count; so does a merge's own change.
    world
        .work(&format!("{undo}; git rm -q .github/workflows/ci.yml && {push}"))
        .fails("rule 'protected'");
    world
        .work(&format!("{undo}; echo b >.gitlab-ci.yml && git add . && git commit -qm 1 && git rm -q .gitlab-ci.yml && echo z >z && {push}"))
        .fails("rule 'protected'");
    world
        .work(&format!("{undo}; git checkout -q -b side origin/main && echo s >s && git add . && git commit -qm side && git checkout -q - && git merge -q --no-commit side && echo evil >.github/workflows/ci.yml && {push}"))
        .fails("touches '.github/workflows/ci.yml'");
    let allow =
        json!({ "push": [{ "refs": AGENT[0] }], "allow_paths": [".github/workflows/docs.yml"] });
    world.change(&allow);
    world
        .work(&format!("{undo}; echo b >.github/workflows/ci.yml && {push}"))
        .fails("rule 'protected'");
    world.work(&format!("{undo}; echo b >.github/workflows/docs.yml && {push}")).ok();
}

#[test]
fn commits_are_signed_by_those_who_count() {
    let Some(mut world) = World::new(AGENT) else { return };
    for name in ["signer", "stranger"] {
        world.git(&format!("ssh-keygen -q -t ed25519 -N '' -C {name} -f {name}")).ok();
    }
    let key = fs::read_to_string(world.path("home/signer.pub")).unwrap();
    let signers = format!("a@example.test namespaces=\"git\" {key}");
    fs::write(world.path("secrets/origin.allowed_signers"), signers).unwrap();
    let rules = json!({ "push": [{ "refs": AGENT[0] }], "require_signed": true });
    world.change(&rules);
    let commit = |key: &str| {
        format!(
            "git -c gpg.format=ssh -c user.signingKey=$HOME/{key}.pub commit -q -S --allow-empty -m {key}"
        )
    };
    let push = "git push origin HEAD:agent/x";
    world.work(&format!("git commit -q --allow-empty -m x && {push}")).fails("is not signed");
    // One that is not hides behind one that is.
    world.work(&format!("{} && {push}", commit("signer"))).fails("is not signed");
    let undo = "git reset -q --hard origin/main";
    world
        .work(&format!("{undo} && {} && {push}", commit("stranger")))
        .fails("is signed by nobody who is allowed to");
    // A signature that was another commit's.
    world
        .work(&format!(
            "{undo} && {} && git cat-file commit HEAD | sed 's/^signer$/forged/' >c && git reset -q --hard $(git hash-object -t commit -w c) && {push}",
            commit("signer")
        ))
        .fails("has a bad signature");
    world.work(&format!("{undo} && {} && {push}", commit("signer"))).ok();
}

#[test]
fn what_cannot_be_written_down_is_refused() {
    let Some(world) = World::new(AGENT) else { return };
    let before = world.refs();
    world.work("echo x >x && git add . && git commit -qm x").ok();
    let file = world.path("run/decisions.jsonl");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    world.work("git push origin HEAD:agent/x").fails("rule 'gate'");
    world.work("git fetch").fails("rule 'gate'");
    assert_eq!(world.refs(), before);
    fs::remove_dir(&file).unwrap();
    world.work("git push -q origin HEAD:agent/x").ok();
}

#[test]
fn token_is_no_secret_of_the_tests() {
    assert_eq!(token().len(), 40);
    assert_ne!(token(), token());
}
