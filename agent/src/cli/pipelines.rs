//! `navvy pipelines`: what a processor has of a project's pipelines, and what can be done with them.

use jiff::Timestamp;
use navvy_job::exit_code;
use navvy_protocol::api;
use navvy_ui::sanitize::clean;
use navvy_ui::text;
use reqwest::Method;

use super::args::remote::{
    PipelineApproveArgs, PipelineArgs, PipelineCancelArgs, PipelineRerunArgs, PipelinesCommand, PipelinesListArgs,
};
use super::args::store::ThereArgs;
use super::processor::{Processor, failed, project};
use super::{CliError, follow, host, out, submit};
use crate::remote::{Client, RemoteError};
use crate::settings::Settings;

/// Pipelines that are looked through for what their jobs left.
const NEWEST: usize = 20;
/// No list is longer, whatever a processor says.
const MOST: usize = 10_000;

pub fn run(settings: &Settings, command: PipelinesCommand) -> Result<u8, CliError> {
    match command {
        PipelinesCommand::Ls(arguments) => list(settings, &arguments),
        PipelinesCommand::Show(arguments) => show(settings, &arguments),
        PipelinesCommand::Cancel(arguments) => cancel(settings, &arguments),
        PipelinesCommand::Rerun(arguments) => rerun(settings, &arguments),
        PipelinesCommand::Approve(arguments) => approve(settings, &arguments),
    }
}

fn list(settings: &Settings, arguments: &PipelinesListArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let slug = project(settings, arguments.project.as_deref())?;
    let query = [("project", slug.clone())];
    let pipelines =
        processor.ask(all::<api::Pipeline>(&processor.client, &["pipeline"], &query, arguments.limit.min(MOST)))?;
    let text = match arguments.json {
        true => host::json_lines(&pipelines)?,
        false if pipelines.is_empty() => format!("There are no pipelines of {}.\n", clean(&slug)),
        false => table(&pipelines.iter().map(row).collect::<Vec<_>>()),
    };
    out::print(&text)?;
    Ok(exit_code::PASSED)
}

/// The items of all pages, until there are enough.
pub async fn all<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &[&str],
    query: &[(&str, String)],
    enough: usize,
) -> Result<Vec<T>, RemoteError> {
    let mut items = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut query = query.to_vec();
        query.extend(token.take().map(|token| ("page-token", token)));
        let page = client.get::<api::Page<T>>(path, &query).await?;
        let was_empty = page.items.is_empty();
        items.extend(page.items);
        match page.next_page_token {
            Some(next) if items.len() < enough && !was_empty => token = Some(next),
            _ => break,
        }
    }
    items.truncate(enough);
    Ok(items)
}

/// The pipeline that is named, or the newest of the project.
pub async fn pipelines_there(
    settings: &Settings,
    processor: &Processor,
    there: &ThereArgs,
    run: Option<&str>,
) -> Result<Vec<api::Pipeline>, CliError> {
    if let Some(id) = run {
        let detail: api::PipelineDetail = processor.client.get(&["pipeline", id], &[]).await.map_err(failed)?;
        return Ok(vec![detail.pipeline]);
    }
    let query = [("project", project(settings, there.project.as_deref())?)];
    all(&processor.client, &["pipeline"], &query, NEWEST).await.map_err(failed)
}

/// When a pipeline began, by its processor's word.
pub fn began(pipeline: &api::Pipeline) -> Result<Timestamp, CliError> {
    pipeline.created_at.parse().map_err(|_| {
        let (id, at) = (clean(&pipeline.id), clean(&pipeline.created_at));
        CliError::infra_text(format!("the processor says that pipeline {id} was created at {at:?}, which is no time"))
            .hint("Navvy here and the processor may be too far apart: see `navvy --version`.")
    })
}

fn row(pipeline: &api::Pipeline) -> Vec<String> {
    let vcs = &pipeline.vcs;
    let what = vcs.tag.as_ref().or(vcs.branch.as_ref()).map_or_else(|| "-".to_owned(), |name| clean(name));
    let revision = vcs.revision.as_deref().map_or("-", |revision| revision.get(..8).unwrap_or(revision));
    let subject = vcs.subject.as_deref().map(clean).unwrap_or_default();
    vec![
        pipeline.number.to_string(),
        clean(&pipeline.state),
        clean(&pipeline.created_at),
        what,
        clean(revision),
        clean(&pipeline.id),
        text::cut(&subject, 60),
    ]
}

/// Columns side by side; the last one ends where it ends.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| text::width(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| text::pad(cell, *width)).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn show(settings: &Settings, arguments: &PipelineArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let detail = processor.ask(processor.client.get(&["pipeline", &arguments.pipeline], &[]))?;
    out::print(&if arguments.json { host::json_lines([&detail])? } else { shown(&detail) })?;
    Ok(exit_code::PASSED)
}

fn shown(detail: &api::PipelineDetail) -> String {
    let pipeline = &detail.pipeline;
    let mut text = format!(
        "Pipeline {} of {}: {}\n{}\n",
        pipeline.number,
        clean(&pipeline.project_slug),
        clean(&pipeline.state),
        table(&[row(pipeline)]).trim_end()
    );
    for workflow in &detail.workflows {
        text.push_str(&format!("\n{}\n", clean(&workflow.name)));
        let mut rows = Vec::new();
        for job in &workflow.jobs {
            let number = job.job_number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let why = job.why.as_deref().map(clean).unwrap_or_default();
            rows.push(vec![format!("  {}", clean(&job.name)), clean(&job.status), number, why]);
            rows.extend(job.tasks.iter().map(task_row));
        }
        text.push_str(&table(&rows));
    }
    text
}

fn task_row(task: &api::Task) -> Vec<String> {
    let agent = task.agent.as_deref().map(|agent| format!("on {}", clean(agent)));
    let output = task.output.as_deref().map(|output| format!("output {}", clean(output)));
    let rest: Vec<String> = agent.into_iter().chain(output).collect();
    vec![format!("    task {}", clean(&task.id)), clean(&task.state), format!("node {}", task.node), rest.join(", ")]
}

fn cancel(settings: &Settings, arguments: &PipelineCancelArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let body = api::CancelPipeline { at_once: arguments.at_once };
    let path = ["pipeline", &arguments.pipeline, "cancel"];
    let said = processor.ask(processor.client.send::<api::Message>(Method::POST, &path, &body))?;
    tell(&said)
}

fn approve(settings: &Settings, arguments: &PipelineApproveArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let asked = follow::approve(&processor.client, &arguments.pipeline, &arguments.job, !arguments.deny);
    tell(&processor.ask(asked)?)
}

fn rerun(settings: &Settings, arguments: &PipelineRerunArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let body = api::Rerun { from_failed: arguments.from_failed };
    let path = ["pipeline", &arguments.pipeline, "rerun"];
    host::finish(host::runtime()?, async {
        let submitted = processor.client.send(Method::POST, &path, &body).await.map_err(failed)?;
        submit::tell(settings, &processor, "", &submitted, &arguments.view, arguments.follow).await
    })
}

/// What a processor says that it has done.
pub fn tell(said: &api::Message) -> Result<u8, CliError> {
    out::print(&format!("{}\n", clean(&said.message)))?;
    Ok(exit_code::PASSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_stranger_reach_no_terminal_as_they_are() {
        let evil = || "\u{1b}]0;owned\u{7}<b>x</b>\u{9b}31m\nnext".to_owned();
        let task = api::Task { id: evil(), node: 0, state: evil(), agent: Some(evil()), output: Some(evil()) };
        let job = api::Job {
            id: evil(),
            name: evil(),
            job_number: None,
            status: evil(),
            why: Some(evil()),
            tasks: vec![task],
        };
        let vcs = api::Vcs {
            branch: Some(evil()),
            revision: Some("é\u{1b}[31mxxxxxxxxx".to_owned()),
            subject: Some(evil()),
            ..api::Vcs::default()
        };
        let pipeline =
            api::Pipeline { id: evil(), number: 7, project_slug: evil(), state: evil(), created_at: evil(), vcs };
        let workflows = vec![api::Workflow { id: evil(), name: evil(), jobs: vec![job] }];
        let text = shown(&api::PipelineDetail { pipeline, workflows });
        assert!(text.contains("Pipeline 7 of") && text.contains("<b>x</b>"), "{text}");
        let is_control = |character: char| character.is_control() && character != '\n';
        assert!(!text.contains(is_control), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("next")), "{text:?}");
    }

    #[test]
    fn columns_stand_side_by_side() {
        let rows = [vec!["a".to_owned(), "long".to_owned()], vec!["bcd".to_owned(), "x".to_owned(), "y".to_owned()]];
        assert_eq!(table(&rows), "a    long\nbcd  x     y\n");
        assert_eq!(table(&[]), "");
    }
}
