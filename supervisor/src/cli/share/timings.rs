//! What tests took in earlier runs: the agent's file, in the original's form (`docs/tests.md`).
//!
//! ```json
//! {"tests": [{"file": "spec/a_spec.rb", "classname": "A", "name": "adds", "run_time": 1.25}]}
//! ```

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::flags::TimingsType;

/// Microseconds by what an item may be called.
#[derive(Debug, Default)]
pub struct Timings {
    files: HashMap<String, u64>,
    classes: HashMap<String, u64>,
    names: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Document {
    tests: Vec<Case>,
}

/// Any of them may be missing or null.
#[derive(Deserialize)]
struct Case {
    file: Option<String>,
    classname: Option<String>,
    name: Option<String>,
    /// Seconds.
    run_time: Option<f64>,
}

impl Timings {
    pub fn read(path: &str) -> Result<Self, String> {
        let bytes = std::fs::read(Path::new(path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "file does not exist".to_owned(),
            _ => format!("{path}: {error}"),
        })?;
        Self::parse(&bytes).map_err(|error| format!("{path}: {error}"))
    }

    fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        let mut timings = Self::default();
        for case in serde_json::from_slice::<Document>(bytes)?.tests {
            // A cast takes what is no number, or negative, to 0.
            let Some(micros) = case.run_time.map(|seconds| (seconds * 1e6) as u64) else { continue };
            add(&mut timings.files, case.file, micros);
            add(&mut timings.classes, case.classname, micros);
            add(&mut timings.names, case.name, micros);
        }
        Ok(timings)
    }

    /// By kind; [`TimingsType::Auto`] is files here.
    pub fn table(&self, kind: TimingsType) -> &HashMap<String, u64> {
        match kind {
            TimingsType::File | TimingsType::Auto => &self.files,
            TimingsType::Class => &self.classes,
            TimingsType::Name => &self.names,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.classes.is_empty() && self.names.is_empty()
    }
}

/// What has several test cases takes as long as all of them.
fn add(table: &mut HashMap<String, u64>, key: Option<String>, micros: u64) {
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        let sum = table.entry(key).or_default();
        *sum = sum.saturating_add(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_add_up_to_files_classes_and_names() {
        let timings = Timings::parse(
            br#"{"tests": [{"file": "a", "classname": "A", "name": "x", "run_time": 1.5, "result": "success"},
                           {"file": "a", "classname": "B", "name": "x", "run_time": 0.25},
                           {"file": null, "classname": "", "run_time": -1},
                           {"file": "b"}], "exceptions": []}"#,
        )
        .unwrap();
        assert_eq!(timings.files, HashMap::from([("a".to_owned(), 1_750_000)]));
        assert_eq!(timings.classes, HashMap::from([("A".to_owned(), 1_500_000), ("B".to_owned(), 250_000)]));
        assert_eq!(timings.names, HashMap::from([("x".to_owned(), 1_750_000)]));
        assert!(Timings::parse(b"[]").is_err());
    }
}
