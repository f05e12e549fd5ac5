//! What Compute Engine answers, in JSON, and what its errors mean (pure).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::CLOUD;
use crate::cloud::call::{Answer, words};
use crate::cloud::{Fault, Instance, MANAGED_BY, Stage};

/// Labels that say whose a machine is.
pub(super) const LABEL_MANAGED: &str = "managed-by";
pub(super) const LABEL_OWNER: &str = "navvy-owner";
pub(super) const LABEL_MACHINE: &str = "navvy-machine";
pub(super) const LABEL_TASK: &str = "navvy-task";
pub(super) const LABEL_POOL: &str = "navvy-pool";

#[derive(Debug, Deserialize)]
pub(super) struct Operation {
    pub name: String,
    pub status: String,
    pub error: Option<Errors>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Errors {
    #[serde(default)]
    pub errors: Vec<Error>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Error {
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error: Refused,
}

#[derive(Debug, Default, Deserialize)]
struct Refused {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Error>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List {
    /// Every answer says what it is; a page of something else reads as a list of nothing.
    pub kind: String,
    #[serde(default)]
    pub items: Vec<Item>,
    pub next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    pub name: String,
    pub status: String,
    pub creation_timestamp: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub label_fingerprint: String,
    #[serde(default)]
    pub network_interfaces: Vec<Interface>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Interface {
    #[serde(rename = "networkIP")]
    pub network_ip: Option<String>,
    #[serde(default)]
    pub access_configs: Vec<Access>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Access {
    #[serde(rename = "natIP")]
    pub nat_ip: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Console {
    /// Every answer says what it is; a page of something else reads as a console that said nothing.
    pub kind: String,
    #[serde(default)]
    pub contents: String,
}

/// An answer as what it should be; else the fault that it tells.
pub(super) fn read<T: for<'de> Deserialize<'de>>(answer: &Answer, call: &'static str) -> Result<T, Fault> {
    if !answer.status.is_success() {
        return Err(refusal(answer, call));
    }
    let nonsense =
        |error: serde_json::Error| Fault::Nonsense { cloud: CLOUD, call, message: words(&error.to_string()) };
    serde_json::from_slice(&answer.body).map_err(nonsense)
}

fn refusal(answer: &Answer, call: &'static str) -> Fault {
    let status = answer.status.as_u16();
    let parsed: Option<Refusal> = serde_json::from_slice(&answer.body).ok();
    let Some(Refusal { error }) = parsed else {
        return match status {
            429 | 503 => Fault::Throttled { cloud: CLOUD, message: format!("status {status}"), wait: answer.wait },
            500.. => Fault::Unwell { cloud: CLOUD, status, message: "no error code".to_owned() },
            _ => Fault::Nonsense { cloud: CLOUD, call, message: format!("status {status} without an error") },
        };
    };
    let reason = error.errors.first().map(|error| error.reason.clone()).unwrap_or_default();
    let message = words(&error.message);
    match (status, reason.as_str()) {
        (_, "rateLimitExceeded" | "userRateLimitExceeded") | (429 | 503, _) => {
            Fault::Throttled { cloud: CLOUD, message, wait: answer.wait }
        }
        (_, "quotaExceeded") => Fault::Quota { cloud: CLOUD, message },
        (401 | 403, _) => Fault::NotAllowed { cloud: CLOUD, call, message },
        (404, _) => Fault::NotFound { cloud: CLOUD, name: message },
        (500.., _) => Fault::Unwell { cloud: CLOUD, status, message },
        _ => Fault::Refused { cloud: CLOUD, call, code: words(&reason), message },
    }
}

impl Operation {
    /// Has it been carried out? An operation that failed says so in a body of its own, with status 200.
    pub(super) fn outcome(&self, call: &'static str) -> Result<bool, Fault> {
        let error = self.error.as_ref().and_then(|error| error.errors.first());
        let Some(error) = error else { return Ok(self.status == "DONE") };
        let (code, message) = (words(&error.code), words(&error.message));
        Err(match code.as_str() {
            code if code.contains("RESOURCE_POOL_EXHAUSTED") || code.contains("STOCKOUT") => {
                Fault::Capacity { cloud: CLOUD, what: "this size".to_owned(), message }
            }
            code if code.contains("QUOTA") => Fault::Quota { cloud: CLOUD, message },
            "RATE_LIMIT_EXCEEDED" => Fault::Throttled { cloud: CLOUD, message, wait: None },
            "RESOURCE_NOT_FOUND" if call == "delete" => Fault::NotFound { cloud: CLOUD, name: message },
            "INTERNAL_ERROR" => Fault::Unwell { cloud: CLOUD, status: 200, message },
            _ => Fault::Refused { cloud: CLOUD, call, code, message },
        })
    }
}

impl Item {
    /// What it says. `private`: its address in the cloud's own network is the one to use.
    pub(super) fn into_instance(self, private: bool) -> Instance {
        let is_ours = self.labels.get(LABEL_MANAGED).is_some_and(|by| by == MANAGED_BY);
        let label = |key: &str| self.labels.get(key).filter(|_| is_ours).cloned();
        let stage = match self.status.as_str() {
            "PROVISIONING" | "STAGING" => Stage::Coming,
            "RUNNING" => Stage::Running,
            _ => Stage::Going,
        };
        let launched = self.creation_timestamp.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let (machine, owner) = (label(LABEL_MACHINE).and_then(|id| id.parse().ok()), label(LABEL_OWNER));
        let interface = self.network_interfaces.into_iter().next();
        let address = interface.and_then(|interface| {
            let public = interface.access_configs.into_iter().find_map(|access| access.nat_ip);
            if private { interface.network_ip } else { public.or(interface.network_ip) }
        });
        let launched_s = launched.and_then(|at| u64::try_from(at.as_second()).ok());
        Instance { name: self.name, machine, owner, stage, address, launched_s }
    }
}
