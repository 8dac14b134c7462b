//! Credentials that egress adds: where they go, where they never go, and what becomes of them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bottle::credentials::Standing;

use crate::origin::{Exchange, Origin, Seen};
use crate::support::{Bottle, have, mitmdump, read, run, until};

const VALUE: &str = "s3cr3t/v4lue";

/// One rule for each place, one for the same host without, and another host.
const RULES: &str = "
- {host: origin.test, kind: name, ports: [8080, 8443], paths: [/bearer/**], addresses: [127.0.0.0/8], inject: {secret: token, bearer: true}}
- {host: origin.test, kind: name, ports: [8443], paths: [/basic/**], addresses: [127.0.0.0/8], inject: {secret: token, basic: git}}
- {host: origin.test, kind: name, ports: [8443], paths: [/header/**], addresses: [127.0.0.0/8], inject: {secret: token, header: X-Api-Key}}
- {host: origin.test, kind: name, ports: [8443], paths: [/query/**], addresses: [127.0.0.0/8], inject: {secret: token, query: key}}
- {host: origin.test, kind: name, ports: [8443], paths: [/mask/**], addresses: [127.0.0.0/8], inject: {secret: token, bearer: true, mask: true}}
- {host: origin.test, kind: name, ports: [8443], paths: [/plain/**], addresses: [127.0.0.0/8]}
- {host: closed.test, kind: name, ports: [8080, 8443], addresses: [127.0.0.0/8]}
";

const HOST: &str = "origin.test:8443";

fn start() -> Bottle {
    let bottle = Bottle::with_rules(RULES);
    bottle.give(1, &[("token", VALUE)]);
    bottle
}

/// A request by which the agent sends something of its own in every place.
fn request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Basic Z2l0OnBsYWNlaG9sZGVy\r\n\
         x-api-key: placeholder\r\nx-api-key: placeholder\r\n\r\n"
    )
}

/// Whether anything of the value is in what an origin saw.
fn holds_value(seen: &[Seen]) -> bool {
    let text = format!("{seen:?}");
    [VALUE, "s3cr3t%2Fv4lue", "czNjcjN0L3Y0bHVl", "Z2l0OnMzY3IzdC92NGx1ZQ"]
        .iter()
        .any(|form| text.contains(form))
}

#[test]
fn credential_replaces_what_the_agent_sent_in_its_place_and_nothing_else() {
    let bottle = start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    let mut client = bottle.tunnel(HOST);
    let mut ask = |path: &str| {
        assert_eq!(client.ask(&request(path)).status, 200);
        origin.take().remove(0)
    };
    let headers = |seen: &Seen| {
        let named = |of: &str| {
            let all = seen.headers.iter().filter(|(name, _)| name == of);
            all.map(|(_, value)| value.clone()).collect::<Vec<_>>().join(" & ")
        };
        (named("authorization"), named("x-api-key"))
    };
    let placeholder = ("Basic Z2l0OnBsYWNlaG9sZGVy", "placeholder & placeholder");
    let owned = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
    let bearer = "Bearer s3cr3t/v4lue";
    assert_eq!(headers(&ask("/bearer/x")), owned((bearer, placeholder.1)));
    assert_eq!(headers(&ask("/basic/x")), owned(("Basic Z2l0OnMzY3IzdC92NGx1ZQ==", placeholder.1)));
    assert_eq!(headers(&ask("/header/x")), owned((placeholder.0, VALUE)));
    let seen = ask("/query/x?a=1&k%65y=mine&b=2");
    assert_eq!(seen.line, "GET /query/x?a=1&b=2&key=s3cr3t%2Fv4lue HTTP/1.1");
    assert_eq!(headers(&seen), owned(placeholder));
    // The control: a rule without it.
    let seen = ask("/plain/x?key=mine");
    assert_eq!(headers(&seen), owned(placeholder));
    assert!(!holds_value(&[seen]));
    // What is written down holds the path alone.
    bottle.decisions(5);
    assert!(!read(&bottle.folder, "run/decisions.jsonl").contains("s3cr3t"));
    assert!(!read(&bottle.folder, "run/secrets.json").contains("s3cr3t"));
    assert_eq!(bottle.stderr(), "");
}

#[test]
fn credential_never_goes_to_a_host_that_is_not_its_own() {
    let bottle = start();
    let origin = bottle.tls_origin(|e| {
        if e.seen.line.contains("/bearer/away") {
            return e.send(
                "HTTP/1.1 302 Found\r\nlocation: https://closed.test:8443/bearer/x\r\ncontent-length: 0\r\n\r\n",
            );
        }
        e.answer("in");
    });
    // The other host has every right, and gets nothing: not by its own name,
    let get = |host: &str| format!("GET /bearer/x HTTP/1.1\r\nhost: {host}\r\n\r\n");
    assert_eq!(bottle.tunnel("closed.test:8443").ask(&get("closed.test:8443")).status, 200);
    assert_eq!(origin.seen().len(), 1);
    assert!(!holds_value(&origin.take()));
    // nor by a Host of the one that has a credential, nor by its server name, nor in absolute form.
    let mut spoofed = bottle.tunnel("closed.test:8443");
    assert_eq!(spoofed.ask(&get(HOST)).denied(), Some("host-mismatch"));
    let mut spoofed =
        crate::client::Client::connect(&bottle, "closed.test:8443").tls(&bottle, "origin.test");
    assert_eq!(spoofed.ask(&get(HOST)).denied(), Some("host-mismatch"));
    let mut spoofed = bottle.tunnel("closed.test:8443");
    let absolute =
        "GET https://origin.test:8443/bearer/x HTTP/1.1\r\nhost: closed.test:8443\r\n\r\n";
    assert_eq!(spoofed.ask(absolute).denied(), Some("host-mismatch"));
    assert!(origin.take().is_empty());
    // A redirect is the client's next request.
    let output = bottle.curl(&["--location", "https://origin.test:8443/bearer/away"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in", "{output:?}");
    let seen = origin.take();
    assert_eq!(seen.len(), 2);
    assert!(holds_value(&seen[..1]) && !holds_value(&seen[1..]), "{seen:#?}");
}

#[test]
fn credential_is_added_inside_tls_only() {
    let bottle = start();
    let origin = bottle.plain_origin(|e| e.answer("in"));
    let ask = |host: &str| {
        bottle.plain().ask(&format!("GET http://{host}/bearer/x HTTP/1.1\r\nhost: {host}\r\n\r\n"))
    };
    let refused = ask("origin.test:8080");
    assert_eq!(refused.denied(), Some("scheme"));
    assert!(refused.body.contains("a credential is added inside TLS only"), "{}", refused.body);
    assert!(origin.take().is_empty());
    // The control: the same server and port, by a rule without.
    assert_eq!(ask("closed.test:8080").status, 200);
    assert!(!holds_value(&origin.take()));
}

#[test]
fn missing_or_expired_secret_closes_its_routes_and_says_how_to_mend_it() {
    let bottle = Bottle::with_rules(RULES);
    let origin = bottle.tls_origin(|e| {
        if e.seen.line.contains("refuse") {
            return e.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        }
        e.answer("in");
    });
    let told = |wanted: Standing| {
        until("it is told", || bottle.secrets().filter(|told| told.secrets["token"] == wanted))
    };
    let mut client = bottle.tunnel(HOST);
    assert_eq!(told(Standing::Missing).generation, 0);
    let refused = client.ask(&request("/bearer/x"));
    assert_eq!(refused.denied(), Some("secret"));
    assert!(
        refused.body.contains("secret 'token', which the rule adds, is missing")
            && refused.body.contains("runs 'bottle-apply --refresh-secrets demo'"),
        "{}",
        refused.body
    );
    assert!(origin.take().is_empty());
    // Other routes stay open.
    assert_eq!(client.ask(&request("/plain/x")).status, 200);

    bottle.give(1, &[("token", VALUE)]);
    assert!(!told(Standing::Good).is_due());
    assert_eq!(client.ask(&request("/bearer/x")).status, 200);
    // The server's word counts too, and the client gets it.
    assert_eq!(client.ask(&request("/bearer/refuse")).status, 401);
    assert!(told(Standing::Refused).is_due());

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    bottle.give(2, &[("token", &token(now + 30))]);
    told(Standing::Expiring);
    assert_eq!(client.ask(&request("/bearer/x")).status, 200);
    bottle.give(3, &[("token", &token(now - 1))]);
    told(Standing::Expired);
    origin.take();
    let refused = client.ask(&request("/bearer/x"));
    assert_eq!(refused.denied(), Some("secret"));
    assert!(refused.body.contains("has expired"), "{}", refused.body);
    assert!(origin.take().is_empty());
    // A file that is gone holds nothing.
    bottle.give(4, &[("token", VALUE)]);
    assert_eq!(client.ask(&request("/bearer/x")).status, 200);
    std::fs::remove_file(bottle.folder.join("secrets/secrets.json")).unwrap();
    bottle.signal("HUP");
    told(Standing::Missing);
    assert_eq!(client.ask(&request("/bearer/x")).denied(), Some("secret"));
}

/// A JSON Web Token that ends then.
fn token(end: u64) -> String {
    let claims = format!("{{\"exp\":{end:>12}}}");
    let mut child = Command::new("base64")
        .args(["-w0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(claims.as_bytes()).unwrap();
    let claims = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    format!("eyJhbGciOiJub25lIn0.{}.x", claims.trim_end_matches('='))
}

#[test]
fn broken_file_of_secrets_changes_nothing_and_is_told_without_a_value() {
    let bottle = start();
    let origin = bottle.tls_origin(|e| e.answer("in"));
    let whole = read(&bottle.folder, "secrets/secrets.json");
    // Whole at once: an empty file means that there are none.
    let put = |text: &str| {
        let new = bottle.folder.join("secrets/.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, bottle.folder.join("secrets/secrets.json")).unwrap();
    };
    for broken in [&whole[..whole.len() - 2], "{\"s3cr3t/v4lue\":1}", "s3cr3t/v4lue"] {
        put(broken);
        bottle.signal("HUP");
        let told = until("it is told", || bottle.secrets().filter(|told| told.refused.is_some()));
        assert_eq!((told.generation, told.secrets["token"]), (1, Standing::Good));
        assert!(!read(&bottle.folder, "run/secrets.json").contains("s3cr3t"));
        put(&whole);
        bottle.signal("HUP");
        until("it is whole", || bottle.secrets().filter(|told| told.refused.is_none()));
    }
    assert_eq!(bottle.tunnel(HOST).ask(&request("/bearer/x")).status, 200);
    assert!(holds_value(&origin.seen()));
    assert!(!bottle.stderr().contains("s3cr3t"));
}

#[test]
fn echo_of_a_credential_is_masked_where_the_rule_says_so() {
    let bottle = start();
    let echo = |e: &mut Exchange<'_>| {
        let auth = e.seen.header("authorization").unwrap_or_default().to_owned();
        let (start, end) = auth.split_at(12);
        e.send(&format!(
            "HTTP/1.1 200 OK\r\nx-echo: {auth}\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n\
             {:x}\r\n{start}\r\n",
            start.len()
        ));
        std::thread::sleep(std::time::Duration::from_millis(50));
        e.send(&format!("{:x}\r\n{end}\r\n3\r\n s3\r\n0\r\nx-end: {auth}\r\n\r\n", end.len()));
    };
    let origin = bottle.tls_origin(move |e| match e.seen.line.split(' ').nth(1).unwrap() {
        "/mask/gzip" => e.send(
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x0b00",
        ),
        "/mask/length" => e.answer("you sent s3cr3t/v4lue, did you"),
        _ => echo(e),
    });
    let mut client = bottle.tunnel(HOST);
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: {HOST}\r\naccept-encoding: gzip\r\nrange: bytes=3-\r\nte: trailers\r\n\r\n"
        )
    };
    let head = client.ask_head(&ask("/mask/x"));
    assert_eq!(head.header("x-echo"), Some("Bearer ************"));
    let mut body = Vec::new();
    while let Some(chunk) = client.chunk().filter(|chunk| !chunk.is_empty()) {
        body.extend(chunk);
    }
    assert_eq!(String::from_utf8(body).unwrap(), "Bearer ************ s3");
    // mitmproxy passes trailers in HTTP/2 only.
    if mitmdump().is_none() {
        assert_eq!(client.line().unwrap(), "x-end: Bearer ************");
    }
    assert_eq!(client.line().unwrap(), "");
    let seen = origin.take().remove(0);
    assert_eq!((seen.header("accept-encoding"), seen.header("range")), (Some("identity"), None));
    let answer = client.ask(&ask("/mask/length"));
    assert_eq!(answer.body, "you sent ************, did you");
    assert_eq!(answer.header("content-length"), Some("30"));
    // What cannot be searched does not pass.
    let answer = bottle.tunnel(HOST).ask(&ask("/mask/gzip"));
    assert_eq!((answer.status, answer.header("x-bottle-error")), (502, Some("mask")));
    let upgrade =
        ask("/mask/x").replace("te: trailers", "connection: upgrade\r\nupgrade: websocket");
    assert_eq!(bottle.tunnel(HOST).ask(&upgrade).denied(), Some("upgrade"));
    // The control: without it the echo passes.
    let mut client = bottle.tunnel(HOST);
    let answer = client.ask(&ask("/bearer/x"));
    assert_eq!(answer.body, format!("Bearer {VALUE} s3"));
    assert_eq!(answer.header("x-echo"), Some("Bearer s3cr3t/v4lue"));
}

/// git's own server, as CGI, for those who send the right password.
fn smart(e: &mut Exchange<'_>, repositories: &Path, dance: &AtomicBool) {
    let authorised = e.seen.header("authorization") == Some("Basic Z2l0OnMzY3IzdC92NGx1ZQ==");
    let body = e.body().unwrap_or_default();
    // Some servers ask once whatever they were sent.
    if !authorised || dance.swap(false, Ordering::Relaxed) {
        return e.send(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic realm=\"git\"\r\ncontent-length: 0\r\n\r\n",
        );
    }
    let mut words = e.seen.line.split(' ');
    let (method, uri) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let header = |name: &str| e.seen.header(name).unwrap_or_default().to_owned();
    let mut cgi = Command::new("git")
        .arg("http-backend")
        .envs([
            ("GIT_PROJECT_ROOT", repositories.to_str().unwrap()),
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("REMOTE_USER", "git"),
            ("REQUEST_METHOD", method),
            ("PATH_INFO", path.trim_start_matches("/basic").trim_start_matches("/plain")),
            ("QUERY_STRING", query),
            ("CONTENT_TYPE", &header("content-type")),
            ("HTTP_CONTENT_ENCODING", &header("content-encoding")),
            ("HTTP_GIT_PROTOCOL", &header("git-protocol")),
            ("CONTENT_LENGTH", &body.len().to_string()),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = cgi.stdin.take().unwrap();
    std::thread::spawn(move || stdin.write_all(&body));
    let output = cgi.wait_with_output().unwrap().stdout;
    let at = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output[..at]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: "));
    let rest: Vec<&str> = head.lines().filter(|line| !line.starts_with("Status: ")).collect();
    let body = &output[at + 4..];
    let mut answer = format!(
        "HTTP/1.1 {}\r\n{}\r\ncontent-length: {}\r\n\r\n",
        status.unwrap_or("200 OK"),
        rest.join("\r\n"),
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    let stream = e.stream.get_mut();
    let _ = stream.write_all(&answer).and_then(|()| stream.flush());
}

/// git as the agent has it: the proxy, its CA, and no credential.
fn git(bottle: &Bottle, args: &[&str]) -> std::process::Output {
    let proxy = format!("http://{}", bottle.proxy());
    run(Command::new("git")
        .args(["-c", "user.name=x", "-c", "user.email=x@y"])
        .args(args)
        .current_dir(&bottle.folder)
        .env("https_proxy", proxy)
        .env("GIT_SSL_CAINFO", bottle.folder.join("conf/ca.pem"))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_ASKPASS"))
}

fn repositories(bottle: &Bottle, dance: &Arc<AtomicBool>) -> Option<Origin> {
    if !have("git") {
        return None;
    }
    let made =
        git(bottle, &["init", "--quiet", "--bare", "--initial-branch=main", "repos/one.git"]);
    assert!(made.status.success(), "{made:?}");
    let set = ["-C", "repos/one.git", "config", "http.receivepack", "true"];
    assert!(git(bottle, &set).status.success());
    let (folder, dance) = (bottle.folder.join("repos"), dance.clone());
    Some(bottle.tls_origin(move |e| smart(e, &folder, &dance)))
}

#[track_caller]
fn works(bottle: &Bottle, args: &[&str]) {
    let output = git(bottle, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn git_clones_and_pushes_with_nothing_in_the_agents_hands() {
    let bottle = start();
    let dance = Arc::new(AtomicBool::new(false));
    let Some(origin) = repositories(&bottle, &dance) else { return };
    let url = format!("https://{HOST}/basic/one.git");
    works(&bottle, &["clone", "--quiet", &url, "mine"]);
    // More than the megabyte from which git sends chunks, and something that it gzips.
    let noise: Vec<u8> =
        (0..1_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(bottle.folder.join("mine/file"), noise).unwrap();
    works(&bottle, &["-C", "mine", "add", "."]);
    works(&bottle, &["-C", "mine", "commit", "--quiet", "-m", "one"]);
    works(&bottle, &["-C", "mine", "push", "--quiet", "origin", "HEAD:main"]);
    works(&bottle, &["clone", "--quiet", &url, "again"]);
    assert_eq!(
        std::fs::read(bottle.folder.join("again/file")).unwrap(),
        std::fs::read(bottle.folder.join("mine/file")).unwrap()
    );
    // egress has answered before git was ever asked: no request came without a password.
    assert!(origin.seen().iter().all(|seen| holds_value(std::slice::from_ref(seen))));
    // Nothing of it came back.
    let found = run(Command::new("grep").args(["-rlE", "s3cr3t|czNjcjN0"]).args([
        bottle.folder.join("mine"),
        bottle.folder.join("again"),
        bottle.folder.join("run"),
    ]));
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    // The control: without the rule's credential the same server refuses.
    let refused = git(&bottle, &["clone", "--quiet", &url.replace("basic", "plain"), "other"]);
    assert!(!refused.status.success());
}

#[test]
fn placeholder_inside_basic_is_replaced_in_a_dance_of_401() {
    let bottle = start();
    let dance = Arc::new(AtomicBool::new(true));
    let Some(origin) = repositories(&bottle, &dance) else { return };
    let url = format!("https://{HOST}/basic/one.git");
    let helper = "credential.helper=!f() { echo username=x; echo password=placeholder; }; f";
    works(&bottle, &["-c", helper, "clone", "--quiet", &url, "mine"]);
    // The first one was asked for a password all the same, and git then sent its placeholder.
    assert!(origin.take().len() >= 2 && !dance.load(Ordering::Relaxed));
    let in_url = url.replace("https://", "https://x:placeholder@");
    works(&bottle, &["clone", "--quiet", &in_url, "again"]);
    assert!(origin.take().iter().all(|seen| holds_value(std::slice::from_ref(seen))));
    // Where no rule adds anything, the placeholder is all that the server gets.
    let other = url.replace("basic", "plain");
    assert!(!git(&bottle, &["-c", helper, "clone", "--quiet", &other, "other"]).status.success());
    let seen = origin.take();
    assert!(
        seen.iter().any(|seen| seen.header("authorization") == Some("Basic eDpwbGFjZWhvbGRlcg=="))
    );
    assert!(!holds_value(&seen));
}
