//! Machines of Amazon EC2, by its Query API: a form is posted, XML comes back.
//!
//! | module | what it holds |
//! |---|---|
//! | `credentials` | who asks |
//! | `sign` | signature version 4 (pure) |
//! | `answers` | answers and error codes (pure) |
//! | `volumes` | disks that outlive a machine |
//!
//! A machine is asked for with its own id as the client token: however often, there is one. Its tags come with the same request, so
//! that there is no moment in which nobody could find it; a machine that comes without them gets them, or goes.

mod answers;
mod credentials;
mod sign;
mod volumes;

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use reqwest::{Client, Method, Request, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

pub use credentials::{Credentials, Sources};
pub use volumes::Volume;

use crate::cloud::call::{self, Pace, patiently};
use crate::cloud::{Fault, Instance, Launch, MANAGED_BY, Stage};
use crate::machine_id::MachineId;

/// The cloud's name in texts.
const CLOUD: &str = "EC2";
/// Of the API whose words are used here.
const VERSION: &str = "2016-11-15";
/// Pages of a list: 100,000 machines.
const PAGES: usize = 100;
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Where and how machines are made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Such as `eu-central-1`.
    pub region: String,
    /// Where the API is. Default: the region's own.
    pub endpoint: Option<String>,
    /// The subnet of the machines. Default: the account's.
    pub subnet: Option<String>,
    /// Security groups of the machines.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// The machines get a public address. Without: they are reached from within the network.
    #[serde(default)]
    pub public_address: bool,
    /// The image's name of its root disk.
    #[serde(default = "root_device")]
    pub root_device: String,
    /// Key of the disks' encryption. Default: the account's.
    pub disk_key: Option<String>,
}

fn root_device() -> String {
    "/dev/xvda".to_owned()
}

/// Ways out, made by the program: as its proxies and authorities say, and one without a proxy for the metadata service.
#[derive(Debug, Clone)]
pub struct Clients {
    /// To the cloud.
    pub cloud: Client,
    /// To this machine's own metadata service.
    pub direct: Client,
}

/// The machines of an account in one region.
pub struct Ec2 {
    settings: Settings,
    endpoint: Url,
    clients: Clients,
    sources: Sources,
    pace: Pace,
    /// Held while they are being asked for, so that they are asked for once.
    credentials: Mutex<Option<Credentials>>,
}

/// A request's parameters.
type Form = Vec<(String, String)>;

impl Ec2 {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub fn new(settings: Settings, sources: Sources, clients: Clients, pace: Pace) -> Result<Self, Fault> {
        let usual = format!("https://ec2.{}.amazonaws.com/", settings.region);
        let endpoint = settings.endpoint.as_ref().unwrap_or(&usual);
        let endpoint = Url::parse(endpoint).ok().filter(Url::has_host).ok_or_else(|| Fault::Refused {
            cloud: CLOUD,
            call: "the settings",
            code: "endpoint".to_owned(),
            message: format!("{endpoint:?} is no URL such as https://ec2.eu-central-1.amazonaws.com"),
        })?;
        Ok(Self { settings, endpoint, clients, sources, pace, credentials: Mutex::new(None) })
    }

    /// Makes a machine, or finds the one that was made by the same id before.
    ///
    /// # Errors
    /// There is none; or it came without tags and was removed.
    pub async fn launch(&self, launch: &Launch) -> Result<Instance, Fault> {
        let form = self.launch_form(launch);
        let answer: answers::RunInstances =
            patiently(self.pace, || self.ask("RunInstances", "RunInstancesResponse", &form))
                .await
                .map_err(|fault| with_size(fault, launch))?;
        let made = answer.instances_set.item.into_iter().next();
        let instance = match made {
            Some(item) if item.has_a_name() && item.may_be_of(&launch.id) => {
                item.into_instance(!self.settings.public_address)
            }
            // What it said and what is there may differ.
            _ => self.by_token(&launch.id).await?.ok_or(Fault::NoMachine { cloud: CLOUD, id: launch.id.clone() })?,
        };
        if instance.machine.as_ref() == Some(&launch.id) {
            return Ok(instance);
        }
        self.tag_or_remove(instance, launch).await
    }

    /// All machines of an owner that still cost something.
    ///
    /// # Errors
    /// Not all pages came: an incomplete list would read as machines that are gone.
    pub async fn list(&self, owner: &str) -> Result<Vec<Instance>, Fault> {
        let filters =
            [(format!("tag:{}", answers::TAG_MANAGED), MANAGED_BY), (format!("tag:{}", answers::TAG_OWNER), owner)];
        let mut found = self.describe(&filters).await?;
        // A filter that a liar passes over gives strangers.
        found.retain(|instance| instance.owner.as_deref() == Some(owner) && instance.stage != Stage::Gone);
        Ok(found)
    }

    /// The machine with this id, if there is one that still costs something.
    ///
    /// # Errors
    /// The cloud does not say.
    pub async fn find(&self, id: &MachineId) -> Result<Option<Instance>, Fault> {
        let filters = [(format!("tag:{}", answers::TAG_MACHINE), id.as_str())];
        let mut found = self.describe(&filters).await?;
        // A filter that a liar passes over gives strangers.
        found.retain(|instance| instance.machine.as_ref() == Some(id) && instance.stage != Stage::Gone);
        match found.pop() {
            Some(instance) => Ok(Some(instance)),
            None => self.by_token(id).await,
        }
    }

    /// Ends a machine by the cloud's own name. One that is not there is ended.
    ///
    /// # Errors
    /// It may be there yet.
    pub async fn terminate(&self, name: &str) -> Result<(), Fault> {
        let form = vec![("InstanceId.1".to_owned(), name.to_owned())];
        let done: Result<answers::Done, Fault> =
            patiently(self.pace, || self.ask("TerminateInstances", "TerminateInstancesResponse", &form)).await;
        match done {
            Ok(_) | Err(Fault::NotFound { .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// What a machine's console has said, as far as the cloud has it. Asked once: it is for people who look for a reason.
    ///
    /// # Errors
    /// The cloud does not say.
    pub async fn console(&self, name: &str) -> Result<String, Fault> {
        let call = "GetConsoleOutput";
        let latest =
            |latest: &str| vec![("InstanceId".to_owned(), name.to_owned()), ("Latest".to_owned(), latest.to_owned())];
        let answer: Result<answers::Console, Fault> = self.ask(call, "GetConsoleOutputResponse", &latest("true")).await;
        let answer = match answer {
            // Older types keep no console of a machine that runs, but one of its start.
            Err(Fault::Refused { code, .. }) if code == "UnsupportedOperation" => {
                self.ask(call, "GetConsoleOutputResponse", &latest("false")).await?
            }
            answer => answer?,
        };
        let nonsense = |message: String| Fault::Nonsense { cloud: CLOUD, call, message };
        if answer.instance_id != name {
            return Err(nonsense(format!("it is of {:?}", call::words(&answer.instance_id))));
        }
        let text: String = answer.output.split_ascii_whitespace().collect();
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| nonsense(error.to_string()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Tags a machine with the task that has taken it from a pool.
    ///
    /// # Errors
    /// It has no such tag: whoever looks there sees a pool's machine.
    pub async fn tag_task(&self, name: &str, task: &str) -> Result<(), Fault> {
        let form = [("ResourceId.1", name), ("Tag.1.Key", answers::TAG_TASK), ("Tag.1.Value", task)];
        let form = form.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let tagged: Result<answers::Done, Fault> =
            patiently(self.pace, || self.ask("CreateTags", "CreateTagsResponse", &form)).await;
        tagged.map(drop)
    }

    /// The machine that was asked for with this token, whatever its tags say.
    async fn by_token(&self, id: &MachineId) -> Result<Option<Instance>, Fault> {
        let items = self.items(&[("client-token".to_owned(), id.as_str())]).await?;
        // A filter that a liar passes over gives strangers, and be it one.
        let items = items.into_iter().filter(|item| item.may_be_of(id));
        let mut found: Vec<_> = items.map(|item| item.into_instance(!self.settings.public_address)).collect();
        found.retain(|instance| instance.stage != Stage::Gone);
        // One token, one machine: of more than one, none of which tells its token, only a tag can say which it is.
        if found.len() > 1 {
            found.retain(|instance| instance.machine.as_ref() == Some(id));
        }
        Ok(found.into_iter().next())
    }

    async fn describe(&self, filters: &[(String, &str)]) -> Result<Vec<Instance>, Fault> {
        let items = self.items(filters).await?;
        Ok(items.into_iter().map(|item| item.into_instance(!self.settings.public_address)).collect())
    }

    async fn items(&self, filters: &[(String, &str)]) -> Result<Vec<answers::InstanceItem>, Fault> {
        let mut form: Form = vec![("MaxResults".to_owned(), "1000".to_owned())];
        for (nth, (name, value)) in (1..).zip(filters) {
            form.push((format!("Filter.{nth}.Name"), name.clone()));
            form.push((format!("Filter.{nth}.Value.1"), (*value).to_owned()));
        }
        let mut all = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let mut page = form.clone();
            page.extend(next.map(|token| ("NextToken".to_owned(), token)));
            let answer: answers::DescribeInstances =
                patiently(self.pace, || self.ask("DescribeInstances", "DescribeInstancesResponse", &page)).await?;
            let items = answer.reservation_set.item.into_iter().flat_map(|reservation| reservation.instances_set.item);
            all.extend(items.filter(answers::InstanceItem::has_a_name));
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
        Err(Fault::Nonsense { cloud: CLOUD, call: "DescribeInstances", message: format!("more than {PAGES} pages") })
    }

    /// Nobody would find it again.
    async fn tag_or_remove(&self, instance: Instance, launch: &Launch) -> Result<Instance, Fault> {
        let mut form = vec![("ResourceId.1".to_owned(), instance.name.clone())];
        form.extend(tags(launch, "Tag"));
        let tagged: Result<answers::Done, Fault> =
            patiently(self.pace, || self.ask("CreateTags", "CreateTagsResponse", &form)).await;
        let Err(fault) = tagged else {
            return Ok(Instance { machine: Some(launch.id.clone()), owner: Some(launch.owner.clone()), ..instance });
        };
        let is_removed = self.terminate(&instance.name).await.is_ok();
        Err(Fault::Untagged { cloud: CLOUD, name: instance.name, message: fault.to_string(), is_removed })
    }

    fn launch_form(&self, launch: &Launch) -> Form {
        let settings = &self.settings;
        let user_data = BASE64_STANDARD.encode(launch.user_data.reveal());
        let mut form: Form = Vec::new();
        let mut add = |name: &str, value: &str| form.push((name.to_owned(), value.to_owned()));
        for (name, value) in [
            ("ImageId", launch.image.as_str()),
            ("InstanceType", &launch.size),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("ClientToken", launch.id.as_str()),
            ("UserData", &user_data),
            // Version 2 of the metadata service alone, and not for containers of the machine.
            ("MetadataOptions.HttpTokens", "required"),
            ("MetadataOptions.HttpPutResponseHopLimit", "1"),
            ("InstanceInitiatedShutdownBehavior", "terminate"),
            ("BlockDeviceMapping.1.DeviceName", &settings.root_device),
            ("BlockDeviceMapping.1.Ebs.Encrypted", "true"),
            ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
            ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
            ("NetworkInterface.1.DeviceIndex", "0"),
            ("NetworkInterface.1.DeleteOnTermination", "true"),
            ("NetworkInterface.1.AssociatePublicIpAddress", if settings.public_address { "true" } else { "false" }),
        ] {
            add(name, value);
        }
        if launch.disk_gib > 0 {
            add("BlockDeviceMapping.1.Ebs.VolumeSize", &launch.disk_gib.to_string());
        }
        if let Some(key) = &settings.disk_key {
            add("BlockDeviceMapping.1.Ebs.KmsKeyId", key);
        }
        if let Some(subnet) = &settings.subnet {
            add("NetworkInterface.1.SubnetId", subnet);
        }
        for (nth, group) in (1..).zip(&settings.security_groups) {
            add(&format!("NetworkInterface.1.SecurityGroupId.{nth}"), group);
        }
        if launch.is_spot {
            add("InstanceMarketOptions.MarketType", "spot");
            add("InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time");
            add("InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior", "terminate");
        }
        for (nth, resource) in [(1, "instance"), (2, "volume")] {
            add(&format!("TagSpecification.{nth}.ResourceType"), resource);
        }
        for nth in 1..=2 {
            form.extend(tags(launch, &format!("TagSpecification.{nth}.Tag")));
        }
        form
    }

    /// Asks once.
    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        action: &'static str,
        root: &str,
        parameters: &[(String, String)],
    ) -> Result<T, Fault> {
        let credentials = self.credentials().await?;
        let request = self.request(action, parameters, &credentials)?;
        let answer = call::send(&self.clients.cloud, request, (CLOUD, action), self.pace.limit).await?;
        answers::read(&answer, (action, root))
    }

    async fn credentials(&self) -> Result<Credentials, Fault> {
        let mut held = self.credentials.lock().await;
        let now_s = Timestamp::now().as_second();
        if let Some(credentials) = held.as_ref().filter(|credentials| credentials.are_fresh(now_s)) {
            return Ok(credentials.clone());
        }
        let found = self.sources.find(&self.clients.direct).await?;
        *held = Some(found.clone());
        Ok(found)
    }

    fn request(
        &self,
        action: &'static str,
        parameters: &[(String, String)],
        credentials: &Credentials,
    ) -> Result<Request, Fault> {
        let mut form = vec![("Action", action), ("Version", VERSION)];
        form.extend(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let body = encoded(&form);
        let at = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let host = self.endpoint.host_str().unwrap_or_default();
        let host = self.endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut headers = vec![("content-type", FORM), ("host", host.as_str()), ("x-amz-date", at.as_str())];
        if let Some(token) = &credentials.token {
            headers.push(("x-amz-security-token", token.reveal()));
        }
        let signed =
            sign::Signed { method: "POST", path: self.endpoint.path(), headers: &headers, body: body.as_bytes() };
        let authorization = sign::authorization(credentials, (&self.settings.region, "ec2"), &at, &signed);
        let mut request = Request::new(Method::POST, self.endpoint.clone());
        headers.push(("authorization", &authorization));
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
            let mut value: reqwest::header::HeaderValue = value.parse().map_err(|_| Fault::NoCredentials {
                cloud: CLOUD,
                message: "the key or its token holds characters that no header can carry".to_owned(),
            })?;
            value.set_sensitive(name != "content-type");
            request.headers_mut().insert(name, value);
        }
        *request.body_mut() = Some(body.into());
        Ok(request)
    }
}

fn with_size(fault: Fault, launch: &Launch) -> Fault {
    match fault {
        Fault::Capacity { cloud, message, .. } => Fault::Capacity { cloud, what: launch.size.clone(), message },
        fault => fault,
    }
}

fn tags(launch: &Launch, prefix: &str) -> Form {
    let name = launch.id.host_name();
    let mut tags = vec![
        ("Name", name.as_str()),
        (answers::TAG_MANAGED, MANAGED_BY),
        (answers::TAG_OWNER, &launch.owner),
        (answers::TAG_MACHINE, launch.id.as_str()),
    ];
    tags.extend(launch.task.as_deref().map(|task| (answers::TAG_TASK, task)));
    tags.extend(launch.is_pools.then_some((answers::TAG_POOL, "yes")));
    let pairs = (1..).zip(tags).flat_map(|(nth, (key, value))| {
        [(format!("{prefix}.{nth}.Key"), key.to_owned()), (format!("{prefix}.{nth}.Value"), value.to_owned())]
    });
    pairs.collect()
}

/// A form as it is posted: everything but letters, digits and `-._~` in hex.
fn encoded(form: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        let byte = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect::<String>()
    };
    form.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect::<Vec<_>>().join("&")
}

/// How long a machine may be on its way, if nothing else is said.
pub const START_LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex as Lock};

    use axum::Router;
    use axum::extract::State;

    use super::*;
    use crate::cloud::Secret;
    use crate::cloud::tests::{client, launch};

    #[test]
    fn forms_are_escaped() {
        assert_eq!(encoded(&[("a.b", "c d&e=+ä"), ("x", "~")]), "a.b=c%20d%26e%3D%2B%C3%A4&x=~");
    }

    /// A cloud that makes nothing and has these instances in every answer, whatever is filtered for.
    struct Heedless {
        instances: String,
        calls: Vec<String>,
    }

    type Shared = Arc<Lock<Heedless>>;

    async fn answer(State(cloud): State<Shared>, form: String) -> String {
        let action = form.strip_prefix("Action=").unwrap().split('&').next().unwrap();
        let mut cloud = cloud.lock().unwrap();
        cloud.calls.push(action.to_owned());
        let set = format!("<instancesSet>{}</instancesSet>", cloud.instances);
        let said = match action {
            "RunInstances" => set,
            "DescribeInstances" => format!("<reservationSet><item>{set}</item></reservationSet>"),
            _ => String::new(),
        };
        format!("<{action}Response>{said}</{action}Response>")
    }

    async fn heedless(instances: String) -> (Ec2, Shared) {
        let cloud = Shared::new(Lock::new(Heedless { instances, calls: Vec::new() }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&cloud));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let settings = serde_json::from_value(serde_json::json!({"region": "us-east-1", "endpoint": at})).unwrap();
        let given = Credentials { key_id: "AKIDTEST".to_owned(), secret: Secret::new("s"), token: None, until_s: None };
        let sources = Sources { given: Some(given), file: None, profile: "default".to_owned(), metadata: None };
        let clients = Clients { cloud: client(), direct: client() };
        (Ec2::new(settings, sources, clients, Pace::default()).unwrap(), cloud)
    }

    fn instance(token: &str, tags: &[(&str, &str)]) -> String {
        let tags = tags.iter().map(|(key, value)| format!("<item><key>{key}</key><value>{value}</value></item>"));
        format!(
            "<item><instanceId>i-0123456789abcdef0</instanceId><instanceState><name>running</name></instanceState>\
             {token}<tagSet>{}</tagSet></item>",
            tags.collect::<String>()
        )
    }

    #[tokio::test]
    async fn a_stranger_s_machine_is_listed_as_nobody_s_however_the_cloud_filters() {
        let id = MachineId::random();
        let of = |managed: &str, owner: &str| {
            let whose = [(answers::TAG_MANAGED, managed), (answers::TAG_OWNER, owner)];
            instance("", &[whose[0], whose[1], (answers::TAG_MACHINE, id.as_str())])
        };
        let (ec2, _) = heedless([instance("", &[]), of(MANAGED_BY, "other"), of("someone", "pool")].concat()).await;
        assert_eq!(ec2.list("pool").await.unwrap(), []);
        let (ec2, _) = heedless([of(MANAGED_BY, "other"), of(MANAGED_BY, "pool")].concat()).await;
        let found = ec2.list("pool").await.unwrap();
        assert_eq!(found.iter().map(|it| it.owner.as_deref()).collect::<Vec<_>>(), [Some("pool")]);
    }

    #[tokio::test]
    async fn a_stranger_s_machine_is_not_taken_for_one_that_was_asked_for() {
        let wanted = launch("pool");
        let other = MachineId::random();
        let token = |of: &str| format!("<clientToken>{of}</clientToken>");
        for stranger in [
            instance(&token(other.as_str()), &[]),
            instance("", &[(answers::TAG_MANAGED, MANAGED_BY), (answers::TAG_MACHINE, other.as_str())]),
        ] {
            let (ec2, cloud) = heedless(stranger).await;
            assert_eq!(ec2.find(&wanted.id).await.unwrap(), None);
            let fault = ec2.launch(&wanted).await.unwrap_err();
            assert!(matches!(fault, Fault::NoMachine { .. }), "{fault}");
            let calls = cloud.lock().unwrap().calls.clone();
            let is_harmless = |call: &String| ["DescribeInstances", "RunInstances"].contains(&call.as_str());
            assert!(calls.iter().all(is_harmless), "{calls:?}");
        }
        // Ours without its tags, where its token is told and where it is not.
        for ours in [instance(&token(wanted.id.as_str()), &[]), instance("", &[])] {
            let (ec2, _) = heedless(ours).await;
            assert_eq!(ec2.find(&wanted.id).await.unwrap().unwrap().name, "i-0123456789abcdef0");
        }
    }
}
