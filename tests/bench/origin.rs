//! The origin that all ways lead to: nginx with TLS on loopback, a small answer and a large one; and
//! the CA that signs it and the proxies' own certificates.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// The name it is asked by: every machine knows it.
pub(crate) const HOST: &str = "localhost";
/// Length of the large answer.
const LARGE: usize = 256 << 20;

/// A CA with its key.
pub(crate) struct Ca {
    /// Certificate.
    pub(crate) certificate: String,
    /// Key, PKCS#8.
    pub(crate) key: String,
}

impl Ca {
    /// A new one.
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = Self::params()?.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    fn params() -> Result<CertificateParams> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "bottle bench");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(params)
    }
}

/// A child that ends with this.
pub(crate) struct Running(Child);

impl Running {
    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program and waits until it takes connections; its output goes to `log`.
pub(crate) fn start(mut command: Command, log: &Path, port: u16) -> Result<Running> {
    let output = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address(port)).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("{command:?} ended with {status}: {}", fs::read_to_string(log)?);
        }
        if Instant::now() > end {
            let _ = child.kill();
            bail!("{command:?} does not listen on {port}: {}", fs::read_to_string(log)?);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Running(child))
}

/// A port on loopback that nobody listens on, so that two runs on one machine do not meet.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(address(0))?.local_addr()?.port())
}

/// A port on loopback.
pub(crate) fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A program, where `$PATH` or one of the folders for daemons has it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Starts the origin; `None` where there is no nginx.
pub(crate) fn serve(folder: &Path, ca: &Ca, port: u16) -> Result<Option<Running>> {
    let Some(nginx) = program("nginx") else { return Ok(None) };
    let issuer = Issuer::new(Ca::params()?, KeyPair::from_pem(&ca.key)?);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![HOST.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, HOST);
    let certificate = params.signed_by(&key, &issuer)?;
    let path = |name: &str| folder.join(name);
    fs::write(path("origin.pem"), certificate.pem())?;
    fs::write(path("origin-key.pem"), key.serialize_pem())?;
    fs::write(path("small"), [b'x'; 100])?;
    let mut large = fs::File::create(path("large"))?;
    let block: Vec<u8> =
        (0..1_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for _ in 0..LARGE / block.len() {
        large.write_all(&block)?;
    }
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; sendfile on; tcp_nodelay on;\n\
         client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};\n\
         server {{ listen 127.0.0.1:{port} ssl backlog=1024; root {dir}; ssl_certificate {dir}/origin.pem; ssl_certificate_key {dir}/origin-key.pem; }} }}\n",
        dir = folder.display()
    );
    fs::write(path("nginx.conf"), config)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(folder).arg("-c").arg(path("nginx.conf"));
    start(command, &path("nginx.log"), port).map(Some)
}
