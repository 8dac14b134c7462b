//! The first message of git's own protocol, which says what is wanted: one pkt-line,
//! `git-upload-pack /NAME\0host=…\0\0version=2\0`. Strict: what is not exactly that is refused, and
//! since a name has neither `/` nor `..` in it, nothing can be said of paths. Pure.

use bottle::gate::is_name;

/// The longest message, with its length.
pub const MAX: usize = 1024;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// To read: `git-upload-pack`.
    Fetch,
    /// To write: `git-receive-pack`.
    Push,
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is wanted.
    pub service: Service,
    /// Of which remote.
    pub name: &'a str,
    /// The version of the protocol, where the client asks for one: 1 or 2.
    pub version: Option<u8>,
}

/// How long the rest of a message is, by its first four bytes.
pub fn length(head: [u8; 4]) -> Result<usize, &'static str> {
    let mut length = 0;
    for byte in head {
        let digit = char::from(byte).to_digit(16).ok_or("its length is no number")?;
        length = length * 16 + digit as usize;
    }
    match length {
        0..=4 => Err("it is empty"),
        5..=MAX => Ok(length - 4),
        _ => Err("it is longer than any request"),
    }
}

/// Reads what follows the length.
pub fn parse(text: &[u8]) -> Result<Request<'_>, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8")?;
    let (asked, rest) = text.split_once('\0').ok_or("it does not end")?;
    let (service, path) = asked.split_once(' ').ok_or("it names no repository")?;
    let service = match service {
        "git-upload-pack" => Service::Fetch,
        "git-receive-pack" => Service::Push,
        _ => return Err("it asks for what is not served here"),
    };
    let name = path.strip_prefix('/').filter(|name| is_name(name));
    let name = name.ok_or("it names no repository as this bottle's remotes are named")?;
    let (host, rest) = rest.split_once('\0').ok_or("it names no host")?;
    let host = host.strip_prefix("host=").ok_or("it names no host")?;
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-_[]".contains(&b))
    {
        return Err("its host is none");
    }
    let version = match rest {
        "" => None,
        "\0version=1\0" => Some(1),
        "\0version=2\0" => Some(2),
        _ => return Err("it says more than git does"),
    };
    Ok(Request { service, name, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_sends_is_read() {
        let request = |service, version| Request { service, name: "origin", version };
        for (text, expected) in [
            (&b"git-upload-pack /origin\0host=10.1.2.4\0"[..], request(Service::Fetch, None)),
            (
                b"git-upload-pack /origin\0host=g:9418\0\0version=2\0",
                request(Service::Fetch, Some(2)),
            ),
            (b"git-receive-pack /origin\0host=[::1]\0", request(Service::Push, None)),
        ] {
            assert_eq!(parse(text), Ok(expected));
        }
        assert_eq!(length(*b"0032"), Ok(46));
        assert_eq!(length(*b"00aF"), Ok(171));
    }

    #[test]
    fn nothing_else_is() {
        for head in [b"0000", b"0001", b"0004", b"0401", b"ffff", b"GET ", b"+012", b"\0\0\0\0"] {
            assert!(length(*head).is_err(), "{head:?}");
        }
        let whole = "git-upload-pack /origin\0host=g\0\0version=2\0";
        assert!(parse(whole.as_bytes()).is_ok());
        for end in 0..whole.len() {
            // Where the message ends after its host, it is whole.
            assert!(parse(&whole.as_bytes()[..end]).is_err() || end == 31, "{end}");
        }
        for text in [
            "git-upload-archive /origin\0host=g\0",
            "git-upload-pack  /origin\0host=g\0",
            "git-upload-pack origin\0host=g\0",
            "git-upload-pack //origin\0host=g\0",
            "git-upload-pack /origin/\0host=g\0",
            "git-upload-pack /../origin\0host=g\0",
            "git-upload-pack /origin/../other\0host=g\0",
            "git-upload-pack /..\0host=g\0",
            "git-upload-pack /.git\0host=g\0",
            "git-upload-pack /~root\0host=g\0",
            "git-upload-pack /origin\n\0host=g\0",
            "git-upload-pack /--upload-pack=x\0host=g\0",
            "git-upload-pack /origin\0host=\0",
            "git-upload-pack /origin\0host=a/b\0",
            "git-upload-pack /origin\0",
            "git-upload-pack /origin\0host=g\0\0version=2\0\0version=2\0",
            "git-upload-pack /origin\0host=g\0\0version=3\0",
            "git-upload-pack /origin\0host=g\0\0x=y\0",
            "git-upload-pack /\0host=g\0",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse(b"git-upload-pack /\xff\0host=g\0").is_err());
    }
}
