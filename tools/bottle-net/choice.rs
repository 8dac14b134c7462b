//! Which subnets a bottle gets: the first that neither a lease, nor a route of the host, nor
//! whatever else the caller names uses.

use anyhow::Result;
use bottle::lease;
use bottle::net::Ipv4Net;
use bottle::net::{Net, PREFIX, Pool};
use bottle::run::progress;
use bottle::state::State;
use bottle::{Slug, world};

use crate::TOOL;
use crate::host::Host;

/// The section of a dry run: chosen, nothing written, nothing made.
pub(crate) fn dry(state: &State, slug: &Slug, pool: &Pool, host: Host) -> Result<Net> {
    let [internal, bridge] = choose(pool, &lease::taken(state)?, &host.routes, &[])?;
    let net = Net::new(&state.project(slug), internal, bridge, pool);
    Ok(Net { dry_run: true, host_addresses: host.addresses, ..net })
}

/// The first `N` subnets of the pool that are free.
pub(crate) fn choose<const N: usize>(
    pool: &Pool,
    leases: &[(Ipv4Net, Slug)],
    routes: &[Ipv4Net],
    engine: &[Ipv4Net],
) -> Result<[Ipv4Net; N]> {
    let used: Vec<Ipv4Net> = leases
        .iter()
        .map(|(subnet, _)| *subnet)
        .chain(routes.iter().chain(engine).copied())
        .collect();
    let free = pool.free(&used);
    let chosen: Vec<Ipv4Net> = free.subnets().take(N).collect();
    let Ok(chosen) = chosen.try_into() else {
        return Err(exhausted(pool, leases, routes, free.left(), free.total()));
    };
    let left = free.subnets().count() - N;
    progress(TOOL, &format!("{left} of {} subnets left", free.total()));
    Ok(chosen)
}

fn exhausted(
    pool: &Pool,
    leases: &[(Ipv4Net, Slug)],
    routes: &[Ipv4Net],
    left: u32,
    total: u32,
) -> anyhow::Error {
    let meets = |net: &Ipv4Net| pool.networks().iter().any(|p| p.contains(net) || net.contains(p));
    let list = |nets: Vec<String>| nets.join(", ");
    let networks = list(pool.networks().iter().map(ToString::to_string).collect());
    let ours = leases.iter().filter(|(subnet, _)| meets(subnet)).count();
    // The route that leaves no room is the widest one.
    let widest = routes
        .iter()
        .filter(|route| route.prefix_len() > 1 && meets(route))
        .min_by_key(|route| route.prefix_len());
    let why = match widest {
        Some(route) if ours == 0 => format!(
            "this host has a route to {route}: set BOTTLE_SUBNETS to networks that nothing here uses"
        ),
        _ => format!(
            "{ours} leased: free those of dead bottles with 'bottle-reap --orphans', or add a network to BOTTLE_SUBNETS"
        ),
    };
    world(format!("lease two /{PREFIX} subnets: {left} of {total} left in {networks}: {why}"))
}
