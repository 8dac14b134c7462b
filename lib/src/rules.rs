//! All rules of a plan: those that its owner wrote, then those that its ssh hosts and git remotes
//! need. Whoever tells egress or pipelock something takes them from here.

use anyhow::Result;

use crate::error::Blame;
use crate::host;
use crate::plan::{GitRemote, Plan, SshHost};
use crate::policy::{Dlp, HostKind, Inject, Rule};
use crate::remote::{Remote, Transport};
use crate::render::GIT_GATE;

/// The user beside a token: forges look at the token alone.
const TOKEN_USER: &str = "x-access-token";

impl Plan {
    /// The rules, in the order in which egress counts them.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let mut rules = self.egress.routes.clone();
        let mut add = |rule| {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        };
        for host in &self.ssh {
            add(of_ssh(host).caller(format!("ssh.{}", host.name))?);
        }
        for remote in &self.git {
            add(of_git(remote).caller(format!("git.{}", remote.name))?);
        }
        Ok(rules)
    }
}

/// The agent's tunnel to one host.
fn of_ssh(host: &SshHost) -> Result<Rule> {
    let (address, kind) = host::normalise(&host.address)?;
    Ok(tunnel(address, kind, host.port, None))
}

/// What the git gate needs of one remote.
fn of_git(remote: &GitRemote) -> Result<Rule> {
    let url = Remote::parse(&remote.url)?;
    let from = Some(GIT_GATE.to_owned());
    if url.transport == Transport::Ssh {
        return Ok(tunnel(url.host, url.kind, url.port, from));
    }
    let mut services = vec!["git-upload-pack", "info/refs"];
    if !remote.push.is_empty() {
        services.push("git-receive-pack");
    }
    let name = url.repository();
    let mut paths: Vec<String> = services
        .iter()
        .flat_map(|service| [format!("/{name}/{service}"), format!("/{name}.git/{service}")])
        .collect();
    paths.sort();
    Ok(Rule {
        paths,
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        raw: false,
        inject: remote.secret.as_ref().map(|secret| Inject {
            secret: secret.clone(),
            header: None,
            bearer: false,
            basic: Some(TOKEN_USER.to_owned()),
            query: None,
            mask: false,
        }),
        ..tunnel(url.host, url.kind, url.port, from)
    })
}

fn tunnel(host: String, kind: HostKind, port: u16, from: Option<String>) -> Rule {
    Rule {
        host,
        kind,
        from,
        ports: vec![port],
        methods: Vec::new(),
        paths: Vec::new(),
        addresses: Vec::new(),
        inject: None,
        passthrough: false,
        raw: true,
        dlp: Dlp::Block,
        dlp_exempt: Vec::new(),
        grant: None,
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::check_together;
    use crate::strict;

    use super::*;

    fn plan(ssh: &str, git: &str) -> Plan {
        let text = format!(
            r#"{{"digest":"","agent":"x","bottle":"dev","image":"y","resources":{{"pids":512}},
            "egress":{{"engine":"embedded","routes":[
                {{"host":"a.example","kind":"name","ports":[443]}}]}},
            "secrets":{{"token":{{"from_env":"T"}}}},
            "ssh":[{ssh}],"git":[{git}],"selftest":"enforce"}}"#
        );
        strict::json(&text, "plan").unwrap()
    }

    fn ssh(name: &str, address: &str, port: u16) -> String {
        format!(
            r#"{{"name":"{name}","address":"{address}","port":{port},"key":"/k","host_key":"x"}}"#
        )
    }

    fn lines(plan: &Plan) -> Vec<String> {
        let rules = plan.rules().unwrap();
        rules.iter().try_for_each(Rule::check).unwrap();
        check_together(&rules).unwrap();
        rules.iter().map(Rule::to_line).collect()
    }

    #[test]
    fn hosts_of_ssh_are_tunnels_of_the_agent() {
        let hosts = [
            ssh("one", "100.64.0.7", 22),
            ssh("same", "100.64.0.7", 22),
            ssh("two", "b.example", 2222),
        ];
        assert_eq!(
            lines(&plan(&hosts.join(","), "")),
            [
                "* https://a.example:443/**",
                "CONNECT 100.64.0.7:22 as bytes",
                "CONNECT b.example:2222 as bytes"
            ]
        );
    }

    #[test]
    fn remotes_of_git_are_the_gates_alone() {
        let remotes = r#"
            {"name":"a","url":"git@git.example:a/b.git","push":["refs/heads/x"]},
            {"name":"b","url":"https://git.example/c/d.git","push":["refs/heads/x"],"secret":"token"},
            {"name":"c","url":"https://git.example:8443/e"}"#;
        assert_eq!(
            lines(&plan("", remotes))[1..],
            [
                "CONNECT git.example:22 as bytes, from git-gate only",
                "GET,POST https://git.example:443{/c/d.git/git-receive-pack,/c/d.git/git-upload-pack,/c/d.git/info/refs,/c/d/git-receive-pack,/c/d/git-upload-pack,/c/d/info/refs} with secret 'token', from git-gate only",
                "GET,POST *://git.example:8443{/e.git/git-upload-pack,/e.git/info/refs,/e/git-upload-pack,/e/info/refs}, from git-gate only",
            ]
        );
    }

    #[test]
    fn route_to_the_port_of_an_ssh_host_is_refused() {
        let mut plan = plan(&ssh("one", "a.example", 443), "");
        let told = format!("{:#}", plan.seal().unwrap_err());
        assert!(told.contains("'a.example' on port 443 is a tunnel of bytes"), "{told}");
        plan.ssh[0].port = 22;
        plan.ssh[0].host_key = "ssh-ed25519 AAAA".to_owned();
        assert!(plan.rules().is_ok());
    }

    #[test]
    fn rules_that_are_made_are_not_written() {
        for made in [r#""raw":true"#, r#""from":"git-gate""#] {
            let mut plan = plan("", "");
            let rule = format!(r#"{{"host":"b.example","kind":"name","ports":[22],{made}}}"#);
            plan.egress.routes.push(strict::json(&rule, "rule").unwrap());
            let told = format!("{:#}", plan.seal().unwrap_err());
            assert!(told.contains("egress.routes[1]: 'raw' and 'from' are"), "{told}");
        }
    }
}
