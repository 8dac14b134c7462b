//! Tunnels end when the policy no longer allows what they were opened for: nothing that they carry
//! is judged again.

use std::net::IpAddr;

use bottle::policy::{Ask, Decision, Policy, Request, Rule, normal_path};

use crate::conf::Force;
use crate::exchange::Exchange;
use crate::pool::Target;
use crate::proxy::Session;

/// Ends once a target's CONNECT is not allowed by a rule that `holds` any more.
pub(crate) async fn passage(
    session: &Session,
    target: &Target,
    address: Option<IpAddr>,
    holds: impl Fn(&Rule) -> bool,
) {
    until(session, |force| {
        let policy = &force.policy;
        let Some(client) = policy.client(session.client) else { return true };
        let ask = Ask { client, host: &target.host, port: target.port, request: None };
        let Decision::Allow { rule } = force.still(&ask) else { return true };
        !policy.rule(rule).is_some_and(&holds) || closed(policy, rule, address)
    })
    .await;
}

/// Ends once an exchange would be refused.
pub(crate) async fn exchange(exchange: &Exchange) {
    let target = &exchange.target;
    until(&exchange.session, |force| {
        let policy = &force.policy;
        let Some(client) = policy.client(exchange.session.client) else { return true };
        let Ok(path) = normal_path(exchange.uri.path()) else { return true };
        let method = exchange.method.as_str();
        let request = Some(Request { scheme: target.scheme, method, path: &path });
        let ask = Ask { client, host: &target.host, port: target.port, request };
        let Decision::Allow { rule } = force.still(&ask) else { return true };
        closed(policy, rule, exchange.address)
    })
    .await;
}

fn closed(policy: &Policy, rule: usize, address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| policy.address(rule, address).is_err())
}

async fn until(session: &Session, is_revoked: impl Fn(&Force) -> bool) {
    let conf = &session.egress.conf;
    let mut changes = conf.changes();
    // What came into force since the decision is looked at first.
    while !is_revoked(&conf.force()) {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
