//! `circleci path-filtering …`: pipeline parameters from what changed, as the original's path-filtering orb makes them.
//!
//! ```text
//! base revision ─▶ merge base with HEAD ─▶ changed files ─┐
//! mapping lines: REGEX PARAMETER VALUE [CONFIG] ──────────┴▶ parameters.json, list of configs
//! ```

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use regex_lite::Regex;
use serde_json::{Map, Value};

use super::options::Options;
use super::{complain, say};

const CONFIG_LIST: &str = "/tmp/filtered-config-list";

/// One line of the mapping.
struct Rule {
    pattern: Pattern,
    parameter: String,
    value: Value,
    config: Option<String>,
}

enum Pattern {
    Ours(Regex),
    /// With lookaround, say: the image's python3 reads it, as the original's script does.
    Pythons(String),
}

/// What the changed files ask for.
#[derive(Debug, PartialEq)]
struct Asked {
    parameters: Map<String, Value>,
    configs: BTreeSet<String>,
}

pub fn main(words: &[&str]) -> ExitCode {
    let done = match words {
        ["set-parameters", rest @ ..] => set_parameters(rest),
        ["generate-config", rest @ ..] => generate_config(rest),
        _ => Err("expected set-parameters or generate-config".to_owned()),
    };
    match done {
        Ok(told) => say(&told),
        Err(why) => complain(1, &format!("circleci path-filtering: {why}")),
    }
}

fn set_parameters(words: &[&str]) -> Result<String, String> {
    let options = Options::parse(words, &["base-revision", "mapping", "output", "config"])?;
    let rules = rules(&mapping(options.required("mapping")?))?;
    let base = base(options.required("base-revision")?)?;
    let changes = changes(&base)?;
    let asked = ask(&rules, &changes)?;
    let output = options.required("output")?;
    write(output, &Value::Object(asked.parameters.clone()).to_string())?;
    let configs: Vec<&str> = match asked.configs.is_empty() {
        true => options.get("config").into_iter().filter(|config| !config.is_empty()).collect(),
        false => asked.configs.iter().map(String::as_str).collect(),
    };
    write(CONFIG_LIST, &configs.iter().map(|config| format!("{config}\n")).collect::<String>())?;
    let files =
        if changes.len() == 1 { "1 file differs".to_owned() } else { format!("{} files differ", changes.len()) };
    let given = match asked.parameters.is_empty() {
        true => "no line of the mapping asks for a parameter".to_owned(),
        false => Value::Object(asked.parameters).to_string(),
    };
    Ok(format!("{files} from {base}: {given}\n"))
}

/// One config alone is taken as it is.
fn generate_config(words: &[&str]) -> Result<String, String> {
    let options = Options::parse(words, &["config-list", "output"])?;
    let list = options.get("config-list").unwrap_or(CONFIG_LIST);
    let output = options.required("output")?;
    let names = std::fs::read_to_string(list).map_err(|error| format!("cannot read {list}: {error}"))?;
    let names: Vec<&str> = names.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match names.as_slice() {
        [] => Err(format!("{list} names no config")),
        [name] => {
            let text = std::fs::read_to_string(name).map_err(|error| format!("cannot read {name}: {error}"))?;
            write(output, &text).map(|()| format!("{output} is {name}\n"))
        }
        names => Err(format!(
            "the changes ask for {} configs ({}), and putting several into one is not available in Navvy; \
             the orb's own source does it: put it into the orb path (`navvy orb add`)",
            names.len(),
            names.join(", ")
        )),
    }
}

fn write(path: &str, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {path}: {error}"))
}

/// The mapping's text, or that of the file it names.
fn mapping(text: &str) -> String {
    match Path::new(text).is_file() {
        true => std::fs::read_to_string(text).unwrap_or_else(|_| text.to_owned()),
        false => text.to_owned(),
    }
}

fn rules(mapping: &str) -> Result<Vec<Rule>, String> {
    let lines = mapping.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rules: Vec<Rule> = lines.map(rule).collect::<Result<_, _>>()?;
    if rules.is_empty() {
        return Err("the mapping is empty".to_owned());
    }
    Ok(rules)
}

fn rule(line: &str) -> Result<Rule, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (path, parameter, value, config) = match words.as_slice() {
        [path, parameter, value] => (path, parameter, value, None),
        [path, parameter, value, config] => (path, parameter, value, Some((*config).to_owned())),
        _ => return Err(format!("mapping line {line:?}: expected REGEX PARAMETER VALUE [CONFIG]")),
    };
    let pattern = format!("^(?:{path})$");
    let pattern = Regex::new(&pattern).map_or(Pattern::Pythons(pattern), Pattern::Ours);
    let value = serde_json::from_str(value).map_err(|_| {
        format!("mapping line {line:?}: {value} is no JSON value; a text needs quotes, like \"\\\"{value}\\\"\"")
    })?;
    Ok(Rule { pattern, parameter: (*parameter).to_owned(), value, config })
}

/// Of two lines for one parameter the later counts.
fn ask(rules: &[Rule], changes: &[String]) -> Result<Asked, String> {
    let mut asked = Asked { parameters: Map::new(), configs: BTreeSet::new() };
    for rule in rules {
        if matches(rule, changes)? {
            asked.parameters.insert(rule.parameter.clone(), rule.value.clone());
            asked.configs.extend(rule.config.clone());
        }
    }
    Ok(asked)
}

fn matches(rule: &Rule, changes: &[String]) -> Result<bool, String> {
    match &rule.pattern {
        Pattern::Ours(regex) => Ok(changes.iter().any(|change| regex.is_match(change))),
        Pattern::Pythons(pattern) => ask_python(pattern, changes),
    }
}

/// Exits with 0 when a line of stdin matches, with 3 when none does.
const PYTHON: &str = "import re, sys
r = re.compile(sys.argv[1])
sys.exit(0 if any([r.match(line.rstrip('\\n')) for line in sys.stdin]) else 3)";

fn ask_python(pattern: &str, changes: &[String]) -> Result<bool, String> {
    let unreadable = |why: &str| format!("the pattern {pattern} cannot be read: {why}");
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON, pattern]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.map_err(|_| unreadable("more than simple patterns needs python3 in the job's image"))?;
    if let Some(mut input) = child.stdin.take() {
        // It may have ended over the pattern: its own words tell.
        let _ = input.write_all(changes.join("\n").as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| unreadable(&error.to_string()))?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(3) => Ok(false),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(unreadable(said.trim().lines().last().unwrap_or("python3 failed")))
        }
    }
}

/// Where this branch left the base revision; on the base itself, the commit before.
fn base(wanted: &str) -> Result<String, String> {
    let known = [wanted.to_owned(), format!("origin/{wanted}")];
    let base =
        known.iter().find_map(|name| git(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")]).ok());
    let base = base.ok_or_else(|| {
        format!("there is no revision {wanted:?} or {:?} here; name one with `base-revision`", known[1])
    })?;
    let head = git(&["rev-parse", "HEAD"])?;
    let merge_base = git(&["merge-base", &base, &head])
        .map_err(|error| format!("{wanted} and HEAD have no commit in common that is here: {error}"))?;
    if merge_base != head {
        return Ok(merge_base);
    }
    // The first commit of all differs from nothing.
    git(&["rev-parse", "--verify", "--quiet", "HEAD~1"]).or_else(|_| git(&["hash-object", "-t", "tree", "/dev/null"]))
}

/// Files that differ from there, what is not committed yet included: `navvy run` takes the working tree as it is.
fn changes(base: &str) -> Result<Vec<String>, String> {
    let tracked = git(&["-c", "core.quotepath=false", "diff", "--name-only", base])?;
    let new = git(&["-c", "core.quotepath=false", "ls-files", "--others", "--exclude-standard", "--full-name"])?;
    Ok(tracked.lines().chain(new.lines()).map(str::to_owned).collect())
}

fn git(words: &[&str]) -> Result<String, String> {
    let shown = || format!("git {}", words.join(" "));
    let output = Command::new("git").args(words).output();
    let output = output.map_err(|error| format!("cannot start git, which the job's image needs for this: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed: {}", shown(), said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(mapping: &str, changes: &[&str]) -> (Value, Vec<String>) {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        let asked = ask(&rules(mapping).unwrap(), &changes).unwrap();
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
    }

    #[test]
    fn configs_of_lines_that_match_are_listed_once() {
        let (_, configs) = asked("a/.* x 1 a.yml\nb/.* y 1 b.yml\n.* z 1 a.yml", &["a/1"]);
        assert_eq!(configs, ["a.yml"]);
    }

    #[test]
    fn a_pattern_that_nobody_can_read_is_named() {
        let error = ask(&rules("( b true").unwrap(), &["x".to_owned()]).unwrap_err();
        assert!(error.contains("the pattern ^(?:()$ cannot be read"), "{error}");
    }

    #[test]
    fn lines_that_make_no_sense_are_named() {
        for (line, words) in
            [("a b", "expected REGEX PARAMETER VALUE"), ("a b yes", "is no JSON value"), ("", "the mapping is empty")]
        {
            let error = rules(line).err().unwrap();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
