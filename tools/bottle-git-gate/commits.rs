//! What a push would change, judged: refs, size, signatures, paths and secrets. A check answers with
//! the rule that refuses and what it refuses, or with nothing.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use bottle::error::{Blame, no, visible, world};
use bottle::gate::{Remote, Rule, Update, paths, refs};

use crate::git::Git;
use crate::scan::{self, Scan};
use crate::session::seconds;

/// How long each question to git may take.
const LIMIT: Duration = Duration::from_mins(10);

/// Most refs of one push, and most new objects.
const REFS: usize = 100;
const OBJECTS: u64 = 500_000;

/// Most bytes of what commits and tags say.
const WORDS: u64 = 64 << 20;

/// What refuses a push.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) rule: Rule,
    pub(crate) why: Vec<String>,
}

/// What came of a check: [`Refusal`] is an answer, an error is none.
pub(crate) type Checked = Result<Option<Refusal>>;

/// A push that is being judged.
pub(crate) struct Commits<'a> {
    pub(crate) git: &'a Git,
    pub(crate) remote: &'a Remote,
    pub(crate) updates: &'a [Update],
}

impl Commits<'_> {
    /// Whether the refs may be pushed at all; gives the grants that some of them need.
    pub(crate) fn refs(&self) -> Result<Result<Vec<String>, Refusal>> {
        let (now, mut grants) = (seconds(), Vec::new());
        let mut refused = Vec::new();
        if self.updates.len() > REFS {
            let why =
                vec![format!("it changes {} refs, and may change {REFS}", self.updates.len())];
            return Ok(Err(Refusal { rule: Rule::Size, why }));
        }
        for Update { name, .. } in self.updates {
            let mut covering = Vec::new();
            for push in self.remote.open_at(now) {
                if refs::Pattern::parse(&push.refs)?.covers(name) {
                    covering.push(push);
                }
            }
            if covering.is_empty() {
                let open: Vec<&str> =
                    self.remote.open_at(now).map(|push| push.refs.as_str()).collect();
                refused.push(format!("'{name}' is none of '{}'", open.join("', '")));
            } else if covering.iter().all(|push| push.grant.is_some()) {
                let plain = covering.iter().find(|push| push.uses.is_none());
                grants.extend(plain.unwrap_or(&covering[0]).grant.clone());
            }
        }
        grants.sort();
        grants.dedup();
        if refused.is_empty() {
            return Ok(Ok(grants));
        }
        Ok(Err(Refusal { rule: Rule::Push, why: refused }))
    }

    /// Whether refs only grow. What they are now is the mirror's, not the agent's word.
    pub(crate) fn growth(&self) -> Checked {
        let listed =
            self.git.ask(&["for-each-ref", "--format=%(refname) %(objectname)"], b"", LIMIT)?;
        let now: BTreeMap<&str, &str> =
            listed.lines().filter_map(|line| line.split_once(' ')).collect();
        for Update { name, old, new } in self.updates {
            let refuse = |rule, why| Ok(Some(Refusal { rule, why: vec![why] }));
            if is_zero(new) {
                return refuse(Rule::Delete, format!("'{name}' would be deleted"));
            }
            let there = now.get(name.as_str()).copied();
            if there.unwrap_or_default() != if is_zero(old) { "" } else { old } {
                let why = format!("'{name}' has changed upstream: fetch first");
                return refuse(Rule::Force, why);
            }
            let tip = self.commit(new)?;
            if tip.is_none() || (name.starts_with("refs/heads/") && tip.as_deref() != Some(new)) {
                let why = format!("'{name}' would be {} and no commit", short(new));
                return refuse(Rule::Object, why);
            }
            let Some(there) = there.filter(|there| there != new) else { continue };
            if name.starts_with("refs/tags/") {
                return refuse(Rule::Force, format!("'{name}' is there, and tags do not move"));
            }
            let args = ["merge-base", "--is-ancestor", there, new];
            if !self.git.run(&args, b"", LIMIT)?.status.success() {
                let why = format!(
                    "'{name}' would lose commits: {} is not in {}",
                    short(there),
                    short(new)
                );
                return refuse(Rule::Force, why);
            }
        }
        Ok(None)
    }

    fn commit(&self, id: &str) -> Result<Option<String>> {
        let peeled = format!("{id}^{{commit}}");
        let said = self.git.run(&["rev-parse", "--verify", "--quiet", &peeled], b"", LIMIT)?;
        let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        Ok(said.status.success().then_some(text))
    }

    /// Revisions of what is new, for git's stdin.
    fn revisions(&self) -> String {
        let mut text = String::new();
        for Update { new, .. } in self.updates {
            text.push_str(new);
            text.push('\n');
        }
        // What upstream has.
        text.push_str("--not\n--all\n");
        text
    }

    /// Whether it keeps to its limits.
    pub(crate) fn size(&self) -> Checked {
        let refuse = |why| Ok(Some(Refusal { rule: Rule::Size, why: vec![why] }));
        let stdin = scan::memory(self.revisions().as_bytes())?;
        let args = ["rev-list", "--objects", "--stdin"];
        let mut list = self.git.start("git", &args, [stdin, Stdio::piped(), Stdio::null()])?;
        let Some(listed) = list.stdout.take() else {
            return refuse("its objects cannot be listed".to_owned());
        };
        let args = [
            "cat-file",
            "--buffer",
            "--batch-check=%(objecttype) %(objectsize) %(objectname) %(rest)",
        ];
        let mut sizes =
            self.git.start("git", &args, [listed.into(), Stdio::piped(), Stdio::null()])?;
        let Some(said) = sizes.stdout.take() else {
            return refuse("its objects cannot be listed".to_owned());
        };
        let judged = self.sizes(std::io::BufReader::new(said));
        if !matches!(judged, Ok(None)) {
            let _ = (list.kill(), sizes.kill());
        }
        let ended = (list.wait().world("list objects")?, sizes.wait().world("list objects")?);
        match judged {
            Ok(None) if !(ended.0.success() && ended.1.success()) => {
                refuse("its objects cannot be listed".to_owned())
            }
            judged => judged,
        }
    }

    fn sizes(&self, mut said: impl std::io::BufRead) -> Checked {
        let Remote { max_file, max_files, .. } = self.remote;
        let refuse = |why| Ok(Some(Refusal { rule: Rule::Size, why: vec![why] }));
        let (mut files, mut objects, mut line) = (0, 0, Vec::new());
        loop {
            line.clear();
            if said.read_until(b'\n', &mut line).world("list objects")? == 0 {
                return Ok(None);
            }
            let line = String::from_utf8_lossy(&line);
            let mut words = line.trim_end().splitn(4, ' ');
            let kind = words.next();
            let size: Option<u64> = words.next().and_then(|size| size.parse().ok());
            objects += 1;
            if objects > OBJECTS {
                return refuse(format!("it has more than {OBJECTS} new objects"));
            }
            let Some(size) = size else { return refuse("an object of it is missing".to_owned()) };
            // A commit or a tree of that size is as much of a burden.
            if size > *max_file {
                let what = words.nth(1).unwrap_or_default();
                return refuse(format!("'{what}' has {size} bytes, and may have {max_file}"));
            }
            files += u32::from(kind == Some("blob"));
            if files > *max_files {
                return refuse(format!("it has more than {max_files} new files"));
            }
        }
    }

    /// Whether all commits and tags are signed by somebody who counts.
    pub(crate) fn signed(&self) -> Checked {
        if !self.remote.require_signed {
            return Ok(None);
        }
        let listed = self.git.ask(
            &["log", "--format=%G? %H", "--stdin"],
            self.revisions().as_bytes(),
            LIMIT,
        )?;
        let mut why = Vec::new();
        for (is, id) in listed.lines().filter_map(|line| line.split_once(' ')) {
            if is != "G" {
                let is = match is {
                    "N" => "is not signed",
                    "B" => "has a bad signature",
                    _ => "is signed by nobody who is allowed to",
                };
                why.push(format!("commit {} {is}", short(id)));
            }
        }
        for Update { name, new, .. } in self.updates {
            let kind = self.git.ask(&["cat-file", "-t", new], b"", LIMIT)?;
            if kind.trim() == "tag"
                && !self.git.run(&["verify-tag", new], b"", LIMIT)?.status.success()
            {
                why.push(format!("tag '{name}' is signed by nobody who is allowed to"));
            }
        }
        Ok((!why.is_empty()).then_some(Refusal { rule: Rule::Signed, why }))
    }

    /// Whether protected paths are left alone. Of a merge only what is in none of its parents counts.
    pub(crate) fn protected(&self) -> Checked {
        let allowed = paths::Allowed::parse(&self.remote.allow_paths)?;
        let args = [
            "log",
            "--format=%x01%H",
            "-c",
            "--name-only",
            "-z",
            "--no-renames",
            "--no-ext-diff",
            "--stdin",
        ];
        let stdin = scan::memory(self.revisions().as_bytes())?;
        let Some(said) = scan::all(self.git, &args, stdin, 256 << 20)? else {
            let why = vec!["it touches too many paths".to_owned()];
            return Ok(Some(Refusal { rule: Rule::Size, why }));
        };
        let (mut commit, mut why) = (String::new(), Vec::new());
        for word in said.split(|byte| *byte == 0) {
            let word = String::from_utf8_lossy(word);
            let path = word.trim_start_matches('\n');
            match path.strip_prefix('\u{1}') {
                Some(id) => id.trim_end().clone_into(&mut commit),
                None if allowed.refuses(path) => {
                    why.push(format!("commit {} touches '{}'", short(&commit), visible(path)));
                }
                None => {}
            }
        }
        Ok((!why.is_empty()).then_some(Refusal { rule: Rule::Protected, why }))
    }

    /// Whether nothing that looks like a secret is added.
    pub(crate) fn secrets(&self, data: &std::path::Path) -> Checked {
        let new = self.revisions();
        let mut scan = Scan::new(data)?;
        let scanned = scan
            .patches(self.git, &new)
            .map_err(anyhow::Error::from)
            .and_then(|()| self.words(&mut scan, &new));
        if let Err(error) = scanned {
            let why = vec![format!("{error:#}")];
            return Ok(Some(Refusal { rule: Rule::Secrets, why }));
        }
        let found = scan.findings(self.git)?;
        let why: Vec<String> = found
            .iter()
            .map(|it| {
                let (path, line) = (visible(&it.path), it.line);
                format!("commit {}: '{}' in {path}, line {line}", short(&it.commit), it.rule)
            })
            .collect();
        Ok((!why.is_empty()).then_some(Refusal { rule: Rule::Secrets, why }))
    }

    /// Adds to a scan what commits and tags say in whatever place, and the names of files.
    fn words(&self, scan: &mut Scan, new: &str) -> Result<()> {
        let ask = |args: &[&str], input: &[u8]| -> Result<Vec<u8>> {
            let said = scan::all(self.git, args, scan::memory(input)?, WORDS)?;
            said.ok_or_else(|| no("its commits, tags and names are more than can be scanned"))
        };
        let listed = ask(&["rev-list", "--objects", "--stdin"], new.as_bytes())?;
        let (mut ids, mut names) = (Vec::new(), Vec::new());
        for line in listed.split_inclusive(|byte| *byte == b'\n') {
            match line.iter().position(|byte| *byte == b' ') {
                // Commits have no name, and tags that of their ref.
                Some(at) if !line[at + 1..].contains(&b'/') => {
                    ids.extend_from_slice(&[&line[..at], b"\n"].concat());
                    names.extend_from_slice(&line[at + 1..]);
                }
                Some(at) => names.extend_from_slice(&line[at + 1..]),
                None => ids.extend_from_slice(line),
            }
        }
        scan.text("", "the names of files", &names)?;
        let format = "--batch-check=%(objectname) %(objecttype)";
        let kinds = ask(&["cat-file", "--buffer", format], &ids)?;
        let mut wanted = Vec::new();
        for line in String::from_utf8_lossy(&kinds).lines() {
            if let Some((id, "commit" | "tag")) = line.split_once(' ') {
                wanted.extend_from_slice(format!("{id}\n").as_bytes());
            }
        }
        let said = ask(&["cat-file", "--buffer", "--batch"], &wanted)?;
        let mut rest = &said[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let head = String::from_utf8_lossy(&rest[..end]).into_owned();
            let mut words = head.split(' ');
            let (id, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let size = words.next().and_then(|size| size.parse::<usize>().ok());
            let text = size.and_then(|size| rest.get(end + 1..end + 1 + size));
            let text = text.ok_or_else(|| world("read a commit: git speaks differently"))?;
            scan.text(id, &format!("the {kind} itself"), text)?;
            rest = rest.get(end + 2 + text.len()..).unwrap_or_default();
        }
        Ok(())
    }
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

/// The beginning of an id, enough to find it by.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
