//! `--checkout git`: clones inside the job, as the real service does.
//!
//! The script is one constant text, run by `/bin/sh -e`. What differs from job to job stands before it as assignments
//! in single quotes, so that no branch, tag, path or URL is ever read as shell.

use navvy_job::claim::RunFacts;
use navvy_job::compiled::{Checkout, CheckoutMethod};

use super::Remote;

/// Public host keys as their owners publish them.
const KNOWN_HOSTS: &str = include_str!("known_hosts");
const SCRIPT: &str = include_str!("clone.sh");

/// The shell text of a `checkout` step. A key may come as `$CHECKOUT_KEY` and `$CHECKOUT_KEY_PUBLIC` in its environment.
pub fn clone_script(checkout: &Checkout, run: &RunFacts) -> String {
    let or_empty = |fact: &Option<String>| fact.clone().unwrap_or_default();
    let (branch, tag, revision) = (or_empty(&run.branch), or_empty(&run.tag), or_empty(&run.revision));
    let origin = run.repository.as_deref().and_then(Remote::parse);
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
        ("branch", &branch),
        ("tag", &tag),
        ("sha", &revision),
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
