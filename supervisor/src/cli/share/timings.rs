//! What tests took in earlier runs: the agent's file, in the original's form (`docs/tests.md`).
//!
//! ```json
//! {"tests": [{"file": "spec/a_spec.rb", "classname": "A", "name": "adds", "run_time": 1.25}]}
//! ```

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read as _};

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::flags::TimingsType;

/// Microseconds by what an item may be called.
pub type Table<'a> = HashMap<&'a str, u64>;

/// Test cases that have a time.
#[derive(Debug)]
pub struct Timings<'a>(Vec<Case<'a>>);

#[derive(serde::Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    tests: Vec<Case<'a>>,
}

/// Any of them may be missing or null.
#[derive(Debug, serde::Deserialize)]
struct Case<'a> {
    #[serde(borrow)]
    file: Option<Text<'a>>,
    #[serde(borrow)]
    classname: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    /// Seconds.
    run_time: Option<f64>,
}

/// A string of the document itself where nothing in it is escaped: there are many.
#[derive(Debug)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Strings)
    }
}

/// Bytes of the longest file; an agent writes no longer one.
const LONGEST: u64 = 64 << 20;

/// The file's bytes. If there is no file, the error has the original's words.
pub fn read(path: Option<&str>) -> Result<Vec<u8>, String> {
    const MISSING: &str = "file does not exist";
    let path = path.ok_or(MISSING)?;
    let read = std::fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST { Err(io::Error::other("it is longer than 64 MiB")) } else { Ok(bytes) }
    });
    read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MISSING.to_owned(),
        _ => format!("{path}: {error}"),
    })
}

impl<'a> Timings<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let document: Document<'a> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut cases = document.tests;
        cases.retain(|case| case.run_time.is_some());
        if cases.is_empty() { Err("it holds no test with a time".to_owned()) } else { Ok(Self(cases)) }
    }

    /// What has several test cases takes as long as all of them. [`TimingsType::Auto`] is files here.
    pub fn table(&self, kind: TimingsType) -> Table<'_> {
        let mut table = Table::with_capacity(self.0.len());
        for case in &self.0 {
            let key = match kind {
                TimingsType::File | TimingsType::Auto => &case.file,
                TimingsType::Class => &case.classname,
                TimingsType::Name => &case.name,
            };
            if let Some(Text(key)) = key
                && !key.is_empty()
            {
                let sum: &mut u64 = table.entry(key).or_default();
                // A cast takes what is not a number, or negative, to 0.
                *sum = sum.saturating_add((case.run_time.unwrap_or(0.0) * 1e6) as u64);
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_add_up_to_files_classes_and_names() {
        let bytes =
            br#"{"tests": [{"file": "a", "classname": "A\u0042", "name": "x", "run_time": 1.5, "result": "success"},
                           {"file": "a", "classname": "B", "name": "x", "run_time": 0.25},
                           {"file": null, "classname": "", "run_time": -1},
                           {"file": "b"}], "exceptions": []}"#;
        let timings = Timings::parse(bytes).unwrap();
        assert_eq!(timings.table(TimingsType::File), HashMap::from([("a", 1_750_000)]));
        assert_eq!(timings.table(TimingsType::Class), HashMap::from([("AB", 1_500_000), ("B", 250_000)]));
        assert_eq!(timings.table(TimingsType::Name), HashMap::from([("x", 1_750_000)]));
        for nothing in ["[]", "{\"tests\": []}", "{\"tests\": [{\"file\": \"a\"}]}", "{\"tests\": [{\"file\": 1}]}"] {
            assert!(Timings::parse(nothing.as_bytes()).is_err(), "{nothing}");
        }
    }
}
