//! The graph of a pipeline's jobs, as text and for Graphviz. Jobs and workflows that are left out are left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use navvy_job::pipeline::{Pipeline, Workflow, WorkflowJob, WorkflowJobKind};

use super::list::{requirement, statuses};
use super::sanitize::clean;

/// A tree: each job stands below the one that it waits for longest, and names all that it waits for if that is not all
/// there is to say.
pub fn text(pipeline: &Pipeline) -> String {
    let mut out = String::new();
    for workflow in selected(pipeline) {
        let _ = writeln!(out, "{}", clean(&workflow.name));
        let tree = Tree::of(workflow);
        tree.write(&mut out, None, "");
    }
    out
}

/// Jobs by the job that they stand below.
struct Tree<'a> {
    children: BTreeMap<Option<&'a str>, Vec<&'a WorkflowJob>>,
}

impl<'a> Tree<'a> {
    fn of(workflow: &'a Workflow) -> Self {
        let depths = depths(workflow);
        let mut children: BTreeMap<Option<&str>, Vec<&WorkflowJob>> = BTreeMap::new();
        for job in jobs(workflow) {
            let names = job.requires.iter().map(|requirement| requirement.job.as_str());
            let parent = names.filter(|name| depths.contains_key(name)).max_by_key(|name| depths.get(name).copied());
            children.entry(parent).or_default().push(job);
        }
        Self { children }
    }

    fn write(&self, out: &mut String, below: Option<&str>, indent: &str) {
        let jobs = self.children.get(&below).map_or(&[][..], Vec::as_slice);
        for (index, job) in jobs.iter().enumerate() {
            let last = index + 1 == jobs.len();
            let (corner, bar) = if last { ("└─", "   ") } else { ("├─", "│  ") };
            let _ = writeln!(out, "{indent}{corner} {}", text_job(job));
            self.write(out, Some(&job.name), &format!("{indent}{bar}"));
        }
    }
}

fn text_job(job: &WorkflowJob) -> String {
    let kind = match &job.kind {
        WorkflowJobKind::Build { job } if job.parallelism > 1 => format!(" ×{}", job.parallelism),
        WorkflowJobKind::Build { .. } => String::new(),
        WorkflowJobKind::Approval => " (approval)".to_owned(),
        WorkflowJobKind::NoOp => " (no-op)".to_owned(),
        WorkflowJobKind::Unavailable { .. } => " (not available here)".to_owned(),
    };
    let requires: Vec<String> = job.requires.iter().map(requirement).collect();
    let is_said =
        job.requires.iter().all(|requirement| statuses(&requirement.statuses).is_none()) && requires.len() < 2;
    let after = if is_said { String::new() } else { format!("  after {}", requires.join(", ")) };
    format!("{}{kind}{after}", clean(&job.name))
}

/// How many jobs come before each on the longest way.
fn depths(workflow: &Workflow) -> BTreeMap<&str, usize> {
    let mut depths = BTreeMap::new();
    // Each round is right about one job more of every way. A cycle, which the config refuses, ends here as well.
    for _ in 0..workflow.jobs.len() {
        let before = depths.clone();
        for job in jobs(workflow) {
            let deepest = job.requires.iter().filter_map(|requirement| depths.get(requirement.job.as_str())).max();
            depths.insert(job.name.as_str(), deepest.map_or(0, |deepest| deepest + 1));
        }
        if depths == before {
            break;
        }
    }
    depths
}

/// A `digraph`, one cluster a workflow.
pub fn dot(pipeline: &Pipeline) -> String {
    let mut out = String::from("digraph pipeline {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    for (index, workflow) in selected(pipeline).enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{index} {{\n    label={};", quoted(&workflow.name));
        for job in jobs(workflow) {
            let _ = writeln!(out, "    {} [label={}{}];", node(workflow, &job.name), quoted(&job.name), shape(job));
        }
        out.push_str("  }\n");
        for job in jobs(workflow) {
            dot_edges(&mut out, workflow, job);
        }
    }
    out.push_str("}\n");
    out
}

fn dot_edges(out: &mut String, workflow: &Workflow, job: &WorkflowJob) {
    let to = node(workflow, &job.name);
    for requirement in &job.requires {
        let from = node(workflow, &requirement.job);
        let ends = statuses(&requirement.statuses).map(|ends| format!(" [label={}]", quoted(&ends)));
        let _ = writeln!(out, "  {from} -> {to}{};", ends.unwrap_or_default());
    }
}

fn shape(job: &WorkflowJob) -> &'static str {
    match &job.kind {
        WorkflowJobKind::Build { .. } => "",
        WorkflowJobKind::Approval => ", shape=diamond",
        WorkflowJobKind::NoOp => ", shape=ellipse",
        WorkflowJobKind::Unavailable { .. } => ", style=\"rounded,dashed\"",
    }
}

fn node(workflow: &Workflow, job: &str) -> String {
    quoted(&format!("{}/{job}", workflow.name))
}

/// A string of the DOT language. A backslash there starts an escape of its own, so it is doubled.
fn quoted(text: &str) -> String {
    format!("\"{}\"", clean(text).replace('\\', "\\\\").replace('"', "\\\""))
}

fn selected(pipeline: &Pipeline) -> impl Iterator<Item = &Workflow> {
    pipeline.workflows.iter().filter(|workflow| workflow.selected.is_selected())
}

fn jobs(workflow: &Workflow) -> impl Iterator<Item = &WorkflowJob> {
    workflow.jobs.iter().filter(|job| job.selected.is_selected())
}

#[cfg(test)]
mod tests {
    use super::super::scene::pipeline;
    use super::*;

    #[test]
    fn as_text() {
        insta::assert_snapshot!(text(&pipeline()), @r#"
        shop
        ├─ lint
        ├─ unit-eur
        │  └─ integration ×4  after lint, unit-eur
        │     ├─ vm
        │     └─ hold (approval)
        │        ├─ release (not available here)
        │        └─ notify "all" (no-op)  after hold (any end)
        └─ mac
        "#);
    }

    #[test]
    fn for_graphviz() {
        insta::assert_snapshot!(dot(&pipeline()), @r#"
        digraph pipeline {
          rankdir=LR;
          node [shape=box, style=rounded];
          subgraph cluster_0 {
            label="shop";
            "shop/lint" [label="lint"];
            "shop/unit-eur" [label="unit-eur"];
            "shop/integration" [label="integration"];
            "shop/mac" [label="mac"];
            "shop/vm" [label="vm"];
            "shop/hold" [label="hold", shape=diamond];
            "shop/release" [label="release", style="rounded,dashed"];
            "shop/notify \"all\"" [label="notify \"all\"", shape=ellipse];
          }
          "shop/lint" -> "shop/integration";
          "shop/unit-eur" -> "shop/integration";
          "shop/integration" -> "shop/vm";
          "shop/integration" -> "shop/hold";
          "shop/hold" -> "shop/release";
          "shop/hold" -> "shop/notify \"all\"" [label="any end"];
        }
        "#);
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"; b [label=\\\n\x1b[31mx"), r#""a\"; b [label=\\ x""#);
    }

    #[test]
    fn a_cycle_ends() {
        let mut pipeline = pipeline();
        let jobs = &mut pipeline.workflows[0].jobs;
        let mut back = jobs[2].requires[0].clone();
        back.job = jobs[5].name.clone();
        jobs[0].requires = vec![back];
        assert!(text(&pipeline).contains("unit-eur"));
    }
}
