//! The digest of a plan, and the rules that every plan keeps, whoever wrote it.
//!
//! A plan is sealed once, by `bottle-plan`. Every tool after it checks the seal, so that a plan
//! which was edited on the way is used only after `bottle-plan --seal` has looked at it again. The
//! digest is no signature: it tells that a plan is whole, not who made it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Component, Path};

use anyhow::Result;
use serde_json::Value;

use crate::error::{Blame, caller};
use crate::plan::{Plan, Secret};
use crate::policy::{Rule, SCAN_SECRET, check_together};
use crate::scalar::{Cpus, Memory, User};
use crate::state::sha256_hex;
use crate::strict::did_you_mean;

/// Paths of the agent that bottle itself, its engine or its runtime mounts something at. Nothing
/// is mounted at, above or below them.
const RESERVED: [&str; 15] = [
    "/etc/bottle",
    "/etc/bottle-skills",
    "/etc/bottle-ssh",
    "/etc/bottle-tools",
    "/etc/ssh/ssh_config",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/home/agent",
    "/proc",
    "/sys",
    "/dev",
    "/sbin/docker-init",
];

impl Plan {
    /// Checks every rule that needs the plan alone, spells out what it allows, and sets the digest.
    pub fn seal(&mut self) -> Result<()> {
        self.check()?;
        self.egress.allow = self.rules()?.iter().map(Rule::to_line).collect();
        self.egress.allow.sort();
        self.digest = self.compute()?;
        Ok(())
    }

    /// Refuses a plan that is not as it was sealed.
    pub fn check_seal(&self) -> Result<()> {
        let found = self.compute()?;
        if found == self.digest {
            return Ok(());
        }
        Err(caller(format!(
            "check plan.digest: it is '{}', the plan's is '{found}': the plan was changed after it was sealed: pipe it through 'bottle-plan --seal'",
            self.digest
        )))
    }

    /// SHA-256 of the canonical form: JSON without white space, keys sorted, without `digest`;
    /// what `jq -cjS 'del(.digest)'` prints.
    fn compute(&self) -> Result<String> {
        let mut value = serde_json::to_value(self).world("write the plan")?;
        if let Value::Object(members) = &mut value {
            members.remove("digest");
        }
        let mut text = String::new();
        canonical(&value, &mut text);
        Ok(format!("sha256:{}", sha256_hex(text.as_bytes())))
    }

    /// The rules that need the plan alone.
    fn check(&self) -> Result<()> {
        if self.image.is_some() == self.build.is_some() {
            return Err(caller("plan: exactly one of 'image' and 'build' must be there"));
        }
        if let Some(user) = &self.user {
            user.parse::<User>().map_err(|why| caller(format!("plan.user: {why}")))?;
        }
        if let Some(cpus) = &self.resources.cpus {
            cpus.parse::<Cpus>().map_err(|why| caller(format!("plan.resources.cpus: {why}")))?;
        }
        if let Some(memory) = self.resources.memory {
            let text = memory.to_string();
            text.parse::<Memory>()
                .map_err(|why| caller(format!("plan.resources.memory: {why}")))?;
        }
        for (name, secret) in &self.secrets {
            check_secret(secret).caller(format!("plan.secrets.{name}"))?;
        }
        for (at, rule) in self.egress.routes.iter().enumerate() {
            let here = || format!("plan.egress.routes[{at}]");
            check_rule(rule, &self.secrets).caller(here())?;
            if rule.raw || rule.from.is_some() {
                return Err(caller(format!(
                    "{}: 'raw' and 'from' are of rules that 'ssh' and 'git' make: leave them out",
                    here()
                )));
            }
        }
        let rules = self.rules().caller("plan")?;
        rules.iter().try_for_each(Rule::check).caller("plan")?;
        check_together(&rules).caller("plan")?;
        crate::ssh::check(&self.ssh).caller("plan.ssh")?;
        for remote in &self.git {
            let here = || format!("plan.git.{}", remote.name);
            crate::gate::Remote::of(remote).check().caller(here())?;
            if remote.require_signed && remote.allowed_signers.is_none() {
                return Err(caller(format!(
                    "{}: 'require_signed' needs 'allowed_signers', a file of the keys that may sign",
                    here()
                )));
            }
            if let Some(secret) = &remote.secret {
                check_known(secret, &self.secrets).caller(here())?;
            }
        }
        crate::pipelock::Config::of(self, &[]).caller("plan")?;
        self.check_targets()
    }

    /// No target is bottle's own, and none covers another.
    fn check_targets(&self) -> Result<()> {
        let mut targets: Vec<&Path> =
            self.mounts.iter().map(|mount| mount.target.as_path()).collect();
        targets.extend(self.workspace.as_ref().map(|workspace| workspace.target.as_path()));
        for (at, target) in targets.iter().enumerate() {
            check_target(target)?;
            for other in &targets[..at] {
                if target == other {
                    return Err(caller(format!(
                        "target '{}' is mounted twice: give each mount a target of its own",
                        target.display()
                    )));
                }
                if target.starts_with(other) || other.starts_with(target) {
                    return Err(caller(format!(
                        "targets '{}' and '{}' lie one in the other: give each mount a target of its own",
                        other.display(),
                        target.display()
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Refuses a path of the agent at which nothing can be mounted.
pub fn check_target(target: &Path) -> Result<()> {
    let plain = target.is_absolute()
        && target
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    // `components` forgives a doubled or closing slash, which two tools could read as two paths.
    if !plain
        || target.components().collect::<std::path::PathBuf>().as_os_str() != target.as_os_str()
    {
        return Err(caller(format!(
            "target '{}' is not a plain absolute path: write it without '..', '.' and needless '/'",
            target.display()
        )));
    }
    if target == Path::new("/tmp") {
        return Err(caller("target '/tmp' is the agent's own tmpfs: mount below it or elsewhere"));
    }
    let taken = RESERVED
        .iter()
        .map(Path::new)
        .find(|taken| target.starts_with(taken) || taken.starts_with(target));
    match taken {
        Some(taken) => Err(caller(format!(
            "target '{}' would cover '{}', which is bottle's or the engine's own: mount elsewhere",
            target.display(),
            taken.display()
        ))),
        None => Ok(()),
    }
}

/// Refuses a secret that has not exactly one source.
pub fn check_secret(secret: &Secret) -> Result<()> {
    let set =
        [secret.from_env.is_some(), secret.from_file.is_some(), secret.from_command.is_some()];
    match set.iter().filter(|is| **is).count() {
        1 => Ok(()),
        0 => {
            Err(caller("it has no source: give it one of 'from_env', 'from_file', 'from_command'"))
        }
        _ => Err(caller(
            "it has more than one source: keep one of 'from_env', 'from_file', 'from_command'",
        )),
    }
}

/// Refuses a rule that is not in normal form, cannot do what it says, or adds a secret that is not
/// there.
pub fn check_rule(rule: &Rule, secrets: &BTreeMap<String, Secret>) -> Result<()> {
    rule.check()?;
    if rule.grant.is_some() {
        return Err(caller("grant: a plan holds no grants: 'bottle-approve' gives them"));
    }
    for name in rule.dlp_exempt.iter().filter_map(|exempt| exempt.strip_prefix(SCAN_SECRET)) {
        check_known(name, secrets).caller("dlp_exempt")?;
    }
    match &rule.inject {
        Some(inject) => check_known(&inject.secret, secrets).caller("inject"),
        None => Ok(()),
    }
}

/// Refuses the name of a secret that is not there.
pub fn check_known(secret: &str, secrets: &BTreeMap<String, Secret>) -> Result<()> {
    if secrets.contains_key(secret) {
        return Ok(());
    }
    let known: Vec<&str> = secrets.keys().map(String::as_str).collect();
    Err(caller(format!("secret '{secret}' is not in 'secrets'{}", did_you_mean(secret, &known))))
}

/// JSON without white space, keys sorted. Not left to `serde_json`, whose order of keys depends on
/// a feature that any crate of the build may turn on.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (at, (name, member)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                // A string as a value prints as JSON.
                let _ = write!(out, "{}:", Value::from(name.as_str()));
                canonical(member, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict;

    const PLAN: &str = r#"{"digest":"","agent":"x","bottle":"dev","image":"y","env":{"B":"é\n","A":""},
        "resources":{"pids":512},"egress":{"engine":"embedded","routes":[
            {"host":"b.example","kind":"name","ports":[443]},
            {"host":"a.example","kind":"name","ports":[80,443],"methods":["GET"]}]},"selftest":"enforce"}"#;

    fn plan() -> Plan {
        strict::json(PLAN, "plan").unwrap()
    }

    fn refusal(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = plan();
        change(&mut plan);
        format!("{:#}", plan.seal().unwrap_err())
    }

    #[test]
    fn digest_is_that_of_sorted_json() {
        let mut plan = plan();
        plan.seal().unwrap();
        // jq -cjS 'del(.digest)' | sha256sum
        let canonical = concat!(
            r#"{"agent":"x","bottle":"dev","egress":{"allow":["* https://b.example:443/**","#,
            r#""GET *://a.example:{80,443}/**"],"engine":"embedded","routes":[{"host":"b.example","#,
            r#""kind":"name","ports":[443]},{"host":"a.example","kind":"name","methods":["GET"],"#,
            r#""ports":[80,443]}]},"env":{"A":"","B":"é\n"},"image":"y","resources":{"pids":512},"#,
            r#""selftest":"enforce"}"#
        );
        assert_eq!(plan.digest, format!("sha256:{}", sha256_hex(canonical.as_bytes())));
        plan.check_seal().unwrap();
    }

    #[test]
    fn changed_plan_is_refused_with_the_way_out() {
        let mut plan = plan();
        plan.seal().unwrap();
        plan.resources.pids = 1;
        let told = format!("{:#}", plan.check_seal().unwrap_err());
        assert!(told.ends_with("pipe it through 'bottle-plan --seal'"), "{told}");
    }

    #[test]
    fn sealing_twice_is_sealing_once() {
        let mut once = plan();
        once.seal().unwrap();
        let mut twice = once.clone();
        twice.seal().unwrap();
        assert_eq!(once, twice);
    }

    #[test]
    fn plans_that_break_a_rule_are_not_sealed() {
        assert!(refusal(|plan| plan.image = None).contains("'image' and 'build'"));
        assert!(refusal(|plan| plan.user = Some("node".to_owned())).starts_with("plan.user: "));
        assert!(refusal(|plan| plan.egress.routes[0].ports.clear()).contains("routes[0]: ports"));
        assert!(
            refusal(|plan| plan.egress.routes[0].host = "A.example".to_owned()).contains("write")
        );
        let secret = Secret { from_env: None, from_file: None, from_command: None };
        let told = refusal(|plan| drop(plan.secrets.insert("t".to_owned(), secret)));
        assert!(told.starts_with("plan.secrets.t: it has no source"), "{told}");
    }

    #[test]
    fn targets_are_plain_and_cover_nothing_of_bottles() {
        for target in ["/workspace", "/tmp/x", "/etc/ssl", "/etc/bottles", "/a b"] {
            check_target(Path::new(target)).unwrap();
        }
        for target in [
            "",
            "a",
            "/",
            "/tmp",
            "/a/",
            "/a//b",
            "/a/./b",
            "/a/../b",
            "/etc",
            "/etc/bottle",
            "/etc/bottle/x",
            "/etc/passwd",
            "/proc",
            "/proc/1",
            "/sys",
            "/dev/shm",
            "/home",
        ] {
            assert!(check_target(Path::new(target)).is_err(), "{target}");
        }
    }
}
