//! Who runs as whom. In a mounted 0700 folder only the owner's uid reads anything, so the agent
//! and the sidecars run as somebody who can own their folders.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use bottle::plan::{Plan, Workspace, WorkspaceMode};
use bottle::{Blame, caller, state};

/// A uid and a gid.
pub(crate) type Ids = (u32, u32);

/// Sidecars of a caller who is root.
const SIDECARS_OF_ROOT: Ids = (65532, 65532);
/// The agent of a caller who is root, where the workspace is root's or there is none.
const AGENT_OF_ROOT: Ids = (65533, 65533);

/// The caller, as the engine sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) ids: Ids,
    /// Whether the engine maps the caller to the container's root.
    pub(crate) rootless: bool,
}

/// Who runs as whom, in the container's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    /// `user` of the agent's service.
    pub(crate) user: String,
    pub(crate) agent: Ids,
    pub(crate) sidecars: Ids,
}

/// Owner and mode of the workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) ids: Ids,
    pub(crate) mode: u32,
}

impl Caller {
    /// This process.
    pub(crate) fn here(rootless: bool) -> Self {
        Self { ids: state::caller_ids(), rootless }
    }

    /// The owner to set on a file that `ids` of a container has to own; `None`: it is the caller's
    /// already.
    pub(crate) fn owner(self, ids: Ids) -> state::Ids {
        (self.ids.0 == 0 && !self.rootless).then_some(ids)
    }

    /// Whether a file can be made to belong to `ids` of a container.
    pub(crate) fn can_own(self, ids: Ids) -> bool {
        if self.rootless { ids.0 == 0 } else { self.ids.0 == 0 || ids.0 == self.ids.0 }
    }
}

impl Holder {
    /// Looks at the workspace.
    pub(crate) fn of(workspace: &Workspace) -> Result<Self> {
        let path = workspace.source.display();
        let found =
            fs::metadata(&workspace.source).caller(format!("mount the workspace '{path}'"))?;
        if !found.is_dir() {
            return Err(caller(format!("mount the workspace '{path}': it is not a folder")));
        }
        Ok(Self { ids: (found.uid(), found.gid()), mode: found.mode() })
    }

    /// Whether somebody without capabilities can make files in it.
    fn open_to(self, (uid, gid): Ids) -> bool {
        let bits = match () {
            () if self.ids.0 == uid => self.mode >> 6,
            () if self.ids.1 == gid => self.mode >> 3,
            () => self.mode,
        };
        bits & 0o3 == 0o3
    }
}

/// Decides it, from the plan, the caller and the workspace.
pub(crate) fn decide(plan: &Plan, caller: Caller, holder: Option<Holder>) -> Result<Who> {
    let sidecars = match caller {
        Caller { rootless: true, .. } => (0, 0),
        Caller { ids: (0, _), .. } => SIDECARS_OF_ROOT,
        Caller { ids, .. } => ids,
    };
    if let Some(user) = &plan.user {
        let (user, agent) = explicit(user)?;
        return Ok(Who { user, agent, sidecars });
    }
    let bound = plan.workspace.as_ref().filter(|space| space.mode == WorkspaceMode::Bind);
    let agent = match caller {
        Caller { rootless: true, .. } => (0, 0),
        Caller { ids: (0, _), .. } => match holder.filter(|_| bound.is_some()) {
            Some(Holder { ids, .. }) if ids.0 != 0 => ids,
            _ => AGENT_OF_ROOT,
        },
        Caller { ids, .. } => ids,
    };
    let writable = bound.filter(|space| !space.read_only && !caller.rootless);
    if let (Some(space), Some(holder)) = (writable, holder)
        && !holder.open_to(agent)
    {
        return Err(self::caller(format!(
            "mount the workspace '{}': uid {} of the agent cannot write in it: set 'user: root', or 'read_only: true', or 'mode: copy'",
            space.source.display(),
            agent.0
        )));
    }
    Ok(Who { user: format!("{}:{}", agent.0, agent.1), agent, sidecars })
}

/// `user` of a plan: `root`, `uid` or `uid:gid`. Without a gid the engine takes that of the image's
/// own passwd, or 0.
fn explicit(user: &str) -> Result<(String, Ids)> {
    if user == "root" {
        return Ok(("0:0".to_owned(), (0, 0)));
    }
    let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok((user.to_owned(), (uid, gid))),
        _ => Err(caller(format!("read plan.user: '{user}' is neither 'root' nor 'uid[:gid]'"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(more: &serde_json::Value) -> Plan {
        let mut plan = json!({
            "digest": "", "agent": "a", "bottle": "b", "image": "i", "resources": { "pids": 1 },
            "egress": { "engine": "embedded" }, "selftest": "off",
            "workspace": { "source": "/w", "target": "/w", "mode": "bind", "read_only": false },
        });
        for (name, value) in more.as_object().unwrap() {
            plan[name] = value.clone();
        }
        serde_json::from_value(plan).unwrap()
    }

    fn agent(plan: &Plan, caller: Ids, holder: Ids, bits: u32) -> Result<Ids> {
        let caller = Caller { ids: caller, rootless: false };
        decide(plan, caller, Some(Holder { ids: holder, mode: bits })).map(|who| who.agent)
    }

    #[test]
    fn workspace_that_the_agent_cannot_write_is_refused_with_the_ways_out() {
        let error = agent(&plan(&json!({})), (0, 0), (0, 0), 0o755).unwrap_err();
        assert_eq!(
            error.to_string(),
            "mount the workspace '/w': uid 65533 of the agent cannot write in it: set 'user: root', or 'read_only: true', or 'mode: copy'"
        );
        for (caller, holder, mode) in [
            ((1000, 1000), (0, 0), 0o755),
            ((1000, 1000), (1000, 1000), 0o555),
            ((1000, 1000), (2000, 1000), 0o757),
            ((0, 0), (1000, 1000), 0o500),
        ] {
            assert!(
                agent(&plan(&json!({})), caller, holder, mode).is_err(),
                "{caller:?} {holder:?} {mode:o}"
            );
        }
    }

    #[test]
    fn workspace_that_the_agent_can_write_decides_for_root() {
        for (caller, holder, mode, expected) in [
            ((0, 0), (1000, 100), 0o755, (1000, 100)),
            ((0, 0), (0, 0), 0o777, (65533, 65533)),
            ((1000, 1000), (1000, 1000), 0o700, (1000, 1000)),
            ((1000, 1000), (2000, 1000), 0o770, (1000, 1000)),
            ((1000, 1000), (2000, 2000), 0o777, (1000, 1000)),
        ] {
            assert_eq!(agent(&plan(&json!({})), caller, holder, mode).unwrap(), expected);
        }
    }

    #[test]
    fn explicit_user_is_the_owners_word() {
        for (user, expected) in [("root", (0, 0)), ("7", (7, 0)), ("7:8", (7, 8))] {
            let who = agent(&plan(&json!({ "user": user })), (1000, 1000), (0, 0), 0o700).unwrap();
            assert_eq!(who, expected);
        }
    }
}
