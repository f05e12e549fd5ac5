//! `-e`, `--var` and `--env-file`: words to variables.

use std::path::PathBuf;

use navvy_job::compiled::Variables;

use super::CliError;
use super::args::GivenArgs;
use crate::chain::chain;
use crate::pipeline::{Given, is_name, read_env_file};
use crate::settings::Settings;

/// What the command line gives jobs.
pub fn given(arguments: &GivenArgs, settings: &Settings) -> Result<Given, CliError> {
    let given = Given {
        files: files(&arguments.env_file)?,
        command_line: words("-e", &arguments.env, settings)?,
        plain: words("--var", &arguments.vars, settings)?,
    };
    let is_secret = |name: &str| given.command_line.iter().any(|(known, _)| known == name);
    match given.plain.iter().find(|(name, _)| is_secret(name)) {
        Some((name, _)) => Err(CliError::usage(format!("{name} is given twice: by -e as a secret, and by --var"))
            .hint("Keep --var if everybody may see its value, else -e.")),
        None => Ok(given),
    }
}

fn files(files: &[PathBuf]) -> Result<Variables, CliError> {
    let mut variables = Vec::new();
    for path in files {
        variables.extend(read_env_file(path).map_err(|error| CliError::config(chain(&error)))?);
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
            let message = format!("{flag}: what stands there is no NAME=VALUE; a NAME has letters, digits and _ only");
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

    fn of(env: &[&str], vars: &[&str]) -> Result<Given, CliError> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let arguments = GivenArgs { env: owned(env), vars: owned(vars), env_file: Vec::new() };
        given(&arguments, &Settings::for_tests(&[("MINE", "my value")]))
    }

    #[test]
    fn plain_variables_are_given_like_secret_ones() {
        let given = of(&["A=b=c", "MINE"], &["C=d", "MINE_TOO=", "C=e"]).unwrap();
        assert_eq!(
            given.command_line,
            [("A".to_owned(), "b=c".to_owned()), ("MINE".to_owned(), "my value".to_owned())]
        );
        assert_eq!(given.plain.last().unwrap().1, "e");
        assert_eq!(of(&[], &["MINE"]).unwrap().plain[0].1, "my value");
    }

    #[test]
    fn words_that_make_no_sense_are_refused_and_values_are_not_repeated() {
        let told = |env: &[&str], vars: &[&str]| of(env, vars).err().expect("it is refused").render();
        assert!(told(&[], &["A-B=hunter2"]).contains("--var: what stands there is no NAME=VALUE"));
        assert!(!told(&[], &["A-B=hunter2"]).contains("hunter2"));
        assert!(told(&[], &["NOT_MINE"]).contains("--var NOT_MINE: you have no variable of this name"));
        assert!(told(&["A=1"], &["A=2"]).contains("A is given twice"));
    }
}
