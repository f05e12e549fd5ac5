//! `-e`, `--var`, `--env-file` and what settings say of the same: words to variables.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use navvy_job::chain::chain;
use navvy_job::compiled::Variables;

use super::CliError;
use super::args::GivenArgs;
use crate::pipeline::{Entry, Given, read_env_file, understand_env_file};
use crate::settings::Settings;
use crate::settings::env_table::is_name;
use crate::settings::file::{SettingsFile, SettingsFiles, Whose};

/// What settings and command line give jobs. Low to high: the user's settings, the project's, `--env-file`, contexts, `-e` and
/// `--var`; in settings `[env]` stands above `env-file`. Of the user's own files only those that are `handed` out.
pub fn given(
    arguments: &GivenArgs,
    files: &SettingsFiles,
    settings: &Settings,
    handed: &BTreeSet<PathBuf>,
) -> Result<Given, CliError> {
    let mut below = Vec::new();
    for file in [&files.user, &files.project] {
        below.extend(Entry::all(named_in(file, settings, handed)?, false));
        below.extend(Entry::all(file.tables.env.0.clone(), true));
    }
    for path in &arguments.env_file {
        below.extend(Entry::all(read_env_file(path).map_err(|error| CliError::config(chain(&error)))?, false));
    }
    let (secret, plain) = (words("-e", &arguments.env, settings)?, words("--var", &arguments.vars, settings)?);
    if let Some((name, _)) = plain.iter().find(|(name, _)| secret.iter().any(|(known, _)| known == name)) {
        return Err(CliError::usage(format!("{name} is given twice: by -e as a secret, and by --var"))
            .hint("Keep --var if everybody may see its value, else -e."));
    }
    Ok(Given { below, above: [Entry::all(secret, false), Entry::all(plain, true)].concat() })
}

/// The variables of a settings file's `env-file`.
fn named_in(file: &SettingsFile, settings: &Settings, handed: &BTreeSet<PathBuf>) -> Result<Variables, CliError> {
    let mut variables = Variables::new();
    let wanted = |path: &Path| file.whose == Whose::Project || handed.contains(path);
    let read = file.env_files(settings.home.as_deref(), wanted);
    for (path, text) in read.map_err(|error| CliError::usage(chain(&error)))? {
        let found = understand_env_file(&path, &text).map_err(|error| CliError::config(chain(&error)))?;
        variables.extend(found);
    }
    Ok(variables)
}

/// `NAME=VALUE`, or `NAME` for the caller's own value.
fn words(flag: &str, words: &[String], settings: &Settings) -> Result<Variables, CliError> {
    let variable = |text: &String| {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.as_str(), settings.get(text)),
        };
        if !is_name(name) {
            // It may be a value in the wrong place: it is not repeated.
            let message = format!("{flag}: the value is not NAME=VALUE; a NAME has letters, digits and _ only");
            return Err(CliError::usage(message));
        }
        let value =
            value.ok_or_else(|| CliError::usage(format!("{flag} {name}: you have no variable of this name")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    words.iter().map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::file::PROJECT_FILE;

    fn of(env: &[&str], vars: &[&str]) -> Result<Given, CliError> {
        let settings = Settings::for_tests(&[("MINE", "my value")]);
        let files = SettingsFiles::read(&settings, Path::new("/nonexistent")).unwrap();
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let arguments = GivenArgs { env: owned(env), vars: owned(vars), env_file: Vec::new() };
        given(&arguments, &files, &settings, &BTreeSet::new())
    }

    fn shown(entries: &[Entry]) -> Vec<String> {
        let sign = |entry: &Entry| if entry.is_plain { "" } else { "*" };
        entries.iter().map(|entry| format!("{}{}={}", sign(entry), entry.name, entry.value)).collect()
    }

    #[test]
    fn plain_variables_are_given_like_secret_ones() {
        let given = of(&["A=b=c", "MINE"], &["C=d", "MINE_TOO=", "C=e"]).unwrap();
        assert_eq!(shown(&given.above), ["*A=b=c", "*MINE=my value", "C=d", "MINE_TOO=", "C=e"]);
        assert_eq!(shown(&of(&[], &["MINE"]).unwrap().above), ["MINE=my value"]);
    }

    #[test]
    fn settings_stand_below_the_command_line_and_the_user_s_below_the_project_s() {
        let scratch = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(scratch.path().join(name), text).unwrap();
        write("settings.toml", "env-file = ['user.env']\n[env]\nA = 'user'\n");
        write(PROJECT_FILE, "env-file = ['project.env']\n[env]\nA = 'project'\n");
        write("user.env", "A=user's file\n");
        write("project.env", "A=project's file\n");
        write("flag.env", "A=flag\n");
        let mut settings = Settings::for_tests(&[]);
        settings.file = Some(scratch.path().join("settings.toml"));
        let files = SettingsFiles::read(&settings, scratch.path()).unwrap();
        let arguments = GivenArgs { env_file: vec![scratch.path().join("flag.env")], ..GivenArgs::default() };
        let mine = BTreeSet::from([scratch.path().join("user.env")]);
        let given = |files| given(&arguments, files, &settings, &mine);
        let expected = ["*A=user's file", "A=user", "*A=project's file", "A=project", "*A=flag"];
        assert_eq!(shown(&given(&files).unwrap().below), expected);
        let without = super::given(&arguments, &files, &settings, &BTreeSet::new()).unwrap();
        assert_eq!(shown(&without.below), ["A=user", "*A=project's file", "A=project", "*A=flag"]);
        write("project.env", "A=1\nhunter2\n");
        let error = given(&files).err().expect("it is refused").render();
        assert!(error.contains("project.env:2: expected NAME=VALUE") && !error.contains("hunter2"), "{error}");
        std::fs::remove_file(scratch.path().join("project.env")).unwrap();
        let error = given(&files).err().expect("it is refused").render();
        assert!(error.contains(PROJECT_FILE) && error.contains("env-file project.env"), "{error}");
    }

    #[test]
    fn words_that_make_no_sense_are_refused_and_values_are_not_repeated() {
        let told = |env: &[&str], vars: &[&str]| of(env, vars).err().expect("it is refused").render();
        assert!(told(&[], &["A-B=hunter2"]).contains("--var: the value is not NAME=VALUE"));
        assert!(!told(&[], &["A-B=hunter2"]).contains("hunter2"));
        assert!(told(&[], &["NOT_MINE"]).contains("--var NOT_MINE: you have no variable of this name"));
        assert!(told(&["A=1"], &["A=2"]).contains("A is given twice"));
    }
}
