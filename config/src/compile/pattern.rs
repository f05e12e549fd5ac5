//! One item of `only` or `ignore`: a name, or a regular expression between slashes.

use std::borrow::Cow;

use super::fields::At;
use crate::diagnostic::Diagnostic;
use crate::syntax::{Node, stays};

/// What stands between the slashes.
fn regex(pattern: &str) -> Option<&str> {
    pattern.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'))
}

/// A regular expression must match the whole of one of the names, any other pattern is the first name itself.
pub(super) fn matches(place: At<'_>, node: &Node, pattern: &str, names: &[&str]) -> bool {
    let Some(regex) = regex(pattern) else { return names.first() == Some(&pattern) };
    let regex = if regex.contains("\\/") { Cow::Owned(regex.replace("\\/", "/")) } else { Cow::Borrowed(regex) };
    for name in names {
        match place.context.full_match(&regex, name, node.span) {
            Ok(true) => return true,
            Ok(false) => {}
            Err(message) => {
                place.error("invalid-regex", node.span, message);
                return false;
            }
        }
    }
    false
}

/// Warns of a pattern that was meant to be a regular expression and is a name that no branch and no tag can have.
pub(super) fn warn(place: At<'_>, node: &Node, pattern: &str) {
    stays("this name", node).into_iter().for_each(|told| place.report(told));
    if regex(pattern).is_some() || place.context.is_weary() {
        return;
    }
    let told = |code, message: String, help: String| {
        place.report(Diagnostic::warning(code, node.span, message).help(help));
    };
    let between = |regex: &str| format!("a regular expression stands between slashes, as in `/{regex}/`");
    let no_regex = |why: &str| format!("`{pattern}` is plain text, not a regular expression: {why}");
    if let Some((regex, flags)) = flagged(pattern) {
        let help = if flags.bytes().all(|flag| b"ims".contains(&flag)) {
            format!("a flag stands inside: `/(?{flags}){regex}/`")
        } else {
            format!("write `/{regex}/`: it must match the whole name, without any flag")
        };
        told("regex-in-filter", no_regex("nothing may follow the second slash"), help);
    } else if let Some(regex) = pattern.strip_prefix('/') {
        told("regex-in-filter", no_regex("its second slash is missing"), format!("write `/{regex}/`"));
    } else if let Some(regex) = pattern.strip_suffix('/') {
        told("regex-in-filter", no_regex("its first slash is missing"), format!("write `/{regex}/`"));
    } else if is_like_a_regex(pattern) {
        told("regex-in-filter", no_regex("those stand between slashes"), between(&pattern.replace('/', "\\/")));
    } else if pattern.contains(['*', '?']) {
        let message = format!("`{pattern}` is plain text and matches nothing but itself");
        told("glob-in-filter", message, between(&of_glob(pattern)));
    }
}

/// `/x/i` taken apart. No name of a branch or tag begins with a slash.
fn flagged(pattern: &str) -> Option<(&str, &str)> {
    let (regex, flags) = pattern.strip_prefix('/')?.rsplit_once('/')?;
    let is_flags = !flags.is_empty() && flags.bytes().all(|flag| b"dgimsuvxy".contains(&flag));
    is_flags.then_some((regex, flags))
}

/// What names of branches and tags cannot hold, or hardly ever do.
fn is_like_a_regex(pattern: &str) -> bool {
    pattern.contains(['^', '\\', '[', '|'])
        || pattern.ends_with('$')
        || [".*", ".+", ".?", "(?"].iter().any(|part| pattern.contains(part))
}

/// The regular expression that a glob was meant to be.
fn of_glob(glob: &str) -> String {
    let mut regex = String::with_capacity(2 * glob.len());
    for c in glob.chars() {
        match c {
            '*' if regex.ends_with(".*") => {}
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '.' | '/' | '+' | '(' | ')' | '{' | '}' | '$' => regex.extend(['\\', c]),
            _ => regex.push(c),
        }
    }
    regex
}
