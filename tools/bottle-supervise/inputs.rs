//! What the tools take. An unknown name is refused: a misspelt `paths` must never mean every path.

#![expect(
    clippy::doc_link_with_quotes,
    clippy::doc_markdown,
    reason = "the comments are what an agent reads, in the words of JSON"
)]

use bottle::proposal::Wish;
use rmcp::schemars::JsonSchema;
use serde::Deserialize;

/// Of `policy`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Policy {
    /// Only rules whose host contains this text.
    #[serde(default)]
    pub(crate) host: Option<String>,
}

/// Of `why_denied`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct WhyDenied {
    /// Only denials of this host.
    #[serde(default)]
    pub(crate) host: Option<String>,
    /// How many of the last ones, 1 to 20; 5 where it is left out.
    #[serde(default)]
    pub(crate) last: Option<usize>,
}

/// Of `propose_route`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Route {
    /// Why you need it, in a sentence for the person who decides.
    pub(crate) reason: String,
    /// Host name, '*.' and a name (its subdomains), an address or a network.
    pub(crate) host: String,
    /// Methods, as ["GET"]; every one where it is left out. Ask for no more than you need.
    #[serde(default)]
    pub(crate) methods: Vec<String>,
    /// Globs of paths, as ["/v1/**"]: '*' within a segment, '**' across them; every one where it is
    /// left out. Ask for no more than you need.
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    /// Ports; 443 where it is left out. 443 takes TLS only, 80 plain HTTP only.
    #[serde(default)]
    pub(crate) ports: Vec<u16>,
    /// Private networks that the host resolves into, as ["10.1.2.0/24"], where it does.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
}

impl Route {
    pub(crate) fn wish(&self) -> Wish<'_> {
        Wish {
            host: &self.host,
            methods: &self.methods,
            paths: &self.paths,
            ports: &self.ports,
            addresses: &self.addresses,
        }
    }
}

/// Of `propose_secret_use`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct SecretUse {
    /// Why you need it, in a sentence for the person who decides.
    pub(crate) reason: String,
    /// Name of the secret, as 'policy' shows it. You never see its value: it is added to requests on
    /// their way.
    pub(crate) secret: String,
    /// Host that it is to be added for.
    pub(crate) host: String,
    /// As in 'propose_route'.
    #[serde(default)]
    pub(crate) methods: Vec<String>,
    /// As in 'propose_route'.
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    /// As in 'propose_route'.
    #[serde(default)]
    pub(crate) ports: Vec<u16>,
    /// As in 'propose_route'.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
}

impl SecretUse {
    pub(crate) fn wish(&self) -> Wish<'_> {
        Wish {
            host: &self.host,
            methods: &self.methods,
            paths: &self.paths,
            ports: &self.ports,
            addresses: &self.addresses,
        }
    }
}

/// Of `propose_git_ref`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct GitRef {
    /// Why you need it, in a sentence for the person who decides.
    pub(crate) reason: String,
    /// Name of the git remote, as 'policy' shows it.
    pub(crate) remote: String,
    /// The ref, as 'refs/heads/fix', or a pattern, as 'refs/heads/fix/*': '*' within a component, '**'
    /// across them. Ask for no more than you need.
    #[serde(rename = "ref")]
    pub(crate) pattern: String,
}

/// Of `propose_ssh_host`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct SshHost {
    /// Why you need it, in a sentence for the person who decides.
    #[expect(dead_code, reason = "taken, so that its absence is told")]
    pub(crate) reason: String,
    /// Host name or address.
    #[expect(dead_code, reason = "there is no key to ask for")]
    pub(crate) address: String,
    /// TCP port; 22 where it is left out.
    #[serde(default)]
    #[expect(dead_code, reason = "there is no key to ask for")]
    pub(crate) port: Option<u16>,
}

/// Of `proposal_status`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Status {
    /// Id of the proposal, as it was given when you made it; all that are open where it is left out.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// How many seconds to wait for an answer, up to 60; none where it is left out.
    #[serde(default)]
    pub(crate) wait: u64,
}
