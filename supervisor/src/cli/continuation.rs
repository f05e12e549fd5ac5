//! `circleci continuation continue`: what the original's continuation orb does with `curl` and `jq`, without them.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::options::Options;
use super::{complain, say};

const OPTIONS: [&str; 4] = ["configuration", "parameters", "files-changed", "parameter-for-files-changed"];
const COMMAND: &str = "circleci continuation continue";
/// The supervisor answers at once; only a machine without any processor to spare takes long.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn go_on(words: &[&str]) -> ExitCode {
    match Options::parse(words, &OPTIONS).and_then(|options| call(&options)) {
        Ok(told) => say(&told),
        Err(why) => complain(1, &format!("{COMMAND}: {why}")),
    }
}

fn call(options: &Options) -> Result<String, String> {
    let path = options.required("configuration")?;
    let configuration = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let mut parameters = parameters(options.get("parameters").unwrap_or("{}"))?;
    parameters.extend(files_changed(options)?);
    let names: Vec<&str> = parameters.keys().map(String::as_str).collect();
    let with = if names.is_empty() { "no parameters".to_owned() } else { names.join(", ") };
    let told = format!("The pipeline continues with {path} ({with}).\n");
    let key = variable("CIRCLE_CONTINUATION_KEY")?;
    let host = variable("CIRCLECI_API_HOST")?;
    let body = json!({ "continuation-key": key, "configuration": configuration, "parameters": parameters });
    post(&host, &body.to_string()).map(|()| told)
}

fn variable(name: &str) -> Result<String, String> {
    let missing = || format!("{name} is not set: only the jobs of a setup config (`setup: true`) continue a pipeline");
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(missing)
}

/// The parameter that is to hold which files changed, where one is.
fn files_changed(options: &Options) -> Result<Option<(String, Value)>, String> {
    let Some(name) = options.get("parameter-for-files-changed").filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let list = options.required("files-changed")?;
    let files = std::fs::read_to_string(list).map_err(|error| format!("cannot read {list}: {error}"))?;
    Ok(Some((name.to_owned(), Value::String(files.trim_end().to_owned()))))
}

/// JSON, or a file that holds it.
fn parameters(text: &str) -> Result<Map<String, Value>, String> {
    let (text, place) = match Path::new(text).is_file() {
        true => {
            let found = std::fs::read_to_string(text).map_err(|error| format!("cannot read {text}: {error}"))?;
            (found, format!("the parameters in {text}"))
        }
        false => (text.to_owned(), "the parameters".to_owned()),
    };
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(format!("{place} are not a JSON object")),
        Err(error) => Err(format!("{place} are neither JSON nor a file: {error}")),
    }
}

fn post(host: &str, body: &str) -> Result<(), String> {
    // A number, never a name: what glibc looks names up with would make a static program a good deal larger.
    let Some(address) = host.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok()) else {
        return Err(format!("CIRCLECI_API_HOST is {host}, which is not the job's own endpoint (http://127.0.0.1:…)"));
    };
    let (status, answer) = exchange(address, body).map_err(|error| format!("cannot reach {host}: {error}"))?;
    let message =
        serde_json::from_str::<Value>(&answer).ok().and_then(|value| Some(value["message"].as_str()?.to_owned()));
    match status {
        200 => Ok(()),
        _ => Err(message.unwrap_or_else(|| format!("{host} answered with status {status}"))),
    }
}

fn exchange(address: SocketAddr, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "POST /api/v2/pipeline/continue HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
