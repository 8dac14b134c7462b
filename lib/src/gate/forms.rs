//! All the URLs by which people name one repository, and the configuration that sends them to the
//! gate.

use std::fmt::Write;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::PORT;
use crate::plan::GitRemote;
use crate::remote::{Remote, Transport};

/// What may follow the name of a repository in the name of another one.
const FOLLOWS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._/~+%@";

/// The URLs of a repository, each without `.git`: https, ssh and scp-like, with the usual user of
/// forges where the URL names none.
pub fn forms(url: &str) -> Result<Vec<String>> {
    let remote = Remote::parse(url)?;
    let path = remote.repository();
    let is_ssh = remote.transport == Transport::Ssh;
    let usual = remote.port == if is_ssh { 22 } else { 443 };
    // A port of the one protocol says nothing of the other.
    let port = if usual { String::new() } else { format!(":{}", remote.port) };
    let user = match (&remote.user, is_ssh) {
        (Some(user), _) => format!("{user}@"),
        (None, true) => String::new(),
        (None, false) => "git@".to_owned(),
    };
    let mut forms = Vec::new();
    for host in hosts(url, &remote) {
        if usual || !is_ssh {
            forms.push(format!("https://{host}{port}/{path}"));
        }
        if usual || is_ssh {
            forms.push(format!("ssh://{user}{host}{port}/{path}"));
        }
        if usual {
            forms.push(format!("{user}{host}:{path}"));
            forms.push(format!("{user}{host}:/{path}"));
        }
    }
    Ok(forms)
}

/// The host in normal form, and as the URL writes it.
fn hosts(url: &str, remote: &Remote) -> Vec<String> {
    let normal =
        if remote.host.contains(':') { format!("[{}]", remote.host) } else { remote.host.clone() };
    let at = url.to_ascii_lowercase().find(&normal);
    let written = at.and_then(|at| url.get(at..at + normal.len())).map(str::to_owned);
    let mut hosts = vec![normal];
    hosts.extend(written.filter(|written| *written != hosts[0]));
    hosts
}

/// The agent's git configuration: that of its image, and then the remotes.
///
/// git takes what is to be rewritten for a prefix, and the longest one counts. So whatever could go
/// on after the name of a remote is rewritten to itself: `https://a.example/x/app-docs` is not sent
/// to the gate because `https://a.example/x/app` is.
pub fn gitconfig(remotes: &[GitRemote], gate: Ipv4Addr) -> Result<String> {
    let mut text = String::from(
        "# Written by bottle-render: the remotes of this bottle go by its git gate.\n[include]\n\tpath = /etc/gitconfig\n",
    );
    for remote in remotes {
        let base = format!("git://{gate}:{PORT}/{}", remote.name);
        let forms = forms(&remote.url)?;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "[url \"{base}\"]");
        for form in &forms {
            let _ = writeln!(text, "\tinsteadOf = {form}\n\tinsteadOf = {form}.git");
        }
        for form in &forms {
            for name in [form.clone(), format!("{form}.git")] {
                for next in FOLLOWS.chars() {
                    let longer = format!("{name}{next}");
                    let _ = writeln!(text, "[url \"{longer}\"]\n\tinsteadOf = {longer}");
                }
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_upstream_is_known() {
        let all = [
            "https://a.example/o/r",
            "ssh://git@a.example/o/r",
            "git@a.example:o/r",
            "git@a.example:/o/r",
        ];
        for url in [
            "https://a.example/o/r",
            "https://a.example:443/o/r.git",
            "ssh://git@a.example/o/r.git",
            "ssh://git@a.example:22/o/r",
            "git@a.example:o/r.git",
            "git@a.example:/o/r/",
        ] {
            assert_eq!(forms(url).unwrap(), all, "{url}");
        }
        let of = |url| forms(url).unwrap();
        assert_eq!(of("ssh://me@a.example:2222/o/r"), ["ssh://me@a.example:2222/o/r"]);
        assert_eq!(of("https://a.example:8443/r.git"), ["https://a.example:8443/r"]);
        assert_eq!(
            of("a.example:r"),
            ["https://a.example/r", "ssh://a.example/r", "a.example:r", "a.example:/r"]
        );
        assert!(of("https://A.example/r").contains(&"https://A.example/r".to_owned()));
        assert_eq!(of("ssh://g@[2001:db8::1]:2222/r"), ["ssh://g@[2001:db8::1]:2222/r"]);
    }
}
