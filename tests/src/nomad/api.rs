//! What is said to a Nomad: its HTTP API, and its own commands where a story is about them.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::deadline::seldom;
use crate::nomad::Nomad;
use crate::nomad::agent::program;
use crate::program::{Answer, Program};

/// For something to come about on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

impl Nomad {
    /// By HTTP, from the server.
    ///
    /// # Errors
    /// What the server answered, or why it did not.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "60", "--request", method]);
        if !body.is_null() {
            command.args(["--data-binary", &body.to_string()]);
        }
        let done = command.arg(format!("{}{path}", self.address())).output().expect("curl can be run");
        match done.status.success() {
            true => serde_json::from_slice(&done.stdout).map_err(|error| error.to_string()),
            false => Err(String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()),
        }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// `nomad` with these words, as an operator types them.
    pub fn command(&self, words: &[&str]) -> Program {
        let no_color = Program::new(program()).env("NOMAD_CLI_NO_COLOR", "1");
        no_color.args(words).env("NOMAD_ADDR", self.address())
    }

    #[track_caller]
    pub fn nomad(&self, words: &[&str]) -> Answer {
        self.command(words).run()
    }

    /// Registers a job, as JSON has it.
    #[track_caller]
    pub fn register(&self, job: &Value) {
        self.post("/v1/jobs", &json!({ "Job": job }));
    }

    /// Dispatches a parameterized job. The new job's id.
    #[track_caller]
    pub fn dispatch(&self, job: &str, meta: &Value, payload: &str) -> String {
        let body = json!({ "Payload": base64(payload.as_bytes()), "Meta": meta });
        let said = self.post(&format!("/v1/job/{}/dispatch", encoded(job)), &body);
        said["DispatchedJobID"].as_str().unwrap_or_else(|| panic!("no id in {said}")).to_owned()
    }

    /// The allocations of a job so far.
    #[track_caller]
    pub fn allocs_of(&self, job: &str) -> Vec<Value> {
        let said = self.get(&format!("/v1/job/{}/allocations", encoded(job)));
        said.as_array().cloned().unwrap_or_default()
    }

    /// The id of a job's allocation, once it has one.
    #[track_caller]
    pub fn alloc_of(&self, job: &str) -> String {
        seldom(&format!("an allocation of {job}"), LIMIT, || {
            Some(self.allocs_of(job).first()?["ID"].as_str()?.to_owned())
        })
    }

    #[track_caller]
    pub fn alloc(&self, alloc: &str) -> Value {
        self.get(&format!("/v1/allocation/{alloc}"))
    }

    /// Waits for a client's word on an allocation: `running`, `complete`, `failed`, `lost`.
    #[track_caller]
    pub fn alloc_is(&self, alloc: &str, status: &str) {
        let mut seen = Value::Null;
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            seldom("its status", LIMIT, || {
                // Its server may be away.
                seen = self.ask("GET", &format!("/v1/allocation/{alloc}"), &Value::Null).unwrap_or_default();
                (seen["ClientStatus"] == status).then_some(())
            });
        }));
        assert!(looked.is_ok(), "allocation {alloc} does not become {status}: {}", self.status(alloc));
    }

    /// The words of a task's events, oldest first.
    #[track_caller]
    pub fn events_of(&self, alloc: &str) -> Vec<String> {
        let alloc = self.alloc(alloc);
        let states = alloc["TaskStates"].as_object().into_iter().flatten();
        let events = states.flat_map(|(_, state)| state["Events"].as_array().into_iter().flatten());
        events.map(|event| format!("{}: {}", text(event, "Type"), text(event, "DisplayMessage"))).collect()
    }

    /// What `nomad alloc status` shows.
    #[track_caller]
    pub fn status(&self, alloc: &str) -> String {
        let answer = self.nomad(&["alloc", "status", alloc]);
        format!("{}{}", answer.stdout(), answer.stderr)
    }

    /// What `nomad alloc logs` shows.
    #[track_caller]
    pub fn logs(&self, alloc: &str, words: &[&str]) -> String {
        self.nomad(&[&["alloc", "logs"], words, &[alloc]].concat()).text()
    }

    /// `nomad job stop`
    #[track_caller]
    pub fn stop(&self, job: &str) {
        self.nomad(&["job", "stop", "-detach", "-yes", job]).succeeded();
    }

    /// All allocations that have not ended by their client's word.
    #[track_caller]
    pub fn unfinished(&self) -> Vec<String> {
        let all = self.get("/v1/allocations");
        let all = all.as_array().into_iter().flatten();
        let ended = |alloc: &Value| matches!(text(alloc, "ClientStatus"), "complete" | "failed" | "lost");
        all.filter(|alloc| !ended(alloc)).map(|alloc| text(alloc, "ID").to_owned()).collect()
    }

    /// Waits until a client is known and ready, its driver healthy if it is to be so. Its id.
    #[track_caller]
    pub fn node(&self, name: &str) -> String {
        seldom(&format!("client {name} is ready"), LIMIT, || {
            let nodes = self.ask("GET", "/v1/nodes", &Value::Null).ok()?;
            let node = nodes.as_array()?.iter().find(|node| node["Name"] == name && node["Status"] == "ready")?;
            Some(node["ID"].as_str()?.to_owned())
        })
    }

    /// What a client says of our driver.
    #[track_caller]
    pub fn driver_on(&self, node: &str) -> Value {
        self.get(&format!("/v1/node/{node}"))["Drivers"]["navvy"].clone()
    }

    /// Waits until a client's driver is healthy.
    #[track_caller]
    pub fn healthy(&self, node: &str) {
        let mut seen = Value::Null;
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            seldom("its health", LIMIT, || {
                seen = self.driver_on(node);
                (seen["Healthy"] == true).then_some(())
            });
        }));
        assert!(looked.is_ok(), "the driver does not become healthy: {seen}");
    }

    /// Waits until a client's driver says so of why it is not healthy.
    #[track_caller]
    pub fn unhealthy(&self, node: &str, part: &str) -> String {
        let mut seen = Value::Null;
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            seldom("its health", LIMIT, || {
                seen = self.driver_on(node);
                (seen["Healthy"] == false && text(&seen, "HealthDescription").contains(part)).then_some(())
            });
        }));
        assert!(looked.is_ok(), "the driver does not say {part:?}: {seen}");
        text(&seen, "HealthDescription").to_owned()
    }

    /// Lets a client take nothing more, and end what it has by the deadline.
    #[track_caller]
    pub fn drain(&self, node: &str, deadline: Duration) {
        let spec = json!({ "Deadline": deadline.as_nanos() as u64, "IgnoreSystemJobs": true });
        self.post(&format!("/v1/node/{node}/drain"), &json!({ "DrainSpec": spec, "MarkEligible": false }));
    }
}

pub fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// A part of a path.
pub fn encoded(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

fn base64(bytes: &[u8]) -> String {
    Program::new("base64").args(["--wrap=0"]).input(bytes).run().text()
}
