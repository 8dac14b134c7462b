//! The stand-in as a process: the key that it takes, and the reload.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test spawns, writes files and fails by panicking"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

const PIPELOCK: &str = env!("CARGO_BIN_EXE_pipelock");

/// How long a test waits at most; reached only where it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of configuration, with a CA whose key is SEC1 and the caller's alone.
struct Conf(TempDir);

impl Conf {
    fn new() -> Self {
        let conf = Self(tempfile::tempdir().unwrap());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        conf.write("ca.pem", &params.self_signed(&key).unwrap().pem());
        conf.write("pkcs8.pem", &key.serialize_pem());
        conf.write("ca-key.pem", &sec1(&key.serialize_der()));
        conf.mode(0o600);
        conf
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file as the tools do.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(".new"), text).unwrap();
        fs::rename(self.path(".new"), self.path(name)).unwrap();
    }

    fn mode(&self, mode: u32) {
        fs::set_permissions(self.path("ca-key.pem"), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A configuration with interception, in strict mode, and something more.
    fn text(&self, port: u16, more: &str) -> String {
        format!(
            "version: 1\nmode: strict\nfetch_proxy: {{listen: '127.0.0.1:{port}'}}\n\
             forward_proxy: {{enabled: true}}\ntls_interception: {{enabled: true, ca_cert: {}, ca_key: {}}}\n{more}\n",
            self.path("ca.pem").display(),
            self.path("ca-key.pem").display()
        )
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(PIPELOCK);
        command.arg(verb).arg("--config").arg(self.path("pipelock.yaml"));
        command
    }
}

/// A P-256 key of PKCS#8 as SEC1.
fn sec1(pkcs8: &[u8]) -> String {
    let (private, public) = (&pkcs8[36..68], &pkcs8[pkcs8.len() - 64..]);
    let der = [
        b"\x30\x77\x02\x01\x01\x04\x20",
        private,
        b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\xa1\x44\x03\x42\x00\x04",
        public,
    ]
    .concat();
    pem::encode(&pem::Pem::new("EC PRIVATE KEY", der))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn key_in_another_form_or_open_to_others_is_found_when_it_is_loaded() {
    let conf = Conf::new();
    let sec1 = read(&conf.path("ca-key.pem"));
    for (key, mode, told) in [
        (read(&conf.path("pkcs8.pem")), 0o600, "unexpected PEM type PRIVATE KEY"),
        (sec1.clone(), 0o644, "has mode 0644"),
        (sec1.clone(), 0o700, "has mode 0700"),
    ] {
        conf.write("ca-key.pem", &key);
        conf.mode(mode);
        conf.write("pipelock.yaml", &conf.text(free_port(), "api_allowlist: [a.example]"));
        let check = conf.command("check").output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        let run = conf.command("run").output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success() && stderr.contains(told), "{stderr}");
    }
}

#[test]
fn reload_takes_hosts_and_refuses_to_be_loosened() {
    let conf = Conf::new();
    let port = free_port();
    conf.write("pipelock.yaml", &conf.text(port, "api_allowlist: [a.example]"));
    let outside = tempfile::tempdir().unwrap();
    let (out, err) = (outside.path().join("out"), outside.path().join("err"));
    let mut command = conf.command("run");
    command.stdin(Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let _running = Running(command.spawn().unwrap());
    let address = format!("127.0.0.1:{port}");
    let health = || {
        let asked = Command::new(PIPELOCK).args(["healthcheck", "--addr", &address]).output();
        asked.unwrap().status.success()
    };
    until("it is healthy", health);
    let reloads = || read(&out).matches("config_reload").count();
    let refusals = || read(&err).matches("config reload failed").count();

    conf.write("pipelock.yaml", &conf.text(port, "api_allowlist: [a.example, b.example]"));
    until("new hosts are in force", || reloads() == 1);
    for (number, (more, told)) in [
        ("ssrf: {ip_allowlist: [10.0.0.0/8]}", "ssrf.ip_allowlist was downgraded"),
        ("trusted_domains: [a.example]", "trusted_domains was downgraded"),
        ("api_alowlist: []", "unknown field"),
    ]
    .into_iter()
    .enumerate()
    {
        let more = format!("api_allowlist: [a.example]\n{more}");
        conf.write("pipelock.yaml", &conf.text(port, &more));
        until("it is refused", || refusals() == number + 1);
        assert!(read(&err).contains(told), "{}", read(&err));
    }
    let moved = conf.text(free_port(), "api_allowlist: [a.example]");
    conf.write("pipelock.yaml", &moved);
    until("it is refused", || refusals() == 4);
    // It goes on, says that it is well, and tells of none of them where it is asked.
    assert!(health());
    assert_eq!(reloads(), 1);
}
