//! One event of a run, as `--json` prints it.

use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Event(Value);

impl Event {
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok().map(Self)
    }

    /// `task_started`, `step_ended`, …
    pub fn kind(&self) -> &str {
        self.text("event")
    }

    pub fn is(&self, kind: &str) -> bool {
        self.kind() == kind
    }

    pub fn job(&self) -> &str {
        self.text("job")
    }

    /// Name of a step.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// The step's number, from 1.
    pub fn step(&self) -> Option<u64> {
        self.0.get("step").and_then(Value::as_u64)
    }

    pub fn task(&self) -> Option<&str> {
        // Of most events the task is a part; of warnings it is a value of its own.
        let task = self.0.get("task")?;
        task.as_str().or_else(|| task.get("task").and_then(Value::as_str))
    }

    pub fn at_ms(&self) -> u64 {
        self.number("at_ms")
    }

    /// A text, or nothing.
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn number(&self, key: &str) -> u64 {
        self.0.get(key).and_then(Value::as_u64).unwrap_or_default()
    }

    pub fn texts(&self, key: &str) -> Vec<String> {
        let list = self.0.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    pub fn get(&self, key: &str) -> &Value {
        self.0.get(key).unwrap_or(&Value::Null)
    }

    /// Output of that step whose bytes hold `text`.
    pub fn is_output_with(&self, text: &str) -> bool {
        self.is("output") && self.text("bytes").contains(text)
    }

    pub fn is_start_of(&self, step: &str) -> bool {
        self.is("step_started") && self.name() == step
    }

    pub fn is_end_of(&self, step: &str) -> bool {
        self.is("step_ended") && self.name() == step
    }

    /// Whether it says that something did not go well: an end of a step, task, job or run other than success, a warning.
    pub fn tells_failure(&self) -> bool {
        match self.kind() {
            "step_ended" => self.get("outcome").get("outcome").is_some_and(|outcome| outcome != "success"),
            "task_ended" => self.text("verdict") != "passed" || !self.texts("leftovers").is_empty(),
            "job_ended" => self.get("end").get("status").is_none_or(|status| status != "success"),
            "run_ended" => self.number("exit_code") != 0,
            kind => kind == "warning",
        }
    }

    /// Short enough for a panic's message.
    pub fn summary(&self) -> String {
        let mut text = self.0.to_string();
        if text.len() > 600 {
            let end = (0..=600).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        text
    }
}
