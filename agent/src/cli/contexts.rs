//! `navvy context`, `navvy project`: secrets that a processor keeps. Values go there and never come back.

use std::io::Read as _;

use navvy_job::claim::SshKey;
use navvy_job::exit_code;
use navvy_plain_file as plain_file;
use navvy_protocol::api;
use navvy_ui::sanitize::clean;
use navvy_ui::text;
use reqwest::Method;

use super::args::remote::{
    ContextCommand, ContextListArgs, ContextRemoveArgs, ContextSetArgs, DeployKeyArgs, ProjectCommand, ProjectListArgs,
    ProjectRemoveArgs, ProjectSetArgs, ValueArgs,
};
use super::pipelines::{all, table, tell};
use super::processor::{Processor, project};
use super::{CliError, host, out};
use crate::settings::Settings;
use crate::settings::env_table::is_name;
use crate::ssh_key;

/// No value is longer.
const LONGEST: u64 = 1 << 20;
/// No list is longer, whatever a processor says.
const MOST: usize = 10_000;

pub fn run(settings: &Settings, command: ContextCommand) -> Result<u8, CliError> {
    match command {
        ContextCommand::Set(arguments) => set(settings, &arguments),
        ContextCommand::Rm(arguments) => remove(settings, &arguments),
        ContextCommand::Ls(arguments) => list(settings, &arguments),
    }
}

pub fn run_project(settings: &Settings, command: ProjectCommand) -> Result<u8, CliError> {
    match command {
        ProjectCommand::SetVar(arguments) => set_of_project(settings, &arguments),
        ProjectCommand::RmVar(arguments) => remove_of_project(settings, &arguments),
        ProjectCommand::Vars(arguments) => list_of_project(settings, &arguments),
        ProjectCommand::DeployKey(arguments) => deploy_key(settings, &arguments),
    }
}

fn set(settings: &Settings, arguments: &ContextSetArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    check(&arguments.variable)?;
    let path = ["context", &arguments.name, "environment-variable", &arguments.variable];
    let value = api::Value { value: value(settings, &arguments.value)? };
    tell(&processor.ask(processor.client.send(Method::PUT, &path, &value))?)
}

fn remove(settings: &Settings, arguments: &ContextRemoveArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let name = arguments.name.as_str();
    let client = &processor.client;
    let removed = |variable: String| async move {
        client.delete::<api::Message>(&["context", name, "environment-variable", &variable]).await
    };
    if let Some(variable) = &arguments.variable {
        return tell(&processor.ask(removed(variable.clone()))?);
    }
    let count = processor.ask(async {
        let variables = all::<api::Named>(client, &["context", name, "environment-variable"], &[], MOST).await?;
        for variable in &variables {
            match removed(variable.name.clone()).await {
                // Somebody else was first.
                Err(error) if error.is_absent() => {}
                other => drop(other?),
            }
        }
        Ok(variables.len())
    })?;
    tell(&api::Message { message: format!("Context {name} is removed: {}", text::count(count, "variable")) })
}

fn list(settings: &Settings, arguments: &ContextListArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let (path, nothing) = match &arguments.name {
        Some(name) => (vec!["context", name, "environment-variable"], format!("Context {} is empty.\n", clean(name))),
        None => (vec!["context"], "There are no contexts.\n".to_owned()),
    };
    named(&processor, &path, arguments.json, &nothing)
}

fn named(processor: &Processor, path: &[&str], json: bool, nothing: &str) -> Result<u8, CliError> {
    let names = processor.ask(all::<api::Named>(&processor.client, path, &[], MOST))?;
    let row = |named: &api::Named| vec![clean(&named.name), clean(&named.created_at)];
    let text = match json {
        true => host::json_lines(&names)?,
        false if names.is_empty() => nothing.to_owned(),
        false => table(&names.iter().map(row).collect::<Vec<_>>()),
    };
    out::print(&text)?;
    Ok(exit_code::PASSED)
}

fn set_of_project(settings: &Settings, arguments: &ProjectSetArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.of.processor)?;
    let slug = project(settings, arguments.of.project.as_deref())?;
    check(&arguments.variable)?;
    let value = api::Value { value: value(settings, &arguments.value)? };
    let path = ["project", &slug, "envvar", &arguments.variable];
    tell(&processor.ask(processor.client.send(Method::PUT, &path, &value))?)
}

fn remove_of_project(settings: &Settings, arguments: &ProjectRemoveArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.of.processor)?;
    let slug = project(settings, arguments.of.project.as_deref())?;
    let path = ["project", &slug, "envvar", &arguments.variable];
    tell(&processor.ask(processor.client.delete(&path))?)
}

fn list_of_project(settings: &Settings, arguments: &ProjectListArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.of.processor)?;
    let slug = project(settings, arguments.of.project.as_deref())?;
    let nothing = format!("{} has no variables.\n", clean(&slug));
    named(&processor, &["project", &slug, "envvar"], arguments.json, &nothing)
}

fn deploy_key(settings: &Settings, arguments: &DeployKeyArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.of.processor)?;
    let slug = project(settings, arguments.of.project.as_deref())?;
    let text = value(settings, &arguments.value)?;
    let key = ssh_key::of_text(arguments.host.clone(), text).map_err(|error| {
        CliError::usage(error.to_string())
            .hint("`ssh-keygen -t ed25519 -N '' -f deploy-key` makes one without a passphrase.")
    })?;
    let SshKey { host, text, md5, sha256 } = key;
    let key = api::DeployKey { host, text, md5, sha256 };
    tell(&processor.ask(processor.client.send(Method::PUT, &["project", &slug, "deploy-key"], &key))?)
}

fn check(variable: &str) -> Result<(), CliError> {
    if is_name(variable) {
        return Ok(());
    }
    // It may be a value in the wrong place: it is not repeated.
    Err(CliError::usage("that is not a variable's name: it has letters, digits and _ only")
        .hint("The value comes from standard input, or from `--value-file FILE`."))
}

/// From a file, or from standard input. One line end at the end is left out: it is the editor's.
fn value(settings: &Settings, arguments: &ValueArgs) -> Result<String, CliError> {
    let mut text = match &arguments.value_file {
        Some(path) => plain_file::given_text(path, LONGEST)
            .map_err(|error| CliError::usage(format!("--value-file {}: {error}", path.display())))?,
        None => typed(settings)?,
    };
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    match text.is_empty() {
        true => Err(CliError::usage("the value is empty")),
        false => Ok(text),
    }
}

fn typed(settings: &Settings) -> Result<String, CliError> {
    if settings.stdin_is_terminal {
        return Err(CliError::usage("the value is to come from standard input, which is a terminal")
            .hint("Pipe it in (`pass show NAME | navvy …`), or name a file with `--value-file FILE`."));
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| CliError::usage(format!("the value cannot be read from standard input: {error}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(CliError::usage(format!("the value is longer than {} MiB", LONGEST >> 20)));
    }
    String::from_utf8(bytes).map_err(|_| CliError::usage("the value is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &[u8]) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        std::fs::write(&path, text).unwrap();
        let arguments = ValueArgs { value_file: Some(path) };
        value(&Settings::for_tests(&[]), &arguments).map_err(|error| error.render())
    }

    #[test]
    fn a_value_loses_one_line_end_and_nothing_else() {
        assert_eq!(from(b"a b \n").as_deref(), Ok("a b "));
        assert_eq!(from(b"a\r\n").as_deref(), Ok("a"));
        assert_eq!(from(b"a\n\n").as_deref(), Ok("a\n"));
        assert_eq!(from(b"a").as_deref(), Ok("a"));
        for bad in [&b""[..], b"\n", b"hunter2\xff", &vec![b'x'; (1 << 20) + 1]] {
            let told = from(bad).unwrap_err();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn a_value_in_the_place_of_a_name_is_not_repeated() {
        assert!(check("AWS_KEY").is_ok());
        for name in ["hunter2-x", "", "1A", "A=hunter2"] {
            let told = check(name).unwrap_err().render();
            assert!(told.contains("--value-file") && !told.contains("hunter2"), "{told}");
        }
    }
}
