//! `bottle-net` on the real engine.

use std::net::TcpListener;

use serde_json::Value;

use crate::common::manifest::Manifest;
use crate::hand::Hand;
use crate::support::{Bottle, docker, engine};

const PIPE: &str = "bottle-plan implementer | bottle-net";

fn inspect(network: &str) -> Value {
    let mut found = docker(["network", "inspect", network]).json();
    found[0].take()
}

#[test]
fn both_networks_carry_our_labels_and_only_one_leads_out() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let doc = bottle.sh(PIPE).run().json();
    let net = &doc["net"];
    assert_eq!(net["project"], format!("bottle-implementer-{}", bottle.id()));
    for (kind, internal) in [("internal", true), ("bridge", false)] {
        let found = inspect(net[kind]["name"].as_str().unwrap());
        assert_eq!(found["Internal"], internal);
        assert_eq!(found["EnableIPv6"], false);
        assert_eq!(found["IPAM"]["Config"][0]["Subnet"], net[kind]["subnet"]);
        assert_eq!(found["Options"]["com.docker.network.bridge.enable_icc"], "true");
        let inhibited = &found["Options"]["com.docker.network.bridge.inhibit_ipv4"];
        assert_eq!(inhibited.as_str(), internal.then_some("true"));
        let labels = &found["Labels"];
        assert_eq!(labels["bottle.slug"], "implementer");
        assert_eq!(labels["bottle.project"], net["project"]);
        assert_eq!(labels["bottle.plan"], doc["plan"]["digest"]);
        assert!(labels["bottle.owner"].as_str().unwrap().starts_with("group:"));
    }
    let leases = std::fs::read_dir(bottle.state().join("leases")).unwrap();
    assert_eq!(leases.filter(|lease| lease.as_ref().unwrap().file_name() != "lock").count(), 2);
}

#[test]
fn document_with_networks_passes_through_and_missing_ones_are_told() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let doc = bottle.sh(PIPE).run().ok();
    assert_eq!(bottle.tool("bottle-net").stdin(&doc).run().ok(), doc);
    let project = format!("bottle-implementer-{}", bottle.id());
    docker(["network", "rm", &format!("{project}-internal")]).ok();
    bottle.tool("bottle-net").stdin(&doc).run().fails(
        3,
        &format!("bottle-net: find network '{project}-internal': it is gone: run 'bottle-reap implementer' and start again"),
    );
    docker(["network", "create", &format!("{project}-internal")]).ok();
    let run = bottle.tool("bottle-net").stdin(&doc).run();
    let made_by_somebody_else = docker(["network", "rm", &format!("{project}-internal")]);
    run.fails(3, "bottle-net: use network '[..]-internal': it is not the one that the document tells of: run 'bottle-reap implementer' and start again");
    made_by_somebody_else.ok();
}

#[test]
fn services_of_the_host_are_out_of_reach_though_a_plain_internal_network_leads_to_them() {
    let Some(hand) = Hand::new() else { return };
    let service = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = service.local_addr().unwrap().port();
    let net = hand.net();
    let own: Vec<&str> = net["internal"]["subnet"].as_str().unwrap().split('.').collect();
    let last: u32 = own[3].split('/').next().unwrap().parse().unwrap();
    let gateway = format!("{}.{}.{}.{}", own[0], own[1], own[2], last + 1);
    let addresses = net["host_addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
    let mut attempts: Vec<String> =
        addresses.filter(|a| !a.contains(':')).map(|address| format!("{address}:{port}")).collect();
    attempts.push(format!("{gateway}:{port}"));
    attempts.push(format!("{}:{port}", net["bridge"]["gateway"].as_str().unwrap()));
    let reaches = |network: &str, target: &str| {
        let url = format!("http://{target}/");
        let get = ["get", "--ca", "/dev/null", "--proxy", "none", "--timeout-ms", "500", &url];
        let run = hand.probe(network, &get);
        // Whatever the service answers, a connection is a connection.
        service.set_nonblocking(true).unwrap();
        let reached = service.accept().is_ok();
        assert_ne!(run.status, 0, "{}", run.report());
        reached
    };
    let internal = net["internal"]["name"].as_str().unwrap();
    for target in &attempts {
        assert!(!reaches(internal, target), "{target} was reached");
    }
    // The control: the same act in a network that is only --internal.
    let plain = format!("{internal}-plain");
    let label = format!("bottle.project={}", hand.project());
    docker(["network", "create", "--internal", "--label", &label, &plain]).ok();
    let gateway = inspect(&plain)["IPAM"]["Config"][0]["Gateway"].as_str().unwrap().to_owned();
    assert!(reaches(&plain, &format!("{gateway}:{port}")), "the control did not reach the host");
}

#[test]
fn subnet_of_a_foreign_network_is_stepped_over() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let dry = bottle.sh("bottle-plan implementer | bottle-net --dry-run").run().json();
    let taken = dry["net"]["internal"]["subnet"].as_str().unwrap().to_owned();
    // Without an address on the host it shows in no routing table.
    let foreign = format!("bottle-test-foreign-{}", bottle.id());
    docker([
        "network",
        "create",
        "--internal",
        "--opt",
        "com.docker.network.bridge.inhibit_ipv4=true",
        "--subnet",
        &taken,
        &foreign,
    ])
    .ok();
    let run = bottle.sh(PIPE).run();
    docker(["network", "rm", &foreign]).ok();
    let doc = run.json();
    assert_ne!(doc["net"]["internal"]["subnet"], taken);
    assert_ne!(doc["net"]["internal"]["subnet"], doc["net"]["bridge"]["subnet"]);
    let leases: Vec<String> = std::fs::read_dir(bottle.state().join("leases"))
        .unwrap()
        .map(|lease| lease.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    assert_eq!(leases.len(), 2, "the lease of the foreign subnet was not given back: {leases:?}");
}

#[test]
fn pool_that_is_used_up_is_told_before_anything_is_made() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let dry = bottle.sh("bottle-plan implementer | bottle-net --dry-run").run().json();
    let subnet = dry["net"]["internal"]["subnet"].as_str().unwrap();
    let pool = subnet.replace("/28", "/27");
    let net = |slug: &str| {
        let text = format!("bottle-plan implementer --slug {slug} | bottle-net");
        bottle.sh(&text).env("BOTTLE_SUBNETS", &pool).run()
    };
    net("one").ok();
    let before = bottle.leftovers();
    net("two").fails(
        3,
        &format!("bottle-net: lease 2 /28 subnets: 0 of 2 left in {pool}: 2 leased by other bottles: free those of dead ones with 'bottle-reap --orphans', or add a network to BOTTLE_SUBNETS"),
    );
    assert_eq!(bottle.leftovers(), before);
    assert!(!bottle.state().join("two").exists());
}

#[test]
fn closed_stdout_undoes_both_networks() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let doc = bottle.tool("bottle-plan").args(["implementer"]).run().ok();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let run = bottle.tool("bottle-net").stdin(doc).stdout_to(full).run();
    run.fails(3, "bottle-net: write the document to stdout: No space left on device[..]");
    bottle.is_gone();
}

#[test]
fn slug_that_is_taken_is_an_honest_no() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    bottle.sh(PIPE).run().ok();
    bottle.sh(PIPE).run().fails(
        1,
        "bottle-net: bottle 'implementer' is there already: attach with 'bottle attach implementer', stop it with 'bottle stop implementer', or name another with --slug",
    );
    assert_eq!(bottle.leftovers().len(), 2);
}

#[test]
fn network_of_a_lost_bottle_is_left_alone_and_named() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    bottle.sh(PIPE).run().ok();
    std::fs::remove_dir_all(bottle.state()).unwrap();
    let run = bottle.sh(PIPE).run();
    run.fails(
        1,
        "bottle-net: make network '[..]': it is there, though the state folder knows of no bottle 'implementer': remove what is left of it with 'bottle-reap implementer'",
    );
    assert_eq!(bottle.leftovers().len(), 2);
    bottle.tool("bottle-reap").args(["implementer"]).run().ok();
    bottle.is_gone();
}

#[test]
fn bottles_that_start_side_by_side_get_subnets_of_their_own() {
    if !engine() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new());
    let docs: Vec<Value> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6)
            .map(|n| {
                let text = format!("bottle-plan implementer --slug b{n} | bottle-net");
                let tool = bottle.sh(&text);
                scope.spawn(move || tool.run().json())
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let mut subnets: Vec<&str> = docs
        .iter()
        .flat_map(|doc| {
            ["internal", "bridge"].map(|kind| doc["net"][kind]["subnet"].as_str().unwrap())
        })
        .collect();
    subnets.sort_unstable();
    subnets.dedup();
    assert_eq!(subnets.len(), 12);
    assert_eq!(bottle.leftovers().len(), 12);
}
