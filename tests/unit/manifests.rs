//! Bad manifests: each gives one clear line, exit code 2, and nothing on stdout. Good ones are the
//! transcripts of `tests/cmd/bottle-plan/`.

use std::fmt::Write;
use std::fs;
use std::os::unix::net::UnixListener;

use crate::common::manifest::Manifest;
use crate::common::{Scratch, root};
use serde_json::json;

/// Each with the fact that it proves, the fields of bottle `dev` and agent `x`, and what is said.
/// `HERE` is the manifest's folder.
const BAD: &[(&str, &str, &str, &str)] = &[
    (
        "misspelt field is refused",
        "iamge: y",
        "",
        "bottle.yaml:5:5: bottles.dev: unknown field 'iamge': did you mean 'image'",
    ),
    (
        "misspelt field of a rule is refused",
        "egress: {routes: [{host: a.example, metods: [GET]}]}",
        "",
        "bottle.yaml:5:41: bottles.dev.egress.routes[0]: unknown field 'metods': did you mean 'methods'",
    ),
    (
        "misspelt field of an agent is refused",
        "",
        "promt: Go",
        "bottle.yaml:7:5: agents.x: unknown field 'promt': did you mean 'prompt'",
    ),
    (
        "wildcard for every host is refused",
        "egress: {routes: [{host: '*'}]}",
        "",
        "bottle.yaml:5:30: bottles.dev.egress.routes[0].host: host '*': a bare '*' would allow every host: name the hosts",
    ),
    (
        "host that holds a port says where ports go",
        "egress: {routes: [{host: 'a.example:8443'}]}",
        "",
        "bottle.yaml:5:30: bottles.dev.egress.routes[0].host: host 'a.example:8443': it holds a port: write 'a.example', and 8443 in 'ports'",
    ),
    (
        "network with host bits is refused",
        "egress: {routes: [{host: 10.0.0.1/8}]}",
        "",
        "bottle.yaml:5:30: bottles.dev.egress.routes[0].host: host '10.0.0.1/8': bits of the host are set: write '10.0.0.0/8'",
    ),
    (
        "address that is no network is refused",
        "egress: {routes: [{host: a.example, addresses: [10.0.0.0/33]}]}",
        "",
        "bottle.yaml:5:53: bottles.dev.egress.routes[0].addresses[0]: '10.0.0.0/33' is no network: write an address and its length, as in '10.1.0.0/16'",
    ),
    (
        "method outside a list is refused",
        "egress: {routes: [{host: a.example, methods: GET}]}",
        "",
        "bottle.yaml:5:50: bottles.dev.egress.routes[0].methods: the string 'GET' is here, where a list belongs: write '[GET]'",
    ),
    (
        "methods without a value are not every method",
        "egress: {routes: [{host: a.example, methods: }]}",
        "",
        "bottle.yaml:5:50: bottles.dev.egress.routes[0].methods: the list is empty: fill it, or leave the field out",
    ),
    (
        "empty list of paths is not every path",
        "egress: {routes: [{host: a.example, paths: []}]}",
        "",
        "bottle.yaml:5:48: bottles.dev.egress.routes[0].paths: the list is empty: fill it, or leave the field out",
    ),
    (
        "port 0 is refused",
        "egress: {routes: [{host: a.example, ports: [0]}]}",
        "",
        "bottle.yaml:5:49: bottles.dev.egress.routes[0].ports[0]: '0' is not a port: write a number from 1 to 65535",
    ),
    (
        "path without a slash is refused",
        "egress: {routes: [{host: a.example, paths: [v1]}]}",
        "",
        "bottle.yaml:5:49: bottles.dev.egress.routes[0].paths[0]: path 'v1': it begins with '/', as '/v1/**'",
    ),
    (
        "paths of what is not looked into are refused",
        "egress: {routes: [{host: a.example, passthrough: true, paths: [/v1]}]}",
        "",
        "bottle.yaml: bottles.dev.egress.routes[0]: passthrough: what is not intercepted has no methods and paths to judge: leave them out",
    ),
    (
        "unknown secret is refused",
        "secrets: {github: {from_env: T}}\n    egress: {routes: [{host: a.example, inject: {secret: githup, bearer: true}}]}",
        "",
        "bottle.yaml: bottles.dev.egress.routes[0]: inject: secret 'githup' is not in 'secrets': did you mean 'github'",
    ),
    (
        "credential in two places is refused",
        "secrets: {t: {from_env: T}}\n    egress: {routes: [{host: a.example, inject: {secret: t, bearer: true, query: k}}]}",
        "",
        "bottle.yaml: bottles.dev.egress.routes[0]: inject: set exactly one of 'header', 'bearer', 'basic' and 'query'",
    ),
    (
        "secret with two sources is refused",
        "secrets: {t: {from_env: T, from_command: [cat, t]}}",
        "",
        "bottle.yaml: bottles.dev.secrets.t: it has more than one source: keep one of 'from_env', 'from_file', 'from_command'",
    ),
    (
        "secret without a source is refused",
        "secrets: {t: {}}",
        "",
        "bottle.yaml: bottles.dev.secrets.t: it has no source: give it one of 'from_env', 'from_file', 'from_command'",
    ),
    (
        "secret file that is missing is refused",
        "secrets: {t: {from_file: ./t}}",
        "",
        "bottle.yaml: bottles.dev.secrets.t.from_file: './t': 'HERE/t' is not there: make it first, or mend the path",
    ),
    (
        "secret file that the agent would see is refused",
        "mounts: [{source: ./data, target: /data, read_only: true}]\n    secrets: {t: {from_file: ./data/file}}\n    egress: {routes: [{host: a.example, inject: {secret: t, bearer: true}}]}",
        "",
        "bottle.yaml: secret file 'HERE/data/file' would be shown to the agent by 'HERE/data': keep it elsewhere",
    ),
    (
        "command that an agent can change is refused",
        "workspace: ./repo\n    secrets: {t: {from_command: [sh, ./repo/get]}}\n    egress: {routes: [{host: a.example, inject: {secret: t, bearer: true}}]}",
        "",
        "bottle.yaml: command 'HERE/repo/get' can be changed by an agent, because 'HERE/repo' is writable, and the host uses it: keep it elsewhere",
    ),
    (
        "boolean as a variable's value is refused",
        "env: {DEBUG: true}",
        "",
        "bottle.yaml:5:18: bottles.dev.env.DEBUG: the boolean 'true' is here, where a string belongs: put it in quotes",
    ),
    (
        "number as a variable's value is refused",
        "env: {VERSION: 1.10}",
        "",
        "bottle.yaml:5:20: bottles.dev.env.VERSION: the number '1.1' is here, where a string belongs: put it in quotes",
    ),
    (
        "variable with a name that no shell can say is refused",
        "env: {A-B: x}",
        "",
        "bottle.yaml: bottles.dev.env: 'A-B' is no name of a variable: use letters, digits and '_'",
    ),
    (
        "memory in a unit that is none is refused",
        "resources: {memory: 4gg}",
        "",
        "bottle.yaml:5:25: bottles.dev.resources.memory: '4gg' is no amount of memory: write a whole number and k, m or g, as in '4g'",
    ),
    (
        "memory that the engine would refuse is refused",
        "resources: {memory: 1m}",
        "",
        "bottle.yaml:5:25: bottles.dev.resources.memory: '1m' of memory is less than the engine takes: write 6m or more",
    ),
    (
        "cpus that are no number are refused",
        "resources: {cpus: two}",
        "",
        "bottle.yaml:5:23: bottles.dev.resources.cpus: 'two' is no number of CPUs: write a decimal number, as in '1.5'",
    ),
    (
        "user name is refused",
        "user: node",
        "",
        "bottle.yaml:5:11: bottles.dev.user: user 'node' cannot be looked up in the image: write 'uid', 'uid:gid' or 'root'",
    ),
    (
        "image and build together are refused",
        "build: ./data",
        "",
        "bottle.yaml: bottles.dev: give it exactly one of 'image' and 'build'",
    ),
    (
        "mount in the short form is refused",
        "mounts: ['./data:/data']",
        "",
        "bottle.yaml:5:14: bottles.dev.mounts[0]: the string './data:/data' is here, where a mapping belongs",
    ),
    (
        "relative mount outside is refused",
        "mounts: [{source: .., target: /up, read_only: true}]",
        "",
        "bottle.yaml: bottles.dev.mounts[0]: source: '..' leaves the manifest's folder 'HERE': write it absolute, 'UP'",
    ),
    (
        "relative mount that leaves through a link is refused",
        "mounts: [{source: ./link, target: /up, read_only: true}]",
        "",
        "bottle.yaml: bottles.dev.mounts[0]: source: './link' leaves the manifest's folder 'HERE': write it absolute, 'UP'",
    ),
    (
        "link that an agent can turn elsewhere is refused",
        "workspace: ./repo\n    mounts: [{source: ./repo/link, target: /data, read_only: true}]",
        "",
        "bottle.yaml: './repo/link' leads through link 'HERE/repo/link', which an agent can turn elsewhere, because 'HERE/repo' is writable: write where it leads to",
    ),
    (
        "mount that is missing is refused",
        "mounts: [{source: ./nothing, target: /x}]",
        "",
        "bottle.yaml: bottles.dev.mounts[0]: source: './nothing': 'HERE/nothing' is not there: make it first, or mend the path",
    ),
    (
        "whole host is refused",
        "mounts: [{source: /, target: /host, read_only: true}]",
        "",
        "bottle.yaml: mount '/': it is the whole host: name the folder that is meant",
    ),
    (
        "state folder is refused",
        "mounts: [{source: STATE, target: /state, read_only: true}]",
        "",
        "bottle.yaml: mount 'STATE': it lies in 'STATE', the state folder of bottle: mount something else",
    ),
    (
        "folder that holds the state folder is refused",
        "workspace: {source: UP, mode: copy}",
        "",
        "bottle.yaml: workspace 'UP': it contains 'STATE', the state folder of bottle: mount a folder beside it",
    ),
    (
        "engine's socket is refused",
        "mounts: [{source: ENGINE, target: /var/run/docker.sock}]",
        "",
        "bottle.yaml: mount 'ENGINE': it lies in 'ENGINE', a socket of the engine: mount something else",
    ),
    (
        "folder that shows the engine's socket is refused",
        "mounts: [{source: ./engine, target: /x, read_only: true}]",
        "",
        "bottle.yaml: mount 'HERE/engine': it contains 'ENGINE', a socket of the engine: mount a folder beside it",
    ),
    (
        "any other socket is refused",
        "mounts: [{source: ./socket, target: /x}]",
        "",
        "bottle.yaml: mount 'HERE/socket': it is a socket, pipe or device, a way out of the bottle: mount files and folders only",
    ),
    (
        "kernel's own folders are refused",
        "mounts: [{source: /proc/self, target: /x}]",
        "",
        "bottle.yaml: mount '/proc/PID': it lies in '/proc', the host's own: mount something else",
    ),
    (
        "target that covers bottle's own is refused",
        "mounts: [{source: ./data, target: /etc}]",
        "",
        "bottle.yaml: bottles.dev.mounts[0]: target '/etc' would cover '/etc/bottle', which is bottle's or the engine's own: mount elsewhere",
    ),
    (
        "relative target is refused",
        "mounts: [{source: ./data, target: data}]",
        "",
        "bottle.yaml: bottles.dev.mounts[0]: target 'data' is not a plain absolute path: write it without '..', '.' and needless '/'",
    ),
    (
        "two mounts on one target are refused",
        "mounts: [{source: ./data, target: /x}, {source: ./repo, target: /x, read_only: true}]",
        "",
        "bottle.yaml: target '/x' is mounted twice: give each mount a target of its own",
    ),
    (
        "mount over the workspace's .git is refused",
        "workspace: ./repo\n    mounts: [{source: ./data, target: /workspace/.git}]",
        "",
        "bottle.yaml: targets '/workspace/.git' and '/workspace' lie one in the other: give each mount a target of its own",
    ),
    (
        "writable mount that holds a repository is refused",
        "mounts: [{source: ./repo, target: /x}]",
        "",
        "bottle.yaml: mount 'HERE/repo': it holds 'HERE/repo/.git', and an agent could change what git on the host obeys there: make it the workspace, or read_only",
    ),
    (
        "writable mount from within a .git is refused",
        "mounts: [{source: ./repo/.git, target: /x}]",
        "",
        "bottle.yaml: mount 'HERE/repo/.git': it lies in a '.git', which git on the host obeys: mount it read_only",
    ),
    (
        "workspace in which an agent could make a repository is refused",
        "workspace: ./data",
        "",
        "bottle.yaml: workspace 'HERE/data': 'HERE/data' has no '.git', and an agent could make one that git on the host obeys: run 'git init' there, use the top folder of the repository, or set 'workspace.mode' to copy",
    ),
    (
        "workspace that is a file is refused",
        "workspace: ./data/file",
        "",
        "bottle.yaml: bottles.dev.workspace.source: 'HERE/data/file' is not a folder",
    ),
    (
        "git remote without encryption is refused",
        "git: {origin: {url: 'git://a.example/x'}}",
        "",
        "bottle.yaml: bottles.dev.git.origin: url 'git://a.example/x' is neither ssh nor https: write 'https://…', 'ssh://…' or 'user@host:path'",
    ),
    (
        "password in a git remote's url is refused",
        "git: {origin: {url: 'https://me:hunter2@a.example/x'}}",
        "",
        "bottle.yaml: bottles.dev.git.origin: the url holds a user or password: name a 'secret' in its place",
    ),
    (
        "ssh host whose key is missing is refused",
        "ssh: {h: {address: a.example, key: ./key, host_key: ssh-ed25519 AAAA}}",
        "",
        "bottle.yaml: bottles.dev.ssh.h: key: './key': 'HERE/key' is not there: make it first, or mend the path",
    ),
    (
        "unknown mode of pipelock is refused",
        "pipelock: {mode: strickt}",
        "",
        "bottle.yaml:5:22: bottles.dev.pipelock.mode: unknown value 'strickt': did you mean 'strict'",
    ),
    (
        "manifest that an agent can write is refused without trust",
        "workspace: HERE",
        "",
        "manifest 'HERE/bottle.yaml' lies in 'HERE', which an agent can write, and is not trusted: read it, then run 'bottle trust HERE/bottle.yaml'",
    ),
    (
        "agent that asks for more memory is refused",
        "resources: {memory: 4g}",
        "resources: {memory: 8g}",
        "bottle.yaml: agent 'x' asks for 'memory' 8g, bottle 'dev' has 4g: an agent can only narrow: ask for less, or change the bottle",
    ),
    (
        "agent that asks for more processes than by default is refused",
        "",
        "resources: {pids: 513}",
        "bottle.yaml: agent 'x' asks for 'pids' 513, bottle 'dev' has 512: an agent can only narrow: ask for less, or change the bottle",
    ),
    (
        "agent that asks for another host is refused",
        "egress: {routes: [{host: a.example}]}",
        "egress: {routes: [{host: b.example}]}",
        "bottle.yaml: agents.x.egress.routes[0]: agent 'x' asks for 'host' b.example, bottle 'dev' has a.example: an agent can only narrow: ask for less, or change the bottle",
    ),
    (
        "agent that asks for more paths of a host is refused",
        "egress: {routes: [{host: a.example, paths: [/v1/**]}]}",
        "egress: {routes: [{host: a.example, paths: [/v1*]}]}",
        "bottle.yaml: agents.x.egress.routes[0]: agent 'x' asks for 'paths' /v1* of 'a.example', bottle 'dev' has /v1/**: an agent can only narrow: ask for less, or change the bottle",
    ),
    (
        "agent that writes what its bottle reads is refused",
        "mounts: [{source: ./data, target: /data, read_only: true}]",
        "mounts: [{target: /data, read_only: false}]",
        "bottle.yaml: agents.x.mounts[0]: agent 'x' asks for 'read_only' false, bottle 'dev' has true: an agent can only narrow: ask for less, or change the bottle",
    ),
    (
        "agent that keeps a mount that is none is refused",
        "mounts: [{source: ./data, target: /data}]",
        "mounts: [{target: /date}]",
        "bottle.yaml: agents.x.mounts[0]: bottle 'dev' mounts nothing at '/date': did you mean '/data'",
    ),
    (
        "agent that shares a copied workspace is refused",
        "workspace: {source: ./data, mode: copy}",
        "workspace: {mode: bind}",
        "bottle.yaml: agent 'x' asks for 'workspace.mode' bind, bottle 'dev' has copy: an agent can only narrow: ask for less, or change the bottle",
    ),
    (
        "agent with a laxer self-test is refused",
        "",
        "selftest: off",
        "bottle.yaml: agent 'x' asks for 'selftest' off, bottle 'dev' has enforce: an agent can only narrow: ask for less, or change the bottle",
    ),
    (
        "command that is no list is refused",
        "",
        "command: claude --print",
        "bottle.yaml:7:14: agents.x.command: the string 'claude --print' is here, where a list belongs: write '[claude --print]'",
    ),
];

/// Manifests that are wrong as a whole.
const WHOLE: &[(&str, &str, &str)] = &[
    ("empty file is refused", " \n", "read manifest 'HERE/bottle.yaml': it is empty"),
    (
        "newer version is refused",
        "version: 2\n",
        "bottle.yaml:1:10: version: version 2 is newer than 1, the newest that this tool knows: upgrade bottle",
    ),
    (
        "missing version is refused",
        "bottles: {}\nagents: {}\n",
        "bottle.yaml:1:1: missing field 'version'",
    ),
    (
        "duplicate agent is refused",
        "version: 1\nbottles: {d: {image: y}}\nagents:\n  x: {bottle: d}\n  x: {bottle: d}\n",
        "bottle.yaml:4:3: agents: 'x' is there twice",
    ),
    (
        "unknown agent is refused",
        "version: 1\nbottles: {d: {image: y}}\nagents: {x1: {bottle: d}}\n",
        "bottle.yaml: agent 'x' is not in 'agents': known are 'x1'",
    ),
    (
        "agent without a bottle is refused",
        "version: 1\nbottles: {d: {image: y}}\nagents: {x: {}}\n",
        "bottle.yaml:3:13: agents.x: missing field 'bottle'",
    ),
    (
        "agent in a bottle that is none is refused",
        "version: 1\nbottles: {dev: {image: y}}\nagents: {x: {bottle: dve}}\n",
        "bottle.yaml: agents.x.bottle: bottle 'dve' is not in 'bottles': did you mean 'dev'",
    ),
    (
        "name that could leave a folder is refused",
        "version: 1\nbottles: {../d: {image: y}}\nagents: {x: {bottle: ../d}}\n",
        "bottle.yaml: bottles: name '../d' is not usable: begin with a letter or digit, go on with those and '.', '_', '-', up to 63",
    ),
    (
        "list in place of a manifest is refused",
        "- version: 1\n",
        "bottle.yaml:1:1: a list is here, where a mapping belongs",
    ),
    (
        "broken YAML is refused with its place",
        "version: 1\nbottles: {\n",
        "bottle.yaml:3:1: did not find expected node content",
    ),
    (
        "control characters are refused",
        "version: 1 # \u{1b}[2J\n",
        "bottle.yaml:1:1: control characters are not allowed at position 13",
    ),
];

/// A world in which a manifest can go wrong.
fn world() -> (Scratch, UnixListener) {
    let scratch = Scratch::new();
    scratch.file("data/file", "");
    scratch.file("repo/.git/HEAD", "ref: refs/heads/main\n");
    scratch.file("repo/get", "");
    fs::create_dir(scratch.work().join("engine")).unwrap();
    fs::create_dir(scratch.state()).unwrap();
    std::os::unix::fs::symlink("..", scratch.work().join("link")).unwrap();
    std::os::unix::fs::symlink("../data", scratch.work().join("repo/link")).unwrap();
    let socket = UnixListener::bind(scratch.work().join("socket")).unwrap();
    fs::write(scratch.work().join("engine/docker.sock"), "").unwrap();
    (scratch, socket)
}

/// What the tool says of one manifest; all of it but the name of the tool.
fn said(scratch: &Scratch, text: &str) -> Result<String, String> {
    scratch.file("bottle.yaml", text);
    let host = format!("unix://{}/engine/docker.sock", scratch.work().display());
    let run = scratch.tool("bottle-plan").args(["x"]).env("DOCKER_HOST", &host).run();
    if run.status == 0 {
        return Ok(run.stdout);
    }
    assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{text}\n{}", run.stderr);
    let line = run.stderr.strip_prefix("bottle-plan: ").and_then(|line| line.strip_suffix('\n'));
    Err(line.filter(|line| !line.contains('\n')).unwrap_or(&run.stderr).to_owned())
}

#[test]
fn bad_manifests_are_refused_in_one_clear_line() {
    let (scratch, _socket) = world();
    let work = scratch.work().canonicalize().unwrap();
    let fill = |text: &str| {
        text.replace("HERE", work.to_str().unwrap())
            .replace("STATE", scratch.state().to_str().unwrap())
            .replace("ENGINE", work.join("engine/docker.sock").to_str().unwrap())
            .replace("UP", work.parent().unwrap().to_str().unwrap())
    };
    let mut wrong = String::new();
    let mut hold = |fact: &str, text: &str, expected: &str| {
        let told = said(&scratch, &fill(text)).map_err(|line| pidless(&line));
        if told != Err(fill(expected)) {
            let _ = writeln!(wrong, "{fact}:\n  expected: {}\n  said: {told:?}", fill(expected));
        }
    };
    for (fact, bottle, agent, expected) in BAD {
        let text = format!(
            "version: 1\nbottles:\n  dev:\n    image: y\n    {bottle}\nagents:\n  x:\n    {agent}\n    bottle: dev\n"
        );
        hold(fact, &text.replace("    \n", ""), expected);
    }
    for (fact, text, expected) in WHOLE {
        hold(fact, text, expected);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The process that looked at `/proc/self` is another one each time.
fn pidless(line: &str) -> String {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).count();
    match line.split_once("/proc/") {
        Some((before, after)) if digits(after) > 0 => {
            format!("{before}/proc/PID{}", &after[digits(after)..])
        }
        _ => line.to_owned(),
    }
}

#[test]
fn same_world_takes_a_good_manifest() {
    let (scratch, _socket) = world();
    let good = Manifest::new()
        .set("agents.x", json!({"bottle": "dev"}))
        .set("bottles.dev.workspace", "./repo")
        .set("bottles.dev.mounts", json!([{"source": "./data", "target": "/data"}]))
        .route(json!({"host": "a.example"}));
    let plan = said(&scratch, &good.text()).unwrap();
    assert!(plan.contains(r#""allow":["* https://a.example:443/**"]"#), "{plan}");
}

#[test]
fn example_of_the_page_resolves_for_each_agent() {
    let scratch = Scratch::new();
    let home = scratch.path().join("home");
    for folder in ["src/shop/.git", "notes"] {
        fs::create_dir_all(home.join(folder)).unwrap();
    }
    let example = root().join("man/examples/bottle.yaml");
    for agent in ["implementer", "reviewer"] {
        scratch.tool("bottle-plan").args(["-f", example.to_str().unwrap(), agent]).run().ok();
    }
}
