//! ssh out of a bottle: a real sshd, at an address of 100.64.0.0/10 on a network of the test's own,
//! reached by the unmodified clients of a real Debian, with keys that the agent does not hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::holds;
use crate::common::manifest::Manifest;
use crate::common::{Run, Tool};
use crate::pipelock;
use crate::support::{Bottle, docker, images};
use crate::trust::debian;
use crate::up::container;

/// What a host of the tests does: two ports, so that one of them is another one.
const SERVE: &str = r"
PATH=$PATH:/usr/sbin:/sbin
useradd --create-home --shell /bin/sh --password '*' dev
install -d -m 700 -o dev /home/dev/.ssh
install -m 600 -o dev /keys/authorized_keys /home/dev/.ssh/authorized_keys
su dev -c '
    cd && git init -q -b main work && cd work && echo hello >file && git add file &&
    git -c user.name=x -c user.email=x@example commit -q -m hello &&
    git clone -q --bare . ~/repo.git'
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f /dev/null -h /keys/host -p 22 -p 2222 \
    -o UsePAM=no -o PasswordAuthentication=no -o 'Subsystem sftp internal-sftp'
";

/// A network of hosts, and a bottle that may reach some of them.
struct Place {
    bottle: Bottle,
    debian: String,
    network: String,
    /// The first three parts of its addresses.
    prefix: String,
    hosts: Vec<String>,
}

impl Place {
    /// A network without hosts; `None`, aloud, where the engine or Debian is missing.
    fn new() -> Option<Self> {
        if !images() {
            return None;
        }
        let (debian, bottle) = (debian()?, Bottle::new(&Manifest::new()));
        let name = format!("bottle-test-ssh-{}", bottle.id());
        let first = u8::try_from(std::process::id() % 200).unwrap();
        let prefix = (0..50).map(|n| format!("100.64.{}", first + n)).find(|prefix| {
            let subnet = format!("{prefix}.0/24");
            let label = "bottle.test=ssh";
            let made = ["network", "create", "--label", label, "--subnet", &subnet, &name];
            docker(made).status == 0
        });
        let prefix = prefix.unwrap();
        Some(Self { bottle, debian, network: name, prefix, hosts: Vec::new() })
    }

    fn address(&self, last: u8) -> String {
        format!("{}.{last}", self.prefix)
    }

    fn work(&self, name: &str) -> PathBuf {
        self.bottle.work().join(name)
    }

    /// Makes a pair of keys, and gives the public one.
    fn key(&self, name: &str) -> String {
        let made = Tool::new(Path::new("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .args([self.work(name)])
            .run();
        assert_eq!(made.status, 0, "{}", made.report());
        let public = fs::read_to_string(self.work(&format!("{name}.pub"))).unwrap();
        public.trim_end().to_owned()
    }

    /// Starts a host that lets the holders of keys in, and gives its own key.
    fn host(&mut self, last: u8, accepts: &[&str]) -> String {
        let folder = self.work(&format!("host-{last}"));
        fs::create_dir(&folder).unwrap();
        let public = self.key(&format!("host-{last}/host"));
        fs::write(folder.join("authorized_keys"), accepts.join("\n") + "\n").unwrap();
        let (mount, address) = (format!("{}:/keys:ro", folder.display()), self.address(last));
        let args = ["run", "-d", "--label", "bottle.test=ssh", "--network", &self.network];
        let more = ["--ip", &address, "-v", &mount, &self.debian, "sh", "-euc", SERVE];
        let run = docker(args.iter().chain(&more));
        let host = run.ok().trim().to_owned();
        self.hosts.push(host.clone());
        let end = Instant::now() + Duration::from_mins(1);
        loop {
            let log = docker(["logs", &host]);
            if log.stderr.matches("Server listening on 0.0.0.0").count() == 2 {
                return public;
            }
            let runs = docker(["inspect", "--format", "{{.State.Running}}", &host]).ok();
            assert!(runs == "true\n" && Instant::now() < end, "{}", log.report());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A host as a manifest has it.
    fn entry(&self, last: u8, key: &str, host_key: &str) -> Value {
        json!({ "address": self.address(last), "user": "dev", "key": key, "host_key": host_key })
    }

    /// Starts the bottle with these hosts, and lets `service` into their network.
    fn start(&self, hosts: &Value, service: &str, change: impl Fn(Manifest) -> Manifest) -> Value {
        let manifest = Manifest::new().image(&self.debian).set("bottles.dev.ssh", hosts.clone());
        self.bottle.file("bottle.yaml", change(manifest).text());
        let document = self.bottle.start();
        let service = container(&self.bottle, service);
        docker(["network", "connect", &self.network, &service]).ok();
        document
    }

    fn sh(&self, text: &str) -> Run {
        self.bottle.exec(&["sh", "-c", text])
    }

    /// Runs something in a host, which is outside of the bottle.
    fn outside(&self, host: usize, text: &str) -> Run {
        docker(["exec", &self.hosts[host], "sh", "-c", text])
    }

    fn says(&self, text: &str, expected: &str) {
        let run = self.sh(text);
        assert_eq!((run.status, run.stdout.trim()), (0, expected), "{text}: {}", run.report());
    }

    /// It fails, and for this reason.
    fn fails(&self, text: &str, why: &str) {
        let run = self.sh(text);
        assert_ne!(run.status, 0, "{text}: {}", run.report());
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains(why), "{text}: {}", run.report());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.bottle.tool("bottle-reap").args(["--all"]).run();
        for host in &self.hosts {
            let _ = docker(["rm", "-f", host]);
        }
        let _ = docker(["network", "rm", &self.network]);
    }
}

/// What every client of ssh does with a host, by the name of the manifest alone.
fn clients_reach_it(place: &Place) {
    place.says("ssh build id -un", "dev");
    place.says("echo there >/tmp/a && scp -q /tmp/a build:a && ssh build cat a", "there");
    place.says("scp -q build:work/file /tmp/b && cat /tmp/b", "hello");
    place.says("rsync -e ssh -a build:work/ /tmp/w/ && cat /tmp/w/file", "hello");
    place.says("rsync -a /tmp/w/file build:c && ssh build cat c", "hello");
    let clone = "cd $(mktemp -d) && git clone -q";
    place.says(&format!("{clone} build:repo.git && cat repo/file"), "hello");
    // As the URL of a remote may have it, without the name.
    let url = format!("ssh://dev@{}/home/dev/repo.git", place.address(10));
    place.says(&format!("{clone} {url} && cat repo/file"), "hello");
    // A megabyte each way, whole.
    place.says(
        "head -c 1000000 /dev/urandom >/tmp/r && ssh build cat </tmp/r | cmp - /tmp/r && echo same",
        "same",
    );
}

/// Every other port and address is refused, though it answers to who is not in a bottle.
fn all_else_is_refused(place: &Place) {
    let (build, other) = (place.address(10), place.address(11));
    place.fails(
        "ssh -p 2222 build true",
        &format!("connect to '{build}:2222': the proxy answers 403: bottle-egress denied this request (port)"),
    );
    place.fails(&format!("ssh dev@{other} true"), "bottle-egress denied this request (host)");
    place.fails(
        &format!("ssh -o ProxyCommand=none -o ConnectTimeout=3 dev@{build} true"),
        "port 22: ",
    );
    let curl = format!("curl -sS -m 5 --noproxy '*' telnet://{build}:22 </dev/null");
    assert_ne!(place.sh(&curl).status, 0);
    for (address, port) in [(&build, 22), (&build, 2222), (&other, 22)] {
        let banner = format!("timeout 5 bash -c 'head -c 7 </dev/tcp/{address}/{port}'");
        let run = place.outside(0, &banner);
        assert_eq!(run.stdout, "SSH-2.0", "{address}:{port}: {}", run.report());
    }
}

#[test]
fn plain_clients_reach_a_host_by_its_name_and_no_other() {
    let Some(mut place) = Place::new() else { return };
    let key = place.key("key");
    let host = place.host(10, &[&key]);
    place.host(11, &[&key]);
    let document =
        place.start(&json!({ "build": place.entry(10, "key", &host) }), "egress", |it| it);
    assert_eq!(document["up"]["services"], json!(["agent", "egress", "ssh-agent"]));
    clients_reach_it(&place);
    all_else_is_refused(&place);
    let decisions = place.bottle.state().join("implementer/egress/run/decisions.jsonl");
    let decisions = fs::read_to_string(decisions).unwrap();
    let address = place.address(10);
    let tunnel = format!(
        r#""method":"CONNECT","host":"{address}","port":22,"decision":"allow","rule":0,"address":"{address}","status":200"#
    );
    assert!(decisions.contains(&tunnel), "{decisions}");
}

#[test]
fn pipelock_carries_ssh_to_its_host_and_no_other() {
    let Some(image) = pipelock::image("ssh") else { return };
    let Some(mut place) = Place::new() else { return };
    let key = place.key("key");
    let host = place.host(10, &[&key]);
    place.host(11, &[&key]);
    place.start(&json!({ "build": place.entry(10, "key", &host) }), "pipelock", |manifest| {
        manifest.set("bottles.dev.pipelock", json!({ "mode": "strict", "image": image.name() }))
    });
    clients_reach_it(&place);
    all_else_is_refused(&place);
    let log = docker(["logs", &container(&place.bottle, "pipelock")]).ok();
    let target = place.address(10);
    assert!(log.contains(&format!(r#""event":"tunnel_open","target":"{target}:22""#)), "{log}");
    drop(place);
}

#[test]
fn key_stays_outside_and_serves_its_own_host() {
    let Some(mut place) = Place::new() else { return };
    let (key, other) = (place.key("key"), place.key("other"));
    let build = place.host(10, &[&key]);
    // It would let either of them in.
    let second = place.host(11, &[&key, &other]);
    let wrong = place.key("wrong");
    let hosts = json!({
        "build": place.entry(10, "key", &build),
        "second": place.entry(11, "other", &second),
        // Two names of one address, with another key each, and two names for one key.
        "forged": place.entry(11, "key", &wrong),
    });
    place.start(&hosts, "egress", |it| it);
    place.says("ssh build id -un && ssh second id -un", "dev\ndev");

    // It is nowhere in what the agent is made of, nor what it can read of others.
    let agent = container(&place.bottle, "agent");
    let private = fs::read_to_string(place.work("key")).unwrap();
    // The first lines of every such key are alike, and tell its public half.
    let private = private.lines().skip(3).collect::<Vec<_>>().join("\n");
    assert!(!holds(&agent, &private));
    let processes = place.sh("cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'").ok();
    assert!(processes.contains("SSH_AUTH_SOCK=/etc/bottle-ssh/agent.sock"), "{processes}");
    assert!(!private.lines().any(|line| processes.contains(line)), "{processes}");
    // The control: a container that does have it.
    fs::copy(place.work("key"), place.work("host-10/key")).unwrap();
    assert!(holds(&place.hosts[0], &private));
    // Nor does it lie anywhere once its keeper has taken it.
    let keeper = place.bottle.state().join("implementer/ssh-agent");
    assert_eq!(fs::read_dir(keeper.join("keys")).unwrap().count(), 0);
    let inspect = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    let networks =
        docker(["inspect", "--format", inspect, &container(&place.bottle, "ssh-agent")]).ok();
    assert_eq!(networks.trim(), "none");

    keys_can_be_used_and_nothing_else(&place);
    // Its key is for its host alone, and not for another one, which would take it.
    let stray = "ssh -o IdentityFile=/etc/bottle/ssh/build.pub -o IdentitiesOnly=yes";
    place.fails(&format!("{stray} -F /tmp/one second true"), "Permission denied");
    let outside = "ssh -i /keys/key -o StrictHostKeyChecking=no -o BatchMode=yes";
    place.outside(0, "cp /keys/key /tmp/key && chmod 600 /tmp/key").ok();
    let control =
        format!("{} dev@{} id -un", outside.replace("/keys/key", "/tmp/key"), place.address(11));
    let run = place.outside(0, &control);
    assert_eq!(run.stdout.trim(), "dev", "{}", run.report());
    // A host that proves to be another one is refused; and whoever does not care gets no signature.
    place.fails("ssh forged true", "Host key verification failed");
    place.fails("ssh -o HostKeyAlias=new build true", "you have requested strict checking");
    place.fails(
        "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o PreferredAuthentications=publickey forged true",
        "Permission denied",
    );
}

/// The socket lists keys and signs, and does nothing else for whoever asks.
fn keys_can_be_used_and_nothing_else(place: &Place) {
    let count = "ssh-add -l | wc -l";
    place.says(count, "2");
    place.says(
        "cp /etc/ssh/ssh_config /tmp/one && sed -i '/^    IdentityFile.*second/d' /tmp/one && echo",
        "",
    );
    place.sh("ssh-keygen -q -t ed25519 -N '' -f /tmp/own").ok();
    for attempt in [
        "ssh-add -D",
        "ssh-add -d /etc/bottle/ssh/build.pub",
        "ssh-add /tmp/own",
        "ssh-add -t 1 /tmp/own",
        "rm -f /etc/bottle-ssh/agent.sock",
        "touch /etc/bottle-ssh/new",
        "touch /etc/bottle/ssh/new.pub",
        "sh -c 'echo >/etc/ssh/ssh_config'",
    ] {
        let run = place.sh(attempt);
        assert_ne!(run.status, 0, "{attempt}: {}", run.report());
        place.says(count, "2");
    }
    // Lock and an extension, as frames, because ssh-add would ask somebody.
    let frames = r"
import os, socket
def ask(payload):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(os.environ['SSH_AUTH_SOCK'])
    peer.sendall(len(payload).to_bytes(4, 'big') + payload)
    return peer.recv(5)
def text(it): return len(it).to_bytes(4, 'big') + it
for payload in (b'\x16' + text(b'x'), b'\x13', b'\x1b' + text(b'query'), b'\x14' + text(b'/usr/lib/x.so') + text(b'')):
    assert ask(payload) == b'\0\0\0\x01\x05', payload
assert ask(b'\x0b')[4] == 12
print('refused')
";
    place.says(&format!("python3 -c \"$(cat <<'E'\n{frames}\nE\n)\""), "refused");
    place.says(count, "2");
    // A signature without a host that it is for.
    place.sh("echo >/tmp/text").ok();
    let sign = "ssh-keygen -q -Y sign -n file -f";
    place.fails(&format!("{sign} /etc/bottle/ssh/build.pub /tmp/text"), "agent refused operation");
    // The control: the same acts, at a ssh-agent that is not filtered.
    let free = "eval $(ssh-agent) >/dev/null && ssh-add -q /tmp/own && ssh-keygen -q -Y sign -n file -f /tmp/own.pub /tmp/text && ssh-add -l | wc -l && ssh-add -qD; ssh-add -l | grep -c SHA256; ssh-agent -k >/dev/null";
    place.says(free, "1\n0");
}

#[test]
fn keeper_of_keys_is_validated_alone() {
    let Some(place) = Place::new() else { return };
    let (_, host) = (place.key("key"), place.key("host"));
    let manifest = Manifest::new()
        .image(&place.debian)
        .set("bottles.dev.ssh.build", place.entry(10, "key", &host));
    place.bottle.file("bottle.yaml", manifest.text());
    let up = "bottle-plan implementer | bottle-net | bottle-render | bottle-up --only ssh-agent";
    let document = place.bottle.sh(up).run().json();
    assert_eq!(document["up"]["services"], json!(["ssh-agent"]));
    let keys = place.bottle.state().join("implementer/ssh-agent/keys");
    assert_eq!(fs::read_dir(&keys).unwrap().count(), 0);
    // A key that has changed since is not the one that was rendered.
    place.bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    let rendered = "bottle-plan implementer | bottle-net | bottle-render";
    let rendered = place.bottle.sh(rendered).run().ok();
    fs::remove_file(place.work("key")).unwrap();
    place.key("key");
    let run = place.bottle.tool("bottle-up").stdin(&rendered).run();
    assert_eq!(run.status, 2, "{}", run.report());
    assert!(run.stderr.contains("a key of its ssh hosts is another one"), "{}", run.report());
    place.bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    place.bottle.is_gone();
}
