//! What an agent might try. Each attempt fails, and beside it something like it succeeds.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::World;

const AGENT: &[&str] = &["refs/heads/agent/*", "refs/heads/**"];

/// Sends bytes to the gate, and gives what it answers until it hangs up.
fn send(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    // A cut connection is an answer too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn pkt(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

#[test]
fn path_traversal_in_the_name_is_refused() {
    let Some(world) = World::new(AGENT) else { return };
    world.repository("secret");
    let data = world.path("data").display().to_string();
    let up = world.path("up").display().to_string();
    for name in [
        "../up/secret.git",
        "..",
        ".",
        "/",
        "",
        "origin/../origin",
        "origin/../../up/secret.git",
        "~root",
        "origin.git",
        "origin/",
        "./origin",
        "%2e%2e/up/secret.git",
        "origin\0",
        &format!("{up}/secret.git"),
        &format!("{data}/origin"),
        "--upload-pack=id",
        "ORIGIN",
    ] {
        for service in ["git-upload-pack", "git-receive-pack"] {
            let answer = send(&world, &pkt(&format!("{service} /{name}\0host=x\0")));
            assert!(answer.contains("ERR bottle: refused by rule '"), "{name}: {answer}");
        }
    }
    // git itself, with a name that it takes.
    world
        .git(&format!("git ls-remote git://127.0.0.1:{}/../up/secret.git", world.port))
        .fails("refused by rule");
    world.git(&format!("git ls-remote {}", world.url("origin"))).ok();
    let answer = send(&world, &pkt("git-upload-pack /origin\0host=x\0"));
    assert!(answer.contains("refs/heads/main"), "{answer}");
}

#[test]
fn another_repository_of_the_same_host_is_out_of_reach() {
    let Some(world) = World::new(AGENT) else { return };
    world.repository("other");
    let refused = world.git(&format!("git ls-remote {}", world.url("other")));
    refused.fails("refused by rule 'remote': 'other' is no remote of this bottle");
    // The gate could go there: the same key opens it.
    let direct = format!(
        "GIT_SSH_COMMAND='ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={}' git ls-remote {}",
        world.path("client").display(),
        world.path("known_hosts").display(),
        world.upstream("other")
    );
    assert!(world.git(&direct).ok().contains("refs/heads/main"));
}

#[test]
fn malformed_first_message_is_refused_and_the_gate_goes_on() {
    let Some(world) = World::new(AGENT) else { return };
    for bytes in [
        &b"0000"[..],
        b"0001",
        b"0004",
        b"ffff",
        b"zzzz",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"0032git-upload-pack /origin\0host=x",
        b"003agit-upload-pack /origin\0host=x\0\0version=2\0xxxxxxxxxxxx",
        b"0027git-upload-archive /origin\0host=x\0",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("ERR bottle: refused by rule 'protocol'"), "{bytes:?}: {answer}");
    }
    // Nor does what comes after it move git to anything.
    for bytes in [&b"zzzz"[..], b"0003", b"0009done\n", b"fff0aaaa"] {
        for service in ["git-upload-pack", "git-receive-pack"] {
            let first = pkt(&format!("{service} /origin\0host=x\0"));
            let answer = send(&world, &[&first[..], bytes].concat());
            assert!(
                answer.contains("refs/heads/main") && !answer.contains("unpack ok"),
                "{answer}"
            );
        }
    }
    world.git(&format!("git ls-remote {}", world.url("origin"))).ok();
}

#[test]
fn first_message_that_does_not_come_holds_nobody_up() {
    let Some(world) = World::new(AGENT) else { return };
    let mut idle: Vec<TcpStream> =
        (0..31).map(|_| TcpStream::connect(("127.0.0.1", world.port)).unwrap()).collect();
    world.git(&format!("git ls-remote {}", world.url("origin"))).ok();
    // Drop by drop it does not come either.
    let begun = Instant::now();
    let mut slow = idle.pop().unwrap();
    let mut ended = false;
    for byte in pkt("git-upload-pack /origin\0host=x\0") {
        if slow.write_all(&[byte]).is_err() || begun.elapsed() > Duration::from_mins(1) {
            ended = true;
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let mut answer = String::new();
    let _ = slow.read_to_string(&mut answer);
    assert!(ended || answer.is_empty() || answer.contains("it does not come"), "{answer}");
    assert!(!answer.contains("refs/heads/main"));
}

#[test]
fn no_trick_with_names_of_refs_gets_through() {
    let Some(world) = World::new(AGENT) else { return };
    let before = world.refs();
    world.work("echo x >x && git add . && git commit -qm x").ok();
    for name in [
        "refs/replace/0123456789012345678901234567890123456789",
        "refs/notes/commits",
        "refs/notes/heads/agent/x",
        "refs/bottle/x",
        "refs/pull/1/head",
        "refs/remotes/origin/agent/x",
        "refs/stash",
        "refs/meta/config",
    ] {
        let said = world.work(&format!("git push origin HEAD:{name}"));
        assert!(!said.ok, "{name}: {}", said.said);
        assert!(
            said.said.contains("rule 'push'") || said.said.contains("deny updating a hidden ref"),
            "{}",
            said.said
        );
    }
    // Names that git's own client would not send.
    let id = world.work("git rev-parse HEAD").ok();
    let zero = "0".repeat(40);
    for name in [
        "refs/heads/../replace/x",
        "refs/heads/agent/../../../hooks/post-receive",
        "objects/info/alternates",
        "HEAD",
        "config",
        "refs/heads/x.lock",
    ] {
        let first = pkt("git-receive-pack /origin\0host=x\0");
        let line = pkt(&format!("{zero} {} {name}\0 report-status atomic", id.trim()));
        let pack = world.path("home/pack");
        world.work("git rev-list --objects HEAD | git pack-objects -q --stdout >../pack").ok();
        let bytes = [&first[..], &line, b"0000", &fs::read(pack).unwrap()].concat();
        let answer = send(&world, &bytes);
        assert!(!answer.contains(&format!("ok {name}")), "{name}: {answer}");
    }
    assert_eq!(world.refs(), before);
    assert_eq!(world.mirrored(), before);
    let mirror = fs::read_dir(world.path("data")).unwrap().flatten();
    let mirror = mirror
        .map(|it| it.path())
        .find(|path| path.extension().is_some_and(|e| e == "git"))
        .unwrap();
    assert!(!mirror.join("objects/info/alternates").exists() && !mirror.join("hooks").exists());
    // The control: the same bytes with a good name.
    let line = pkt(&format!("{zero} {} refs/heads/agent/raw\0 report-status atomic", id.trim()));
    let pack = fs::read(world.path("home/pack")).unwrap();
    let answer = send(
        &world,
        &[&pkt("git-receive-pack /origin\0host=x\0")[..], &line, b"0000", &pack].concat(),
    );
    assert!(answer.contains("ok refs/heads/agent/raw"), "{answer}");
}

#[test]
fn push_to_main_is_refused_where_only_agents_branches_are_allowed() {
    let Some(world) = World::new(&["refs/heads/agent/*"]) else { return };
    world.work("echo x >x && git add . && git commit -qm x").ok();
    world
        .work("git push origin HEAD:main")
        .fails("rule 'push': 'refs/heads/main' is none of 'refs/heads/agent/*'");
    world.work("git push -q origin HEAD:agent/x").ok();
}

#[test]
fn ref_that_is_no_commit_is_refused() {
    let Some(world) = World::new(&["refs/tags/*"]) else { return };
    world
        .work("git tag blob $(echo x | git hash-object -w --stdin) && git push origin blob")
        .fails("rule 'object'");
    world.work("git tag tree HEAD^{tree} && git push origin tree").fails("rule 'object'");
    world.work("git tag commit && git push -q origin commit").ok();
}

#[test]
fn no_hook_or_configuration_of_what_is_pushed_runs() {
    let Some(world) = World::new(AGENT) else { return };
    let mark = world.path("ran");
    let script = format!("#!/bin/sh\ntouch {}\n", mark.display());
    // As a repository within the repository, and as git's own names in a tree.
    world
        .work(&format!(
            "mkdir -p hooks objects refs && printf '{}' >hooks/pre-receive && cp hooks/pre-receive hooks/post-receive && chmod +x hooks/*
             printf '[core]\\n\\thooksPath = hooks\\n\\tsshCommand = touch {}\\n[uploadpack]\\n\\tpackObjectsHook = touch {1}\\n' >config
             echo 'ref: refs/heads/main' >HEAD && echo x >objects/x && echo x >refs/x
             printf '[alias]\\n\\tx = !touch {1}\\n' >.gitconfig && printf '* filter=x diff=x\\n' >.gitattributes
             git add -A && git commit -qm x && git push -q origin HEAD:agent/x",
            script.replace('\n', "\\n"),
            mark.display()
        ))
        .ok();
    world.git(&format!("git clone -q {} again", world.url("origin"))).ok();
    assert!(!mark.exists());
    let tree = |name: &str| {
        format!(
            "git reset -q --hard origin/main
             blob=$(git hash-object -w --stdin </dev/null)
             inner=$(printf '100755 blob %s\\tpre-receive\\n' $blob | git mktree)
             tree=$(printf '040000 tree %s\\t{name}\\n' $inner | git mktree)
             git reset -q --soft $(git commit-tree $tree -p HEAD -m x) && git push origin HEAD:agent/y"
        )
    };
    for name in [".git", ".GIT", "git~1", ".g\\342\\200\\214it"] {
        let said = world.work(&tree(name));
        assert!(!said.ok && said.said.contains("fsck"), "{name}: {}", said.said);
    }
    world.work(&tree("git")).ok();
    // The environment of a push is not the agent's either.
    world
        .work("git -c push.pushOption=x push origin HEAD:agent/z")
        .fails("does not support push options");
}

#[test]
fn pack_of_two_gibibytes_is_cut_off_where_the_limit_is() {
    let Some(world) = World::new(AGENT) else { return };
    let before = world.refs();
    let zero = "0".repeat(40);
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    stream.write_all(&pkt("git-receive-pack /origin\0host=x\0")).unwrap();
    stream
        .write_all(&pkt(&format!("{zero} {} refs/heads/agent/x\0 report-status", "1".repeat(40))))
        .unwrap();
    // A pack with one blob of 2 GiB, stored and not deflated: stored blocks of zeros.
    let mut head = b"0000PACK\0\0\0\x02\0\0\0\x01".to_vec();
    head.extend_from_slice(&[0xb0, 0x80, 0x80, 0x80, 0x40, 0x78, 0x01]);
    stream.write_all(&head).unwrap();
    let mut block = vec![0x00, 0xff, 0xff, 0x00, 0x00];
    block.resize(5 + 0xffff, 0);
    let mut sent = 0_u64;
    while sent < 2 << 30 {
        if stream.write_all(&block).is_err() {
            break;
        }
        sent += block.len() as u64;
    }
    assert!(sent < 600 << 20, "{sent} bytes were taken");
    drop(stream);
    let end = Instant::now() + Duration::from_secs(30);
    while !world.leftovers().is_empty() {
        assert!(Instant::now() < end, "{:?}", world.leftovers());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(world.refs(), before);
    world
        .work("echo x >x && git add . && git commit -qm x && git push -q origin HEAD:agent/x")
        .ok();
}

#[test]
fn push_while_the_gate_restarts_is_whole_or_not_at_all() {
    let Some(mut world) = World::new(AGENT) else { return };
    world.work("for n in $(seq 50); do head -c 20000 /dev/urandom >f$n; done; git add . && git commit -qm x").ok();
    let mut whole = 0;
    // From before it has begun until after it is done.
    for wait in (0..1600).step_by(160) {
        let before = world.refs();
        let id = world.work("git commit -q --allow-empty -m y && git rev-parse HEAD").ok();
        let push = Command::new("git")
            .args(["push", "-q", "origin", "HEAD:agent/x"])
            .current_dir(world.path("home/work"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut push = push.unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        world.kill();
        let took = push.wait().unwrap().success();
        world.gate();
        let after = world.refs();
        let there = after.contains(&format!("refs/heads/agent/x {}", id.trim()));
        // Success means that upstream has it; without, upstream may have it, but never a part.
        assert!(there || !took, "{wait}");
        assert!(there || after == before, "{wait}: {after}");
        whole += u32::from(took);
        world.work("git fetch -q").ok();
        assert_eq!(world.refs(), world.mirrored());
        world.git("git --git-dir=$UP/repo.git fsck --full --strict").ok();
    }
    world.work("git push origin HEAD:agent/x").ok();
    assert_eq!(world.leftovers(), Vec::<String>::new());
    println!("{whole} of 10 were done before");
}

#[test]
fn one_push_of_a_repository_at_a_time_and_none_is_lost() {
    let Some(world) = World::new(AGENT) else { return };
    for n in 0..6 {
        world
            .git(&format!("git clone -q {} w{n} && cd w{n} && echo {n} >f{n} && git add . && git commit -qm {n}", world.url("origin")))
            .ok();
    }
    std::thread::scope(|scope| {
        for n in 0..6 {
            let world = &world;
            scope.spawn(move || {
                world.git(&format!("cd w{n} && git push -q origin HEAD:agent/p{n}")).ok()
            });
        }
    });
    let refs = world.refs();
    assert!((0..6).all(|n| refs.contains(&format!("refs/heads/agent/p{n} "))), "{refs}");
    assert_eq!(refs, world.mirrored());
    // Of two for one branch one is refused, and upstream has the other.
    let both: Vec<bool> = std::thread::scope(|scope| {
        let push = |n: u32| {
            let world = &world;
            scope.spawn(move || {
                world.git(&format!("cd w{n} && git push -q origin HEAD:agent/one")).ok
            })
        };
        let pushes = [push(0), push(1)];
        pushes.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(both.iter().filter(|took| **took).count(), 1, "{both:?}");
}
