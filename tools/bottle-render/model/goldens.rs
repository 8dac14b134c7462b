//! Every `tests/fixtures/render/NAME.json` is a plan and its facts; `NAME.yml`, `NAME.routes` and,
//! where the plan has one, `NAME.pipelock` are what is rendered of it. `scripts/bless` writes them;
//! `tests/unit/compose.rs` lets both composes read them, and the stand-in of pipelock its own.

use std::fs;
use std::path::Path;

use bottle::net::{EngineFacts, Net};
use bottle::plan::Plan;
use bottle::strict;
use serde::Deserialize;
use snapbox::{Data, assert_data_eq};

use super::{Facts, compose, gate_file, pipelock_file, routes};
use crate::mounts;
use crate::who::{self, Caller, Holder, Ids};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    caller: Ids,
    holder: Option<Owned>,
    engine: Option<EngineFacts>,
    plan: Plan,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Owned {
    ids: Ids,
    mode: u32,
}

fn net(engine: Option<EngineFacts>) -> Net {
    let pool = "10.201.0.0/16".parse().unwrap();
    let (internal, bridge) = ("10.201.0.0/28", "10.201.0.16/28");
    let mut net =
        Net::new("bottle-x-0123abcd", internal.parse().unwrap(), bridge.parse().unwrap(), &pool);
    net.host_addresses =
        ["203.0.113.9", "172.17.0.1", "2001:db8::9"].map(|text| text.parse().unwrap()).into();
    net.engine = engine;
    net
}

#[test]
fn every_golden_is_what_is_rendered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/render");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let fixture: Fixture = strict::json(&text, path.to_str().unwrap()).unwrap();
        let net = net(fixture.engine);
        let rootless = net.engine.as_ref().is_some_and(|engine| engine.rootless);
        let caller = Caller { ids: fixture.caller, rootless };
        let holder = fixture.holder.map(|Owned { ids, mode }| Holder { ids, mode });
        let who = who::decide(&fixture.plan, caller, holder).unwrap();
        let state = Path::new("/home/me/.local/state/bottle/x");
        let facts = Facts {
            slug: &"x".parse().unwrap(),
            plan: &fixture.plan,
            net: &net,
            folder: state,
            who: &who,
            mounts: &mounts::all(&fixture.plan, state).unwrap(),
        };
        let file = strict::to_yaml(&compose(&facts).unwrap()).unwrap();
        assert_data_eq!(file, golden(&path, "yml"));
        let file = routes(&facts, 1).unwrap().to_yaml().unwrap();
        assert_data_eq!(file, golden(&path, "routes"));
        if let Some(file) = gate_file(&facts, 1).unwrap() {
            assert_data_eq!(file, golden(&path, "gate"));
        }
        if let Some(file) = pipelock_file(&facts).unwrap() {
            assert_data_eq!(file, golden(&path, "pipelock"));
        }
        seen += 1;
    }
    assert!(seen > 8, "only {seen} fixtures in {}", folder.display());
}

fn golden(fixture: &Path, extension: &str) -> Data {
    // Text as it stands: no `[..]`, and no `\` that becomes `/`.
    Data::read_from(&fixture.with_extension(extension), None).raw()
}
