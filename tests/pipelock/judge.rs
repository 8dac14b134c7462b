//! Whether a host may be reached, and where it is.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::Config;
use crate::log;

/// A host and its port, and the address to dial; or why not.
pub(crate) async fn judge(
    config: &Config,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, Blocked> {
    // Where it does not enforce, it only tells.
    let block = |why: String| {
        if config.enforce {
            return Err(Blocked::Policy(why));
        }
        log("anomaly", &[("reason", &why)]);
        Ok(())
    };
    if config.mode == "strict" && !listed(&config.api_allowlist, host) {
        block(format!("domain not in allowlist: {host}"))?;
    }
    let bare = host.trim_matches(['[', ']']);
    let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
        .await
        .map_err(|error| Blocked::World(format!("DNS resolution failed: {error}")))?
        .collect();
    let trusted = bare.parse::<IpAddr>().is_err() && listed(&config.trusted_domains, host);
    if !trusted && let Some(address) = found.iter().find(|at| is_closed(config, at.ip())) {
        block(format!("SSRF blocked: {host} resolves to internal IP {}", address.ip()))?;
    }
    Ok(found)
}

/// Why a host is not reached.
pub(crate) enum Blocked {
    /// It may not be.
    Policy(String),
    /// It cannot be.
    World(String),
}

/// Whether a list names a host; `*.x.com` names `x.com` too.
pub(crate) fn listed(list: &[String], host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    list.iter().any(|known| match known.strip_prefix("*.") {
        Some(apex) => host == apex || host.strip_suffix(apex).is_some_and(|r| r.ends_with('.')),
        None => known == host,
    })
}

fn is_closed(config: &Config, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let holds = |list: &[String]| {
        list.iter().filter_map(|net| net.parse::<IpNet>().ok()).any(|net| net.contains(&address))
    };
    holds(&config.internal) && !holds(&config.ssrf.ip_allowlist)
}
