//! mitmproxy as the engine, `tests/twin`: what is asked of it beyond what all of `serve` asks. Whatever
//! fails in its addon is a refusal.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::origin::Origin;
use crate::support::{Bottle, EGRESS, PLAIN, PROXY, RULES, engine, mitmdump, place, run, until};

/// An addon that is ours with `text` behind it, which may break it.
fn broken(text: &str) -> String {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/mitmproxy");
    format!(
        "import sys\nsys.dont_write_bytecode = True\nsys.path.insert(0, {ours:?})\nimport bottle\n\
         def fails(*_):\n    raise RuntimeError('sabotage')\n{text}\naddons = bottle.addons\n"
    )
}

/// The command with another addon.
fn with_addon(egress: &Command, addon: &str) -> Command {
    let file = std::env::temp_dir().join(format!("bottle-addon-{}.py", unique()));
    std::fs::write(&file, addon).unwrap();
    let mut changed = Command::new(egress.get_program());
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/mitmproxy/bottle.py");
    changed.args(egress.get_args().map(|arg| if arg == ours { file.as_os_str() } else { arg }));
    changed.envs(egress.get_envs().filter_map(|(name, value)| Some((name, value?))));
    changed
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{count}", std::process::id())
}

const HOST: &str = "origin.test:8443";
const UPLOAD: &str = "POST http://origin.test:8080/x HTTP/1.1\r\nhost: origin.test:8080\r\ncontent-length: 4\r\n\r\nbody";

#[test]
fn addon_that_fails_lets_nothing_through() {
    if mitmdump().is_none() {
        return;
    }
    for (sabotage, seen) in [
        // The control: the same addon, whole.
        ("", 2),
        ("bottle.lines = fails", 0),
        ("bottle.change = fails", 0),
        ("bottle.refusal = fails", 0),
        ("bottle.Judge.ask = fails", 0),
        ("bottle.Bottle.client = fails", 0),
        ("bottle.json.dumps = fails", 0),
        // The head may be gone by then, the body is not.
        ("bottle.Judge.ask_about = fails", 1),
        ("del bottle.Bottle.bottle_body", 1),
    ] {
        let bottle = Bottle::prepared(RULES, |egress| {
            // What fails does so once it serves.
            let text = format!(
                "begin = bottle.Bottle.running\nasync def then(self):\n    await begin(self)\n    \
                 exec({sabotage:?}, globals())\nbottle.Bottle.running = then"
            );
            with_addon(&egress, &broken(&text))
        });
        let whole = |e: &mut crate::origin::Exchange<'_>| {
            if e.body().is_some() {
                e.answer("in");
            }
        };
        let (plain, tls) = (bottle.plain_origin(whole), bottle.tls_origin(whole));
        let mut tunnel = bottle.plain();
        let connect = format!("CONNECT {HOST} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        let opened = tunnel.ask_head(&connect).line.contains(" 200");
        if opened {
            let mut tunnel = tunnel.tls(&bottle, "origin.test");
            tunnel.send(format!("GET /x HTTP/1.1\r\nhost: {HOST}\r\n\r\n"));
            let passed = tunnel.answer(false).is_some_and(|answer| answer.status == 200);
            assert_eq!(passed, seen > 0, "{sabotage}: {}", bottle.stderr());
        }
        let mut upload = bottle.plain();
        upload.send(UPLOAD);
        let passed = upload.answer(false).is_some_and(|answer| answer.status == 200);
        assert_eq!(passed, seen == 2, "{sabotage}: {}", bottle.stderr());
        assert_eq!(tls.accepted(), usize::from(seen > 0), "{sabotage}");
        assert!(plain.accepted() <= usize::from(seen > 0), "{sabotage}");
    }
}

#[test]
fn addon_that_cannot_begin_serves_nobody() {
    if mitmdump().is_none() {
        return;
    }
    let bottle = Bottle::start();
    let [first, second, third, last] = bottle.address.octets();
    // Beside the bottle's own, on its folders.
    let address = Ipv4Addr::new(first, second, third, last + 100);
    let begin = |sabotage: &str| {
        let mut egress = with_addon(&engine(&bottle.folder, address), &broken(sabotage));
        egress.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let serves = || TcpStream::connect((address, PROXY)).is_ok();
    for sabotage in ["this is no Python", "bottle.Judge.start = fails", "bottle.JUDGE = '/nowhere'"]
    {
        let mut child = begin(sabotage);
        let ended = until("it ends", || child.try_wait().unwrap());
        assert!(!ended.success() && !serves(), "{sabotage}");
    }
    let mut child = begin("");
    until("it serves", || serves().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn other_addon_that_fails_the_same_way_forwards() {
    let Some(mitmdump) = mitmdump() else { return };
    // Why ours has to fail closed: mitmproxy logs what an addon raises, and goes on.
    let (folder, address) = place();
    std::fs::create_dir_all(&folder).unwrap();
    let addon = folder.join("naive.py");
    let text = "class Naive:\n    def requestheaders(self, flow):\n        raise RuntimeError('no')\naddons = [Naive()]\n";
    std::fs::write(&addon, text).unwrap();
    let origin = Origin::serve(SocketAddr::from((address, PLAIN)), None, |e| e.answer("in"));
    let mut child = Command::new(mitmdump)
        .args(["--quiet", "--mode", &format!("regular@{address}:{PROXY}"), "--scripts"])
        .arg(&addon)
        .args(["--set", &format!("confdir={}", folder.display())])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut stream = until("it serves", || TcpStream::connect((address, PROXY)).ok());
    let request = format!("GET http://{address}:{PLAIN}/x HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    assert!(answer.ends_with("in") && origin.accepted() == 1, "{answer}");
}

#[test]
fn nothing_is_allowed_while_there_is_no_judge() {
    if mitmdump().is_none() {
        return;
    }
    let gate = std::env::temp_dir().join(format!("bottle-gate-{}", unique()));
    let judge = gate.with_extension("sh");
    let text = format!("#!/bin/sh\n[ -e '{}' ] && exec '{EGRESS}' \"$@\"\n", gate.display());
    std::fs::write(&judge, text).unwrap();
    std::fs::set_permissions(&judge, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(&gate, "").unwrap();
    let bottle = Bottle::prepared(RULES, |mut egress| {
        egress.env("BOTTLE_JUDGE", &judge);
        egress
    });
    let origin = bottle.plain_origin(|e| {
        e.body();
        e.answer("in");
    });
    let connect = format!("CONNECT {HOST} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    assert_eq!(bottle.plain().ask(UPLOAD).status, 200);
    std::fs::remove_file(&gate).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", bottle.pid());
    let child = std::fs::read_to_string(children).unwrap();
    run(Command::new("kill").args(["-s", "KILL"]).args(child.split_whitespace()));
    until("it has noticed", || bottle.stderr().contains("the judge has ended").then_some(()));
    for request in [UPLOAD, &connect] {
        let answer = bottle.plain().ask(request);
        assert_eq!((answer.status, answer.header("x-bottle-error")), (503, Some("judge")));
    }
    assert_eq!(origin.accepted(), 1);
    // The control: with it all is as before.
    std::fs::write(&gate, "").unwrap();
    until("the judge is back", || (bottle.plain().ask(UPLOAD).status == 200).then_some(()));
    for file in [gate, judge] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn nothing_is_resolved_or_dialled_before_a_request_is_allowed() {
    if mitmdump().is_none() {
        return;
    }
    let bottle = Bottle::start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    let ask = |host: &str| {
        bottle.plain().ask(&format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\n"))
    };
    for host in ["evil.test:8443", "secret-data.evil.test:443", "origin.test:22", "closed.test:80"]
    {
        assert!(ask(host).denied().is_some(), "{host}");
    }
    let mut tunnel = bottle.tunnel(HOST);
    assert_eq!(tunnel.get("/secret", HOST).denied(), Some("path"));
    assert_eq!((bottle.names.asked(), origin.accepted()), (0, 0));
    assert_eq!(tunnel.get("/x", HOST).status, 200);
    assert!(bottle.names.asked() > 0 && origin.accepted() == 1);
}
