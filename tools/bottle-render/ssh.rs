//! How an unmodified ssh of the agent finds its hosts: `/etc/ssh/ssh_config`, mounted as one
//! never-renamed file, because every ssh reads it, whatever its image and whoever runs it. What the
//! image itself has in `ssh_config.d` comes after it.

use std::fmt::Write;
use std::net::Ipv4Addr;

use anyhow::Result;
use bottle::plan::SshHost;
use bottle::render::PROXY_PORT;
use bottle::ssh::{self, Key};

use crate::environment::CONF;

/// Where ssh looks.
pub(crate) const CONFIG: &str = "/etc/ssh/ssh_config";

/// The folder of the agent that holds [`CONNECT`].
pub(crate) const TOOLS: &str = "/etc/bottle-tools";

/// The program by which ssh reaches a host.
pub(crate) const CONNECT: &str = "bottle-connect";

/// The folder with the socket of the keys, of the sidecar and of the agent.
pub(crate) const SOCKET: &str = "/etc/bottle-ssh";

/// Known hosts and public keys, below the folder of the agent's configuration.
pub(crate) const FOLDER: &str = "ssh";

/// The socket of the keys.
pub(crate) fn socket() -> String {
    format!("{SOCKET}/agent.sock")
}

/// `ssh_config`. The first value that ssh finds counts, so what is for all stands last.
pub(crate) fn config(hosts: &[SshHost], proxy: Ipv4Addr) -> String {
    let mut out =
        String::from("# Made by bottle-render: hosts are named in 'ssh' of the manifest.\n");
    // Writing to a string cannot fail.
    for host in hosts {
        let alias = ssh::alias(host);
        let _ = writeln!(out, "Host {}", patterns(host, hosts));
        let _ = writeln!(out, "    HostName {}\n    Port {}", host.address, host.port);
        if let Some(user) = &host.user {
            let _ = writeln!(out, "    User {user}");
        }
        let _ = writeln!(out, "    HostKeyAlias {alias}");
        let _ = writeln!(out, "    IdentityFile {CONF}/{FOLDER}/{alias}.pub");
        out.push_str("    IdentitiesOnly yes\n    PreferredAuthentications publickey\n");
    }
    let _ = write!(
        out,
        "Host *\n\
         \x20   ProxyCommand {TOOLS}/{CONNECT} {proxy}:{PROXY_PORT} %h %p\n\
         \x20   UserKnownHostsFile {CONF}/{FOLDER}/known_hosts\n\
         \x20   GlobalKnownHostsFile /dev/null\n\
         \x20   StrictHostKeyChecking yes\n\
         \x20   UpdateHostKeys no\n\
         \x20   CheckHostIP no\n\
         \x20   IdentityAgent {}\n\
         \x20   ForwardAgent no\n\
         \x20   ForwardX11 no\n\
         Include {CONFIG}.d/*.conf\n",
        socket()
    );
    out
}

/// What a person may call a host: its name, and its address where that means no other host too, as
/// the URL of a git remote has it.
fn patterns(host: &SshHost, hosts: &[SshHost]) -> String {
    let address = &host.address;
    let is_other = |other: &&SshHost| {
        other.name != host.name
            && (other.address == *address || other.name.eq_ignore_ascii_case(address))
    };
    if host.name.eq_ignore_ascii_case(address) || hosts.iter().any(|other| is_other(&other)) {
        return host.name.clone();
    }
    format!("{} {address}", host.name)
}

/// The files of the folder beside it.
pub(crate) fn files(hosts: &[SshHost], keys: &[Key]) -> Result<Vec<(String, String)>> {
    let mut files = vec![("known_hosts".to_owned(), ssh::known_hosts(hosts)?)];
    for host in hosts {
        let key = keys.iter().find(|key| key.hosts.contains(&host.name));
        let public = key.map_or("", |key| &key.public);
        files.push((format!("{}.pub", ssh::alias(host)), format!("{public}\n")));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, address: &str) -> SshHost {
        SshHost {
            name: name.to_owned(),
            address: address.to_owned(),
            port: 22,
            user: None,
            key: "/k".into(),
            host_key: String::new(),
        }
    }

    #[test]
    fn address_is_a_name_too_where_it_means_one_host() {
        let hosts = [
            host("one", "a.example"),
            host("b.example", "b.example"),
            host("two", "c.example"),
            host("three", "c.example"),
            host("four", "ONE"),
        ];
        let all: Vec<String> = hosts.iter().map(|host| patterns(host, &hosts)).collect();
        assert_eq!(all, ["one a.example", "b.example", "two", "three", "four"]);
    }
}
