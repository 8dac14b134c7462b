//! What an agent asks for and what it is answered: the files between `bottle-supervise` and the
//! operator's `bottle-approve`.
//!
//! A proposal is the sidecar's file, and so untrusted. Its id is a digest of all that it says: what
//! an operator has seen is what is approved, whatever becomes of the file. An answer is the host's
//! file, which the sidecar can only read. Values are parsed by the same code as the manifest's, so
//! that what can be proposed can be approved.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::{Blame, caller, no, visible};
use crate::gate::{self, refs};
use crate::policy::{Dlp, Inject, Rule};
use crate::render::SUPERVISE;
use crate::scalar::{Host, Method, Net, PathGlob, Port};
use crate::{state, strict};

/// The version of all these files.
pub const VERSION: u32 = 1;

/// The longest reason, and the longest words of an answer, in characters.
pub const MAX_WORDS: usize = 1000;

/// The most methods, paths, ports or networks of one proposal.
pub const MAX_ITEMS: usize = 32;

/// The most proposals that are open at once, whatever the plan says.
pub const MAX_OPEN: u32 = 256;

/// How many hex digits of a SHA-256 name a proposal: 128 bits, so that finding two of one name is out
/// of reach.
const DIGITS: usize = 32;

/// How long a proposal stays open, in seconds.
pub const LIFE: u64 = 24 * 60 * 60;

/// What a proposal is called: 32 hex digits of a digest of what it says. Fewer could be made to name
/// two proposals, a harmless one to be seen and another one to be approved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != DIGITS || !text.bytes().all(hex) {
            let text: String = visible(text).chars().take(40).collect();
            return Err(caller(format!(
                "'{text}' is no id of a proposal: write its {DIGITS} hex digits, as 'bottle-approve' lists them"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Id {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `run/proposals/ID.json`: what an agent asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// 1.
    pub version: u32,
    /// Digest of the rest.
    pub id: Id,
    /// When it was made, in seconds of Unix time.
    pub asked_at: u64,
    /// Why, in the agent's words.
    pub reason: String,
    /// What for.
    pub what: What,
}

/// What can be asked for, and granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A rule of egress.
    Route(Rule),
    /// A rule of egress that adds a secret of the plan.
    SecretUse(Rule),
    /// Refs that may be pushed.
    GitRef(GitRef),
}

/// Refs of a git remote of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitRef {
    /// The name of the remote.
    pub remote: String,
    /// A [`refs::Pattern`].
    pub refs: String,
}

impl GitRef {
    /// In one line, as a plan's `push` of a remote.
    #[must_use]
    pub fn to_line(&self) -> String {
        visible(&format!("push '{}' to git remote '{}'", self.refs, self.remote))
    }

    /// The same with one ref of it.
    pub fn narrow(&self, some: Option<&str>) -> Result<Self> {
        let Some(some) = some else { return Ok(self.clone()) };
        let is_part = refs::Pattern::parse(&self.refs)?.covers(some);
        if some != self.refs && !is_part {
            return Err(caller(format!(
                "narrow it: '{}' is no ref of '{}', which was asked for: approve no more than that",
                visible(some),
                visible(&self.refs)
            )));
        }
        Ok(Self { refs: some.to_owned(), ..self.clone() })
    }

    fn check(&self) -> Result<()> {
        if !gate::is_name(&self.remote) {
            return Err(caller(format!("remote '{}' is no name of one", visible(&self.remote))));
        }
        refs::Pattern::parse(&self.refs).map(drop)
    }
}

impl What {
    /// Its kind, in the words of the tools that propose it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Route(_) => "route",
            Self::SecretUse(_) => "secret use",
            Self::GitRef(_) => "git ref",
        }
    }

    /// What can be done by it that could not be done before, in one line: of a rule, that of a plan's
    /// `egress.allow`.
    #[must_use]
    pub fn to_line(&self) -> String {
        match self {
            Self::Route(rule) | Self::SecretUse(rule) => visible(&rule.to_line()),
            Self::GitRef(asked) => asked.to_line(),
        }
    }

    /// Refuses what no agent can ask for.
    pub fn check(&self) -> Result<()> {
        let rule = match self {
            Self::Route(rule) | Self::SecretUse(rule) => rule,
            Self::GitRef(asked) => return asked.check(),
        };
        rule.check()?;
        let counts = [rule.methods.len(), rule.paths.len(), rule.ports.len(), rule.addresses.len()];
        if counts.iter().any(|count| *count > MAX_ITEMS) {
            return Err(caller(format!(
                "it lists more than {MAX_ITEMS} of one thing: ask for less"
            )));
        }
        let plain = rule.dlp == Dlp::Block
            && rule.dlp_exempt.is_empty()
            && !rule.passthrough
            && !rule.raw
            && rule.from.is_none();
        let injects = matches!(self, Self::SecretUse(_)) == rule.inject.is_some();
        if !plain || !injects || rule.grant.is_some() {
            return Err(caller("it asks for what cannot be proposed"));
        }
        Ok(())
    }
}

impl Proposal {
    /// A proposal of now.
    pub fn new(what: What, reason: &str, asked_at: u64) -> Result<Self> {
        let reason = reason.trim();
        check_words(reason).caller("reason")?;
        what.check()?;
        let id = Id(String::new());
        let mut proposal = Self { version: VERSION, id, asked_at, reason: reason.to_owned(), what };
        proposal.id = proposal.digest()?;
        Ok(proposal)
    }

    /// Reads one that a sidecar wrote under the name of `id`.
    pub fn parse(bytes: &[u8], id: &Id) -> Result<Self> {
        let read: Self = strict::json(&String::from_utf8_lossy(bytes), "proposal")?;
        if read.version != VERSION {
            return Err(caller(format!("its version is {}, not {VERSION}", read.version)));
        }
        if read.id != *id || read.digest()? != *id {
            return Err(caller("its id is not that of what it says"));
        }
        check_words(&read.reason).caller("reason")?;
        read.what.check()?;
        Ok(read)
    }

    /// Whether it is no longer open at a time.
    #[must_use]
    pub fn is_stale(&self, now: u64) -> bool {
        self.asked_at.saturating_add(LIFE) <= now
    }

    fn digest(&self) -> Result<Id> {
        let said = (self.version, self.asked_at, &self.reason, &self.what);
        let text = serde_json::to_string(&said).world("write a proposal")?;
        Ok(Id(state::sha256_hex(text.as_bytes())[..DIGITS].to_owned()))
    }
}

fn check_words(words: &str) -> Result<()> {
    match words.chars().count() {
        0 => Err(caller("say why, in a sentence")),
        1..=MAX_WORDS => Ok(()),
        _ => Err(caller(format!("it is longer than {MAX_WORDS} characters: say it shorter"))),
    }
}

/// A rule as agents and operators write one, before it is checked.
#[derive(Debug, Clone, Default)]
pub struct Wish<'a> {
    /// As in the manifest.
    pub host: &'a str,
    /// None: every one.
    pub methods: &'a [String],
    /// None: every one.
    pub paths: &'a [String],
    /// None: 443.
    pub ports: &'a [u16],
    /// Networks that the host may resolve into although they are private.
    pub addresses: &'a [String],
}

impl Wish<'_> {
    /// The rule in normal form.
    pub fn rule(&self, inject: Option<Inject>) -> Result<Rule> {
        let Host { host, kind } = self.host.parse().caller("host")?;
        let ports = self.ports.iter().map(ToString::to_string);
        let mut ports: Vec<u16> = ports
            .map(|port| parsed::<Port>("ports", &port).map(|it| it.0))
            .collect::<Result<_>>()?;
        if ports.is_empty() {
            ports.push(443);
        }
        let nets = self.addresses.iter().map(|net| parsed::<Net>("addresses", net).map(|it| it.0));
        let rule = Rule {
            host,
            kind,
            from: None,
            ports: sorted(ports),
            methods: methods(self.methods)?,
            paths: paths(self.paths)?,
            addresses: sorted(nets.collect::<Result<_>>()?),
            inject,
            passthrough: false,
            raw: false,
            dlp: Dlp::Block,
            dlp_exempt: Vec::new(),
            grant: None,
        };
        rule.check()?;
        Ok(rule)
    }
}

/// A rule with less: what is not named stays as it is. More than there was is refused.
pub fn narrow(
    rule: &Rule,
    host: Option<&str>,
    some_methods: &[String],
    some_paths: &[String],
) -> Result<Rule> {
    let mut less = rule.clone();
    if let Some(host) = host {
        let parsed: Host = host.parse().caller("--host")?;
        (less.host, less.kind) = (parsed.host, parsed.kind);
    }
    if !some_methods.is_empty() {
        less.methods = methods(some_methods)?;
    }
    if !some_paths.is_empty() {
        less.paths = paths(some_paths)?;
    }
    less.check()?;
    match rule.excess(&less) {
        None => Ok(less),
        Some(more) => Err(caller(format!(
            "narrow it: '{}' would be '{}', and what was asked for is '{}': approve no more than that",
            more.field,
            visible(&more.asks),
            visible(&more.has)
        ))),
    }
}

fn methods(words: &[String]) -> Result<Vec<String>> {
    let all = words.iter().map(|word| parsed::<Method>("methods", word).map(|it| it.0));
    Ok(sorted(all.collect::<Result<_>>()?))
}

fn paths(words: &[String]) -> Result<Vec<String>> {
    let all = words.iter().map(|word| parsed::<PathGlob>("paths", word).map(|it| it.0));
    Ok(sorted(all.collect::<Result<_>>()?))
}

fn parsed<T: FromStr<Err: fmt::Display>>(field: &str, text: &str) -> Result<T> {
    text.parse().map_err(|why| caller(format!("{field}: {why:#}")))
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}

/// `conf/answers/ID.json`: what an operator decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// 1.
    pub version: u32,
    /// The proposal.
    pub id: Id,
    /// When, in seconds of Unix time.
    pub at: u64,
    /// What.
    pub answer: Said,
}

/// The answer itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It is in force, in one line.
    Approved(String),
    /// No, in the operator's words.
    Rejected(String),
}

/// `conf/supervise.json`: what the sidecar is told beside the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// 1.
    pub version: u32,
    /// Most proposals that may be open at once.
    pub max_open: u32,
    /// How egress adds the secrets that the plan's rules name.
    #[serde(
        default,
        deserialize_with = "strict::unique",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub secrets: BTreeMap<String, Inject>,
}

/// The proposals of the bottle in `folder` as the sidecar wrote them, the oldest first, each open or
/// not; and what of its folder could not be read, in words.
pub fn written(folder: &Path) -> Result<(Vec<Proposal>, Vec<String>)> {
    let (mut found, mut trouble) = (Vec::new(), Vec::new());
    let most = MAX_OPEN as usize;
    let (reports, more) = state::reports(&written_in(folder), most)?;
    if more {
        trouble.push(format!("there are more than {most} files: the sidecar cannot be trusted"));
    }
    for (name, bytes) in reports {
        let Some(stem) = name.strip_suffix(".json") else { continue };
        let read = stem.parse().and_then(|id| Proposal::parse(&bytes?, &id));
        match read {
            Ok(proposal) => found.push(proposal),
            Err(error) => trouble.push(format!("'{}': {error:#}", visible(&name))),
        }
    }
    found.sort_by(|a, b| (a.asked_at, &a.id).cmp(&(b.asked_at, &b.id)));
    Ok((found, trouble))
}

/// One proposal of the bottle in `folder`, as the sidecar wrote it.
pub fn one(folder: &Path, id: &Id) -> Result<Proposal> {
    let (found, _) = written(folder)?;
    found.into_iter().find(|proposal| proposal.id == *id).ok_or_else(|| {
        no(format!("find proposal '{id}': there is no such: see 'bottle-approve --list'"))
    })
}

/// The answer to a proposal of the bottle in `folder`; `None`: it is open.
pub fn answer(folder: &Path, id: &Id) -> Result<Option<Answer>> {
    answer_at(&answers_in(folder), id)
}

/// The same in a folder of answers.
pub fn answer_at(answers: &Path, id: &Id) -> Result<Option<Answer>> {
    let Some(bytes) = state::read_report(&answers.join(format!("{id}.json")))? else {
        return Ok(None);
    };
    strict::json(&String::from_utf8_lossy(&bytes), "answer").map(Some)
}

/// Where the sidecar of the bottle in `folder` writes proposals.
#[must_use]
pub fn written_in(folder: &Path) -> PathBuf {
    folder.join(SUPERVISE).join("run/proposals")
}

/// Where it finds answers.
#[must_use]
pub fn answers_in(folder: &Path) -> PathBuf {
    folder.join(SUPERVISE).join("conf/answers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn rule(paths: &[&str]) -> Rule {
        let paths = words(paths);
        Wish { host: "API.example.com", paths: &paths, ..Wish::default() }.rule(None).unwrap()
    }

    fn proposal() -> Proposal {
        Proposal::new(What::Route(rule(&["/v1/**"])), "to read the docs", 7).unwrap()
    }

    #[test]
    fn id_is_that_of_what_is_said() {
        let asked = proposal();
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(Proposal::parse(text.as_bytes(), &asked.id).unwrap(), asked);
        for (from, to) in [
            ("/v1/**", "/**"),
            ("api.example.com", "evil.example.com"),
            ("the docs", "the mail"),
            ("\"asked_at\":7", "\"asked_at\":8"),
            ("\"reason\"", "\"raeson\""),
            (r#""ports":[443]"#, r#""ports":[443],"passthrough":true"#),
        ] {
            let other = text.replace(from, to);
            assert_ne!(other, text, "{from}");
            assert!(Proposal::parse(other.as_bytes(), &asked.id).is_err(), "{from} to {to}");
        }
        assert!(
            Proposal::parse(text.as_bytes(), &"0123456789abcdef0123456789abcdef".parse().unwrap())
                .is_err()
        );
    }

    #[test]
    fn ids_are_thirty_two_hex_digits() {
        assert!("0123456789abcdef0123456789abcdef".parse::<Id>().is_ok());
        for text in [
            "",
            "0123456789ab",
            "0123456789ABCDEF0123456789ABCDEF",
            "../../../../../../../../../../xy",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdef0",
            "\u{1b}[2J",
        ] {
            let error = text.parse::<Id>().unwrap_err().to_string();
            assert!(error.contains("32 hex digits") && !error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn what_no_manifest_takes_cannot_be_proposed() {
        let (path, star, evil) = (words(&["v1"]), words(&["*"]), words(&["0.0.0.0/0"]));
        for wish in [
            Wish { host: "a b.example", ..Wish::default() },
            Wish { host: "https://a.example", ..Wish::default() },
            Wish { host: "a.example", paths: &path, ..Wish::default() },
            Wish { host: "a.example", methods: &star, ..Wish::default() },
            Wish { host: "a.example", ports: &[0], ..Wish::default() },
            Wish { host: "a.example", addresses: &evil, ..Wish::default() },
        ] {
            assert!(wish.rule(None).is_err(), "{wish:?}");
        }
        let what = || What::Route(rule(&[]));
        assert!(Proposal::new(what(), " ", 1).is_err());
        assert!(Proposal::new(what(), &"x".repeat(MAX_WORDS + 1), 1).is_err());
        let mut exempt = rule(&[]);
        exempt.dlp = Dlp::Off;
        assert!(Proposal::new(What::Route(exempt), "x", 1).is_err());
        assert!(Proposal::new(What::SecretUse(rule(&[])), "x", 1).is_err());
    }

    #[test]
    fn narrowing_never_widens() {
        let asked = rule(&["/v1/**"]);
        let less = narrow(&asked, None, &words(&["get"]), &words(&["/v1/a"])).unwrap();
        assert_eq!(less.to_line(), "GET https://api.example.com:443/v1/a");
        for (host, paths) in [
            (Some("*.example.com"), &[][..]),
            (Some("b.example"), &[]),
            (None, &["/**"]),
            (None, &["/v1/**", "/v2"]),
        ] {
            let error = narrow(&asked, host, &[], &words(paths)).unwrap_err();
            assert!(error.to_string().contains("no more than that"), "{error}");
        }
    }

    #[test]
    fn ref_is_narrowed_to_one_of_it_and_no_more() {
        let of = |remote: &str, refs: &str| GitRef { remote: remote.into(), refs: refs.into() };
        let asked = of("origin", "refs/heads/fix/*");
        assert_eq!(asked.narrow(None).unwrap(), asked);
        assert_eq!(asked.narrow(Some("refs/heads/fix/1")).unwrap().refs, "refs/heads/fix/1");
        for wider in ["refs/heads/**", "refs/heads/main", "refs/heads/fix/a/b", "refs/heads/fix/a*"]
        {
            let told = asked.narrow(Some(wider)).unwrap_err().to_string();
            assert!(told.contains("approve no more than that"), "{told}");
        }
        for (remote, refs) in [
            ("origin", "refs/*"),
            ("origin", "main"),
            ("../x", "refs/heads/x"),
            ("a b", "refs/heads/x"),
            ("", "refs/heads/x"),
        ] {
            assert!(What::GitRef(of(remote, refs)).check().is_err(), "{remote} {refs}");
        }
    }
}
