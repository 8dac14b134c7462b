//! What others release and bottle runs, each pinned in this one place. The canaries
//! (`scripts/canaries`) tell when a pin no longer works.

/// The firewall behind egress, <https://github.com/luckyPipewrench/pipelock>.
///
/// A tag, because its digest was never seen: no registry was at hand. Whoever runs the canaries
/// writes it as `…:2.3.0@sha256:…`, with what `docker inspect --format '{{.RepoDigests}}'` says.
pub const PIPELOCK: &str = "ghcr.io/luckypipewrench/pipelock:2.3.0";

/// The other engine of egress, <https://mitmproxy.org>.
pub const MITMPROXY: &str = "docker.io/mitmproxy/mitmproxy:11.0.2";
