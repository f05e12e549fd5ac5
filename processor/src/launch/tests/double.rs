//! Nomad's HTTP API, as version 1.11.3 answers it: what a call must look like is checked, what is dispatched is kept, and placed
//! when a test says so. It can fail in many ways.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How calls fail.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// An answer like this.
    Says(u16, &'static str),
    /// It is done, and the answer is lost.
    Lost,
    /// No answer ever comes.
    Silent,
}

#[derive(Default)]
pub(super) struct Inner {
    pub index: u64,
    /// As `GET /v1/job/ID` has them; dispatched ones with `_token`, `_status`, `_counts`, `_summary`.
    pub jobs: BTreeMap<String, Value>,
    pub nodes: BTreeMap<String, Value>,
    pub allocations: Vec<Value>,
    pub evaluations: BTreeMap<String, Vec<Value>>,
    /// Method and path of each call.
    pub calls: Vec<String>,
    /// What no client of ours should ever have sent.
    pub violations: Vec<String>,
    /// `METHOD PATH` that begins so, and how often yet.
    pub faults: Vec<(String, Fault, usize)>,
    pub token: Option<String>,
}

#[derive(Clone)]
pub(super) struct Double {
    pub address: String,
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<u64>,
    _server: Arc<tokio::task::JoinHandle<()>>,
}

impl Double {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let inner: Arc<Mutex<Inner>> = Arc::default();
        inner.lock().unwrap().index = 10;
        let changed = watch::Sender::new(10);
        let router = Router::new().fallback(answer).with_state((Arc::clone(&inner), changed.clone()));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, inner, changed, _server: Arc::new(server) }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Changes something, and wakes whoever waits for it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner();
        inner.index += 1;
        let changed = change(&mut inner);
        self.changed.send_replace(inner.index);
        changed
    }

    pub(super) fn fail(&self, call: &str, fault: Fault, times: usize) {
        self.inner().faults.push((call.to_owned(), fault, times));
        // Whoever waits asks again, and hears of it.
        self.change(|_| ());
    }

    pub(super) fn add_node(&self, id: &str, cpus: u64, memory_mb: u64) {
        let node = json!({
            "ID": id, "Name": format!("client-{id}"), "Datacenter": "dc1", "NodeClass": "linux-64bit", "NodePool": "default",
            "Status": "ready", "StatusDescription": "", "Drain": false, "SchedulingEligibility": "eligible", "LastDrain": null,
            "Drivers": {"navvy": {"Attributes": {}, "Detected": true, "Healthy": true, "HealthDescription": "Healthy"}},
            "NodeResources": {"Cpu": {"CpuShares": cpus * 1000, "TotalCpuCores": cpus}, "Memory": {"MemoryMB": memory_mb},
                              "Disk": {"DiskMB": 1000}, "Devices": null},
            "ReservedResources": {"Cpu": {"CpuShares": 0, "ReservedCpuCores": null}, "Memory": {"MemoryMB": 0}, "Disk": {"DiskMB": 0}},
        });
        self.change(|inner| inner.nodes.insert(id.to_owned(), node));
    }

    /// Ids of what was dispatched and is not purged.
    pub(super) fn dispatched(&self) -> Vec<String> {
        self.inner().jobs.iter().filter(|(_, job)| job["ParentID"] != "").map(|(id, _)| id.clone()).collect()
    }

    /// The launch token of a job.
    pub(super) fn payload(&self, job: &str) -> String {
        let payload = self.inner().jobs[job]["Payload"].as_str().unwrap().to_owned();
        String::from_utf8(STANDARD.decode(payload).unwrap()).unwrap()
    }

    /// The scheduler finds a place, and the client starts it.
    pub(super) fn place(&self, job: &str, node: &str) {
        self.change(|inner| {
            let index = inner.index;
            let resources = &inner.jobs[job]["TaskGroups"][0]["Tasks"][0]["Resources"];
            let resources = json!({"Tasks": {"agent": {"Cpu": {"CpuShares": resources["CPU"]},
                "Memory": {"MemoryMB": resources["MemoryMB"]}}}, "Shared": {"DiskMB": 300}});
            inner.allocations.push(json!({
                "ID": format!("allocation-{index}"), "NodeID": node, "NodeName": format!("client-{node}"), "JobID": job,
                "DesiredStatus": "run", "DesiredDescription": "", "ClientStatus": "running", "ClientDescription": "",
                "DesiredTransition": {"Migrate": null, "Reschedule": null, "ForceReschedule": null},
                "TaskStates": {"agent": {"State": "running", "Failed": false, "Events": []}},
                "AllocatedResources": resources, "CreateIndex": index,
            }));
            inner.stand(job, "running", "Running");
        });
    }

    /// Its client says how it ended: `complete`, `failed`; or the servers do: `lost`.
    pub(super) fn ended(&self, job: &str, status: &str, event: (&str, &str)) {
        self.change(|inner| {
            let allocation = inner.allocations.iter_mut().rfind(|one| one["JobID"] == job).unwrap();
            allocation["ClientStatus"] = status.into();
            let event = json!({"Type": event.0, "DisplayMessage": event.1, "FailsTask": status == "failed"});
            allocation["TaskStates"]["agent"]["Events"].as_array_mut().unwrap().push(event);
            let which = match status {
                "complete" => "Complete",
                "lost" => "Lost",
                _ => "Failed",
            };
            inner.stand(job, "dead", which);
        });
    }

    pub(super) fn allocation(&self, job: &str, change: impl FnOnce(&mut Value)) {
        self.change(|inner| change(inner.allocations.iter_mut().rfind(|one| one["JobID"] == job).unwrap()));
    }

    /// What Nomad says of a job that it cannot place.
    pub(super) fn blocked(&self, job: &str, misplaced: Value) {
        self.change(|inner| {
            let index = inner.index;
            inner.evaluations.entry(job.to_owned()).or_default().push(json!({
                "ID": "e", "Status": "blocked", "StatusDescription": "created to place remaining allocations",
                "ModifyIndex": index, "FailedTGAllocs": {"task": misplaced},
            }));
        });
    }

    pub(super) fn count(&self, call: &str) -> usize {
        self.inner().calls.iter().filter(|one| one.starts_with(call)).count()
    }
}

impl Inner {
    pub(super) fn stand(&mut self, job: &str, status: &str, which: &str) {
        let index = self.index;
        let job = self.jobs.get_mut(job).unwrap();
        job["_status"] = status.into();
        let mut counts =
            json!({"Queued": 0, "Complete": 0, "Failed": 0, "Running": 0, "Starting": 0, "Lost": 0, "Unknown": 0});
        if !which.is_empty() {
            counts[which] = 1.into();
        }
        job["_counts"] = counts;
        job["_summary"] = index.into();
    }

    fn stub(&self, job: &Value) -> Value {
        let get = |key: &str| job[key].clone();
        json!({
            "ID": get("ID"), "ParentID": get("ParentID"), "Name": get("ID"), "Namespace": "default", "Type": "batch",
            "ParameterizedJob": job["ParentID"] == "", "Periodic": false, "Stop": get("Stop"), "Status": get("_status"),
            "StatusDescription": "", "Meta": get("Meta"), "JobModifyIndex": get("JobModifyIndex"),
            "JobSummary": {"JobID": get("ID"), "Summary": {"task": get("_counts")}, "ModifyIndex": get("_summary"),
                           "Children": {"Pending": 0, "Running": 0, "Dead": 0}},
        })
    }

    fn register(&mut self, body: &Value) -> Result<Value, (u16, String)> {
        let mut job = body["Job"].clone();
        let id =
            job["ID"].as_str().filter(|id| !id.contains(' ')).ok_or((400, "Missing job ID".to_owned()))?.to_owned();
        if job["Type"] != "batch" || job["ParameterizedJob"]["Payload"] != "required" {
            return Err((400, "the double takes parameterized batch jobs".to_owned()));
        }
        if job["Constraints"].as_array().is_some_and(Vec::is_empty) {
            job["Constraints"] = Value::Null;
        }
        // As Nomad adds what was not said.
        job["TaskGroups"][0]["RestartPolicy"]["Interval"] = 86_400_000_000_000_u64.into();
        job["TaskGroups"][0]["Tasks"][0]["Resources"]["Cores"] = 0.into();
        job["JobModifyIndex"] = self.index.into();
        job["ParentID"] = "".into();
        self.jobs.insert(id.clone(), job);
        self.stand(&id, "running", "");
        Ok(
            json!({"EvalID": "", "EvalCreateIndex": 0, "JobModifyIndex": self.index, "Warnings": "", "Index": self.index}),
        )
    }

    fn dispatch(&mut self, parent: &str, idempotent: &str, body: &Value) -> Result<Value, (u16, String)> {
        let Some(job) = self.jobs.get(parent).cloned() else {
            return Err((500, "parameterized job not found".to_owned()));
        };
        if job["Stop"] == true {
            return Err((500, format!("Specified job {parent:?} is stopped")));
        }
        let names = |which: &str| job["ParameterizedJob"][which].as_array().cloned().unwrap_or_default();
        let given = body["Meta"].as_object().cloned().unwrap_or_default();
        if names("MetaRequired").iter().any(|name| !given.contains_key(name.as_str().unwrap())) {
            return Err((500, "Dispatch did not provide required meta keys".to_owned()));
        }
        let allowed = [names("MetaRequired"), names("MetaOptional")].concat();
        if given.keys().any(|name| !allowed.contains(&json!(name))) {
            return Err((500, "Dispatch request included unpermitted metadata keys".to_owned()));
        }
        let payload = body["Payload"].as_str().unwrap_or_default();
        if payload.is_empty() || STANDARD.decode(payload).is_err() {
            return Err((500, "Payload is not provided but required by parameterized job".to_owned()));
        }
        if let Some((id, found)) =
            self.jobs.iter().find(|(_, one)| one["ParentID"] == parent && one["_token"] == idempotent)
        {
            return Ok(
                json!({"DispatchedJobID": id, "EvalID": "", "EvalCreateIndex": 0, "JobCreateIndex": found["JobModifyIndex"],
                             "Index": self.index}),
            );
        }
        let prefix = body["IdPrefixTemplate"].as_str().unwrap_or_default();
        let id = format!("{parent}/dispatch-{prefix}-1795951652-{:08x}", self.index);
        let mut child = job;
        child["ID"] = id.clone().into();
        child["ParentID"] = parent.into();
        child["Meta"] = given.into();
        child["Payload"] = payload.into();
        child["_token"] = idempotent.into();
        child["JobModifyIndex"] = self.index.into();
        self.jobs.insert(id.clone(), child);
        self.stand(&id, "pending", "Queued");
        Ok(json!({"DispatchedJobID": id, "EvalID": "e", "EvalCreateIndex": self.index, "JobCreateIndex": self.index,
                  "Index": self.index}))
    }

    fn deregister(&mut self, id: &str, purge: bool) -> Result<Value, (u16, String)> {
        if !self.jobs.contains_key(id) {
            // As it is: who stops what is not there is told that it is stopped.
            return Ok(json!({"EvalID": "", "EvalCreateIndex": 0, "JobModifyIndex": self.index, "Index": self.index}));
        }
        let is_running = self.jobs[id]["_status"] == "running";
        if purge {
            self.jobs.remove(id);
        } else {
            self.jobs.get_mut(id).unwrap()["Stop"] = true.into();
            if !is_running {
                self.stand(id, "dead", "");
            }
        }
        Ok(json!({"EvalID": "e", "EvalCreateIndex": self.index, "JobModifyIndex": self.index, "Index": self.index}))
    }

    fn read(&self, path: &str, query: &BTreeMap<String, String>) -> Result<Value, (u16, String)> {
        let missing = || (404, "job not found".to_owned());
        if path == "/v1/jobs" {
            let prefix = query.get("prefix").cloned().unwrap_or_default();
            let jobs = self.jobs.iter().filter(|(id, _)| id.starts_with(&prefix));
            return Ok(jobs.map(|(_, job)| self.stub(job)).collect());
        }
        if path == "/v1/status/leader" {
            return Ok("127.0.0.1:4647".into());
        }
        if path == "/v1/nodes" {
            return Ok(self.nodes.values().cloned().collect());
        }
        if path == "/v1/allocations" {
            return Ok(self.allocations.iter().filter(|one| one["ClientStatus"] == "running").cloned().collect());
        }
        let id = path.strip_prefix("/v1/job/").ok_or((404, "Invalid URL path".to_owned()))?;
        if let Some(id) = id.strip_suffix("/allocations") {
            return Ok(self.allocations.iter().filter(|one| one["JobID"] == id).cloned().collect());
        }
        if let Some(id) = id.strip_suffix("/evaluations") {
            return Ok(self.evaluations.get(id).cloned().unwrap_or_default().into());
        }
        self.jobs.get(id).cloned().ok_or_else(missing)
    }
}

type Shared = (Arc<Mutex<Inner>>, watch::Sender<u64>);

async fn answer(
    State((inner, changed)): State<Shared>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query: BTreeMap<String, String> = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect();
    let path = decoded(uri.path());
    let call = format!("{method} {path}");
    let waits_behind = query.get("index").map(|index| index.parse::<u64>().unwrap());
    if let Some(index) = waits_behind {
        let mut changes = changed.subscribe();
        let wait = Duration::from_secs(query["wait"].trim_end_matches('s').parse().unwrap());
        tokio::time::timeout(wait, changes.wait_for(|now| *now > index)).await.ok();
    }
    let fault = {
        let mut inner = inner.lock().unwrap();
        inner.calls.push(call.clone());
        let token = headers.get("X-Nomad-Token").map(|token| token.to_str().unwrap().to_owned());
        if inner.token != token && inner.token.is_some() {
            return (StatusCode::FORBIDDEN, "Permission denied").into_response();
        }
        if !query.contains_key("namespace") {
            inner.violations.push(format!("{call}: no namespace"));
        }
        let fault = inner.faults.iter_mut().find(|(begins, _, times)| *times > 0 && call.starts_with(begins.as_str()));
        fault.map(|(_, fault, times)| {
            *times -= 1;
            fault.clone()
        })
    };
    match fault {
        Some(Fault::Says(status, text)) => {
            return (StatusCode::from_u16(status).unwrap(), [("X-Nomad-Index", "11")], text).into_response();
        }
        Some(Fault::Silent) => std::future::pending::<()>().await,
        Some(Fault::Lost) | None => {}
    }
    let answered = carried_out(&inner, &changed, (&method, &path), &query, &body);
    if matches!(fault, Some(Fault::Lost)) {
        return (StatusCode::BAD_GATEWAY, "the connection broke").into_response();
    }
    let index = inner.lock().unwrap().index.to_string();
    match answered {
        Ok(value) => {
            let headers = [("X-Nomad-Index", index), ("Content-Type", "application/json".to_owned())];
            (headers, value.to_string()).into_response()
        }
        Err((status, text)) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
    }
}

fn carried_out(
    inner: &Mutex<Inner>,
    changed: &watch::Sender<u64>,
    (method, path): (&Method, &str),
    query: &BTreeMap<String, String>,
    body: &[u8],
) -> Result<Value, (u16, String)> {
    let mut inner = inner.lock().unwrap();
    if method == Method::GET {
        return inner.read(path, query);
    }
    inner.index += 1;
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let answered = match (method.as_str(), path) {
        ("POST", "/v1/jobs") => inner.register(&body),
        ("POST", _) if path.ends_with("/dispatch") => {
            let parent = path.trim_start_matches("/v1/job/").trim_end_matches("/dispatch").to_owned();
            inner.dispatch(&parent, query.get("idempotency_token").map_or("", String::as_str), &body)
        }
        ("DELETE", _) if path.starts_with("/v1/job/") => inner
            .deregister(path.trim_start_matches("/v1/job/"), query.get("purge").is_some_and(|purge| purge == "true")),
        _ => {
            inner.violations.push(format!("{method} {path}"));
            Err((405, "Invalid method".to_owned()))
        }
    };
    changed.send_replace(inner.index);
    answered
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}
