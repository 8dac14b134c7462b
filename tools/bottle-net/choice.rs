//! Which subnets a bottle gets: the first that neither a lease, nor a route of the host, nor
//! another network of the engine uses.

use anyhow::Result;
use bottle::net::{Ipv4Net, Net, PREFIX, Pool};
use bottle::run::progress;
use bottle::state::State;
use bottle::{Slug, lease, world};

use crate::TOOL;
use crate::host::Host;

/// What is used, and by whom.
pub(crate) struct Used<'a> {
    pub(crate) leases: &'a [(Ipv4Net, Slug)],
    pub(crate) routes: &'a [Ipv4Net],
    /// Networks of the engine, as far as they are known.
    pub(crate) engine: &'a [Ipv4Net],
}

/// The section of a dry run: chosen, nothing written, nothing made.
pub(crate) fn dry(state: &State, slug: &Slug, pool: &Pool, host: Host) -> Result<Net> {
    let used = Used { leases: &lease::taken(state)?, routes: &host.routes, engine: &[] };
    let [internal, bridge] = choose(pool, slug, &used)?;
    let net = Net::new(&state.project(slug), internal, bridge, pool);
    Ok(Net { dry_run: true, host_addresses: host.addresses, ..net })
}

/// The first `N` subnets of the pool that are free.
pub(crate) fn choose<const N: usize>(
    pool: &Pool,
    slug: &Slug,
    used: &Used,
) -> Result<[Ipv4Net; N]> {
    let leased = used.leases.iter().map(|(subnet, _)| subnet);
    let all: Vec<Ipv4Net> = leased.chain(used.routes).chain(used.engine).copied().collect();
    let free = pool.free(&all);
    let chosen: Vec<Ipv4Net> = free.subnets().take(N).collect();
    let (left, total) = (free.left() as usize, free.total());
    let Ok(chosen) = chosen.try_into() else {
        let networks: Vec<String> = pool.networks().iter().map(ToString::to_string).collect();
        let networks = networks.join(", ");
        return Err(world(format!(
            "lease {N} /{PREFIX} subnets: {left} of {total} left in {networks}: {}",
            why_so_few(pool, slug, used)
        )));
    };
    progress(TOOL, &format!("{} of {total} subnets left", left - N));
    Ok(chosen)
}

/// What uses the pool, and the way out.
fn why_so_few(pool: &Pool, slug: &Slug, used: &Used) -> String {
    let meets = |net: &Ipv4Net| pool.networks().iter().any(|p| p.contains(net) || net.contains(p));
    let others =
        used.leases.iter().filter(|(subnet, whose)| whose != slug && meets(subnet)).count();
    if others > 0 {
        return format!(
            "{others} leased by other bottles: free those of dead ones with 'bottle-reap --orphans', or add a network to BOTTLE_SUBNETS"
        );
    }
    // The widest route is the one that leaves no room.
    let routes = used.routes.iter().filter(|route| route.prefix_len() > 1 && meets(route));
    let by = match routes.min_by_key(|route| route.prefix_len()) {
        Some(route) => format!("this host has a route to {route}"),
        None => "other networks of the engine have the rest".to_owned(),
    };
    by + ": set BOTTLE_SUBNETS to networks that nothing here uses"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(leases: &[(&str, &str)], routes: &[&str], engine: &[&str]) -> String {
        let net = |text: &&str| text.parse::<Ipv4Net>().unwrap();
        let leases: Vec<(Ipv4Net, Slug)> =
            leases.iter().map(|(subnet, slug)| (net(subnet), slug.parse().unwrap())).collect();
        let used = Used {
            leases: &leases,
            routes: &routes.iter().map(net).collect::<Vec<_>>(),
            engine: &engine.iter().map(net).collect::<Vec<_>>(),
        };
        let pool = "10.1.0.0/27".parse().unwrap();
        match choose::<2>(&pool, &"mine".parse().unwrap(), &used) {
            Ok(chosen) => format!("{chosen:?}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn what_uses_the_pool_is_named() {
        assert_eq!(told(&[], &["0.0.0.0/0"], &[]), "[10.1.0.0/28, 10.1.0.16/28]");
        assert_eq!(
            told(&[("10.1.0.0/28", "other")], &["10.1.0.16/28"], &[]),
            "lease 2 /28 subnets: 0 of 2 left in 10.1.0.0/27: 1 leased by other bottles: free those of dead ones with 'bottle-reap --orphans', or add a network to BOTTLE_SUBNETS"
        );
        assert_eq!(
            told(&[], &["10.9.0.0/16", "10.0.0.0/8"], &[]),
            "lease 2 /28 subnets: 0 of 2 left in 10.1.0.0/27: this host has a route to 10.0.0.0/8: set BOTTLE_SUBNETS to networks that nothing here uses"
        );
        // The bottle's own leases do not crowd it out.
        assert_eq!(
            told(&[("10.1.0.0/28", "mine")], &[], &["10.1.0.16/28"]),
            "lease 2 /28 subnets: 0 of 2 left in 10.1.0.0/27: other networks of the engine have the rest: set BOTTLE_SUBNETS to networks that nothing here uses"
        );
    }
}
