//! Certificates: the CA of one bottle, and the leaves that it signs.
//!
//! One CA has to serve this proxy, pipelock and mitmproxy. pipelock takes a key only as SEC1
//! (`EC PRIVATE KEY`), and rcgen reads and writes only PKCS#8; for P-256 the two are the same 97
//! bytes in different wrappings, so the wrappings are spelled out here.

use std::io::Write;
use std::net::IpAddr;

use anyhow::Result;
use bottle::error::{Blame, caller, world};
use bottle::host::Host;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::args::Ca as Args;

/// How long ago a certificate begins: clocks of containers and hosts differ.
const BACKDATED: Duration = Duration::days(1);

/// Before the 32 bytes of the private key, between the two, and then come 64 of the public one.
const PKCS8: [&[u8]; 2] = [
    &[
        0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30,
        0x6b, 0x02, 0x01, 0x01, 0x04, 0x20,
    ],
    &[0xa1, 0x44, 0x03, 0x42, 0x00, 0x04],
];

/// As [`PKCS8`], with the curve named inside.
const SEC1: [&[u8]; 2] = [
    &[0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20],
    &[
        0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0xa1, 0x44, 0x03,
        0x42, 0x00, 0x04,
    ],
];

/// The label of a SEC1 key in PEM.
const SEC1_LABEL: &str = "EC PRIVATE KEY";

/// `bottle-egress ca`: prints a new CA, key first, which is the layout of `mitmproxy-ca.pem`.
pub(crate) fn print(args: &Args) -> Result<()> {
    let text = create(&args.name, args.days)?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).world("write the CA to stdout")
}

/// A new CA, key first.
pub(crate) fn create(name: &bottle::Slug, days: u16) -> Result<String> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).world("make a key")?;
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("bottle {name} CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(days.into());
    params.use_authority_key_identifier_extension = true;
    // What mitmproxy takes for granted of the authority of its leaves (RFC 5280, 4.2.1.2, method 1).
    let id = digest(&SHA1_FOR_LEGACY_USE_ONLY, key.public_key_raw());
    params.key_identifier_method = KeyIdMethod::PreSpecified(id.as_ref().to_vec());
    let cert = params.self_signed(&key).world("sign the CA")?;
    let sec1 = rewrap(key.serialized_der(), PKCS8, SEC1)
        .ok_or_else(|| world("make a key: it came in an unknown form"))?;
    Ok(pem::encode_config(
        &pem::Pem::new(SEC1_LABEL, sec1),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    ) + &cert.pem().replace("\r\n", "\n"))
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Takes a key out of one wrapping and puts it into another.
fn rewrap(der: &[u8], from: [&[u8]; 2], to: [&[u8]; 2]) -> Option<Vec<u8>> {
    let (private, rest) = der.strip_prefix(from[0])?.split_at_checked(32)?;
    let public = rest.strip_prefix(from[1]).filter(|public| public.len() == 64)?;
    Some([to[0], private, to[1], public].concat())
}

/// A CA that signs leaves. All of them share one key, made when the CA is loaded: what they prove
/// is the CA's word, not the key's.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    not_after: OffsetDateTime,
    leaf_key: KeyPair,
}

impl Ca {
    /// Loads a CA from the texts of `ca.pem` and `ca-key.pem`.
    pub(crate) fn load(cert: &str, key: &str) -> Result<Self> {
        let key = pem::parse(key).caller("read 'ca-key.pem'")?;
        let pkcs8 = match key.tag() {
            SEC1_LABEL => rewrap(key.contents(), SEC1, PKCS8),
            "PRIVATE KEY" => Some(key.into_contents()),
            _ => None,
        }
        .ok_or_else(|| {
            caller("read 'ca-key.pem': it is not a P-256 key in SEC1 or PKCS#8 form: make one with 'bottle-egress ca'")
        })?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8),
            &PKCS_ECDSA_P256_SHA256,
        )
        .caller("read 'ca-key.pem'")?;
        let cert = pem::parse(cert).caller("read 'ca.pem'")?.into_contents();
        let not_after = end_of(&cert)?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(cert.as_slice()), key)
            .caller("read 'ca.pem'")?;
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).world("make a key")?;
        Ok(Self { issuer, not_after, leaf_key })
    }

    /// The key of every leaf, PKCS#8.
    pub(crate) fn leaf_key(&self) -> &[u8] {
        self.leaf_key.serialized_der()
    }

    /// Signs a leaf for one host.
    pub(crate) fn leaf(&self, host: &Host<'_>) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("bottle-egress");
        params.subject_alt_names = vec![match host {
            Host::Name(name) => SanType::DnsName(name.as_ref().try_into()?),
            Host::Address(address) => SanType::IpAddress(IpAddr::to_canonical(address)),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::now_utc() - BACKDATED;
        params.not_after = self.not_after;
        Ok(params.signed_by(&self.leaf_key, &self.issuer)?.der().clone())
    }
}

/// When a certificate ends.
fn end_of(der: &[u8]) -> Result<OffsetDateTime> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).caller("read 'ca.pem'")?;
    Ok(cert.validity().not_after.to_datetime())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn made() -> (String, String) {
        let text = create(&"demo".parse().unwrap(), 30).unwrap();
        let (key, cert) = text.split_at(text.find("-----BEGIN CERTIFICATE").unwrap());
        (key.to_owned(), cert.to_owned())
    }

    #[test]
    fn key_is_sec1_and_comes_first() {
        let (key, cert) = made();
        assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
        assert!(key.ends_with("-----END EC PRIVATE KEY-----\n"));
        assert!(cert.ends_with("-----END CERTIFICATE-----\n"));
        assert!(!cert.contains('\r') && !key.contains('\r'));
    }

    #[test]
    fn ca_may_sign_leaves_only_and_ends_soon() {
        let (_, cert) = made();
        let der = pem::parse(cert).unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(der.contents()).unwrap();
        let basic = cert.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert_eq!(basic.value.path_len_constraint, Some(0));
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        let days = |t: x509_parser::time::ASN1Time| {
            (t.to_datetime() - OffsetDateTime::now_utc()).whole_days()
        };
        assert_eq!(days(cert.validity().not_after), 29);
        assert_eq!(days(cert.validity().not_before), -1);
    }

    #[test]
    fn loaded_ca_signs_leaves_that_end_with_it() {
        let (key, cert) = made();
        let ca = Ca::load(&cert, &key).unwrap();
        for host in [Host::Name("a_b.example".into()), Host::Address([10, 0, 0, 1].into())] {
            let leaf = ca.leaf(&host).unwrap();
            assert_eq!(end_of(&leaf).unwrap(), ca.not_after);
        }
    }

    #[test]
    fn what_is_no_p256_key_is_refused() {
        let (key, cert) = made();
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        for key in [other.as_str(), "", &key[..80], &cert] {
            assert!(Ca::load(&cert, key).is_err(), "{key}");
        }
    }
}
