//! The URL of a git remote, taken apart: where it leads, and by what.
//!
//! What programs read in different ways is refused, so that the host that egress lets through is the
//! host that git asks.

use anyhow::Result;

use crate::error::{Blame, caller};
use crate::host;
use crate::policy::HostKind;

/// By what a remote is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `https://…`.
    Https,
    /// `ssh://…`, or `user@host:path`.
    Ssh,
}

/// A remote's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// By what it is reached.
    pub transport: Transport,
    /// The user that the URL names; of ssh only.
    pub user: Option<String>,
    /// The host in normal form, an IPv6 address without brackets.
    pub host: String,
    /// What kind of thing it is; never more than one host.
    pub kind: HostKind,
    /// The port.
    pub port: u16,
    /// The path as ssh passes it on: from `/` on, but in `user@host:path` as it stands.
    pub path: String,
}

impl Remote {
    /// Takes a URL apart.
    pub fn parse(url: &str) -> Result<Self> {
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(caller("the url holds white space or a control character"));
        }
        let (transport, authority, path) = if let Some(rest) = url.strip_prefix("https://") {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (Transport::Https, authority, path)
        } else if let Some(rest) = url.strip_prefix("ssh://") {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            (Transport::Ssh, authority, path)
        } else {
            return Self::scp_like(url);
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some(_) if transport == Transport::Https => {
                return Err(caller(
                    "the url holds a user or password: name a 'secret' in its place",
                ));
            }
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, port) = split_port(place);
        let port = match port {
            None if transport == Transport::Https => 443,
            None => 22,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| caller(format!("url '{url}': '{port}' is not a port")))?,
        };
        Self { transport, ..Self::of(url, user, host, path)? }.at(port)
    }

    /// `user@host:path`, which has no port.
    fn scp_like(url: &str) -> Result<Self> {
        let neither = || {
            caller(format!(
                "url '{url}' is neither ssh nor https: write 'https://…', 'ssh://…' or 'user@host:path'"
            ))
        };
        if url.contains("://") {
            return Err(neither());
        }
        // git takes the first colon after a host in brackets.
        let after = url.find("]:").map_or(0, |at| at + 1);
        let colon = url[after..].find(':').map(|at| at + after).ok_or_else(neither)?;
        let (place, path) = (&url[..colon], &url[colon + 1..]);
        if place.contains('/') {
            return Err(neither());
        }
        let (user, host) = match place.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, place),
        };
        Self::of(url, user, host, path)
    }

    /// Checks the parts; of ssh, on its own port.
    fn of(url: &str, user: Option<&str>, host: &str, path: &str) -> Result<Self> {
        let what = || format!("url '{url}'");
        if let Some(user) = user {
            check_user(user).caller(what())?;
        }
        let (host, kind) = host::normalise(host).caller(what())?;
        if matches!(kind, HostKind::Wildcard | HostKind::Network | HostKind::PrivateNetwork) {
            return Err(caller(format!("{}: '{host}' is more than one host", what())));
        }
        if path.trim_matches('/').is_empty() {
            return Err(caller(format!("{}: it names no repository: add its path", what())));
        }
        if path.contains(['?', '#', '*', '\\', '%', '\'', '"'])
            || path.starts_with('-')
            || path.split('/').any(|part| matches!(part, "." | ".."))
            || path.contains("//")
        {
            return Err(caller(format!(
                "{}: the path is read differently by different programs: leave out '..', '//', '%', quotes, '?', '#' and '*'",
                what()
            )));
        }
        Ok(Self {
            transport: Transport::Ssh,
            user: user.map(str::to_owned),
            host,
            kind,
            port: 22,
            path: path.to_owned(),
        })
    }

    fn at(self, port: u16) -> Result<Self> {
        match (self.transport, port) {
            (Transport::Https, 80) => {
                Err(caller("the url is https on port 80, where egress takes plain HTTP only"))
            }
            _ => Ok(Self { port, ..self }),
        }
    }

    /// The path without what servers let be left out: the `/` before and behind it, and `.git`.
    #[must_use]
    pub fn repository(&self) -> &str {
        let path = self.path.trim_matches('/');
        path.strip_suffix(".git").unwrap_or(path)
    }
}

/// Refuses a user of ssh that a command line, a configuration file or a shell could take for
/// something else.
pub fn check_user(user: &str) -> Result<()> {
    let fits = !user.is_empty()
        && user.len() <= 64
        && !user.starts_with('-')
        && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+@".contains(&b));
    if fits {
        return Ok(());
    }
    Err(caller(format!(
        "user '{}' is not usable: write letters, digits, '.', '_', '-', '+' and '@', up to 64, and no '-' at the beginning",
        user.escape_debug()
    )))
}

/// Host and port of `host:port`; of an IPv6 address without brackets there is no port.
fn split_port(place: &str) -> (&str, Option<&str>) {
    match place.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (place, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(url: &str) -> String {
        match Remote::parse(url) {
            Ok(it) => format!(
                "{:?} {} {}:{} {} ({})",
                it.transport,
                it.user.as_deref().unwrap_or("-"),
                it.host,
                it.port,
                it.path,
                it.repository()
            ),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn every_form_of_a_url_is_taken_apart() {
        for (url, expected) in [
            ("https://Git.Example/a/b.git", "Https - git.example:443 /a/b.git (a/b)"),
            ("https://git.example:8443/a/b/", "Https - git.example:8443 /a/b/ (a/b)"),
            ("ssh://git@git.example/a/b.git", "Ssh git git.example:22 /a/b.git (a/b)"),
            ("ssh://git.example:2222/~x/b", "Ssh - git.example:2222 /~x/b (~x/b)"),
            ("ssh://git@[2001:db8::1]:2222/b", "Ssh git 2001:db8::1:2222 /b (b)"),
            ("git@git.example:a/b.git", "Ssh git git.example:22 a/b.git (a/b)"),
            ("git.example:/srv/b.git", "Ssh - git.example:22 /srv/b.git (srv/b)"),
            ("git@[2001:db8::1]:b", "Ssh git 2001:db8::1:22 b (b)"),
            ("git@100.64.0.7:b", "Ssh git 100.64.0.7:22 b (b)"),
        ] {
            assert_eq!(told(url), expected, "{url}");
        }
    }

    #[test]
    fn what_programs_read_differently_is_refused() {
        for (url, expected) in [
            ("http://a.example/b", "neither ssh nor https"),
            ("file:///srv/b", "neither ssh nor https"),
            ("ext::sh -c id", "white space"),
            ("/srv/b", "neither ssh nor https"),
            ("./a:b", "neither ssh nor https"),
            ("https://me:pw@a.example/b", "holds a user or password"),
            ("https://a.example", "names no repository"),
            ("https://a.example/", "names no repository"),
            ("https://a.example/../b", "read differently"),
            ("https://a.example/%2e%2e/b", "read differently"),
            ("https://a.example/b?c", "read differently"),
            ("https://a.example:80/b", "plain HTTP only"),
            ("https://a.example:0/b", "not a port"),
            ("https://a.example:x/b", "not a port"),
            ("https://*.example.com/b", "more than one host"),
            ("ssh://-oProxyCommand=id/b", "host"),
            ("ssh://-x@a.example/b", "user '-x' is not usable"),
            ("git@a.example:-b", "read differently"),
            ("a b@c.example:d", "white space"),
            ("x'y@c.example:d", "is not usable"),
        ] {
            let told = told(url);
            assert!(told.contains(expected), "{url}: {told}");
        }
    }
}
