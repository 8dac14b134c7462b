//! The CA: loaded as strictly as the real one does it, and the leaves that it signs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::TlsInterception;

/// Bits that the key's mode must not have: execution, and all of others and of writing groups.
const FORBIDDEN: u32 = 0o137;

/// What a P-256 key in SEC1 has before, between and in PKCS#8 around its two parts.
const SEC1: [usize; 2] = [7, 18];
const PKCS8: [&[u8]; 2] = [
    b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20",
    b"\xa1\x44\x03\x42\x00\x04",
];

/// A loaded CA.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    leaf: KeyPair,
}

impl Ca {
    pub(crate) fn load(told: &TlsInterception) -> Result<Self> {
        let path = Path::new(&told.ca_key);
        let mode = std::fs::metadata(path).context("loading CA key")?.permissions().mode();
        ensure!(mode & FORBIDDEN == 0, "CA key file {} has mode {:04o}", told.ca_key, mode & 0o777);
        let key = pem::parse(std::fs::read(path)?).context("loading CA key")?;
        ensure!(key.tag() == "EC PRIVATE KEY", "CA key: unexpected PEM type {}", key.tag());
        let private = key.contents().get(SEC1[0]..SEC1[0] + 32);
        let public = key.contents().get(SEC1[0] + 32 + SEC1[1]..).filter(|rest| rest.len() == 64);
        let (private, public) = private.zip(public).context("CA key: not a P-256 key")?;
        let pkcs8 = [PKCS8[0], private, PKCS8[1], public].concat();
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8),
            &PKCS_ECDSA_P256_SHA256,
        )
        .context("loading CA key")?;
        let cert =
            CertificateDer::from_pem_file(&told.ca_cert).context("loading CA certificate")?;
        let issuer = Issuer::from_ca_cert_der(&cert, key).context("loading CA certificate")?;
        Ok(Self { issuer, leaf: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    /// How a tunnel to a host is intercepted.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<ServerConfig>> {
        let params = CertificateParams::new([host.trim_matches(['[', ']']).to_owned()])?;
        let cert = params.signed_by(&self.leaf, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.leaf.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
