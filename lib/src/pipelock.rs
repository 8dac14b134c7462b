//! pipelock's configuration, in its own terms, and what of a plan becomes it. Pure: `bottle-render`
//! writes it, `bottle-apply` compares what two plans make of it.
//!
//! pipelock refuses every key that it does not know, and fills in what is left out with defaults
//! that bite, so all that a bottle depends on is spelt out. It is the wider of the two: it judges by
//! host, where egress judges by method and path, and its `*.x.com` is `x.com` too, which egress's is
//! not. Nothing reaches it but what egress has let through.

use anyhow::Result;
use ipnet::IpNet;
use serde::Serialize;

use crate::error::{Blame, caller};
use crate::host;
use crate::plan::{Pipelock, PipelockMode, Plan};
use crate::policy::{HostKind, Rule};

/// The port of its one listener: fetch, CONNECT and plain proxying.
pub const PORT: u16 = 8888;

/// The name of its file.
pub const FILE: &str = "pipelock.yaml";

/// A whole file. <https://github.com/luckyPipewrench/pipelock/blob/main/docs/configuration.md>
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// 1.
    pub version: u32,
    /// Enforced by `api_allowlist` in `strict` alone.
    pub mode: PipelockMode,
    /// Whether it blocks what it finds, or only tells.
    pub enforce: bool,
    /// Hosts of the rules; `*.` and a name is that name too.
    pub api_allowlist: Vec<String>,
    /// Names that may resolve to what is internal.
    pub trusted_domains: Vec<String>,
    /// What of the internal networks it may reach all the same.
    pub ssrf: Ssrf,
    /// Networks that a name must not resolve into. pipelock resolves anew, so they are all those
    /// that egress keeps closed.
    pub internal: Vec<IpNet>,
    /// The listener.
    pub fetch_proxy: FetchProxy,
    /// CONNECT and plain proxying; off by default.
    pub forward_proxy: ForwardProxy,
    /// The `/ws` endpoint, which egress never asks.
    pub websocket_proxy: Switch,
    /// What it looks into.
    pub tls_interception: TlsInterception,
    /// The scan of requests.
    pub request_body_scanning: BodyScanning,
    /// Patterns of secrets.
    pub dlp: Dlp,
    /// What it writes down.
    pub logging: Logging,
    /// Without it, `/metrics` and `/stats` are on the port that others see.
    pub metrics_listen: &'static str,
}

/// `ssrf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ssrf {
    /// Canonical: set host bits are an error.
    pub ip_allowlist: Vec<IpNet>,
}

/// `fetch_proxy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FetchProxy {
    /// Its default is loopback, which in a container nobody reaches.
    pub listen: String,
    /// Limits.
    pub monitoring: Monitoring,
}

/// `fetch_proxy.monitoring`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Monitoring {
    /// Bytes.
    pub max_url_length: u32,
    /// To one domain; 0 is no switch.
    pub max_requests_per_minute: u32,
    /// Bytes to one domain; 0 is none.
    pub max_data_per_minute: u32,
}

/// `forward_proxy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForwardProxy {
    /// Whether it is on.
    pub enabled: bool,
    /// A tunnel's longest life.
    pub max_tunnel_seconds: u32,
    /// How long a tunnel may rest.
    pub idle_timeout_seconds: u32,
}

/// A section of which only one thing matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switch {
    /// Whether it is on.
    pub enabled: bool,
}

/// `tls_interception`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsInterception {
    /// Whether it is on.
    pub enabled: bool,
    /// Path of the certificate.
    pub ca_cert: &'static str,
    /// Path of the key: SEC1, and no bit of 0137 in its mode.
    pub ca_key: &'static str,
    /// Hosts that it does not look into.
    pub passthrough_domains: Vec<String>,
    /// A longer answer is blocked.
    pub max_response_bytes: u32,
}

/// `request_body_scanning`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BodyScanning {
    /// Whether it is on.
    pub enabled: bool,
    /// `block` or `warn`.
    pub action: &'static str,
    /// A longer body is blocked.
    pub max_body_bytes: u32,
    /// Whether headers are scanned too.
    pub scan_headers: bool,
}

/// `dlp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dlp {
    /// Its own patterns.
    pub include_defaults: bool,
    /// The values of its environment, which holds none.
    pub scan_env: bool,
}

/// `logging`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logging {
    /// `json`.
    pub format: &'static str,
    /// `stdout`.
    pub output: &'static str,
    /// Whether what it allows is logged.
    pub include_allowed: bool,
    /// Whether what it blocks is logged.
    pub include_blocked: bool,
}

/// Requests to one domain in a minute. A cold install of a few thousand packages, fifty at a time,
/// stays below 10,000; an agent that sends ten times that is no install.
const REQUESTS: u32 = 100_000;

/// URLs that storage services sign are longer than pipelock's 2048.
const URL: u32 = 16 << 10;

/// The longest body that is looked into, either way. pipelock holds it in memory: more than a push
/// of git has, less than its container.
const BODY: u32 = 32 << 20;

/// A day, where pipelock's own limit is five minutes.
const TUNNEL: u32 = 24 * 60 * 60;

/// A model that thinks says nothing for minutes.
const IDLE: u32 = 60 * 60;

/// Hosts, and all below them, that are passed through where a rule names them: what they answer is
/// compressed or larger than pipelock lets through, or their own key is what it takes for a leak.
/// Egress looks into them all the same.
const PASSED: &[&str] = &[
    // LLM APIs
    "aiplatform.googleapis.com",
    "anthropic.com",
    "cohere.ai",
    "cohere.com",
    "deepseek.com",
    "fireworks.ai",
    "generativelanguage.googleapis.com",
    "githubcopilot.com",
    "groq.com",
    "huggingface.co",
    "mistral.ai",
    "openai.azure.com",
    "openai.com",
    "openrouter.ai",
    "perplexity.ai",
    "together.ai",
    "together.xyz",
    "x.ai",
    // package registries
    "alpinelinux.org",
    "anaconda.com",
    "anaconda.org",
    "crates.io",
    "debian.org",
    "docker.io",
    "ghcr.io",
    "golang.org",
    "gradle.org",
    "hackage.haskell.org",
    "hex.pm",
    "jsr.io",
    "maven.apache.org",
    "maven.org",
    "npmjs.com",
    "npmjs.org",
    "nuget.org",
    "packagist.org",
    "pypi.org",
    "pythonhosted.org",
    "quay.io",
    "rubygems.org",
    "rust-lang.org",
    "ubuntu.com",
    "yarnpkg.com",
];

impl Config {
    /// What a plan's pipelock is told; `None` where the plan has none. `closed` is what egress keeps
    /// closed beside special addresses: the host's own and other bottles'.
    pub fn of(plan: &Plan, closed: &[IpNet]) -> Result<Option<Self>> {
        let Some(asked) = &plan.pipelock else { return Ok(None) };
        let rules = &plan.rules()?;
        check(asked)?;
        let api_allowlist = allowlist(asked.mode, rules)?;
        let is_audit = asked.mode == PipelockMode::Audit;
        let mut internal: Vec<IpNet> =
            host::special_networks().chain(closed.iter().copied()).collect();
        internal.sort();
        internal.dedup();
        Ok(Some(Self {
            version: 1,
            mode: asked.mode,
            enforce: !is_audit,
            api_allowlist,
            trusted_domains: sorted(asked.trusted_domains.iter().cloned()),
            ssrf: Ssrf { ip_allowlist: exempt(asked, rules, closed) },
            internal,
            fetch_proxy: FetchProxy {
                listen: format!("0.0.0.0:{PORT}"),
                monitoring: Monitoring {
                    max_url_length: URL,
                    max_requests_per_minute: REQUESTS,
                    max_data_per_minute: 0,
                },
            },
            forward_proxy: ForwardProxy {
                enabled: true,
                max_tunnel_seconds: TUNNEL,
                idle_timeout_seconds: IDLE,
            },
            websocket_proxy: Switch { enabled: false },
            tls_interception: TlsInterception {
                enabled: true,
                ca_cert: "/etc/bottle/ca.pem",
                ca_key: "/etc/bottle/ca-key.pem",
                passthrough_domains: passed(asked, rules),
                max_response_bytes: BODY,
            },
            request_body_scanning: BodyScanning {
                enabled: true,
                action: if is_audit { "warn" } else { "block" },
                max_body_bytes: BODY,
                scan_headers: true,
            },
            dlp: Dlp { include_defaults: true, scan_env: false },
            logging: Logging {
                format: "json",
                output: "stdout",
                include_allowed: true,
                include_blocked: true,
            },
            metrics_listen: "127.0.0.1:9090",
        }))
    }
}

/// Refuses what pipelock would refuse only when it starts.
fn check(asked: &Pipelock) -> Result<()> {
    let lists = [
        ("trusted_domains", &asked.trusted_domains),
        ("passthrough_domains", &asked.passthrough_domains),
    ];
    for (list, names) in lists {
        for name in names {
            let (normal, kind) = host::normalise(name).caller(format!("pipelock.{list}"))?;
            if matches!(kind, HostKind::Network | HostKind::PrivateNetwork) {
                return Err(caller(format!(
                    "pipelock.{list}: '{name}' is a network, and hosts belong here: put it into 'ssrf_ip_allowlist'"
                )));
            }
            if normal != *name {
                return Err(caller(format!("pipelock.{list}: '{name}': write it as '{normal}'")));
            }
        }
    }
    match asked.ssrf_ip_allowlist.iter().find(|net| net.addr() != net.network()) {
        Some(net) => Err(caller(format!(
            "pipelock.ssrf_ip_allowlist: '{net}' has host bits set: write '{}'",
            net.trunc()
        ))),
        None => Ok(()),
    }
}

/// The hosts of the rules. pipelock's list has no networks.
fn allowlist(mode: PipelockMode, rules: &[Rule]) -> Result<Vec<String>> {
    let is_network =
        |rule: &&Rule| matches!(rule.kind, HostKind::Network | HostKind::PrivateNetwork);
    if mode == PipelockMode::Strict {
        if rules.is_empty() {
            return Err(caller(
                "pipelock.mode: 'strict' lets out only what 'egress.routes' names, and there is no route: add one, or leave pipelock out",
            ));
        }
        if let Some(rule) = rules.iter().find(is_network) {
            return Err(caller(format!(
                "pipelock.mode: 'strict' knows hosts, and the route to '{}' is for a network: name its hosts, or take 'mode: balanced'",
                rule.host
            )));
        }
    }
    Ok(sorted(rules.iter().filter(|rule| !is_network(rule)).map(|rule| rule.host.clone())))
}

/// The networks that are exempt from its check: what the owner lists, and of the rules those that
/// need it, because they are special or closed.
fn exempt(asked: &Pipelock, rules: &[Rule], closed: &[IpNet]) -> Vec<IpNet> {
    let own = |rule: &Rule| match rule.kind {
        HostKind::PrivateAddress | HostKind::Address => {
            rule.host.parse::<std::net::IpAddr>().ok().map(IpNet::from)
        }
        HostKind::PrivateNetwork | HostKind::Network => rule.host.parse().ok(),
        HostKind::Name | HostKind::Wildcard | HostKind::SingleLabel => None,
    };
    let is_closed = |net: &IpNet| {
        host::special_net(*net).is_some()
            || closed.iter().any(|other| other.contains(net) || net.contains(other))
    };
    let of_rules = rules.iter().flat_map(|rule| rule.addresses.iter().copied().chain(own(rule)));
    let mut all: Vec<IpNet> =
        of_rules.filter(is_closed).chain(asked.ssrf_ip_allowlist.iter().copied()).collect();
    all.sort();
    all.dedup();
    all
}

/// The hosts that pipelock does not look into: what the owner lists, what egress does not look into
/// either (to pipelock, all that comes through a CONNECT is TLS), what egress adds a credential for, because that is a leak to pipelock, and LLM APIs and
/// package registries.
fn passed(asked: &Pipelock, rules: &[Rule]) -> Vec<String> {
    let is_passed = |rule: &&Rule| {
        rule.passthrough || rule.raw || rule.inject.is_some() || is_known(&rule.host)
    };
    let of_rules = rules.iter().filter(is_passed).map(|rule| rule.host.clone());
    sorted(of_rules.chain(asked.passthrough_domains.iter().cloned()))
}

fn is_known(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    PASSED.iter().any(|known| {
        name.strip_suffix(known).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::strict;

    fn plan(pipelock: &Value, routes: &Value) -> Plan {
        let plan = json!({
            "digest": "", "agent": "x", "bottle": "dev", "image": "y", "resources": {"pids": 512},
            "egress": {"engine": "embedded", "routes": routes}, "pipelock": pipelock,
            "selftest": "enforce",
        });
        strict::json(&plan.to_string(), "plan").unwrap()
    }

    fn config(pipelock: &Value, routes: &Value) -> Config {
        let closed = ["203.0.113.9/32".parse().unwrap()];
        Config::of(&plan(pipelock, routes), &closed).unwrap().unwrap()
    }

    fn refusal(pipelock: &Value, routes: &Value) -> String {
        format!("{:#}", Config::of(&plan(pipelock, routes), &[]).unwrap_err())
    }

    fn texts(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn hosts_of_ssh_are_exempt_and_passed() {
        let mut plan = plan(&json!({"mode": "strict"}), &json!([]));
        for address in ["100.64.0.7", "ssh.example"] {
            let host =
                json!({"name": "x", "address": address, "port": 22, "key": "/k", "host_key": "k"});
            plan.ssh.push(strict::json(&host.to_string(), "ssh").unwrap());
        }
        let config = Config::of(&plan, &[]).unwrap().unwrap();
        let hosts = ["100.64.0.7", "ssh.example"];
        assert_eq!(texts(&config.ssrf.ip_allowlist), ["100.64.0.7/32"]);
        assert_eq!(config.tls_interception.passthrough_domains, hosts);
        assert_eq!(config.api_allowlist, hosts);
    }

    #[test]
    fn what_rules_may_reach_is_exempt_and_no_more() {
        let routes = json!([
            {"host": "a.example", "kind": "name", "ports": [443],
             "addresses": ["10.1.0.0/16", "100.64.0.0/10", "198.51.0.0/24"]},
            {"host": "192.168.7.1", "kind": "private_address", "ports": [443]},
            {"host": "203.0.113.9", "kind": "private_address", "ports": [443]},
            {"host": "9.9.9.9", "kind": "address", "ports": [443]},
            {"host": "10.2.0.0/24", "kind": "private_network", "ports": [443]},
        ]);
        let asked = json!({"mode": "balanced", "ssrf_ip_allowlist": ["172.20.0.0/16"]});
        let config = config(&asked, &routes);
        assert_eq!(
            texts(&config.ssrf.ip_allowlist),
            [
                "10.1.0.0/16",
                "10.2.0.0/24",
                "100.64.0.0/10",
                "172.20.0.0/16",
                "192.168.7.1/32",
                "203.0.113.9/32"
            ]
        );
        assert_eq!(config.api_allowlist, ["192.168.7.1", "203.0.113.9", "9.9.9.9", "a.example"]);
        for net in ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "203.0.113.9/32"] {
            assert!(config.internal.contains(&net.parse().unwrap()), "{net}");
        }
    }

    #[test]
    fn registries_models_and_credentials_pass_through() {
        let name = |host: &str| json!({"host": host, "kind": "name", "ports": [443]});
        let mut inject = name("git.example");
        inject["inject"] = json!({"secret": "t", "bearer": true});
        let mut passthrough = name("pinned.example");
        passthrough["passthrough"] = json!(true);
        let routes = json!([
            name("api.anthropic.com"),
            name("pypi.org"),
            name("notpypi.org"),
            name("a.example"),
            inject,
            passthrough,
            {"host": "*.crates.io", "kind": "wildcard", "ports": [443]},
        ]);
        let asked = json!({"mode": "balanced", "passthrough_domains": ["*.own.example"]});
        assert_eq!(
            config(&asked, &routes).tls_interception.passthrough_domains,
            [
                "*.crates.io",
                "*.own.example",
                "api.anthropic.com",
                "git.example",
                "pinned.example",
                "pypi.org"
            ]
        );
    }

    #[test]
    fn audit_tells_and_does_not_block() {
        let config = config(&json!({"mode": "audit"}), &json!([]));
        assert_eq!((config.enforce, config.request_body_scanning.action), (false, "warn"));
    }

    #[test]
    fn what_pipelock_would_refuse_is_refused_with_the_way_out() {
        let strict = json!({"mode": "strict"});
        assert_eq!(
            refusal(&strict, &json!([])),
            "pipelock.mode: 'strict' lets out only what 'egress.routes' names, and there is no route: add one, or leave pipelock out"
        );
        let net = json!([{"host": "10.2.0.0/24", "kind": "private_network", "ports": [443]}]);
        assert!(refusal(&strict, &net).contains("the route to '10.2.0.0/24' is for a network"));
        for (field, value, told) in [
            ("passthrough_domains", "https://a.example", "pipelock.passthrough_domains: "),
            ("trusted_domains", "A.example", "write it as 'a.example'"),
            ("trusted_domains", "10.0.0.0/8", "is a network"),
            ("ssrf_ip_allowlist", "10.0.0.1/8", "write '10.0.0.0/8'"),
        ] {
            let asked = json!({"mode": "balanced", field: [value]});
            let refused = refusal(&asked, &json!([]));
            assert!(refused.contains(told), "{refused}");
        }
    }
}
