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
use crate::host;
use crate::plan::{Plan, Secret};
use crate::policy::{Inject, Rule};
use crate::scalar::{Cpus, Memory, Method, PathGlob, User};
use crate::state::sha256_hex;

/// Paths of the agent that bottle itself, its engine or its runtime mounts something at. Nothing
/// is mounted at, above or below them.
const RESERVED: [&str; 11] = [
    "/etc/bottle",
    "/etc/bottle-skills",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
    "/dev",
    "/sbin/docker-init",
];

impl Plan {
    /// Checks every rule that needs the plan alone, spells out what it allows, and sets the digest.
    pub fn seal(&mut self) -> Result<()> {
        self.check()?;
        self.egress.allow = allow(&self.egress.routes);
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
            check_rule(rule, &self.secrets).caller(format!("plan.egress.routes[{at}]"))?;
        }
        for remote in &self.git {
            if let Some(secret) =
                remote.secret.as_ref().filter(|it| !self.secrets.contains_key(*it))
            {
                return Err(caller(format!(
                    "plan.git: remote '{}' names secret '{secret}', which is not there",
                    remote.name
                )));
            }
        }
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

/// Refuses a rule that is not in normal form, or cannot do what it says.
pub fn check_rule(rule: &Rule, secrets: &BTreeMap<String, Secret>) -> Result<()> {
    if host::classify(&rule.host) != Some(rule.kind) {
        let (normal, _) = host::normalise(&rule.host)?;
        return Err(caller(format!(
            "host '{}' is not in normal form, or its 'kind' is another: write '{normal}'",
            rule.host
        )));
    }
    let rising = |of: &[u16]| of.windows(2).all(|pair| pair[0] < pair[1]);
    if rule.ports.is_empty() || rule.ports[0] == 0 || !rising(&rule.ports) {
        return Err(caller("'ports' must be a sorted list of ports from 1, and not empty"));
    }
    let normal = |method: &String| method.parse().is_ok_and(|Method(upper)| upper == *method);
    if !rule.methods.iter().all(normal) || !rule.methods.is_sorted() {
        return Err(caller("'methods' must be a sorted list of methods in upper case"));
    }
    for path in &rule.paths {
        path.parse::<PathGlob>().map_err(caller)?;
    }
    if let Some(net) = rule.addresses.iter().find(|net| net.addr() != net.network()) {
        return Err(caller(format!("network '{net}' has host bits set: write '{}'", net.trunc())));
    }
    if rule.passthrough
        && !(rule.methods.is_empty() && rule.paths.is_empty() && rule.inject.is_none())
    {
        return Err(caller(
            "'passthrough' shows no method, path or header to egress: leave out 'methods', 'paths' and 'inject', or 'passthrough'",
        ));
    }
    rule.inject.as_ref().map_or(Ok(()), |inject| check_inject(inject, secrets))
}

fn check_inject(inject: &Inject, secrets: &BTreeMap<String, Secret>) -> Result<()> {
    if !secrets.contains_key(&inject.secret) {
        let known: Vec<&str> = secrets.keys().map(String::as_str).collect();
        return Err(caller(format!(
            "inject.secret '{}' is not in 'secrets'{}",
            inject.secret,
            crate::strict::did_you_mean(&inject.secret, &known)
        )));
    }
    let places =
        [inject.header.is_some(), inject.bearer, inject.basic.is_some(), inject.query.is_some()];
    if places.iter().filter(|is| **is).count() != 1 {
        return Err(caller(
            "'inject' needs exactly one of 'header', 'bearer', 'basic' and 'query'",
        ));
    }
    Ok(())
}

/// The rules spelled out for a person, one line for each host, port and path, sorted.
fn allow(rules: &[Rule]) -> Vec<String> {
    let mut lines: Vec<String> = rules.iter().flat_map(spelled_out).collect();
    lines.sort();
    lines.dedup();
    lines
}

fn spelled_out(rule: &Rule) -> Vec<String> {
    let methods = match (rule.passthrough, rule.methods.is_empty()) {
        (true, _) => "TUNNEL".to_owned(),
        (false, true) => "ANY".to_owned(),
        (false, false) => rule.methods.join(","),
    };
    let host = if rule.host.contains(':') { format!("[{}]", rule.host) } else { rule.host.clone() };
    let any = ["/**".to_owned()];
    let paths = if rule.paths.is_empty() { &any[..] } else { &rule.paths[..] };
    let mut more = String::new();
    if !rule.addresses.is_empty() {
        let nets: Vec<String> = rule.addresses.iter().map(ToString::to_string).collect();
        // Writing to a string cannot fail.
        let _ = write!(more, " at {}", nets.join(","));
    }
    if let Some(inject) = &rule.inject {
        let _ = write!(more, " with secret {}", inject.secret);
    }
    let mut lines = Vec::new();
    for port in &rule.ports {
        let scheme = if *port == 80 { "http" } else { "https" };
        for path in paths {
            lines.push(format!("{methods} {scheme}://{host}:{port}{path}{more}"));
        }
    }
    lines
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
