//! `circleci path-filtering …`: pipeline parameters from what changed, as the original's path-filtering orb makes them.
//!
//! ```text
//! base revision ─▶ merge base with HEAD ─▶ changed files ─▶ list of them
//!                                             │ exclude
//! mapping lines: REGEX PARAMETER VALUE [CONFIG] ──────────▶ parameters.json, list of configs
//! ```

mod mapping;

use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::{Map, Value};

use self::mapping::{Asked, Mapping, Version};
use super::options::Options;
use super::{complain, say};

const CONFIG_LIST: &str = "/tmp/filtered-config-list";
const OPTIONS: [&str; 9] = [
    "base-revision",
    "mapping",
    "mapping-version",
    "exclude",
    "same-base-run",
    "output",
    "config",
    "config-list",
    "files",
];

/// What HEAD is compared with.
enum Base {
    Revision(String),
    /// HEAD is the base revision, and is not to be compared with the commit before.
    Itself,
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
    let options = Options::parse(words, &OPTIONS)?;
    let version = Version::parse(options.get("mapping-version"))?;
    let mapping = Mapping::parse(&text(options.required("mapping")?)?, version)?;
    let exclude = text(options.get("exclude").unwrap_or_default())?;
    let output = options.required("output")?;
    let base = base(options.required("base-revision")?, options.is_on("same-base-run", true)?)?;
    let changes = match &base {
        Base::Revision(base) => changes(base)?,
        Base::Itself => Vec::new(),
    };
    let asked = mapping.ask(&mapping::without(&changes, &exclude)?)?;
    write(output, &Value::Object(asked.parameters.clone()).to_string())?;
    write(options.get("config-list").unwrap_or(CONFIG_LIST), &configs(&asked, options.get("config")))?;
    if let Some(list) = options.get("files") {
        write(list, &format!("{}\n", changes.join(",")))?;
    }
    Ok(told(&base, changes.len(), asked.parameters))
}

/// One a line: those of the mapping, or else the one for when it names none.
fn configs(asked: &Asked, otherwise: Option<&str>) -> String {
    let configs: Vec<&str> = match asked.configs.is_empty() {
        true => otherwise.into_iter().filter(|config| !config.is_empty()).collect(),
        false => asked.configs.iter().map(String::as_str).collect(),
    };
    configs.iter().map(|config| format!("{config}\n")).collect()
}

fn told(base: &Base, changes: usize, parameters: Map<String, Value>) -> String {
    let Base::Revision(base) = base else {
        return "HEAD is the base revision itself: nothing counts as changed\n".to_owned();
    };
    let files = if changes == 1 { "1 file differs".to_owned() } else { format!("{changes} files differ") };
    let given = match parameters.is_empty() {
        true => "no line of the mapping asks for a parameter".to_owned(),
        false => Value::Object(parameters).to_string(),
    };
    format!("{files} from {base}: {given}\n")
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

/// The text itself, or that of the file it names.
fn text(text: &str) -> Result<String, String> {
    match Path::new(text).is_file() {
        true => std::fs::read_to_string(text).map_err(|error| format!("cannot read {text}: {error}")),
        false => Ok(text.to_owned()),
    }
}

/// Where this branch left the base revision; on the base itself, the commit before, if that is wanted.
fn base(wanted: &str, before: bool) -> Result<Base, String> {
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
        return Ok(Base::Revision(merge_base));
    }
    if !before {
        return Ok(Base::Itself);
    }
    // The first commit of all differs from nothing.
    let parent = git(&["rev-parse", "--verify", "--quiet", "HEAD~1"]);
    parent.or_else(|_| git(&["hash-object", "-t", "tree", "/dev/null"])).map(Base::Revision)
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
