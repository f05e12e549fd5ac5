//! Values that cannot be secrets, and the part of a proxy's address that is one (pure: who knows the files is passed in).
//!
//! A value that everybody's programs hold (each Go program has the path of Debian's CA bundle in it) must not be looked for:
//! logs would be full of `****`, and programs refused as artifacts. What is not certain stays a secret.

use std::path::Path;

/// Variables that name certificates of authorities: a file of them, or a directory.
const CA_NAMES: [&str; 18] = [
    "AWS_CA_BUNDLE",
    "BUNDLE_SSL_CA_CERT",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];
/// Variables with the address of a proxy that only passes requests on. A package proxy (`GOPROXY`) is not among them: its
/// path may hold a token.
const PROXY_NAMES: [&str; 12] = [
    "ALL_PROXY",
    "CARGO_HTTP_PROXY",
    "FTP_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NPM_CONFIG_HTTPS_PROXY",
    "NPM_CONFIG_HTTP_PROXY",
    "NPM_CONFIG_PROXY",
    "PIP_PROXY",
    "RSYNC_PROXY",
    "YARN_HTTPS_PROXY",
    "YARN_HTTP_PROXY",
];
/// Variables with hosts that are reached without a proxy.
const EXCEPTION_NAMES: [&str; 3] = ["NO_PROXY", "NPM_CONFIG_NOPROXY", "NPM_CONFIG_NO_PROXY"];
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
/// Directories that hold nothing which is kept from anyone, here or in a job's image.
const PUBLIC_DIRECTORIES: [&str; 6] =
    ["/etc/ca-certificates/", "/etc/pki/", "/etc/ssl/", "/usr/lib/ssl/", "/usr/local/share/", "/usr/share/"];
/// A longer text is not a path.
const LONGEST_PATH: usize = 4096;

/// Can this variable's value not be a secret? `is_public_file` knows whether everybody may read a file of this machine.
pub fn is_public(name: &str, value: &str, is_public_file: &dyn Fn(&Path) -> bool) -> bool {
    let upper = name.to_ascii_uppercase();
    is_boolean(value)
        || CA_NAMES.contains(&&*upper) && names_a_file(value)
        || PROXY_NAMES.contains(&&*upper) && is_bare_address(value)
        || EXCEPTION_NAMES.contains(&&*upper) && is_list_of_hosts(value)
        || is_public_path(value, is_public_file)
}

fn is_boolean(value: &str) -> bool {
    ["true", "false", "yes", "no", "on", "off"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// What a CA variable may hold: one line that leads somewhere.
fn names_a_file(value: &str) -> bool {
    let leads = ["/", "./", "../", "~/", "$"].iter().any(|start| value.starts_with(start));
    let is_certificate = [".pem", ".crt", ".cer"].iter().any(|end| value.to_ascii_lowercase().ends_with(end));
    is_path(value) && (leads || is_certificate)
}

fn is_path(value: &str) -> bool {
    value.len() <= LONGEST_PATH && !value.chars().any(char::is_control)
}

fn is_public_path(value: &str, is_public_file: &dyn Fn(&Path) -> bool) -> bool {
    let is_plain = value.starts_with('/') && is_path(value) && !value.split('/').any(|part| part == "..");
    is_plain
        && (PUBLIC_DIRECTORIES.iter().any(|directory| value.starts_with(directory)) || is_public_file(value.as_ref()))
}

/// `[SCHEME://]HOST[:PORT][/]`
fn is_bare_address(value: &str) -> bool {
    let authority = match value.split_once("://") {
        Some((scheme, rest)) if SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) => rest,
        Some(_) => return false,
        None => value,
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    !authority.is_empty()
        && authority
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
}

fn is_list_of_hosts(value: &str) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'*' | b'/')
    };
    value.split([',', ' ']).all(|host| host.bytes().all(fits))
}

/// What of a proxy's address is secret: user and password, as they are written and as a program that takes the address apart
/// has them. Empty for a variable that does not name a proxy.
pub fn proxy_secrets(name: &str, value: &str) -> Vec<String> {
    let upper = name.to_ascii_uppercase();
    if !upper.ends_with("PROXY") || EXCEPTION_NAMES.contains(&&*upper) {
        return Vec::new();
    }
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    // A password that was not escaped may hold any of `/?#@`.
    let Some((user_info, _)) = rest.rsplit_once('@') else { return Vec::new() };
    let mut secrets = vec![user_info.to_owned()];
    secrets.extend(user_info.split_once(':').map(|(_, password)| password.to_owned()));
    let decoded: Vec<String> = secrets.iter().filter_map(|text| percent_decoded(text)).collect();
    secrets.extend(decoded);
    secrets.retain(|text| !text.trim_matches(':').is_empty());
    secrets
}

/// A proxy's address without user and password, for people.
pub fn without_user_info(value: &str) -> String {
    let (scheme, rest) = value.split_once("://").map_or((None, value), |(scheme, rest)| (Some(scheme), rest));
    let rest = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("****@{host}"));
    scheme.map_or(rest.clone(), |scheme| format!("{scheme}://{rest}"))
}

/// `None`: there is nothing to decode, or it makes no text.
fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return None;
    }
    let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        let byte = (*first == b'%').then(|| rest.get(..2).and_then(hex)).flatten();
        decoded.push(byte.unwrap_or(*first));
        bytes = if byte.is_some() { &rest[2..] } else { rest };
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, value: &str, expected: bool) {
        let here = |path: &Path| path == Path::new("/opt/tool/run");
        assert_eq!(is_public(name, value, &here), expected, "{name}={value}");
    }

    #[test]
    fn what_cannot_be_a_secret_is_known() {
        for value in ["true", "FALSE", "Yes", "no", "on", "OFF"] {
            check("ANY", value, true);
        }
        check("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt", true);
        check("ANYTHING", "/etc/ssl/certs/ca-certificates.crt", true);
        check("NODE_EXTRA_CA_CERTS", "/home/me/our root.pem", true);
        check("pip_cert", "certs/root.CRT", true);
        check("TOOL", "/opt/tool/run", true);
        check("https_proxy", "http://proxy.example:3128", true);
        check("ALL_PROXY", "socks5h://[::1]:1080/", true);
        check("HTTP_PROXY", "proxy:3128", true);
        check("NO_PROXY", "localhost, 127.0.0.1,.example,10.0.0.0/8,*.a,[::1]", true);
    }

    #[test]
    fn what_may_be_a_secret_stays_one() {
        for value in
            ["", "1", "hunter2", "truest", "/home/me/key", "/run/secrets/token", "/J/pcQ9K+abcdef==", "12345678"]
        {
            check("ANY", value, false);
        }
        check("ANY", "/etc/ssl/../../home/me/key", false);
        check("ANY", "/etc/ssl/x\nhunter2", false);
        check("SSL_CERT_FILE", "hunter2", false);
        check("SSL_CERT_FILE", "/x\n-----BEGIN PRIVATE KEY-----", false);
        check("NOT_SSL_CERT_FILE", "/root/x", false);
        for value in
            ["http://me:pw@proxy:3128", "http://token@proxy", "http://proxy/?key=1", "http://proxy/token", "x://proxy"]
        {
            check("HTTPS_PROXY", value, false);
        }
        let path_of = |length: usize| format!("/etc/ssl/{}", "x".repeat(length - "/etc/ssl/".len()));
        check("ANY", &path_of(LONGEST_PATH), true);
        check("ANY", &path_of(LONGEST_PATH + 1), false);
        check("GOPROXY", "https://go.example/TOKEN/go/", false);
        check("NO_PROXY", "me:pw@host", false);
        check("MY_PROXY_PASSWORD", "true-love", false);
    }

    #[test]
    fn user_and_password_of_a_proxy_are_secrets() {
        let secrets = |value| proxy_secrets("https_proxy", value);
        assert_eq!(
            secrets("http://me:pass%40word@proxy:3128"),
            ["me:pass%40word", "pass%40word", "me:pass@word", "pass@word"]
        );
        assert_eq!(secrets("me:pa/ss@wo#rd@proxy:3128"), ["me:pa/ss@wo#rd", "pa/ss@wo#rd"]);
        assert_eq!(secrets("http://token@proxy"), ["token"]);
        assert_eq!(secrets("http://me:100%zz@proxy"), ["me:100%zz", "100%zz", "me:100%zz", "100%zz"]);
        assert!(secrets("http://proxy:3128").is_empty() && secrets("http://:@proxy").is_empty());
        assert!(proxy_secrets("URL", "http://me:pw@host").is_empty() && proxy_secrets("no_proxy", "a@b").is_empty());
        assert_eq!(without_user_info("http://me:pw@proxy:3128"), "http://****@proxy:3128");
        assert_eq!(without_user_info("proxy:3128"), "proxy:3128");
    }
}
