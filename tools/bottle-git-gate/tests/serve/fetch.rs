//! What an agent reads: clone, fetch, shallow and partial clone, tags, LFS pointers, submodules.

use std::thread;

use serde_json::json;

use crate::support::World;

#[test]
fn clone_and_fetch_see_what_upstream_is_now() {
    let Some(world) = World::new(&[]) else { return };
    assert_eq!(world.work("cat README.md; git branch --show-current").ok(), "one\nmain\n");
    world
        .git(
            "cd seed-repo && echo two >README.md && git commit -qam second && git tag -a v1 -m v1
             git push -q $UP/repo.git main v1 && git push -q $UP/repo.git main:gone",
        )
        .ok();
    world.work("git pull -q && git fetch -q").ok();
    assert_eq!(world.work("cat README.md; git tag").ok(), "two\nv1\n");
    assert!(world.work("git branch -r").ok().contains("origin/gone"));
    // What is gone upstream is gone, and a rewritten branch is as upstream has it.
    world
        .git(
            "cd seed-repo && git push -q $UP/repo.git :gone
             git commit -q --amend -m other && git push -q -f $UP/repo.git main",
        )
        .ok();
    world.work("git fetch -q --prune && git reset -q --hard origin/main").ok();
    assert_eq!(
        world.work("git log -1 --format=%s; git branch -r").ok(),
        "other\n  origin/HEAD -> origin/main\n  origin/main\n"
    );
    let decisions = world.decisions();
    assert!(decisions.len() >= 4 && decisions.iter().all(|it| it["decision"] == "allow"));
}

#[test]
fn shallow_and_partial_clones_hold_what_they_say_and_get_the_rest_later() {
    let Some(world) = World::new(&[]) else { return };
    world
        .git(
            "cd seed-repo && echo two >two && git add . && git commit -qm second
             git push -q $UP/repo.git main",
        )
        .ok();
    let url = world.url("origin");
    world.git(&format!("git clone -q --depth=1 {url} shallow")).ok();
    assert_eq!(world.git("git -C shallow rev-list --count HEAD").ok(), "1\n");
    world.git("git -C shallow fetch -q --unshallow").ok();
    assert_eq!(world.git("git -C shallow rev-list --count HEAD").ok(), "2\n");
    world.git(&format!("git clone -q --filter=blob:none --no-checkout {url} partial")).ok();
    let missing = "git -C partial rev-list --objects --missing=print HEAD | grep -c '^?'";
    assert_eq!(world.git(missing).ok(), "2\n");
    world.git("git -C partial checkout -q main").ok();
    assert_eq!(world.git("cat partial/two").ok(), "two\n");
}

#[test]
fn lfs_pointers_pass_as_they_are() {
    let Some(world) = World::new(&[]) else { return };
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    world
        .git(&format!(
            "cd seed-repo && echo '*.bin filter=lfs diff=lfs merge=lfs -text' >.gitattributes
             printf '{}' >x.bin && git add . && git commit -qm lfs && git push -q $UP/repo.git main",
            pointer.replace('\n', "\\n")
        ))
        .ok();
    world.work("git pull -q").ok();
    assert_eq!(world.work("cat x.bin").ok(), pointer);
}

#[test]
fn submodule_of_a_listed_remote_comes_and_another_does_not() {
    let Some(mut world) = World::new(&[]) else { return };
    for name in ["lib", "other"] {
        world.repository(name);
    }
    world.add("lib", "lib", &json!({}));
    world.loaded(|loaded| loaded["generation"] == 2);
    world
        .git(
            "cd seed-repo
             for name in lib other; do
                 git -c protocol.file.allow=always submodule --quiet add $UP/$name.git $name
                 git config -f .gitmodules submodule.$name.url https://forge.example/o/$name
             done
             git commit -qam submodules && git push -q $UP/repo.git main",
        )
        .ok();
    // As bottle-render writes it.
    let rewrite = |name: &str| {
        format!(
            "git config --global url.{}.insteadOf https://forge.example/o/{name}",
            world.url(name)
        )
    };
    world.git(&[rewrite("lib"), rewrite("other")].join("\n")).ok();
    world.work("git pull -q && git submodule --quiet update --init lib").ok();
    assert_eq!(world.work("cat lib/README.md").ok(), "one\n");
    let why = "refused by rule 'remote': 'other' is no remote of this bottle";
    world.work("git submodule --quiet update --init other").fails(why);
}

#[test]
fn many_fetches_at_once_share_what_they_ask_of_upstream() {
    let Some(world) = World::new(&[]) else { return };
    let before =
        std::fs::read_to_string(world.path("sshd.log")).unwrap().matches("Accepted").count();
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| world.git(&format!("git ls-remote -q {}", world.url("origin"))).ok());
        }
    });
    let log = std::fs::read_to_string(world.path("sshd.log")).unwrap();
    let asked = log.matches("Accepted").count() - before;
    assert!((1..12).contains(&asked), "{asked}: {log}");
}

#[test]
fn upstream_that_is_away_is_told_in_its_own_words() {
    let Some(mut world) = World::new(&[]) else { return };
    world.stop_sshd();
    let said = world.work("git fetch").fails("refused by rule 'upstream': upstream: ");
    assert!(said.contains("Connection refused"), "{said}");
    world.restart_sshd();
    world.work("git fetch").ok();
    // A repository that upstream does not have.
    world.add("none", "none", &json!({}));
    world.loaded(|loaded| loaded["generation"] == 2);
    let said = world.git(&format!("git ls-remote {}", world.url("none"))).fails("upstream: ");
    assert!(said.contains("does not appear to be a git repository"), "{said}");
}

#[test]
fn host_key_that_is_not_the_pinned_one_ends_it() {
    let Some(world) = World::new(&[]) else { return };
    world.work("git fetch").ok();
    let other = std::fs::read_to_string(world.path("client.pub")).unwrap();
    let known = format!("[127.0.0.1]:{} {other}", world.ssh_port);
    std::fs::write(world.path("secrets/origin.known_hosts"), known).unwrap();
    world.work("git fetch").fails("Host key verification failed");
    std::fs::write(world.path("secrets/origin.known_hosts"), "").unwrap();
    world.work("git fetch").fails("Host key verification failed");
}
