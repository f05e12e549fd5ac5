//! What EC2 answers, in XML, and what its error codes mean (pure).

use jiff::Timestamp;
use serde::Deserialize;

use super::CLOUD;
use crate::cloud::call::{Answer, words};
use crate::cloud::{Fault, Instance, MANAGED_BY, Stage};
use crate::machine_id::MachineId;

/// Tags that say whose a machine is.
pub(super) const TAG_MANAGED: &str = "ManagedBy";
pub(super) const TAG_OWNER: &str = "navvy:owner";
pub(super) const TAG_MACHINE: &str = "navvy:machine";
pub(super) const TAG_TASK: &str = "navvy:task";
pub(super) const TAG_POOL: &str = "navvy:pool";

#[derive(Debug, Deserialize)]
pub(super) struct Items<T> {
    #[serde(rename = "item", default = "Vec::new")]
    pub item: Vec<T>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunInstances {
    #[serde(default = "none")]
    pub instances_set: Items<InstanceItem>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescribeInstances {
    #[serde(default = "none")]
    pub reservation_set: Items<RunInstances>,
    pub next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceItem {
    pub instance_id: String,
    pub instance_state: State,
    pub launch_time: Option<String>,
    /// Not every API that is compatible with EC2 tells it.
    pub client_token: Option<String>,
    pub private_ip_address: Option<String>,
    pub ip_address: Option<String>,
    #[serde(default = "none")]
    pub tag_set: Items<Tag>,
}

#[derive(Debug, Deserialize)]
pub(super) struct State {
    pub name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tag {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    pub volume_id: String,
    #[serde(default)]
    pub status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescribeVolumes {
    #[serde(default = "none")]
    pub volume_set: Items<Volume>,
    pub next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Console {
    pub instance_id: String,
    /// In Base64; none yet of a machine that has just begun.
    #[serde(default)]
    pub output: String,
}

/// What only says that it was done.
#[derive(Debug, Deserialize)]
pub(super) struct Done {}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Refusal {
    errors: Errors,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Errors {
    error: Vec<Error>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Error {
    code: String,
    message: String,
}

fn none<T>() -> Items<T> {
    Items { item: Vec::new() }
}

/// An answer as what it should be; else the fault that it tells.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    answer: &Answer,
    (call, root): (&'static str, &str),
) -> Result<T, Fault> {
    let nonsense = |message: String| Fault::Nonsense { cloud: CLOUD, call, message };
    let text = std::str::from_utf8(&answer.body).map_err(|_| nonsense("the answer is no text".to_owned()));
    if !answer.status.is_success() {
        return Err(fault(answer, text.unwrap_or_default(), call));
    }
    let text = text?;
    if !has_root(text, root) {
        return Err(nonsense(format!(
            "an answer that begins with {:?} is no {root}",
            words(text).chars().take(60).collect::<String>()
        )));
    }
    quick_xml::de::from_str(text).map_err(|error| nonsense(words(&error.to_string())))
}

/// Is this the element that was asked for? A page of something else reads as an answer that has nothing in it.
fn has_root(text: &str, root: &str) -> bool {
    let text = text.trim_start();
    let text = text.strip_prefix("<?").and_then(|rest| Some(rest.split_once("?>")?.1)).unwrap_or(text).trim_start();
    let name = text.strip_prefix('<').and_then(|rest| rest.split([' ', '>', '\n', '\r', '\t']).next());
    name == Some(root)
}

fn fault(answer: &Answer, text: &str, call: &'static str) -> Fault {
    let refusal: Refusal = quick_xml::de::from_str(text).unwrap_or_default();
    let error = refusal.errors.error.into_iter().next().unwrap_or_default();
    let (code, message) = (words(&error.code), words(&error.message));
    let status = answer.status.as_u16();
    let cloud = CLOUD;
    match code.as_str() {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "SpotMaxPriceTooLow"
        | "InsufficientCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "Unsupported" => Fault::Capacity { cloud, what: "this size".to_owned(), message },
        "InstanceLimitExceeded"
        | "VcpuLimitExceeded"
        | "MaxSpotInstanceCountExceeded"
        | "VolumeLimitExceeded"
        | "ResourceCountExceeded"
        | "PendingVerification" => Fault::Quota { cloud, message },
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "EC2ThrottledException" | "SlowDown" => {
            Fault::Throttled { cloud, message, wait: answer.wait }
        }
        "AuthFailure"
        | "UnauthorizedOperation"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "RequestExpired"
        | "OptInRequired"
        | "Blocked"
        | "MissingAuthenticationToken"
        | "IncompleteSignature" => {
            // A policy's words may hold an encoded message of many lines; the code says enough.
            Fault::NotAllowed { cloud, call, message: format!("{code}: {message}") }
        }
        "InvalidInstanceID.NotFound" | "InvalidVolume.NotFound" => Fault::NotFound { cloud, name: message },
        _ if status == 429 || status == 503 => {
            Fault::Throttled { cloud, message: said(&code, &message), wait: answer.wait }
        }
        _ if status >= 500 => Fault::Unwell { cloud, status, message: said(&code, &message) },
        // No load balancer's and no proxy's page is EC2's word.
        "" => Fault::Nonsense { cloud, call, message: format!("status {status} without an error code") },
        _ => Fault::Refused { cloud, call, code, message },
    }
}

fn said(code: &str, message: &str) -> String {
    if code.is_empty() { "no error code".to_owned() } else { format!("{code}: {message}") }
}

impl InstanceItem {
    fn tag(&self, key: &str) -> Option<&str> {
        self.tag_set.item.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }

    /// May it have been asked for by this id? Where its token is not told, another machine's tag says that it was not.
    pub(super) fn may_be_of(&self, id: &MachineId) -> bool {
        match self.client_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => token == id.as_str(),
            None => self.tag(TAG_MACHINE).is_none_or(|machine| machine == id.as_str()),
        }
    }

    /// What it says. `private`: its address in the cloud's own network is the one to use.
    pub(super) fn into_instance(self, private: bool) -> Instance {
        let tag = |key: &str| self.tag(key).map(str::to_owned);
        let is_ours = tag(TAG_MANAGED).is_some_and(|by| by == MANAGED_BY);
        let stage = match self.instance_state.name.as_str() {
            "pending" => Stage::Coming,
            "running" => Stage::Running,
            "terminated" => Stage::Gone,
            _ => Stage::Going,
        };
        let launched = self.launch_time.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        Instance {
            machine: tag(TAG_MACHINE).filter(|_| is_ours).and_then(|id| id.parse().ok()),
            owner: tag(TAG_OWNER).filter(|_| is_ours),
            stage,
            address: if private { self.private_ip_address } else { self.ip_address.or(self.private_ip_address) },
            launched_s: launched.and_then(|at| u64::try_from(at.as_second()).ok()),
            name: self.instance_id,
        }
    }

    /// Is this the form of an instance's id? It becomes part of later requests.
    pub(super) fn has_a_name(&self) -> bool {
        let digits = self.instance_id.strip_prefix("i-").unwrap_or_default();
        (8..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, body: body.as_bytes().to_vec(), wait: None }
    }

    fn error(status: u16, code: &str) -> Fault {
        let body = format!(
            "<?xml version=\"1.0\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>why</Message></Error></Errors>\
             <RequestID>x</RequestID></Response>"
        );
        read::<DescribeInstances>(&answer(status, &body), ("DescribeInstances", "DescribeInstancesResponse"))
            .unwrap_err()
    }

    #[test]
    fn codes_become_faults_that_say_what_to_do() {
        for (status, code, word, is_final) in [
            (500, "InsufficientInstanceCapacity", "capacity", false),
            (400, "VcpuLimitExceeded", "quota", false),
            (503, "RequestLimitExceeded", "throttled", false),
            (503, "Whatever", "throttled", false),
            (500, "InternalError", "unwell", false),
            (403, "UnauthorizedOperation", "not_allowed", true),
            (400, "InvalidAMIID.NotFound", "refused", true),
            (400, "InvalidInstanceID.NotFound", "not_found", false),
            (404, "", "nonsense", false),
        ] {
            let fault = error(status, code);
            assert_eq!((fault.word(), fault.is_final()), (word, is_final), "{status} {code}: {fault}");
        }
    }

    #[test]
    fn what_is_no_answer_is_never_read_as_an_empty_one() {
        let read = |body: &str| {
            read::<DescribeInstances>(&answer(200, body), ("DescribeInstances", "DescribeInstancesResponse"))
        };
        for body in [
            "",
            "{}",
            "<html><body>Sign in</body></html>",
            "<RunInstancesResponse/>",
            "<DescribeInstancesResponse><reservationSet>",
        ] {
            let fault = read(body).unwrap_err();
            assert_eq!(fault.word(), "nonsense", "{body}");
        }
        let empty = "<?xml version=\"1.0\"?><DescribeInstancesResponse xmlns=\"http://ec2\"><reservationSet/></DescribeInstancesResponse>";
        assert!(read(empty).unwrap().reservation_set.item.is_empty());
    }

    #[test]
    fn only_tags_of_ours_say_whose_a_machine_is() {
        let body = |managed: &str| {
            format!(
                "<RunInstancesResponse><instancesSet><item><instanceId>i-0123456789abcdef0</instanceId><instanceState><code>0</code>\
                 <name>pending</name></instanceState><launchTime>2026-11-29T15:00:00.000Z</launchTime>\
                 <privateIpAddress>10.0.0.7</privateIpAddress><tagSet><item><key>ManagedBy</key><value>{managed}</value></item><item>\
                 <key>navvy:machine</key><value>0123456789abcdef0123456789abcdef</value></item></tagSet></item></instancesSet>\
                 </RunInstancesResponse>"
            )
        };
        let instance = |managed: &str| {
            let answer = answer(200, &body(managed));
            let answer: RunInstances = read(&answer, ("RunInstances", "RunInstancesResponse")).unwrap();
            answer.instances_set.item.into_iter().next().unwrap().into_instance(true)
        };
        let ours = instance("navvy");
        assert_eq!((ours.stage, ours.address.as_deref()), (Stage::Coming, Some("10.0.0.7")));
        assert!(ours.machine.is_some() && ours.launched_s.is_some());
        assert_eq!(instance("someone").machine, None);
    }

    #[test]
    fn a_token_says_by_which_id_a_machine_was_asked_for_and_without_one_its_tag_may_deny_it() {
        let (id, other) = (MachineId::random(), MachineId::random());
        let is_of = |token: &str, machine: Option<&MachineId>| {
            let tag = machine.map(|it| format!("<item><key>{TAG_MACHINE}</key><value>{}</value></item>", it.as_str()));
            let body = format!(
                "<RunInstancesResponse><instancesSet><item><instanceId>i-0123456789abcdef0</instanceId><instanceState>\
                 <name>running</name></instanceState>{token}<tagSet>{}</tagSet></item></instancesSet></RunInstancesResponse>",
                tag.unwrap_or_default()
            );
            let answer: RunInstances = read(&answer(200, &body), ("RunInstances", "RunInstancesResponse")).unwrap();
            answer.instances_set.item[0].may_be_of(&id)
        };
        let token = |of: &MachineId| format!("<clientToken>{}</clientToken>", of.as_str());
        assert!(is_of(&token(&id), None) && is_of(&token(&id), Some(&id)));
        assert!(!is_of(&token(&other), None) && !is_of(&token(&other), Some(&id)));
        assert!(!is_of("<clientToken>ABCDE</clientToken>", None));
        for untold in ["", "<clientToken/>", "<clientToken></clientToken>"] {
            assert!(is_of(untold, None) && is_of(untold, Some(&id)), "{untold:?}");
            assert!(!is_of(untold, Some(&other)), "{untold:?}");
        }
    }
}
