//! The trust matrix: real clients, in a bottle made of a real Debian, fetch from an intercepted site
//! with verification on and no flags, by nothing but what `bottle-render` sets. The control for each
//! is the same call without bottle's certificates, which has to fail.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::manifest::Manifest;
use crate::common::{Tool, root, skip};
use crate::support::{Bottle, docker, images};

/// What the site is called.
const SITE: &str = "site.example.test";

/// A client's call in the agent's shell, and the last line of what it prints; `$SITE` is set.
struct Client {
    name: &'static str,
    call: &'static str,
    says: &'static str,
    /// Takes bottle's certificates away from it.
    without: &'static str,
}

const CLIENTS: [Client; 11] = [
    Client {
        name: "curl",
        call: "curl -sSf https://$SITE/hello",
        says: "hello",
        without: "unset CURL_CA_BUNDLE SSL_CERT_FILE",
    },
    Client {
        name: "git",
        call: "cd $(mktemp -d) && git clone -q https://$SITE/repo.git && git -C repo log --format=%s",
        says: "hello",
        without: "unset GIT_SSL_CAINFO SSL_CERT_FILE CURL_CA_BUNDLE",
    },
    Client {
        name: "requests",
        call: "python3 -c 'import os, requests; print(requests.get(\"https://\" + os.environ[\"SITE\"] + \"/hello\").text, end=\"\")'",
        says: "hello",
        without: "unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE",
    },
    Client {
        name: "httpx",
        call: "python3 -c 'import os, httpx; print(httpx.get(\"https://\" + os.environ[\"SITE\"] + \"/hello\").text, end=\"\")'",
        says: "hello",
        without: "unset SSL_CERT_FILE",
    },
    Client {
        name: "urllib",
        call: "python3 -c 'import os, urllib.request as u; print(u.urlopen(\"https://\" + os.environ[\"SITE\"] + \"/hello\").read().decode(), end=\"\")'",
        says: "hello",
        without: "unset SSL_CERT_FILE",
    },
    Client {
        name: "pip",
        call: "cd $(mktemp -d) && python3 -m pip download --retries 0 --no-deps --index-url https://$SITE/simple tiny && ls",
        says: "tiny-1.0-py3-none-any.whl",
        without: "unset PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE",
    },
    Client {
        name: "node's fetch",
        call: "node -e 'fetch(`https://${process.env.SITE}/hello`).then((a) => a.text()).then((text) => process.stdout.write(text))'",
        says: "hello",
        without: "unset NODE_EXTRA_CA_CERTS SSL_CERT_FILE",
    },
    Client {
        name: "node's https",
        call: "node -e 'require(`https`).get(`https://${process.env.SITE}/hello`, (a) => a.pipe(process.stdout))'",
        says: "hello",
        without: "unset NODE_EXTRA_CA_CERTS SSL_CERT_FILE",
    },
    Client {
        name: "cargo",
        call: "export CARGO_HOME=$(mktemp -d) CARGO_NET_RETRY=0 RUSTC=/opt/rust/bin/rustc CARGO_REGISTRIES_SITE_INDEX=sparse+https://$SITE/index/ \
               && cd $(mktemp -d) && mkdir src && : > src/lib.rs \
               && printf '[package]\\nname = \"x\"\\nversion = \"0.0.0\"\\n[dependencies]\\ntiny = { version = \"1\", registry = \"site\" }\\n' > Cargo.toml \
               && /opt/rust/bin/cargo fetch -q && ls $CARGO_HOME/registry/src/*",
        says: "tiny-1.0.0",
        without: "unset CARGO_HTTP_CAINFO SSL_CERT_FILE CURL_CA_BUNDLE",
    },
    Client {
        name: "go",
        call: "/opt/clients/go-fetch https://$SITE/hello",
        says: "hello",
        without: "unset SSL_CERT_FILE",
    },
    Client {
        name: "java",
        call: "java -cp /opt/clients Fetch https://$SITE/hello 2>&1",
        says: "hello",
        without: "export JAVA_TOOL_OPTIONS=\"$(echo \"$JAVA_TOOL_OPTIONS\" | sed 's/-Djavax[^ ]*//g')\"",
    },
];

#[test]
fn every_client_trusts_what_egress_shows_it() {
    if !images() {
        return;
    }
    let Some(debian) = debian() else { return };
    let bottle = Bottle::new(&Manifest::new());
    let Some(clients) = compiled(&bottle) else { return };
    let site = Site::start(&bottle, &debian);
    let rust = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let rust = String::from_utf8(rust.stdout).unwrap().trim().to_owned();
    let mount = |source: &str, target: &str| json!({ "source": source, "target": target, "read_only": true });
    let manifest = Manifest::new()
        .image(&debian)
        .route(json!({ "host": SITE, "addresses": [bottle.pool()] }))
        .set("bottles.dev.egress.ca_certificates", json!(["site.pem"]))
        .set("bottles.dev.env.SITE", SITE)
        .set(
            "bottles.dev.mounts",
            json!([mount(&rust, "/opt/rust"), mount(&clients, "/opt/clients")]),
        );
    bottle.file("bottle.yaml", manifest.text());
    let chosen = bottle.sh("bottle-plan implementer | bottle-net").run().ok();
    site.join(&serde_json::from_str(&chosen).unwrap());
    bottle.sh("bottle-render | bottle-up").stdin(&chosen).run().ok();
    let mut wrong = Vec::new();
    for client in &CLIENTS {
        let run = bottle.exec(&["sh", "-c", client.call]);
        if run.status != 0 || run.stdout.lines().next_back() != Some(client.says) {
            wrong.push(format!("{} fails:\n{}", client.name, run.report()));
        }
        // The control fails for its certificates, and not because nothing could be reached.
        let run = bottle.exec(&["sh", "-c", &format!("{}; {}", client.without, client.call)]);
        let said = format!("{}{}", run.stdout, run.stderr).to_lowercase();
        if run.status == 0 || !said.contains("certif") {
            wrong.push(format!("{} without our roots:\n{}", client.name, run.report()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What was tunnelled would have no path: what they trusted was shown to them by egress.
    let journal = bottle.state().join("implementer/egress/run/decisions.jsonl");
    let journal = fs::read_to_string(journal).unwrap();
    for (path, times) in
        [("/hello", 9), ("/repo.git/info/refs", 1), ("/simple/tiny/", 1), ("/index/config.json", 1)]
    {
        let path = format!("\"path\":\"{path}\"");
        let seen = journal.lines().filter(|line| line.contains(&path)).count();
        assert!(seen >= times, "{path} is seen {seen} times:\n{journal}");
    }
    drop(site);
}

/// The image of Debian; made where it is not there, which takes a minute or two.
pub(crate) fn debian() -> Option<String> {
    let packages = fs::read_to_string(root().join("tests/fixtures/trust/packages")).unwrap();
    let made = Tool::new(&root().join("scripts/debian")).args(packages.split_whitespace()).run();
    if made.status != 0 {
        skip(&format!("there is no Debian: {}", made.stderr.trim()));
        return None;
    }
    Some(made.stdout.trim().to_owned())
}

/// The folder of the clients that are compiled here.
fn compiled(bottle: &Bottle) -> Option<String> {
    let folder = bottle.work().join("clients");
    fs::create_dir(&folder).unwrap();
    let fixtures = root().join("tests/fixtures/trust");
    let (go, java) = (folder.join("go-fetch"), folder.clone());
    let mut with_go = Command::new("go");
    with_go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off");
    with_go.args(["build", "-o"]).arg(go).arg(fixtures.join("fetch.go"));
    let mut with_java = Command::new("javac");
    with_java.args(["--release", "17", "-d"]).arg(java).arg(fixtures.join("Fetch.java"));
    for mut compiler in [with_go, with_java] {
        match compiler.output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => {
                skip(&format!(
                    "compile the clients: {}: {error}",
                    compiler.get_program().display()
                ));
                return None;
            }
        }
    }
    Some(folder.to_str().unwrap().to_owned())
}

/// The site, a container of the same Debian.
struct Site(String);

impl Site {
    fn start(bottle: &Bottle, debian: &str) -> Self {
        let tls = bottle.work().join("tls");
        fs::create_dir(&tls).unwrap();
        // Without openssl's own configuration, which makes it a CA: no server may show that.
        bottle.file("req.cnf", "[req]\ndistinguished_name = name\n[name]\n");
        let made = Tool::new(Path::new("openssl"))
            .args(["req", "-x509", "-config"])
            .args([bottle.work().join("req.cnf")])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=site", "-addext"])
            .args([format!("subjectAltName=DNS:{SITE}").as_str(), "-keyout"])
            .args([tls.join("site.key").as_os_str(), "-out".as_ref()])
            .args([tls.join("site.pem")])
            .run();
        assert_eq!(made.status, 0, "{}", made.report());
        bottle.file("site.pem", fs::read(tls.join("site.pem")).unwrap());
        let script = root().join("tests/fixtures/trust/site.py");
        let volumes =
            [format!("{}:/tls:ro", tls.display()), format!("{}:/site.py:ro", script.display())];
        let args =
            ["run", "-d", "--label", "bottle.test=origin", "-v", &volumes[0], "-v", &volumes[1]];
        let run = docker(args.iter().chain(&[debian, "python3", "/site.py", SITE]));
        let site = Self(run.ok().trim().to_owned());
        let end = Instant::now() + Duration::from_mins(1);
        while !docker(["logs", &site.0]).ok().contains("serves") {
            assert!(Instant::now() < end, "{}", docker(["logs", &site.0]).report());
            std::thread::sleep(Duration::from_millis(50));
        }
        site
    }

    /// Moves in next door to a bottle, between `bottle-net` and `bottle-render`, at an address that
    /// bottles do not use.
    fn join(&self, document: &Value) {
        let bridge = &document["net"]["bridge"];
        let (network, last) = bridge["gateway"].as_str().unwrap().rsplit_once('.').unwrap();
        let address = format!("{network}.{}", last.parse::<u8>().unwrap() + 13);
        let name = bridge["name"].as_str().unwrap();
        docker(["network", "connect", "--ip", &address, "--alias", SITE, name, &self.0]).ok();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = docker(["rm", "-f", &self.0]);
    }
}
