//! Machines of Google Compute Engine, by its REST API.
//!
//! | module | what it holds |
//! |---|---|
//! | `token` | who asks |
//! | `answers` | answers and errors (pure) |
//!
//! A machine's name is made of its id and the request carries the id, too: however often it is asked for, there is one. It has no
//! service account, so that its metadata service has no token to give.

mod answers;
#[cfg(test)]
mod tests;
mod token;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

pub use token::Sources;

use crate::cloud::call::{self, Pace, patiently};
use crate::cloud::{Fault, Instance, Launch, MANAGED_BY};
use crate::ec2::Clients;
use crate::machine_id::MachineId;

/// The cloud's name in texts.
const CLOUD: &str = "Compute Engine";
const ENDPOINT: &str = "https://compute.googleapis.com";
/// Pages of a list: 50,000 machines.
const PAGES: usize = 100;
/// How often an operation is waited for: each time takes two minutes at most.
const WAITS: usize = 5;

/// Where and how machines are made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Id of the project.
    pub project: String,
    /// Such as `europe-west3-a`.
    pub zone: String,
    /// Where the API is. Default: Google's own.
    pub endpoint: Option<String>,
    /// The machines' network: `global/networks/ci`. Default: the project's.
    pub network: Option<String>,
    /// Their subnetwork: `regions/europe-west3/subnetworks/ci`.
    pub subnetwork: Option<String>,
    /// Network tags, for the firewall's rules.
    #[serde(default)]
    pub network_tags: Vec<String>,
    /// The machines get a public address. Without: they are reached from within the network.
    #[serde(default)]
    pub public_address: bool,
    /// Key of the disks' encryption. Default: Google's own, which encrypts every disk.
    pub disk_key: Option<String>,
}

/// The machines of a project in one zone.
pub struct Gce {
    settings: Settings,
    base: String,
    clients: Clients,
    sources: Sources,
    pace: Pace,
    token: Mutex<Option<token::Token>>,
}

impl Gce {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// A setting would lead elsewhere than it says.
    pub fn new(settings: Settings, sources: Sources, clients: Clients, pace: Pace) -> Result<Self, Fault> {
        let is_name =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-.:".contains(c));
        let endpoint = settings.endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/');
        let (project, zone) = (&settings.project, &settings.zone);
        let base = format!("{endpoint}/compute/v1/projects/{project}/zones/{zone}");
        if !is_name(project) || !is_name(zone) || !Url::parse(&base).is_ok_and(|url| url.has_host()) {
            let message = format!("project {project:?}, zone {zone:?} and endpoint {endpoint:?} make no URL");
            return Err(Fault::Refused { cloud: CLOUD, call: "the settings", code: "url".to_owned(), message });
        }
        Ok(Self { settings, base, clients, sources, pace, token: Mutex::new(None) })
    }

    /// Makes a machine, or finds the one that was made by the same id before.
    ///
    /// # Errors
    /// There is none; or it came without labels and was removed.
    pub async fn launch(&self, launch: &Launch) -> Result<Instance, Fault> {
        let path = format!("/instances?requestId={}", launch.id.to_uuid());
        let body = self.body(launch);
        let begun = self.operate("insert", &path, Method::POST, Some(&body)).await;
        match begun {
            Ok(()) => {}
            // An answer that was lost: the name is made of this id alone.
            Err(Fault::Refused { code, .. }) if code == "alreadyExists" => {}
            Err(Fault::Capacity { cloud, message, .. }) => {
                return Err(Fault::Capacity { cloud, what: launch.size.clone(), message });
            }
            Err(fault) => return Err(fault),
        }
        let item = self.item(&launch.id.host_name()).await?;
        let item = item.ok_or(Fault::NoMachine { cloud: CLOUD, id: launch.id.clone() })?;
        let fingerprint = item.label_fingerprint.clone();
        let instance = item.into_instance(!self.settings.public_address);
        if instance.machine.as_ref() == Some(&launch.id) {
            return Ok(instance);
        }
        self.label_or_remove(instance, &fingerprint, launch).await
    }

    /// All machines of an owner that are there.
    ///
    /// # Errors
    /// Not all pages came: an incomplete list would read as machines that are gone.
    pub async fn list(&self, owner: &str) -> Result<Vec<Instance>, Fault> {
        let owner = label_value(owner);
        let filter = format!(
            "labels.{}%3D{MANAGED_BY}%20AND%20labels.{}%3D{owner}",
            answers::LABEL_MANAGED,
            answers::LABEL_OWNER
        );
        let (mut all, mut next) = (Vec::new(), None::<String>);
        for _ in 0..PAGES {
            let page = next.as_deref().map(|token| format!("&pageToken={}", escaped(token))).unwrap_or_default();
            let path = format!("/instances?maxResults=500&filter={filter}{page}");
            let list: answers::List = patiently(self.pace, || self.ask("list", &path, Method::GET, None)).await?;
            if list.kind != "compute#instanceList" {
                let message = format!("its kind is {:?}", call::words(&list.kind));
                return Err(Fault::Nonsense { cloud: CLOUD, call: "list", message });
            }
            let found = list.items.into_iter().map(|item| item.into_instance(!self.settings.public_address));
            // A filter that a liar passes over gives strangers.
            all.extend(found.filter(|instance| instance.owner.as_deref() == Some(owner.as_str())));
            next = list.next_page_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
        Err(Fault::Nonsense { cloud: CLOUD, call: "list", message: format!("more than {PAGES} pages") })
    }

    /// The machine with this id, if there is one.
    ///
    /// # Errors
    /// The cloud does not say.
    pub async fn find(&self, id: &MachineId) -> Result<Option<Instance>, Fault> {
        let item = self.item(&id.host_name()).await?;
        Ok(item.map(|item| item.into_instance(!self.settings.public_address)))
    }

    /// Ends a machine by its name. One that is not there is ended.
    ///
    /// # Errors
    /// It may be there yet.
    pub async fn terminate(&self, name: &str) -> Result<(), Fault> {
        match self.operate("delete", &format!("/instances/{}", escaped(name)), Method::DELETE, None).await {
            Err(Fault::NotFound { .. }) => Ok(()),
            done => done,
        }
    }

    /// What a machine's console has said, as far as the cloud has it. Asked once: it is for people who look for a reason.
    ///
    /// # Errors
    /// The cloud does not say.
    pub async fn console(&self, name: &str) -> Result<String, Fault> {
        let call = "getSerialPortOutput";
        let path = format!("/instances/{}/serialPort?port=1", escaped(name));
        let said: answers::Console = self.ask(call, &path, Method::GET, None).await?;
        if said.kind != "compute#serialPortOutput" {
            let message = format!("its kind is {:?}", call::words(&said.kind));
            return Err(Fault::Nonsense { cloud: CLOUD, call, message });
        }
        Ok(said.contents)
    }

    async fn item(&self, name: &str) -> Result<Option<answers::Item>, Fault> {
        let path = format!("/instances/{}", escaped(name));
        match patiently(self.pace, || self.ask("get", &path, Method::GET, None)).await {
            Ok(item) => Ok(Some(item)),
            Err(Fault::NotFound { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Nobody would find it again.
    async fn label_or_remove(&self, instance: Instance, fingerprint: &str, launch: &Launch) -> Result<Instance, Fault> {
        let path = format!("/instances/{}/setLabels", escaped(&instance.name));
        let body = json!({"labels": labels(launch), "labelFingerprint": fingerprint});
        let Err(fault) = self.operate("setLabels", &path, Method::POST, Some(&body)).await else {
            return Ok(Instance {
                machine: Some(launch.id.clone()),
                owner: Some(label_value(&launch.owner)),
                ..instance
            });
        };
        let is_removed = self.terminate(&instance.name).await.is_ok();
        Err(Fault::Untagged { cloud: CLOUD, name: instance.name, message: fault.to_string(), is_removed })
    }

    /// Begins an operation and waits until it is done.
    async fn operate(&self, call: &'static str, path: &str, method: Method, body: Option<&Value>) -> Result<(), Fault> {
        let begin = || self.ask::<answers::Operation>(call, path, method.clone(), body);
        let mut operation = patiently(self.pace, begin).await?;
        for _ in 0..WAITS {
            if operation.outcome(call)? {
                return Ok(());
            }
            let path = format!("/operations/{}/wait", escaped(&operation.name));
            operation = patiently(self.pace, || self.ask(call, &path, Method::POST, None)).await?;
        }
        Err(Fault::Late { cloud: CLOUD, call, limit: self.pace.limit * WAITS as u32 })
    }

    fn body(&self, launch: &Launch) -> Value {
        let settings = &self.settings;
        let mut interface = json!({});
        for (name, value) in [("network", &settings.network), ("subnetwork", &settings.subnetwork)] {
            if let Some(value) = value {
                interface[name] = json!(value);
            }
        }
        if settings.public_address {
            interface["accessConfigs"] = json!([{"type": "ONE_TO_ONE_NAT", "name": "external"}]);
        }
        let mut parameters = json!({"sourceImage": launch.image});
        if launch.disk_gib > 0 {
            parameters["diskSizeGb"] = json!(launch.disk_gib.to_string());
        }
        let mut disk = json!({"boot": true, "autoDelete": true, "initializeParams": parameters});
        if let Some(key) = &settings.disk_key {
            disk["diskEncryptionKey"] = json!({"kmsKeyName": key});
        }
        let mut scheduling = json!({"automaticRestart": false, "onHostMaintenance": "TERMINATE"});
        if launch.is_spot {
            scheduling["provisioningModel"] = json!("SPOT");
            scheduling["instanceTerminationAction"] = json!("DELETE");
        }
        json!({
            "name": launch.id.host_name(),
            "machineType": format!("zones/{}/machineTypes/{}", settings.zone, launch.size),
            "labels": labels(launch),
            "disks": [disk],
            "networkInterfaces": [interface],
            "tags": {"items": settings.network_tags},
            "scheduling": scheduling,
            "metadata": {"items": [
                {"key": "user-data", "value": launch.user_data.reveal()},
                {"key": "block-project-ssh-keys", "value": "TRUE"},
                {"key": "serial-port-enable", "value": "FALSE"},
            ]},
            "serviceAccounts": [],
        })
    }

    /// Asks once.
    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        call: &'static str,
        path: &str,
        method: Method,
        body: Option<&Value>,
    ) -> Result<T, Fault> {
        let nonsense = |message: String| Fault::Nonsense { cloud: CLOUD, call, message };
        let url = Url::parse(&format!("{}{path}", self.base)).map_err(|error| nonsense(error.to_string()))?;
        let mut request = Request::new(method, url);
        let token = self.token().await?;
        let mut value: HeaderValue = format!("Bearer {}", token.text.reveal())
            .parse()
            .map_err(|_| nonsense("its token is no header".to_owned()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        let answer = call::send(&self.clients.cloud, request, (CLOUD, call), self.limit(path)).await?;
        if answer.status == reqwest::StatusCode::UNAUTHORIZED {
            // Taken back before its time: the next call asks for another one.
            *self.token.lock().await = None;
        }
        answers::read(&answer, call)
    }

    /// To wait for an operation is answered after two minutes at most.
    fn limit(&self, path: &str) -> std::time::Duration {
        if path.ends_with("/wait") { self.pace.limit + std::time::Duration::from_secs(120) } else { self.pace.limit }
    }

    async fn token(&self) -> Result<token::Token, Fault> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.is_fresh(Timestamp::now().as_second())) {
            return Ok(token.clone());
        }
        let token = token::fetch(&self.sources, (&self.clients.cloud, &self.clients.direct)).await?;
        *held = Some(token.clone());
        Ok(token)
    }
}

fn labels(launch: &Launch) -> Value {
    let mut labels = json!({
        answers::LABEL_MANAGED: MANAGED_BY,
        answers::LABEL_OWNER: label_value(&launch.owner),
        answers::LABEL_MACHINE: launch.id.as_str(),
    });
    if let Some(task) = &launch.task {
        labels[answers::LABEL_TASK] = json!(label_value(task));
    }
    if launch.is_pools {
        labels[answers::LABEL_POOL] = json!("yes");
    }
    labels
}

/// A label takes few characters; a name with others is known by its digest.
fn label_value(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !text.is_empty() && text.len() <= 63 && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let digest = Sha256::digest(text.as_bytes());
    format!("sha-{}", digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
