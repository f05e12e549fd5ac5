//! `--checkout git`: clones inside the job, as the real service does.
//!
//! The script is one constant text, run by `/bin/sh -e`. What differs from job to job stands before it as assignments
//! in single quotes, so that no branch, tag, path or URL is ever read as shell.

use navvy_job::compiled::{Checkout, CheckoutMethod};

use super::Remote;

/// Public host keys as their owners publish them.
const KNOWN_HOSTS: &str = include_str!("known_hosts");
const SCRIPT: &str = include_str!("clone.sh");

/// The shell text of a `checkout` step, from the task's built-in variables (`CIRCLE_REPOSITORY_URL`, `CIRCLE_BRANCH`,
/// `CIRCLE_TAG`, `CIRCLE_SHA1`). A key may come as `$CHECKOUT_KEY` and `$CHECKOUT_KEY_PUBLIC` in its environment.
pub fn clone_script(checkout: &Checkout, builtin: &[(String, String)]) -> String {
    let variable = |name: &str| builtin.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    let origin = Remote::parse(variable("CIRCLE_REPOSITORY_URL"));
    let url = origin.as_ref().map_or("", |origin| origin.url.as_str());
    let local = origin.as_ref().and_then(Remote::local_path).unwrap_or("");
    let is_ssh = origin.as_ref().is_some_and(Remote::is_ssh);
    let https = origin.as_ref().filter(|_| is_ssh).and_then(Remote::web_url).unwrap_or_default();
    let depth = match checkout.method {
        CheckoutMethod::Shallow { depth } => depth.max(1).to_string(),
        _ => String::new(),
    };
    let filter = if checkout.method == CheckoutMethod::Blobless { "blob:none" } else { "" };
    let assignments = [
        ("url", url),
        ("https_url", &https),
        ("local_path", local),
        ("branch", variable("CIRCLE_BRANCH")),
        ("tag", variable("CIRCLE_TAG")),
        ("sha", variable("CIRCLE_SHA1")),
        ("path", checkout.path.as_deref().unwrap_or(".")),
        ("filter", filter),
        ("depth", &depth),
        ("known_hosts", KNOWN_HOSTS.trim_end()),
    ];
    let mut script: String = assignments.iter().map(|(name, value)| format!("{name}={}\n", quote(value))).collect();
    script.push_str(SCRIPT);
    script
}

/// In single quotes, where the shell reads nothing but the closing quote.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
