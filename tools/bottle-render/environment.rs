//! The agent's environment: the way out, and whom to trust on it, in the words of every client.

use std::collections::BTreeMap;

use bottle::compose::literal;
use bottle::net::Net;
use bottle::plan::Plan;
use bottle::render::{PROXY_PORT, SUPERVISE};

use crate::ssh;

/// Where the agent sees its configuration.
pub(crate) const CONF: &str = "/etc/bottle";
/// Where the agent sees its skills.
pub(crate) const SKILLS: &str = "/etc/bottle-skills";

/// The script, in [`CONF`], that leads old versions of Node to the proxy.
pub(crate) const NODE_PROXY: &str = "node-proxy.cjs";

/// The file, in [`CONF`], by which MCP clients find supervise.
pub(crate) const MCP: &str = ".mcp.json";

/// Clients that put the named file in place of the public roots: they need all of them.
const REPLACES: [&str; 9] = [
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];

/// Clients that add the named file to the roots they have.
const ADDS: [&str; 2] = ["DENO_CERT", "NODE_EXTRA_CA_CERTS"];

/// `NAME=value` lines, sorted, for Compose. What the plan sets goes before ours: it is the owner's
/// word, and can open nothing, because there is no other way out.
pub(crate) fn lines(plan: &Plan, net: &Net) -> Vec<String> {
    let mut all = ours(plan, net);
    for (name, value) in &plan.env {
        match all.get_mut(name) {
            // Java takes the last of two options; an agent's `-Xmx` must not cost it the proxy. Node
            // takes them all.
            Some(options) if name == "JAVA_TOOL_OPTIONS" || name == "NODE_OPTIONS" => {
                options.push(' ');
                options.push_str(value);
            }
            _ => {
                all.insert(name.clone(), value.clone());
            }
        }
    }
    all.iter().map(|(name, value)| literal(&format!("{name}={value}"))).collect()
}

fn ours(plan: &Plan, net: &Net) -> BTreeMap<String, String> {
    let egress = net.internal.egress;
    let proxy = format!("http://{egress}:{PROXY_PORT}");
    let mut direct = ["localhost", "127.0.0.1", "::1", "agent"].map(str::to_owned).to_vec();
    if plan.supervised().is_some() {
        direct.extend([SUPERVISE.to_owned(), net.internal.supervise.to_string()]);
    }
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    // curl reads `http_proxy` in lower case only, others read upper case only.
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        set(name, proxy.clone());
        set(&name.to_ascii_uppercase(), proxy.clone());
    }
    for name in ["no_proxy", "NO_PROXY"] {
        set(name, direct.join(","));
    }
    for name in REPLACES {
        set(name, format!("{CONF}/bundle.pem"));
    }
    for name in ADDS {
        set(name, format!("{CONF}/ca.pem"));
    }
    // New versions of Node read it, for old ones there is a script.
    set("NODE_USE_ENV_PROXY", "1".to_owned());
    set("NODE_OPTIONS", format!("--require={CONF}/{NODE_PROXY}"));
    set("JAVA_TOOL_OPTIONS", java(&egress.to_string(), &direct));
    if plan.supervised().is_some() {
        set("BOTTLE_MCP", format!("{CONF}/{MCP}"));
    }
    if !plan.ssh.is_empty() {
        set("SSH_AUTH_SOCK", ssh::socket());
    }
    if !plan.git.is_empty() {
        // It includes that of the image.
        set("GIT_CONFIG_SYSTEM", format!("{CONF}/gitconfig"));
    }
    if plan.prompt.is_some() {
        set("BOTTLE_PROMPT", format!("{CONF}/prompt"));
    }
    if !plan.skills.is_empty() {
        set("BOTTLE_SKILLS", SKILLS.to_owned());
    }
    env
}

/// Java reads neither proxy variables nor PEM.
fn java(egress: &str, direct: &[String]) -> String {
    let mut options = Vec::new();
    for scheme in ["http", "https"] {
        options.push(format!("-D{scheme}.proxyHost={egress} -D{scheme}.proxyPort={PROXY_PORT}"));
    }
    let direct: Vec<&str> = direct
        .iter()
        .map(|host| match host.as_str() {
            "127.0.0.1" => "127.*",
            "::1" => "[::1]",
            host => host,
        })
        .collect();
    options.push(format!("-Dhttp.nonProxyHosts={}", direct.join("|")));
    options.push(format!(
        "-Djavax.net.ssl.trustStore={CONF}/bundle.jks -Djavax.net.ssl.trustStoreType=jks"
    ));
    options.join(" ")
}
