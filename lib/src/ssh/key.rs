//! Keys in the forms of OpenSSH, as far as a bottle has to look into them: a public key on one line,
//! and the public half of a private key, which stands before what a passphrase encrypts.

use anyhow::Result;

use crate::error::caller;

/// The kinds of keys that a host proves itself by.
const HOST_KEYS: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// What is left of bytes that are read from their beginning, in the form of RFC 4251.
#[derive(Debug, Clone, Copy)]
pub struct Blob<'a>(&'a [u8]);

impl<'a> Blob<'a> {
    /// All of it.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Four bytes.
    pub fn number(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }

    /// A string, which says its length first.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}

/// The public key of a host, `TYPE BASE64`, out of what a manifest says, whose comment is left out.
pub fn host_key(text: &str) -> Result<String> {
    let refuse = |why: &str| {
        Err(caller(format!(
            "host_key {why}: write type and key, as 'ssh-keyscan' prints after the name"
        )))
    };
    if text.contains(|c: char| c.is_control()) {
        return refuse("has more than one line or a control character");
    }
    let mut words = text.split_whitespace();
    let (Some(kind), Some(key)) = (words.next(), words.next()) else {
        return refuse("is no public key");
    };
    if !HOST_KEYS.contains(&kind) {
        return refuse(&format!("is of type '{kind}', and has to be of {}", HOST_KEYS.join(", ")));
    }
    let named = decode(key).and_then(|blob| Blob::new(&blob).string().map(<[u8]>::to_vec));
    if named.as_deref() != Some(kind.as_bytes()) {
        return refuse(&format!("is not whole, or no key of type '{kind}'"));
    }
    Ok(format!("{kind} {key}"))
}

/// The public half of a private key file, `TYPE BASE64`, or why the file cannot be used.
pub fn public_of(private: &[u8]) -> Result<String, &'static str> {
    const OTHER: &str = "it is no private key in OpenSSH's own form: rewrite it with 'ssh-keygen -p -N \"\" -f FILE'";
    let text = std::str::from_utf8(private).map_err(|_| OTHER)?.trim();
    if text.contains("PRIVATE KEY-----") && text.contains("ENCRYPTED") {
        return Err(PASSPHRASE);
    }
    let inner = text.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)).ok_or(OTHER)?;
    let inner: String = inner.split_whitespace().collect();
    let bytes = decode(&inner).ok_or("it is not whole")?;
    let mut rest = Blob::new(bytes.strip_prefix(MAGIC).ok_or("it is not whole")?);
    let mut read = || {
        let cipher = rest.string()?;
        let (_kdf, _options) = (rest.string()?, rest.string()?);
        (rest.number()? == 1).then_some((cipher, rest.string()?))
    };
    let (cipher, public) = read().ok_or("it is not whole")?;
    if cipher != b"none" {
        return Err(PASSPHRASE);
    }
    let kind = Blob::new(public).string().and_then(|kind| std::str::from_utf8(kind).ok());
    match kind {
        Some(kind) if kind.starts_with("sk-") => {
            Err("it is of a security key, which only its own device can use: name another key")
        }
        Some(kind) if kind.bytes().all(|b| b.is_ascii_graphic()) && !kind.is_empty() => {
            Ok(format!("{kind} {}", encode(public)))
        }
        _ => Err("it is not whole"),
    }
}

/// Why a key that is locked is no use to a sidecar that nobody sits at.
const PASSPHRASE: &str = "it has a passphrase, and there is nobody in the bottle to type it: name a key of the bottle's own without one";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with its padding; `None` where it is none.
fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let bare = text.trim_end_matches('=').as_bytes();
    if !bytes.len().is_multiple_of(4) || bytes.len() - bare.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    for part in bare.chunks(4) {
        let mut bits = 0_u32;
        for byte in part {
            let value = ALPHABET.iter().position(|known| known == byte)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        bits <<= 6 * (4 - part.len());
        out.extend(&bits.to_be_bytes()[1..part.len()]);
    }
    Some(out)
}

fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=part.len()].copy_from_slice(part);
        let bits = u32::from_be_bytes(group);
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at > part.len() { '=' } else { char::from(letter) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A public key that was made by `ssh-keygen`.
    const PUBLIC: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPGSZ/3Kt7cx4gEawcPZtM+6hitY4SFKTVu5tPL//KdN test\n";

    /// A private key in the form that `ssh-keygen` writes, without what is private in it.
    fn private(cipher: &str, public: &[u8]) -> String {
        let mut bytes = MAGIC.to_vec();
        let number = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
        for text in [cipher.as_bytes(), b"kdf", b""] {
            bytes.extend([&number(text.len()), text].concat());
        }
        bytes.extend(number(1));
        bytes.extend([&number(public.len()), public].concat());
        bytes.extend([&number(3)[..], b"???"].concat());
        let text = encode(&bytes);
        let lines: Vec<&str> =
            text.as_bytes().chunks(70).map(|l| str::from_utf8(l).unwrap()).collect();
        format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
    }

    fn blob() -> Vec<u8> {
        decode(PUBLIC.split_whitespace().nth(1).unwrap()).unwrap()
    }

    #[test]
    fn base64_is_there_and_back() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg==", b"foob"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(decode(text).unwrap(), bytes);
            assert_eq!(encode(bytes), text);
        }
        for odd in ["Z", "Zg", "Zg=", "Z===", "Zg=a", "Zm9-", "Zm 9"] {
            assert_eq!(decode(odd), None, "{odd}");
        }
    }

    #[test]
    fn public_half_is_what_ssh_keygen_says() {
        let public: Vec<&str> = PUBLIC.split_whitespace().take(2).collect();
        assert_eq!(public_of(private("none", &blob()).as_bytes()).unwrap(), public.join(" "));
        host_key(PUBLIC.trim_end()).unwrap();
    }

    #[test]
    fn key_that_cannot_be_used_is_refused_with_the_way_out() {
        assert!(
            public_of(private("aes256-ctr", &blob()).as_bytes())
                .unwrap_err()
                .contains("it has a passphrase")
        );
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nAA==\n-----END RSA PRIVATE KEY-----\n";
        assert!(public_of(old.as_bytes()).unwrap_err().contains("it has a passphrase"));
        let old = "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n";
        assert!(public_of(old.as_bytes()).unwrap_err().contains("ssh-keygen -p"));
        for odd in [PUBLIC, "", "\u{0}", "hello"] {
            assert!(public_of(odd.as_bytes()).unwrap_err().contains("ssh-keygen -p"), "{odd}");
        }
        let security = [&11_u32.to_be_bytes()[..], b"sk-ssh-ed25"].concat();
        let told = public_of(private("none", &security).as_bytes()).unwrap_err();
        assert!(told.contains("security key"), "{told}");
        let cut = format!("{}\n{END}\n", &private("none", &blob())[..60]);
        assert_eq!(public_of(cut.as_bytes()), Err("it is not whole"));
    }

    #[test]
    fn host_key_that_is_none_is_refused() {
        let ed25519 = PUBLIC.split_whitespace().nth(1).unwrap();
        for (text, why) in [
            ("", "is no public key"),
            ("ssh-ed25519", "is no public key"),
            ("a.example ssh-ed25519 AAAA", "is of type 'a.example'"),
            ("ssh-dss AAAA", "is of type 'ssh-dss'"),
            ("ssh-ed25519 AAAA", "is not whole"),
            ("ssh-ed25519 !", "is not whole"),
            (&format!("ssh-rsa {ed25519}"), "or no key of type 'ssh-rsa'"),
            (&format!("ssh-ed25519 {ed25519}\nother x"), "more than one line"),
        ] {
            let told = format!("{:#}", host_key(text).unwrap_err());
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
