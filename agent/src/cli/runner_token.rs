//! `navvy runner-token`: the right to take tasks of one resource class.

use navvy_job::exit_code;
use navvy_protocol::api;
use reqwest::Method;
use serde::Deserialize;

use super::args::remote::RunnerTokenArgs;
use super::pipelines::tell;
use super::processor::Processor;
use super::{CliError, out};
use crate::settings::Settings;

/// A token that was made.
#[derive(Deserialize)]
struct NewToken {
    token: String,
}

pub fn run(settings: &Settings, arguments: &RunnerTokenArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let path = ["runner", "token", &arguments.class];
    if arguments.revoke {
        let done: api::Message = processor.ask(processor.client.delete(&path))?;
        return tell(&done);
    }
    let new: NewToken = processor.ask(processor.client.send(Method::POST, &path, &serde_json::json!({})))?;
    // For a file: nothing but the token stands on the line.
    out::print(&format!("{}\n", navvy_ui::sanitize::clean(&new.token)))?;
    Ok(exit_code::PASSED)
}
