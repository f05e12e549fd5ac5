//! The proxies that docker's own config file gives containers (`proxies` of `~/.docker/config.json`).

use navvy_environment::HostPaths;
use navvy_environment::egress::Configured;
use navvy_job::chain::chain;
use serde_json::{Map, Value};

use super::credentials::read_config;

/// The entry for engines that have none of their own.
const DEFAULT: &str = "default";
/// Keys of an entry, which docker reads in any case, and their variables.
const KEYS: [(&str, &str); 5] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("allProxy", "ALL_PROXY"),
];
/// Ports that an address without one stands for.
const PORTS: [&str; 2] = ["2375", "2376"];

/// What the config file says for containers of the engine at `address`; a sentence where it says what cannot be.
pub fn configured(host: &HostPaths, address: &str) -> Result<Configured, String> {
    let proxies = read_config(host).map_err(|error| chain(&error))?.map(|config| config.proxies).unwrap_or_default();
    of(&proxies, address).map_err(|why| match &host.docker_config {
        Some(directory) => format!("{}: {why}", directory.join("config.json").display()),
        None => why,
    })
}

fn of(proxies: &Value, address: &str) -> Result<Configured, String> {
    let entries = object(proxies, "proxies")?;
    let is_own = |key: &&String| {
        let key = key.trim_end_matches('/');
        key == address || PORTS.iter().any(|port| format!("{key}:{port}") == address)
    };
    let name = entries.keys().find(is_own).map_or(DEFAULT, String::as_str);
    let Some(entry) = entries.get(name) else { return Ok(Configured::default()) };
    let mut variables = Vec::new();
    for (key, value) in &object(entry, &format!("proxies.{name}"))? {
        let Some((_, variable)) = KEYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(key)) else { continue };
        // The value is not shown: it may hold a password.
        let text = value.as_str().ok_or_else(|| format!("proxies.{name}.{key} is not a string"))?;
        if !text.is_empty() {
            variables.push((*variable, text.to_owned()));
        }
    }
    Ok(Configured { entry: name.to_owned(), variables })
}

/// Nothing is an empty one.
fn object(value: &Value, place: &str) -> Result<Map<String, Value>, String> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map.clone()),
        _ => Err(format!("{place} is not an object")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(proxies: &Value, address: &str) -> (String, Vec<String>) {
        let configured = of(proxies, address).unwrap();
        let pair = |(name, value): (&str, String)| format!("{name}={value}");
        (configured.entry, configured.variables.into_iter().map(pair).collect())
    }

    #[test]
    fn an_engine_s_own_entry_goes_before_the_default_one() {
        let proxies = json!({
            "default": {"httpProxy": "http://p:1", "HTTPSproxy": "http://p:2", "noProxy": "a,b", "allProxy": "", "x": 1},
            "tcp://far:2376": {"ftpProxy": "http://p:3"},
            "tcp://near": {"allProxy": "socks5://p:4"},
        });
        let default = ["HTTPS_PROXY=http://p:2", "HTTP_PROXY=http://p:1", "NO_PROXY=a,b"].map(str::to_owned).to_vec();
        assert_eq!(named(&proxies, "unix:///var/run/docker.sock"), ("default".to_owned(), default));
        assert_eq!(named(&proxies, "tcp://far:2376").1, ["FTP_PROXY=http://p:3"]);
        assert_eq!(
            named(&proxies, "tcp://near:2375"),
            ("tcp://near".to_owned(), vec!["ALL_PROXY=socks5://p:4".into()])
        );
        assert_eq!(named(&json!({"tcp://far": {}}), "tcp://other:2375"), (String::new(), vec![]));
        assert_eq!(named(&Value::Null, "x").1, Vec::<String>::new());
    }

    #[test]
    fn a_wrong_shape_is_told_and_its_value_is_not_shown() {
        let wrong = |proxies: Value| of(&proxies, "x").unwrap_err();
        assert_eq!(wrong(json!("hunter2")), "proxies is not an object");
        assert_eq!(wrong(json!({"default": "hunter2"})), "proxies.default is not an object");
        assert_eq!(wrong(json!({"default": {"httpProxy": ["hunter2"]}})), "proxies.default.httpProxy is not a string");
    }
}
