//! `navvy config explain JOB`.

use std::fmt::Write as _;

use navvy_config::{ExplainedValue, Explanation};
use navvy_job::pipeline::Pipeline;
use navvy_ui::sanitize::clean;
use navvy_ui::text;

use super::{Looked, print};
use crate::cli::CliError;
use crate::cli::args::config::ExplainArgs;
use crate::settings::Settings;

/// Values longer than this are cut: the config has them in full.
const WIDEST_VALUE: usize = 60;

pub fn run(settings: &Settings, arguments: &ExplainArgs) -> Result<u8, CliError> {
    let looked = Looked::at(settings, &arguments.look)?;
    let workflow = arguments.workflow.as_deref();
    let explained = navvy_config::explain(&looked.file.source(), &looked.inputs, &arguments.job, workflow);
    looked.check(&explained.outcome)?;
    if explained.found.is_empty() {
        return Err(not_found(arguments, explained.outcome.pipeline.as_ref(), explained.neighbour));
    }
    let on = match (&looked.inputs.tag, &looked.inputs.branch) {
        (Some(tag), _) => format!("tag {tag}"),
        (None, Some(branch)) => format!("branch {branch}"),
        (None, None) => "no branch".to_owned(),
    };
    let told: Vec<String> = explained.found.iter().map(|found| render(found, &on)).collect();
    print(&told.join("\n"))
}

fn not_found(arguments: &ExplainArgs, pipeline: Option<&Pipeline>, neighbour: Option<String>) -> CliError {
    let job = &arguments.job;
    let workflows: Vec<&str> =
        pipeline.iter().flat_map(|pipeline| &pipeline.workflows).map(|workflow| workflow.name.as_str()).collect();
    let error = match &arguments.workflow {
        Some(name) if !workflows.contains(&name.as_str()) => {
            let known = workflows.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return CliError::config(format!("there is no workflow named `{name}`"))
                .hint(format!("There are {known}."));
        }
        Some(name) => CliError::config(format!("workflow `{name}` has no job named `{job}`")),
        None => CliError::config(format!("no workflow has a job named `{job}`")),
    };
    match neighbour {
        Some(name) => error.hint(format!("Did you mean `{name}`?")),
        None => error.hint("`navvy run --list` shows all workflows and jobs."),
    }
}

fn render(found: &Explanation, on: &str) -> String {
    let mut out = String::new();
    let verb = if found.runs { "runs" } else { "does not run" };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{} of workflow {}: {verb} on {}", clean(&found.job), clean(&found.workflow), clean(on));
    for why in &found.why {
        let _ = writeln!(out, "  - {}", clean(why));
    }
    out.push('\n');
    let widths =
        [|told: &ExplainedValue| text::width(&clean(&told.name)), |told: &ExplainedValue| text::width(&value(told))]
            .map(|width| found.values.iter().map(width).max().unwrap_or(0));
    for told in &found.values {
        let name = text::pad(&clean(&told.name), widths[0]);
        let _ = writeln!(out, "  {name}  {}  {}", text::pad(&value(told), widths[1]), clean(&told.from));
    }
    out
}

fn value(told: &ExplainedValue) -> String {
    text::cut(&clean(&told.value), WIDEST_VALUE)
}
