//! The mapping: which changed file asks for which parameter and which config.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use regex_lite::Regex;
use serde_json::{Map, Value};

/// How the lines of a mapping are read: the original's second version reads more than its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `REGEX PARAMETER VALUE [CONFIG]`, the value is JSON.
    First,
    /// `REGEX [PARAMETER VALUE] [CONFIG]`, a value that is not JSON is a text.
    Second,
}

/// One line of the mapping.
struct Rule {
    pattern: Pattern,
    parameter: Option<(String, Value)>,
    config: Option<String>,
}

/// A regular expression that matches whole paths.
enum Pattern {
    Ours(Regex),
    /// A pattern with lookaround, for example: the image's python3 reads it, as the original's script does.
    Pythons(String),
}

/// What the changed files ask for.
#[derive(Debug, PartialEq)]
pub struct Asked {
    pub parameters: Map<String, Value>,
    pub configs: BTreeSet<String>,
}

pub struct Mapping(Vec<Rule>);

impl Version {
    /// # Errors
    /// There is no such version.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("1") => Ok(Self::First),
            Some("2") => Ok(Self::Second),
            Some(other) => Err(format!("--mapping-version is {other}: it is 1 or 2")),
        }
    }
}

impl Mapping {
    /// # Errors
    /// A line that makes no sense, or none at all.
    pub fn parse(text: &str, version: Version) -> Result<Self, String> {
        let rules: Vec<Rule> = lines(text).map(|line| Rule::parse(line, version)).collect::<Result<_, _>>()?;
        if rules.is_empty() {
            return Err("the mapping is empty".to_owned());
        }
        Ok(Self(rules))
    }

    /// What the changes ask for. If two lines set one parameter, the later counts.
    ///
    /// # Errors
    /// Neither this program nor the image's python3 can read a pattern.
    pub fn ask(&self, changes: &[&str]) -> Result<Asked, String> {
        let mut asked = Asked { parameters: Map::new(), configs: BTreeSet::new() };
        for rule in &self.0 {
            if rule.pattern.matches(changes)?.contains(&true) {
                asked.parameters.extend(rule.parameter.clone());
                asked.configs.extend(rule.config.clone());
            }
        }
        Ok(asked)
    }
}

/// The changes that no line of `exclude` is for.
///
/// # Errors
/// Neither this program nor the image's python3 can read a pattern.
pub fn without<'a>(changes: &'a [String], exclude: &str) -> Result<Vec<&'a str>, String> {
    let mut left: Vec<&str> = changes.iter().map(String::as_str).collect();
    for line in lines(exclude) {
        let excluded = Pattern::new(line).matches(&left)?;
        left = left.into_iter().zip(excluded).filter_map(|(change, excluded)| (!excluded).then_some(change)).collect();
    }
    Ok(left)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

impl Rule {
    fn parse(line: &str, version: Version) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (path, parameter, config) = match (words.as_slice(), version) {
            ([path, parameter, value], _) => (path, Some((parameter, value)), None),
            ([path, parameter, value, config], _) => (path, Some((parameter, value)), Some(config)),
            ([path], Version::Second) => (path, None, None),
            ([path, config], Version::Second) => (path, None, Some(config)),
            (_, Version::First) => return Err(unclear(line, "expected REGEX PARAMETER VALUE [CONFIG]")),
            (_, Version::Second) => return Err(unclear(line, "expected REGEX [PARAMETER VALUE] [CONFIG]")),
        };
        let parameter = match parameter {
            Some((name, text)) => Some(((*name).to_owned(), value(line, text, version)?)),
            None => None,
        };
        Ok(Self { pattern: Pattern::new(path), parameter, config: config.map(|config| (*config).to_owned()) })
    }
}

fn value(line: &str, text: &str, version: Version) -> Result<Value, String> {
    match (serde_json::from_str(text), version) {
        (Ok(value), _) => Ok(value),
        (Err(_), Version::Second) => Ok(Value::String(text.to_owned())),
        (Err(_), Version::First) => {
            let why = format!("{text} is not a JSON value; a text needs quotes, like \"\\\"{text}\\\"\"");
            Err(unclear(line, &why))
        }
    }
}

fn unclear(line: &str, why: &str) -> String {
    format!("mapping line {line:?}: {why}")
}

impl Pattern {
    fn new(path: &str) -> Self {
        let pattern = format!("^(?:{path})$");
        Regex::new(&pattern).map_or(Self::Pythons(pattern), Self::Ours)
    }

    /// For each change, whether the pattern matches.
    fn matches(&self, changes: &[&str]) -> Result<Vec<bool>, String> {
        match self {
            Self::Ours(regex) => Ok(changes.iter().map(|change| regex.is_match(change)).collect()),
            Self::Pythons(pattern) => ask_python(pattern, changes),
        }
    }
}

/// Says 1 or 0 for every line of stdin.
const PYTHON: &str = "import re, sys
r = re.compile(sys.argv[1])
text = sys.stdin.buffer.read().decode('utf-8', 'surrogateescape')
for line in text.split('\\n') if text else []:
    print(1 if r.match(line) else 0)";

fn ask_python(pattern: &str, changes: &[&str]) -> Result<Vec<bool>, String> {
    let unreadable = |why: &str| format!("the pattern {pattern} cannot be read: {why}");
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON, pattern]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.map_err(|_| unreadable("more than simple patterns needs python3 in the job's image"))?;
    if let Some(mut input) = child.stdin.take() {
        // It may have ended over the pattern: its own words tell. It reads everything before it writes anything.
        let _ = input.write_all(changes.join("\n").as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| unreadable(&error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(unreadable(said.trim().lines().last().unwrap_or("python3 failed")));
    }
    let answers: Vec<bool> = String::from_utf8_lossy(&output.stdout).lines().map(|line| line == "1").collect();
    match answers.len() == changes.len() {
        true => Ok(answers),
        false => Err(unreadable("python3 did not answer for every file")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(mapping: &str, changes: &[&str]) -> (Value, Vec<String>) {
        let asked = Mapping::parse(mapping, Version::First).unwrap().ask(changes).unwrap();
        (Value::Object(asked.parameters), asked.configs.into_iter().collect())
    }

    #[test]
    fn a_pattern_matches_whole_paths_and_the_later_line_counts() {
        let mapping = "# comment\n  src/.*  build true\ndocs/.* docs \"all\"\n\nsrc/x\\.rs build 7\nsrc other 1";
        let (parameters, _) = asked(mapping, &["src/x.rs", "docs/a"]);
        assert_eq!(parameters, json!({"build": 7, "docs": "all"}));
        assert_eq!(asked("src build true", &["src/x.rs"]).0, json!({}));
        assert_eq!(asked("(?!docs/).* code true", &["docs/a"]).0, json!({}));
        assert_eq!(asked("(?!docs/).* code true", &["docs/a", "src/b"]).0, json!({"code": true}));
        assert_eq!(asked("(?!docs/).* code true", &[]).0, json!({}));
    }

    #[test]
    fn configs_of_lines_that_match_are_listed_once() {
        let (_, configs) = asked("a/.* x 1 a.yml\nb/.* y 1 b.yml\n.* z 1 a.yml", &["a/1"]);
        assert_eq!(configs, ["a.yml"]);
    }

    #[test]
    fn a_pattern_that_nobody_can_read_is_named() {
        let error = Mapping::parse("( b true", Version::First).unwrap().ask(&["x"]).unwrap_err();
        assert!(error.contains("the pattern ^(?:()$ cannot be read"), "{error}");
    }

    #[test]
    fn lines_that_make_no_sense_are_named() {
        for (line, words) in [
            ("a b", "expected REGEX PARAMETER VALUE"),
            ("a b yes", "is not a JSON value"),
            ("", "the mapping is empty"),
        ] {
            let error = Mapping::parse(line, Version::First).err().unwrap();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
