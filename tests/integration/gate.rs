//! The git gate on the real engine: a real git of a real Debian is the agent's, a real sshd and git's
//! own http-backend on a network of the test's own are its upstreams.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bottle::docker::image;
use serde_json::{Value, json};

use crate::agent::holds;
use crate::common::manifest::Manifest;
use crate::common::{Run, Tool, skip};
use crate::support::{Bottle, docker, images};
use crate::trust::debian;
use crate::up::container;

/// What the upstream does: two repositories, by ssh for whoever has the key, by https for whoever has
/// the token. Its certificate is of its own CA.
const SERVE: &str = r#"
PATH=$PATH:/usr/sbin
useradd --create-home --shell /bin/sh --password '*' git
install -d -m 700 -o git /home/git/.ssh
install -m 600 -o git /keys/key.pub /home/git/.ssh/authorized_keys
su git -c '
    for name in app other; do
        git init -q --bare -b main /home/git/$name.git && git -C /home/git/$name.git config http.receivepack true
        git init -q -b main /tmp/$name && cd /tmp/$name && echo $name >README.md && git add . &&
        git -c user.name=x -c user.email=x@example commit -q -m first && git push -q /home/git/$name.git main
    done'
python3 -c "$HTTPS" &
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f /dev/null -h /keys/host -o UsePAM=no -o PasswordAuthentication=no
"#;

/// https for git: a token, then git's own http-backend.
const HTTPS: &str = r#"
import base64, http.server, os, ssl, subprocess
WANTED = "Basic " + base64.b64encode(b"x-access-token:" + open("/keys/token", "rb").read().strip()).decode()
class Git(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def serve(self):
        body = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size); self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != WANTED:
            self.send_response(401); self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0"); self.end_headers(); return
        path, _, query = self.path.partition("?")
        env = dict(os.environ, GIT_PROJECT_ROOT="/home/git", GIT_HTTP_EXPORT_ALL="1", REMOTE_USER="git", HOME="/home/git",
            REQUEST_METHOD=self.command, PATH_INFO=path, QUERY_STRING=query, CONTENT_LENGTH=str(len(body)),
            CONTENT_TYPE=self.headers.get("Content-Type", ""), HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
            GIT_PROTOCOL=self.headers.get("Git-Protocol", ""), GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
        said = subprocess.run(["git", "http-backend"], input=body, env=env, stdout=subprocess.PIPE).stdout
        head, _, rest = said.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((value for name, value in lines if name == "Status"), "200 OK")
        self.send_response(int(status.split()[0]))
        for name, value in lines:
            if name != "Status": self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest))); self.end_headers(); self.wfile.write(rest)
    do_GET = do_POST = serve
server = http.server.ThreadingHTTPServer(("0.0.0.0", 443), Git)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/keys/cert.pem", "/keys/cert.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// The token of https. It shows nowhere but in egress's own folder.
const TOKEN: &str = "token-Wq93-value";

/// An upstream, and a bottle whose gate serves `app` of it.
pub(crate) struct Place {
    pub(crate) bottle: Bottle,
    debian: String,
    network: String,
    pub(crate) address: String,
    host: String,
}

impl Place {
    /// An upstream that serves; `None`, aloud, where the engine, Debian or the gate's image is missing.
    pub(crate) fn new() -> Option<Self> {
        if !images() {
            return None;
        }
        let gate = image("git-gate");
        if docker(["image", "inspect", "--format", "{{.Id}}", &gate]).status != 0 {
            skip(&format!("image '{gate}' is missing: run 'make images'"));
            return None;
        }
        let (debian, bottle) = (debian()?, Bottle::new(&Manifest::new()));
        let network = format!("bottle-test-gate-{}", bottle.id());
        let first = u8::try_from(std::process::id() % 200).unwrap();
        let prefix = (0..50).map(|n| format!("100.65.{}", first + n)).find(|prefix| {
            let subnet = format!("{prefix}.0/24");
            let label = "bottle.test=gate";
            let made = ["network", "create", "--label", label, "--subnet", &subnet, &network];
            docker(made).status == 0
        });
        let address = format!("{}.10", prefix.unwrap());
        let mut place = Self { bottle, debian, network, address, host: String::new() };
        place.serve();
        Some(place)
    }

    fn work(&self, name: &str) -> PathBuf {
        self.bottle.work().join(name)
    }

    fn serve(&mut self) {
        let keys = self.work("keys");
        fs::create_dir(&keys).unwrap();
        fs::write(keys.join("token"), TOKEN).unwrap();
        let keygen = format!(
            "cd {} && for name in key host; do ssh-keygen -q -t ed25519 -N '' -C $name -f $name; done
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=upstream -addext basicConstraints=critical,CA:FALSE \
                -addext 'subjectAltName=IP:{1}' -keyout cert.key -out cert.pem 2>/dev/null
             printf '%s ' {1} >known_hosts && cat host.pub >>known_hosts",
            keys.display(),
            self.address
        );
        let made = Tool::new(Path::new("/bin/sh")).args(["-euc", &keygen]).run();
        assert_eq!(made.status, 0, "{}", made.report());
        let mount = format!("{}:/keys:ro", keys.display());
        let https = format!("HTTPS={HTTPS}");
        let args = ["run", "-d", "--label", "bottle.test=gate", "--network", &self.network];
        let more =
            ["--ip", &self.address, "-v", &mount, "-e", &https, &self.debian, "sh", "-euc", SERVE];
        docker(args.iter().chain(&more)).ok().trim().clone_into(&mut self.host);
        let end = Instant::now() + Duration::from_mins(1);
        while !docker(["logs", &self.host]).stderr.contains("Server listening on 0.0.0.0") {
            assert!(Instant::now() < end, "{}", docker(["logs", &self.host]).report());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The manifest with the remote by ssh.
    pub(crate) fn by_ssh(&self) -> Value {
        json!({
            "url": format!("git@{}:/home/git/app.git", self.address),
            "push": ["refs/heads/agent/*"],
            "key": "keys/key",
            "known_hosts": "keys/known_hosts",
        })
    }

    pub(crate) fn manifest(&self, remote: &Value) -> Manifest {
        Manifest::new().image(&self.debian).set("bottles.dev.git.origin", remote.clone())
    }

    /// Starts the bottle, and lets egress into the network of the upstream.
    pub(crate) fn start(&self, manifest: &Manifest) -> Value {
        self.bottle.file("bottle.yaml", manifest.text());
        let document = self.bottle.start();
        docker(["network", "connect", &self.network, &container(&self.bottle, "egress")]).ok();
        document
    }

    /// Runs a shell in the agent, in a folder of its own home.
    pub(crate) fn sh(&self, text: &str) -> Run {
        let setup = "cd ~ && export GIT_TERMINAL_PROMPT=0 && git config --global user.name a && git config --global user.email a@example";
        self.bottle.exec(&["sh", "-euc", &format!("{setup}\n{text}")])
    }

    #[track_caller]
    pub(crate) fn says(&self, text: &str, expected: &str) {
        let run = self.sh(text);
        assert_eq!((run.status, run.stdout.trim()), (0, expected), "{text}: {}", run.report());
    }

    /// It fails, and for this reason.
    #[track_caller]
    pub(crate) fn fails(&self, text: &str, why: &str) {
        let run = self.sh(text);
        assert_ne!(run.status, 0, "{text}: {}", run.report());
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains(why), "{text}: {}", run.report());
    }

    /// The refs that a repository of the upstream has.
    pub(crate) fn refs(&self, name: &str) -> String {
        let git = format!("git --git-dir=/home/git/{name}.git for-each-ref --format='%(refname)'");
        docker(["exec", "--user", "git", &self.host, "sh", "-c", &git]).ok()
    }

    fn decisions(&self) -> String {
        let path = self.bottle.state().join("implementer/git-gate/run/decisions.jsonl");
        fs::read_to_string(path).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.bottle.tool("bottle-reap").args(["--all"]).run();
        let _ = docker(["rm", "-f", &self.host]);
        let _ = docker(["network", "rm", &self.network]);
    }
}

#[test]
fn agent_works_by_its_usual_urls_and_pushes_what_it_may() {
    let Some(place) = Place::new() else { return };
    let document = place.start(&place.manifest(&place.by_ssh()));
    assert_eq!(document["up"]["services"], json!(["agent", "egress", "git-gate"]));
    let at = &place.address;
    for url in [
        format!("git@{at}:/home/git/app.git"),
        format!("git@{at}:home/git/app"),
        format!("ssh://git@{at}/home/git/app.git"),
        format!("https://{at}/home/git/app"),
    ] {
        place.says(&format!("rm -rf app && git clone -q {url} app && cat app/README.md"), "app");
    }
    let change = "cd app && date +%N >new && git add new && git commit -q -m new";
    place.says(&format!("{change} && git push -q origin HEAD:agent/x"), "");
    assert_eq!(place.refs("app"), "refs/heads/agent/x\nrefs/heads/main\n");
    place.fails(
        "cd app && git push origin HEAD:main",
        "remote: bottle: refused by rule 'push': 'refs/heads/main' is none of 'refs/heads/agent/*'",
    );
    let token = format!("{}{}", "ghp_", "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5");
    place.fails(
        &format!("cd app && echo 'k={token}' >k && git add k && git commit -q -m k && git rm -q k && git commit -q -m gone && git push origin HEAD:agent/x"),
        "remote: bottle: refused by rule 'secrets': commit ",
    );
    place.fails(
        "cd app && git reset -q --hard origin/main && mkdir -p .github/workflows && echo x >.github/workflows/x.yml && git add . && git commit -q -m ci && git push origin HEAD:agent/y",
        "touches '.github/workflows/x.yml'",
    );
    assert_eq!(place.refs("app"), "refs/heads/agent/x\nrefs/heads/main\n");
    // Another repository of the same host is neither sent to the gate nor reachable by it.
    for url in [
        format!("git@{at}:/home/git/other.git"),
        format!("git@{at}:/home/git/app-docs"),
        format!("git@{at}:/home/git/app.github.io"),
    ] {
        place.fails(&format!("git ls-remote {url}"), "");
        place.says(&format!("git ls-remote --get-url {url}"), &url);
    }
    let gate = document["net"]["internal"]["git_gate"].as_str().unwrap();
    place.fails(
        &format!("git ls-remote git://{gate}/other"),
        "refused by rule 'remote': 'other' is no remote of this bottle",
    );
    place.says(&format!("git ls-remote git://{gate}/origin refs/heads/main | wc -l"), "1");
    // The way that the gate has is its own: the agent's address has none.
    let egress = document["net"]["internal"]["egress"].as_str().unwrap();
    let connect = format!("curl -sS -m 10 -x http://{egress}:3128 -p telnet://{at}:22 </dev/null");
    place.fails(&connect, "403");
    let decisions = place.decisions();
    for rule in ["push", "secrets", "protected", "remote"] {
        assert!(
            decisions.contains(&format!("\"decision\":\"deny\",\"rule\":\"{rule}\"")),
            "{decisions}"
        );
    }
    place.bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    place.bottle.is_gone();
    let kept = Tool::new(Path::new("/bin/sh"))
        .args(["-c", "cd archive/implementer-*/git-gate && ls -A && cat run/decisions.jsonl"]);
    let kept = kept.dir(&place.bottle.state()).run().ok();
    assert!(kept.starts_with("run\n") && kept.contains("refs/heads/agent/x"), "{kept}");
}

#[test]
fn key_is_the_gates_alone() {
    let Some(place) = Place::new() else { return };
    let document = place.start(&place.manifest(&place.by_ssh()));
    place.says(&format!("git ls-remote -q git@{}:/home/git/app.git | wc -l", place.address), "2");
    let key = fs::read_to_string(place.work("keys/key")).unwrap();
    // The first line is every key's.
    let key = key.lines().skip(2).collect::<Vec<_>>().join("\n");
    let gate = container(&place.bottle, "git-gate");
    // The control: the same search finds it where it is.
    assert!(holds(&gate, &key));
    for service in ["agent", "egress"] {
        assert!(!holds(&container(&place.bottle, service), &key), "{service}");
    }
    let line = key.lines().next().unwrap();
    assert!(!document.to_string().contains(line));
    for file in
        ["plan.json", "docker-compose.yml", "git-gate/conf/gate.json", "agent/conf/gitconfig"]
    {
        let text = fs::read_to_string(place.bottle.state().join("implementer").join(file)).unwrap();
        assert!(!text.contains(line), "{file}");
    }
    // Nothing of the gate is in the agent: no process, no mount, no variable.
    let seen =
        place.sh("env; cat /proc/self/mountinfo; cat /proc/[0-9]*/cmdline | tr '\\0' ' '").ok();
    assert!(!seen.contains("git-gate/secrets") && !seen.contains("bottle-git-gate"), "{seen}");
    // The gate cannot change it, and can do nothing but its work.
    let run = docker(["exec", &gate, "sh", "-c", "chmod 644 /etc/bottle-secrets/origin.key"]);
    assert!(run.status != 0 && run.stderr.contains("Read-only"), "{}", run.report());
    let inspected: Value = serde_json::from_str(&docker(["inspect", &gate]).ok()).unwrap();
    let host = &inspected[0]["HostConfig"];
    assert_eq!(
        (&host["ReadonlyRootfs"], &host["CapDrop"], &host["Privileged"]),
        (&json!(true), &json!(["ALL"]), &json!(false))
    );
    let networks = inspected[0]["NetworkSettings"]["Networks"].as_object().unwrap();
    assert_eq!(
        networks.keys().collect::<Vec<_>>(),
        [document["net"]["internal"]["name"].as_str().unwrap()]
    );
    // And nothing of it is left.
    place.bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    let left = Tool::new(Path::new("grep")).args(["-rlF", line]).args([place.bottle.state()]).run();
    assert_eq!(left.stdout, "");
}

#[test]
fn https_goes_by_egress_which_adds_the_token() {
    let Some(place) = Place::new() else { return };
    let url = format!("https://{}/app.git", place.address);
    let remote = json!({ "url": url, "push": ["refs/heads/agent/*"], "secret": "forge" });
    let manifest = place
        .manifest(&remote)
        .set("bottles.dev.egress.ca_certificates", json!(["keys/cert.pem"]))
        .set("bottles.dev.secrets.forge", json!({ "from_file": "keys/token" }));
    place.start(&manifest);
    place.says(&format!("git clone -q {url} app && cat app/README.md"), "app");
    let change =
        "cd app && head -c 2000000 /dev/urandom >new && git add new && git commit -q -m new";
    place.says(&format!("{change} && git push -q origin HEAD:agent/x"), "");
    assert_eq!(place.refs("app"), "refs/heads/agent/x\nrefs/heads/main\n");
    place.fails("cd app && git push origin HEAD:main", "refused by rule 'push'");
    // The gate has no token, and the agent no way to use it.
    assert!(!holds_text(&container(&place.bottle, "git-gate"), TOKEN));
    assert!(!holds_text(&container(&place.bottle, "agent"), TOKEN));
    assert!(holds_text(&container(&place.bottle, "egress"), TOKEN));
    let curl = format!(
        "curl -s -m 10 -o /dev/null -w '%{{http_code}}' https://{}/app.git/info/refs || true",
        place.address
    );
    place.says(&curl, "403");
}

fn holds_text(name: &str, text: &str) -> bool {
    // As a key has them: two lines that are looked for, each.
    holds(name, &format!("{text}\n{text}\n"))
}

#[test]
fn gate_alone_is_started_tried_and_stopped() {
    let Some(place) = Place::new() else { return };
    place.bottle.file("bottle.yaml", place.manifest(&place.by_ssh()).text());
    let only = "bottle-plan implementer | bottle-net | bottle-render | bottle-up --only git-gate";
    let document = place.bottle.sh(only).run().json();
    assert_eq!(document["up"]["services"], json!(["git-gate"]));
    let running = docker(["ps", "--format", "{{.Names}}"]).ok();
    assert!(running.contains(&container(&place.bottle, "git-gate")));
    assert!(!running.contains(&container(&place.bottle, "egress")));
    place.bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    place.bottle.is_gone();
}

#[test]
fn broken_image_of_the_gate_is_told_by_starting_it_alone() {
    let Some(place) = Place::new() else { return };
    place.bottle.file("bottle.yaml", place.manifest(&place.by_ssh()).text());
    let rendered = "bottle-plan implementer | bottle-net | bottle-render";
    let document = place.bottle.sh(rendered).run().ok();
    // Without ssh and gitleaks, as a wrong image would be.
    let compose = place.bottle.state().join("implementer/docker-compose.yml");
    let text = fs::read_to_string(&compose).unwrap();
    let broken = text.replacen("  git-gate:\n", "  git-gate:\n    environment:\n    - PATH=/usr/lib/git-core:/usr/bin/none:/bin/none\n    entrypoint: [/usr/bin/bottle-git-gate]\n", 1);
    assert_ne!(text, broken);
    fs::write(&compose, broken).unwrap();
    let run = place.bottle.sh("bottle-up --only git-gate --timeout 10").stdin(&document).run();
    assert_eq!(run.status, 3, "{}", run.report());
    assert!(run.stderr.contains("try sidecar 'git-gate'"), "{}", run.report());
}
