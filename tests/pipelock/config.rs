//! The schema, as far as a bottle uses it: every key that is not here is an error, as it is in the
//! real one for every key that is not there. Defaults are the real one's, those that bite too.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bottle::strict;
use ipnet::IpNet;
use serde::Deserialize;

/// What names must not resolve into where the file does not say otherwise.
const INTERNAL: [&str; 9] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
];

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) version: u32,
    #[serde(default = "balanced")]
    pub(crate) mode: String,
    #[serde(default = "yes")]
    pub(crate) enforce: bool,
    #[serde(default)]
    pub(crate) api_allowlist: Vec<String>,
    #[serde(default)]
    pub(crate) trusted_domains: Vec<String>,
    #[serde(default)]
    pub(crate) ssrf: Ssrf,
    #[serde(default = "internal")]
    pub(crate) internal: Vec<String>,
    #[serde(default)]
    pub(crate) fetch_proxy: FetchProxy,
    #[serde(default)]
    pub(crate) forward_proxy: ForwardProxy,
    #[serde(default)]
    pub(crate) websocket_proxy: Switch,
    #[serde(default)]
    pub(crate) tls_interception: TlsInterception,
    #[serde(default)]
    pub(crate) request_body_scanning: BodyScanning,
    #[serde(default)]
    pub(crate) dlp: Dlp,
    #[serde(default)]
    pub(crate) logging: Logging,
    #[serde(default)]
    pub(crate) metrics_listen: String,
    #[serde(default)]
    pub(crate) kill_switch: Switch,
    /// Needs a licence.
    #[serde(default)]
    pub(crate) agents: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ssrf {
    pub(crate) ip_allowlist: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FetchProxy {
    pub(crate) listen: String,
    pub(crate) timeout_seconds: u32,
    pub(crate) monitoring: Monitoring,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "they are pipelock's names")]
pub(crate) struct Monitoring {
    pub(crate) max_url_length: u32,
    pub(crate) max_requests_per_minute: u32,
    pub(crate) max_data_per_minute: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ForwardProxy {
    pub(crate) enabled: bool,
    pub(crate) max_tunnel_seconds: u64,
    pub(crate) idle_timeout_seconds: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Switch {
    pub(crate) enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsInterception {
    pub(crate) enabled: bool,
    pub(crate) ca_cert: String,
    pub(crate) ca_key: String,
    pub(crate) passthrough_domains: Vec<String>,
    pub(crate) max_response_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BodyScanning {
    pub(crate) enabled: bool,
    pub(crate) action: String,
    pub(crate) max_body_bytes: u64,
    pub(crate) scan_headers: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Dlp {
    pub(crate) include_defaults: Option<bool>,
    pub(crate) scan_env: bool,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) secrets_file: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pattern {
    pub(crate) name: String,
    pub(crate) regex: String,
    pub(crate) severity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Logging {
    pub(crate) format: String,
    pub(crate) output: String,
    pub(crate) include_allowed: bool,
    pub(crate) include_blocked: bool,
}

fn balanced() -> String {
    "balanced".to_owned()
}

fn yes() -> bool {
    true
}

fn internal() -> Vec<String> {
    INTERNAL.map(str::to_owned).into()
}

impl Default for FetchProxy {
    fn default() -> Self {
        let listen = "127.0.0.1:8888".to_owned();
        Self { listen, timeout_seconds: 30, monitoring: Monitoring::default() }
    }
}

impl Default for Monitoring {
    fn default() -> Self {
        Self { max_url_length: 2048, max_requests_per_minute: 60, max_data_per_minute: 0 }
    }
}

impl Default for ForwardProxy {
    fn default() -> Self {
        Self { enabled: false, max_tunnel_seconds: 300, idle_timeout_seconds: 120 }
    }
}

impl Default for TlsInterception {
    fn default() -> Self {
        Self {
            enabled: false,
            ca_cert: String::new(),
            ca_key: String::new(),
            passthrough_domains: Vec::new(),
            max_response_bytes: 5 << 20,
        }
    }
}

impl Default for BodyScanning {
    fn default() -> Self {
        let action = "warn".to_owned();
        Self { enabled: true, action, max_body_bytes: 5 << 20, scan_headers: true }
    }
}

impl Default for Logging {
    fn default() -> Self {
        let (format, output) = ("json".to_owned(), "stdout".to_owned());
        Self { format, output, include_allowed: true, include_blocked: true }
    }
}

impl Config {
    /// Reads and validates a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading config {}", path.display()))?;
        let config: Self = strict::yaml(&text, "config").context("parsing config")?;
        config.check().context("invalid config")?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.version == 1, "unsupported version {}", self.version);
        one_of("mode", &self.mode, &["strict", "balanced", "audit"])?;
        if self.mode == "strict" && self.api_allowlist.is_empty() {
            bail!("strict mode requires a non-empty api_allowlist");
        }
        for cidr in &self.internal {
            cidr.parse::<IpNet>().with_context(|| format!("internal: {cidr}"))?;
        }
        for cidr in &self.ssrf.ip_allowlist {
            let net: IpNet = cidr.parse().with_context(|| format!("ssrf.ip_allowlist: {cidr}"))?;
            ensure!(
                net.addr() == net.network(),
                "ssrf.ip_allowlist: {cidr} has host bits set, did you mean {}",
                net.trunc()
            );
        }
        listen("fetch_proxy.listen", &self.fetch_proxy.listen)?;
        if !self.metrics_listen.is_empty() {
            listen("metrics_listen", &self.metrics_listen)?;
        }
        let forward = &self.forward_proxy;
        if forward.enabled && (forward.max_tunnel_seconds == 0 || forward.idle_timeout_seconds == 0)
        {
            bail!("forward_proxy: max_tunnel_seconds and idle_timeout_seconds must be positive");
        }
        let tls = &self.tls_interception;
        if tls.enabled && (tls.ca_cert.is_empty() || tls.ca_key.is_empty()) {
            bail!("tls_interception: ca_cert and ca_key must be set");
        }
        one_of(
            "request_body_scanning.action",
            &self.request_body_scanning.action,
            &["warn", "block"],
        )?;
        one_of("logging.format", &self.logging.format, &["json", "text"])?;
        one_of("logging.output", &self.logging.output, &["stdout", "file", "both"])?;
        for pattern in &self.dlp.patterns {
            one_of(
                "dlp.patterns.severity",
                &pattern.severity,
                &["critical", "high", "medium", "low"],
            )?;
        }
        ensure!(self.agents.is_none(), "agents: this feature needs a licence");
        Ok(())
    }
}

fn one_of(name: &str, value: &str, known: &[&str]) -> Result<()> {
    ensure!(
        known.contains(&value),
        "{name}: invalid value {value}: known are {}",
        known.join(", ")
    );
    Ok(())
}

fn listen(name: &str, value: &str) -> Result<()> {
    value.parse::<std::net::SocketAddr>().with_context(|| format!("{name}: {value}"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
