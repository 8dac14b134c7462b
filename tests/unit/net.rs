//! `bottle-net` and its neighbours, where a transcript does not suffice.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::common::Scratch;
use crate::common::manifest::Manifest;

const LESSONS: &str = "$ docker network create *\n> 0123456789ab\n\
    $ docker info *\n> {\"version\":\"20.10.24\",\"security\":null}\n\
    $ docker network rm *\n";

fn scratch() -> (Scratch, String) {
    let scratch = Scratch::new();
    scratch.teach(LESSONS);
    scratch.file("bottle.yaml", Manifest::new().text());
    let plan = scratch.tool("bottle-plan").args(["implementer"]).run().ok();
    (scratch, plan)
}

#[test]
fn two_hundred_side_by_side_share_no_subnet() {
    const BOTTLES: usize = 200;
    let (scratch, plan) = scratch();
    let calls: Vec<_> = (0..BOTTLES)
        .map(|n| {
            // The name of a bottle is no part of its plan.
            let plan = plan.replacen("implementer", &format!("b{n}"), 1);
            scratch.tool("bottle-net").env("BOTTLE_SUBNETS", "10.253.0.0/16").stdin(plan).spawn()
        })
        .collect();
    let mut subnets = BTreeSet::new();
    for call in calls {
        let output = call.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let doc: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for kind in ["internal", "bridge"] {
            let subnet = doc["net"][kind]["subnet"].as_str().unwrap().to_owned();
            assert!(subnets.insert(subnet.clone()), "{subnet} was handed out twice");
        }
    }
    let leases = fs::read_dir(scratch.state().join("leases")).unwrap().count();
    assert_eq!((subnets.len(), leases), (2 * BOTTLES, 2 * BOTTLES + 1));
}

#[test]
fn same_slug_side_by_side_is_made_once() {
    let (scratch, plan) = scratch();
    let calls: Vec<_> = (0..8).map(|_| scratch.tool("bottle-net").stdin(&plan).spawn()).collect();
    let mut made = 0;
    for call in calls {
        let output = call.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => made += 1,
            code => {
                assert_eq!((code, told.contains("is there already")), (Some(1), true), "{told}");
            }
        }
    }
    assert_eq!(made, 1);
    let created = scratch.calls().iter().filter(|call| call.contains("network create")).count();
    assert_eq!(created, 2);
}

#[test]
fn state_folder_of_another_user_is_refused() {
    let (scratch, plan) = scratch();
    let is_root = fs::metadata(scratch.path()).unwrap().uid() == 0;
    let (foreign, uid) = if is_root {
        let folder = scratch.path().join("foreign");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
        (folder, 65_534)
    } else {
        ("/".into(), 0)
    };
    for (tool, input) in
        [("bottle-net", plan.as_str()), ("bottle-reap", plan.as_str()), ("bottle-ps", "")]
    {
        scratch.tool(tool).env("BOTTLE_STATE", &foreign).stdin(input).run().fails(
            2,
            &format!(
                "{tool}: use the state folder '{}': it belongs to uid {uid}: set BOTTLE_STATE to a folder of your own",
                foreign.display()
            ),
        );
    }
    assert_eq!(scratch.calls(), Vec::<String>::new());
}

#[test]
fn hung_engine_does_not_hold_up_a_dry_run() {
    let (scratch, plan) = scratch();
    scratch.teach("$ docker *\n~ hang\n");
    scratch.tool("bottle-net").args(["--dry-run"]).stdin(plan).run().ok();
    assert_eq!(scratch.calls(), Vec::<String>::new());
}
