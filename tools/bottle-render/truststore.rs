//! Java's truststore: Java reads no PEM. A JKS file is simple enough to write, and Java, which is
//! given no password for it, does not look at the keyed digest at its end:
//! `sun.security.provider.JavaKeyStore`.

/// The file, of the certificates in a PEM bundle.
pub(crate) fn jks(bundle: &str) -> Vec<u8> {
    let certificates: Vec<Vec<u8>> = pem(bundle).collect();
    let mut out = Vec::new();
    out.extend(0xfeed_feed_u32.to_be_bytes());
    out.extend(2_u32.to_be_bytes());
    out.extend(size(certificates.len()));
    for (number, der) in certificates.iter().enumerate() {
        out.extend(2_u32.to_be_bytes()); // a trusted certificate
        text(&number.to_string(), &mut out);
        out.extend(0_u64.to_be_bytes()); // when it was added; no clock, so that bytes repeat
        text("X.509", &mut out);
        out.extend(size(der.len()));
        out.extend(der);
    }
    out.extend([0; 20]);
    out
}

/// A length; no bundle is near its limit.
fn size(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Short ASCII in `DataOutput.writeUTF`'s form.
fn text(ascii: &str, out: &mut Vec<u8>) {
    out.extend(u16::try_from(ascii.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(ascii.bytes());
}

/// The bytes within each pair of `BEGIN` and `END` lines.
fn pem(bundle: &str) -> impl Iterator<Item = Vec<u8>> {
    bundle.split("-----BEGIN CERTIFICATE-----").skip(1).filter_map(|rest| {
        let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
        base64(body)
    })
}

/// Base64 with line breaks; `None` where it is something else.
fn base64(body: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::with_capacity(body.len() * 3 / 4), 0_u32, 0);
    for byte in body.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length_is_read() {
        assert_eq!(base64("").unwrap(), b"");
        assert_eq!(base64("Zg==").unwrap(), b"f");
        assert_eq!(base64("Zm8=\n").unwrap(), b"fo");
        assert_eq!(base64("Zm\n9v\nYmFy").unwrap(), b"foobar");
        assert_eq!(base64("/+8=").unwrap(), [0xff, 0xef]);
        assert_eq!(base64("Zg*="), None);
    }

    #[test]
    fn truststore_holds_each_certificate_once() {
        let bundle = "-----BEGIN CERTIFICATE-----\nZm8=\n-----END CERTIFICATE-----\n".repeat(2);
        let expected = [
            b"\xfe\xed\xfe\xed\0\0\0\x02\0\0\0\x02".as_slice(),
            b"\0\0\0\x02\0\x010\0\0\0\0\0\0\0\0\0\x05X.509\0\0\0\x02fo",
            b"\0\0\0\x02\0\x011\0\0\0\0\0\0\0\0\0\x05X.509\0\0\0\x02fo",
            &[0; 20],
        ];
        assert_eq!(jks(&bundle), expected.concat());
    }
}
