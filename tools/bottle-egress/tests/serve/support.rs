//! One bottle's egress under test: folders, CA, name server, process.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle::credentials::{Credentials, Told, Value};
use bottle::policy::{DecisionLine, Loaded};

use crate::client::Client;
use crate::origin::{Origin, Pki};
use crate::schema;

/// The binary under test.
pub(crate) const EGRESS: &str = env!("CARGO_BIN_EXE_bottle-egress");

/// What a test waits for at most; reached only where it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Ports on the loopback address that each bottle under test has to itself.
pub(crate) const PROXY: u16 = 3128;
pub(crate) const DNS: u16 = 5300;
pub(crate) const RESOLVER: u16 = 5301;
pub(crate) const TLS: u16 = 8443;
pub(crate) const PLAIN: u16 = 8080;

/// The rules of most tests. `$A` stands for the bottle's loopback address.
pub(crate) const RULES: &str = "
- {host: origin.test, kind: name, ports: [8080, 8443], methods: [GET, HEAD, POST], paths: [/ok/**, /x], addresses: [127.0.0.0/8]}
- {host: closed.test, kind: name, ports: [8443]}
- {host: $A, kind: private_address, ports: [8443]}
- {host: untrusted.test, kind: name, ports: [8443], addresses: [127.0.0.0/8]}
- {host: gone.test, kind: name, ports: [8444], addresses: [127.0.0.0/8]}
- {host: nowhere.test, kind: name, ports: [8443]}
";

/// A running egress.
pub(crate) struct Bottle {
    pub(crate) folder: PathBuf,
    pub(crate) address: Ipv4Addr,
    pub(crate) pki: Pki,
    pub(crate) names: Names,
    child: Child,
}

impl Bottle {
    /// Starts one with the rules of most tests.
    pub(crate) fn start() -> Self {
        Self::with_rules(RULES)
    }

    pub(crate) fn with_rules(rules: &str) -> Self {
        Self::prepared(rules, |egress| egress)
    }

    /// Starts one whose command `change` may wrap.
    pub(crate) fn prepared(rules: &str, change: impl FnOnce(Command) -> Command) -> Self {
        let (folder, address) = place();
        for name in ["conf", "run", "secrets"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let made = run(Command::new(EGRESS).args(["ca", "--name", "demo"]));
        let made = String::from_utf8(made.stdout).unwrap();
        let (key, cert) = made.split_at(made.find("-----BEGIN CERT").unwrap());
        let pki = Pki::new("the world");
        std::fs::write(folder.join("conf/ca-key.pem"), key).unwrap();
        std::fs::write(folder.join("conf/ca.pem"), cert).unwrap();
        std::fs::write(folder.join("conf/roots.pem"), pki.root_pem()).unwrap();
        std::fs::write(
            folder.join("conf/routes.yaml"),
            routes(1, &rules.replace("$A", &address.to_string())),
        )
        .unwrap();
        let names = Names::serve(SocketAddr::from((address, RESOLVER)));
        for name in ["origin.test", "closed.test", "untrusted.test", "gone.test"] {
            names.set(name, &[address.into()]);
        }
        let egress = engine(&folder, address);
        let mut egress = change(egress);
        let stderr = std::fs::File::create(folder.join("stderr")).unwrap();
        let child = egress.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
        let bottle = Self { folder, address, pki, names, child };
        until("egress serves", || bottle.loaded());
        bottle
    }

    /// An origin that speaks TLS as `origin.test` and as the bottle's address.
    pub(crate) fn tls_origin(
        &self,
        answer: impl Fn(&mut crate::origin::Exchange<'_>) + Send + Sync + 'static,
    ) -> Origin {
        self.tls_origin_as(&["origin.test", "closed.test", &self.address.to_string()], answer)
    }

    /// An origin that speaks TLS as `names`.
    pub(crate) fn tls_origin_as(
        &self,
        names: &[&str],
        answer: impl Fn(&mut crate::origin::Exchange<'_>) + Send + Sync + 'static,
    ) -> Origin {
        let config = self.pki.server(names);
        Origin::serve(SocketAddr::from((self.address, TLS)), Some(config), answer)
    }

    /// An origin that speaks plain HTTP.
    pub(crate) fn plain_origin(
        &self,
        answer: impl Fn(&mut crate::origin::Exchange<'_>) + Send + Sync + 'static,
    ) -> Origin {
        Origin::serve(SocketAddr::from((self.address, PLAIN)), None, answer)
    }

    pub(crate) fn proxy(&self) -> SocketAddr {
        (self.address, PROXY).into()
    }

    /// A client in a tunnel to a host, with TLS.
    pub(crate) fn tunnel(&self, host: &str) -> Client {
        Client::connect(self, host).tls(self, host.rsplit_once(':').unwrap().0)
    }

    /// A client that speaks plain HTTP to the proxy.
    pub(crate) fn plain(&self) -> Client {
        Client::plain(self)
    }

    /// curl through the proxy, trusting the bottle's CA.
    pub(crate) fn curl(&self, args: &[&str]) -> Output {
        run(Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20"])
            .args(["--proxy", &format!("http://{}", self.proxy())])
            .arg("--cacert")
            .arg(self.folder.join("conf/ca.pem"))
            .args(args))
    }

    /// `loaded.json`, once it is there.
    pub(crate) fn loaded(&self) -> Option<Loaded> {
        let text = std::fs::read(self.folder.join("run/loaded.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Replaces a file of the configuration as the tools do.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let new = self.folder.join("conf/.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.join("conf").join(name)).unwrap();
    }

    /// Gives it secrets as the tools do, and waits until it says that it uses them.
    pub(crate) fn give(&self, generation: u64, secrets: &[(&str, &str)]) -> Told {
        let secrets =
            secrets.iter().map(|(name, value)| (name.to_string(), Value::new(value.to_string())));
        let text = serde_json::to_string(&Credentials::new(generation, secrets.collect())).unwrap();
        let new = self.folder.join("secrets/.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder.join("secrets/secrets.json")).unwrap();
        until("the secrets are in use", || {
            self.secrets().filter(|told| told.generation == generation && told.refused.is_none())
        })
    }

    /// What it tells of its secrets.
    pub(crate) fn secrets(&self) -> Option<Told> {
        let text = std::fs::read(self.folder.join("run/secrets.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    pub(crate) fn rules(&self, generation: u64, rules: &str) -> String {
        routes(generation, &rules.replace("$A", &self.address.to_string()))
    }

    /// The lines of `decisions.jsonl` once there are `count`.
    pub(crate) fn decisions(&self, count: usize) -> Vec<DecisionLine<'static>> {
        let lines = until(&format!("{count} decisions"), || {
            let text = std::fs::read_to_string(self.folder.join("run/decisions.jsonl")).ok()?;
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines: Vec<_> = whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            whole.lines().for_each(schema::check);
            (lines.len() >= count).then_some(lines)
        });
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    /// Each decision as `KIND METHOD HOST PATH: VERDICT REASON STATUS`.
    pub(crate) fn told(&self, count: usize) -> Vec<String> {
        self.decisions(count)
            .iter()
            .map(|line| {
                let kind = format!("{:?}", line.kind).to_lowercase();
                let mut text = format!("{kind} {} {}", line.method, line.host);
                if let Some(path) = &line.path {
                    let _ = write!(text, " {path}");
                }
                let _ = write!(text, ": {:?}", line.decision);
                if let Some(reason) = line.reason {
                    let _ = write!(text, " {reason}");
                }
                if let Some(status) = line.status {
                    let _ = write!(text, " {status}");
                }
                text
            })
            .collect()
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        run(Command::new("kill").args(["-s", signal, &self.child.id().to_string()]));
    }

    /// Ends it by SIGTERM and gives its exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bottle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("stderr of egress: {}", self.stderr());
            let told = std::fs::read_to_string(self.folder.join("run/decisions.jsonl"));
            eprintln!("decisions: {}", told.unwrap_or_default());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The engine under test: `bottle-egress serve`, or mitmproxy with our addon where
/// `BOTTLE_TEST_MITMDUMP` names its program.
pub(crate) fn engine(folder: &Path, address: Ipv4Addr) -> Command {
    let [conf, secrets, run] = ["conf", "secrets", "run"].map(|name| folder.join(name));
    let Some(mitmdump) = mitmdump() else {
        let mut egress = Command::new(EGRESS);
        egress
            .arg("serve")
            .args(["--listen", &format!("{address}:{PROXY}")])
            .args(["--dns", &format!("{address}:{DNS}")])
            .args(["--resolver", &format!("{address}:{RESOLVER}")])
            .args(["--secrets".as_ref(), secrets.as_os_str()])
            .args(["--conf".as_ref(), conf.as_os_str(), "--run".as_ref(), run.as_os_str()]);
        return egress;
    };
    let key = read(&conf, "ca-key.pem");
    std::fs::write(conf.join("mitmproxy-ca.pem"), key + &read(&conf, "ca.pem")).unwrap();
    let addon = concat!(env!("CARGO_MANIFEST_DIR"), "/mitmproxy/bottle.py");
    let mut egress = Command::new(mitmdump);
    egress.env("BOTTLE_JUDGE", EGRESS).args(["--no-server", "--scripts", addon]);
    egress.args(["--mode", &format!("regular@{address}:{PROXY}")]);
    for option in [
        format!("confdir={}", conf.display()),
        format!("ssl_verify_upstream_trusted_ca={}", conf.join("roots.pem").display()),
        format!("bottle_run={}", run.display()),
        format!("bottle_secrets={}", secrets.display()),
        format!("bottle_dns={address}:{DNS}"),
        format!("bottle_resolver={address}:{RESOLVER}"),
    ] {
        egress.args(["--set", &option]);
    }
    egress
}

/// mitmproxy's program, where it is the engine under test.
pub(crate) fn mitmdump() -> Option<std::ffi::OsString> {
    std::env::var_os("BOTTLE_TEST_MITMDUMP").filter(|path| !path.is_empty())
}

/// A whole `routes.yaml`.
pub(crate) fn routes(generation: u64, rules: &str) -> String {
    format!(
        "version: 1\ngeneration: {generation}\nplan: sha256:00\nbottle: demo\n\
         names: {{agent: 127.0.0.1, egress: 10.201.0.2, git-gate: 127.0.0.2}}\nclosed: [10.201.0.0/16]\n\
         routes:{rules}# end\n"
    )
}

/// A folder and a loopback address of this test's own.
pub(crate) fn place() -> (PathBuf, Ipv4Addr) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = std::process::id();
    let folder = std::env::temp_dir().join(format!("bottle-egress-test-{id}-{count}"));
    let [_, _, high, low] = id.to_be_bytes();
    let last = u8::try_from(count + 1).expect("fewer tests than that");
    (folder, Ipv4Addr::new(127, 64 + (high & 0x7f), low, last))
}

/// Waits until `ready` gives something.
pub(crate) fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Whether a program is there; a test that needs it says aloud that it is skipped.
pub(crate) fn have(program: &str) -> bool {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if !there {
        eprintln!("SKIPPED: '{program}' is not there");
    }
    there
}

/// Reads a file below a bottle's folder.
pub(crate) fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A name server that knows what it is told, and counts what it is asked.
#[derive(Clone)]
pub(crate) struct Names {
    known: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    fn serve(address: SocketAddr) -> Self {
        let names = Self { known: Arc::default(), asked: Arc::default() };
        let (theirs, socket) = (names.clone(), UdpSocket::bind(address).unwrap());
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut packet) {
                theirs.asked.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&theirs.answer(&packet[..length]), client);
            }
        });
        names
    }

    pub(crate) fn set(&self, name: &str, addresses: &[IpAddr]) {
        self.known.lock().unwrap().insert(name.to_owned(), addresses.to_vec());
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn answer(&self, query: &[u8]) -> Vec<u8> {
        let mut name = String::new();
        let mut at = 12;
        while query[at] != 0 {
            let length = usize::from(query[at]);
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(std::str::from_utf8(&query[at + 1..=at + length]).unwrap());
            at += 1 + length;
        }
        let kind = query[at + 2];
        let known = self.known.lock().unwrap().get(&name).cloned();
        let code = if known.is_some() { 0 } else { 3 };
        let records: Vec<Vec<u8>> = known
            .unwrap_or_default()
            .iter()
            .filter_map(|address| match (address, kind) {
                (IpAddr::V4(v4), 1) => Some(v4.octets().to_vec()),
                (IpAddr::V6(v6), 28) => Some(v6.octets().to_vec()),
                _ => None,
            })
            .collect();
        let mut out = query[..2].to_vec();
        out.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
        out.extend(&query[12..at + 5]);
        for data in records {
            out.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, u8::try_from(data.len()).unwrap()]);
            out.extend(data);
        }
        out
    }
}
