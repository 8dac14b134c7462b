//! In what two plans differ, and whether that can change while a bottle runs.

use anyhow::Result;
use bottle::plan::Plan;
use bottle::{Blame, no};
use serde_json::Value;

/// What changes without a restart. The digest and the manifest only say where a plan comes from;
/// secrets are in a plan only as far as something names them, so they come and go with routes.
const LIVE: [&str; 5] = ["digest", "manifest", "egress.routes", "egress.allow", "secrets"];

/// What cannot change without a restart, but must not hold up a change either: it differs whenever
/// a `.git` comes or goes, which the agent could bring about to keep its owner from closing a route.
const LATER: [&str; 2] = ["workspace.protected", "workspace.pinned"];

/// How long a value may be to be shown.
const SHORT: usize = 40;

/// A change that can be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// What differs too, and only changes when the bottle starts anew.
    pub(crate) restart: Vec<String>,
}

/// Refuses a change of anything that does not change live, naming all of it.
pub(crate) fn between(old: &Plan, new: &Plan) -> Result<Change> {
    let value = |plan: &Plan| serde_json::to_value(plan).world("compare the plans");
    let mut found = Vec::new();
    differences("", Some(&value(old)?), Some(&value(new)?), &mut found);
    let is_one_of = |path: &str, of: &[&str]| {
        of.iter().any(|name| path == *name || path.starts_with(&format!("{name}.")))
    };
    found.retain(|(path, _)| !is_one_of(path, &LIVE));
    let (later, never): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(path, _)| is_one_of(path, &LATER));
    if never.is_empty() {
        return Ok(Change { restart: later.into_iter().map(|(path, _)| path).collect() });
    }
    let told: Vec<String> =
        never.into_iter().map(|(path, both)| format!("'{path}'{both}")).collect();
    Err(no(format!(
        "change the plan: only 'egress.routes' changes while a bottle runs, and these differ too: {}: stop the bottle and start it anew",
        told.join(", ")
    )))
}

/// The paths at which two values differ, each with both sides where they are short.
fn differences(
    path: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Vec<(String, String)>,
) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differences(&path, old.get(name), new.get(name), found);
            }
        }
        (old, new) => {
            let (old, new) = (shown(old), shown(new));
            let both =
                old.zip(new).map_or_else(String::new, |(old, new)| format!(" ({old} to {new})"));
            found.push((path.to_owned(), both));
        }
    }
}

/// A value that is short enough to be shown.
fn shown(value: Option<&Value>) -> Option<String> {
    let text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    (text.chars().count() <= SHORT).then_some(text)
}

#[cfg(test)]
mod tests {
    use bottle::strict;

    use super::*;

    fn plan(more: &str) -> Plan {
        let text = format!(
            r#"{{"digest":"{0}","agent":"x","bottle":"dev","image":"y","resources":{{"pids":512}},
            "egress":{{"engine":"embedded"}},"selftest":"enforce"{more}}}"#,
            more.len()
        );
        strict::json(&text, "plan").unwrap()
    }

    #[test]
    fn routes_alone_can_change() {
        let old = plan("");
        let mut new = old.clone();
        new.digest = "another".to_owned();
        new.egress.allow = vec!["* https://a.example:443/**".to_owned()];
        assert_eq!(between(&old, &new).unwrap(), Change { restart: Vec::new() });
    }

    #[test]
    fn everything_else_is_named_with_both_sides() {
        let old = plan(r#","env":{"A":"1"}"#);
        let mut new = plan("");
        new.resources.pids = 64;
        new.image = Some("z".to_owned());
        new.prompt = Some("long ".repeat(20));
        assert_eq!(
            format!("{:#}", between(&old, &new).unwrap_err()),
            "change the plan: only 'egress.routes' changes while a bottle runs, and these differ too: \
             'env' ({\"A\":\"1\"} to nothing), 'image' (\"y\" to \"z\"), 'prompt', \
             'resources.pids' (512 to 64): stop the bottle and start it anew"
        );
    }

    #[test]
    fn new_repository_holds_up_no_change() {
        let at = |protected: &str| {
            plan(&format!(
                r#","workspace":{{"source":"/w","target":"/w","mode":"bind","read_only":false,
                "protected":[{protected}]}}"#
            ))
        };
        let change = between(&at(r#""/w/.git""#), &at(r#""/w/.git","/w/x/.git""#)).unwrap();
        assert_eq!(change.restart, ["workspace.protected"]);
    }
}
