//! The names of what the scan of outgoing requests looks for, as `dlp_exempt` has them.
//!
//! The rules themselves are egress's (`tools/bottle-egress/dlp/rules.yaml`), because they need engines
//! that this crate is free of; a test there holds this list against them.

use anyhow::Result;

use crate::error::caller;
use crate::strict;

/// Every rule of the scan, sorted.
pub const NAMES: [&str; 55] = [
    "age-key",
    "anthropic-key",
    "atlassian-token",
    "aws-access-key",
    "aws-secret-key",
    "azure-client-secret",
    "azure-storage-key",
    "card-number",
    "crates-io-token",
    "databricks-token",
    "decode-limit",
    "digitalocean-token",
    "discord-webhook",
    "docker-token",
    "email",
    "github-pat",
    "github-token",
    "gitlab-token",
    "google-api-key",
    "google-oauth",
    "grafana-token",
    "groq-key",
    "hashicorp-token",
    "high-entropy-host",
    "high-entropy-url",
    "huggingface-token",
    "iban",
    "jwt",
    "linear-key",
    "mailgun-key",
    "new-relic-key",
    "notion-token",
    "npm-token",
    "openai-key",
    "openrouter-key",
    "perplexity-key",
    "phone-number",
    "postman-key",
    "private-key",
    "pypi-token",
    "replicate-token",
    "rubygems-key",
    "sendgrid-key",
    "sentry-token",
    "shopify-token",
    "slack-token",
    "slack-webhook",
    "square-token",
    "ssrf-target",
    "stripe-key",
    "supabase-token",
    "tailscale-key",
    "telegram-token",
    "url-credentials",
    "xai-key",
];

/// What comes before the name of a secret of the plan.
pub const SECRET: &str = "secret:";

/// Whether an exemption names something that can be found; whether there is such a secret, only the
/// plan knows.
pub fn check_exempt(exempt: &str) -> Result<()> {
    if exempt.strip_prefix(SECRET).is_some_and(|name| !name.is_empty())
        || NAMES.binary_search(&exempt).is_ok()
    {
        return Ok(());
    }
    Err(caller(format!(
        "dlp_exempt: '{exempt}' is no rule of the scan{}",
        strict::did_you_mean(exempt, &NAMES)
    )))
}
