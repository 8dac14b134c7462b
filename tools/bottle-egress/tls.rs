//! TLS on both sides: towards the agent with certificates of the bottle's CA, towards the world
//! with the roots of the plan.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bottle::error::Blame;
use bottle::host::Host;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::ca::Ca;

/// The most hosts whose certificates are kept.
const KEPT: usize = 512;

/// The protocols that are spoken, on both sides, as ALPN names them.
pub(crate) const HTTP_2: &[u8] = b"h2";
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// Both, the better one first.
fn alpn() -> Vec<Vec<u8>> {
    vec![HTTP_2.to_vec(), HTTP_1.to_vec()]
}

/// How upstream servers are verified.
pub(crate) fn upstream(roots: RootCertStore) -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .world("set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn();
    Ok(config)
}

/// Makes the configurations that TLS of the agent is intercepted with, one a host.
pub(crate) struct Interceptor {
    ca: Ca,
    key: Arc<dyn SigningKey>,
    base: ServerConfig,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    configs: HashMap<Host<'static>, (Arc<ServerConfig>, u64)>,
    clock: u64,
}

impl Interceptor {
    /// Prepares all that hosts share: key, session cache and tickets.
    pub(crate) fn new(ca: Ca) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(ca.leaf_key().to_vec()));
        let key = provider.key_provider.load_private_key(der).world("set up TLS")?;
        let mut base = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .world("set up TLS")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nothing));
        base.alpn_protocols = alpn();
        base.session_storage = ServerSessionMemoryCache::new(KEPT);
        base.ticketer = ring::Ticketer::new().world("set up TLS")?;
        Ok(Self { ca, key, base, kept: Mutex::default() })
    }

    /// The configuration for one host, with a certificate for it.
    pub(crate) fn config(&self, host: &Host<'_>) -> Result<Arc<ServerConfig>> {
        let host = host.clone().into_owned();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let clock = kept.clock;
        if let Some((config, used)) = kept.configs.get_mut(&host) {
            *used = clock;
            return Ok(config.clone());
        }
        if kept.configs.len() >= KEPT {
            let oldest = kept.configs.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(host, _)| host.clone()) {
                kept.configs.remove(&oldest);
            }
        }
        let leaf = self.ca.leaf(&host).world(format!("make a certificate for '{host}'"))?;
        let mut config = self.base.clone();
        config.cert_resolver =
            Arc::new(One(Arc::new(CertifiedKey::new(vec![leaf], self.key.clone()))));
        let config = Arc::new(config);
        kept.configs.insert(host, (config.clone(), clock));
        Ok(config)
    }
}

/// One certificate, whatever name the client asks for: the name has been looked at by then.
#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Stands in until a host is known.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_by_host_and_not_without_end() {
        let (key, cert) = crate::ca::tests::made();
        let interceptor = Interceptor::new(Ca::load(&cert, &key).unwrap()).unwrap();
        let host = |n: usize| Host::Name(format!("h{n}.example").into());
        let first = interceptor.config(&host(0)).unwrap();
        for n in 1..KEPT + 10 {
            interceptor.config(&host(n)).unwrap();
            // Asked for again and again, it is never the oldest.
            assert!(Arc::ptr_eq(&first, &interceptor.config(&host(0)).unwrap()), "after {n}");
        }
        assert_eq!(interceptor.kept.lock().unwrap().configs.len(), KEPT);
    }
}
