//! The graph of a pipeline's jobs: as text, for Graphviz, for Mermaid.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use navvy_job::pipeline::{Pipeline, Requirement, Selection, Workflow, WorkflowJob, WorkflowJobKind};

use super::list::{requirement, statuses};
use super::sanitize::clean;

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// What would run.
    Selected,
    /// Everything; what is left out is dimmed and says why.
    All,
}

impl Drawn {
    fn workflows(self, pipeline: &Pipeline) -> impl Iterator<Item = &Workflow> {
        pipeline.workflows.iter().filter(move |workflow| self == Self::All || workflow.selected.is_selected())
    }

    fn jobs(self, workflow: &Workflow) -> impl Iterator<Item = &WorkflowJob> {
        workflow.jobs.iter().filter(move |job| self == Self::All || job.selected.is_selected())
    }

    /// Values of a job's matrix, in words.
    fn matrix(self, job: &WorkflowJob) -> Option<String> {
        let values: Vec<String> =
            job.matrix.iter().map(|(name, value)| format!("{}={}", clean(name), clean(value))).collect();
        (self == Self::All && !values.is_empty()).then(|| values.join(", "))
    }
}

/// Why something is left out, if it is.
fn left(selection: &Selection) -> Option<String> {
    match selection {
        Selection::Selected => None,
        Selection::Left { reason } => Some(clean(reason)),
    }
}

/// A tree: each job stands below the one that it waits for longest, and names all that it waits for if that is not all
/// there is to say.
pub fn text(pipeline: &Pipeline, drawn: Drawn) -> String {
    let mut out = String::new();
    for workflow in drawn.workflows(pipeline) {
        let why = left(&workflow.selected).map(|why| format!("  (does not run: {why})"));
        let _ = writeln!(out, "{}{}", clean(&workflow.name), why.unwrap_or_default());
        let tree = Tree::of(workflow, drawn);
        tree.write(&mut out, None, "");
    }
    if out.is_empty() { "There is nothing to draw.\n".to_owned() } else { out }
}

/// Jobs by the job that they stand below.
struct Tree<'a> {
    children: BTreeMap<Option<&'a str>, Vec<&'a WorkflowJob>>,
    drawn: Drawn,
}

impl<'a> Tree<'a> {
    fn of(workflow: &'a Workflow, drawn: Drawn) -> Self {
        let depths = depths(workflow, drawn);
        let mut children: BTreeMap<Option<&str>, Vec<&WorkflowJob>> = BTreeMap::new();
        for job in drawn.jobs(workflow) {
            let names = job.requires.iter().map(|requirement| requirement.job.as_str());
            let parent = names.filter(|name| depths.contains_key(name)).max_by_key(|name| depths.get(name).copied());
            children.entry(parent).or_default().push(job);
        }
        Self { children, drawn }
    }

    fn write(&self, out: &mut String, below: Option<&str>, indent: &str) {
        let jobs = self.children.get(&below).map_or(&[][..], Vec::as_slice);
        for (index, job) in jobs.iter().enumerate() {
            let last = index + 1 == jobs.len();
            let (corner, bar) = if last { ("└─", "   ") } else { ("├─", "│  ") };
            let _ = writeln!(out, "{indent}{corner} {}", text_job(job, self.drawn));
            self.write(out, Some(&job.name), &format!("{indent}{bar}"));
        }
    }
}

fn text_job(job: &WorkflowJob, drawn: Drawn) -> String {
    let kind = match &job.kind {
        WorkflowJobKind::Build { job } if job.parallelism > 1 => format!(" ×{}", job.parallelism),
        WorkflowJobKind::Build { .. } => String::new(),
        WorkflowJobKind::Approval => " (approval)".to_owned(),
        WorkflowJobKind::NoOp => " (no-op)".to_owned(),
        WorkflowJobKind::Unavailable { .. } => " (not available here)".to_owned(),
    };
    let matrix = drawn.matrix(job).map(|values| format!(" [{values}]")).unwrap_or_default();
    let why = left(&job.selected).map(|why| format!("  (left out: {why})")).unwrap_or_default();
    let requires: Vec<String> = job.requires.iter().map(requirement).collect();
    let is_said =
        job.requires.iter().all(|requirement| statuses(&requirement.statuses).is_none()) && requires.len() < 2;
    let after = if is_said { String::new() } else { format!("  after {}", requires.join(", ")) };
    format!("{}{matrix}{kind}{after}{why}", clean(&job.name))
}

/// How many jobs come before each on the longest way.
fn depths(workflow: &Workflow, drawn: Drawn) -> BTreeMap<&str, usize> {
    let mut depths = BTreeMap::new();
    // Each round is right about one job more of every way. A cycle, which the config refuses, ends here as well.
    for _ in 0..workflow.jobs.len() {
        let before = depths.clone();
        for job in drawn.jobs(workflow) {
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
pub fn dot(pipeline: &Pipeline, drawn: Drawn) -> String {
    let mut out = String::from("digraph pipeline {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    for (index, workflow) in drawn.workflows(pipeline).enumerate() {
        let nodes = Nodes::of(workflow);
        let _ = writeln!(out, "  subgraph cluster_{index} {{\n    label={};", dot_label(&head(workflow)));
        if !workflow.selected.is_selected() {
            let _ = writeln!(out, "    fontcolor={FAINT}; color={FAINT};");
        }
        for job in drawn.jobs(workflow) {
            let label = dot_label(&lines(job, drawn));
            let _ = writeln!(out, "    {} [label={label}{}];", nodes.dot(&job.name), shape(job));
        }
        out.push_str("  }\n");
        for job in drawn.jobs(workflow) {
            dot_edges(&mut out, workflow, job, &nodes);
        }
    }
    out.push_str("}\n");
    out
}

const FAINT: &str = "gray60";

/// Name of a workflow, and why it does not run.
fn head(workflow: &Workflow) -> Vec<String> {
    std::iter::once(clean(&workflow.name))
        .chain(left(&workflow.selected).map(|why| format!("does not run: {why}")))
        .collect()
}

/// Name of a job and what there is to say of it.
fn lines(job: &WorkflowJob, drawn: Drawn) -> Vec<String> {
    let nodes = match &job.kind {
        WorkflowJobKind::Build { job } if drawn == Drawn::All && job.parallelism > 1 => {
            Some(format!("×{}", job.parallelism))
        }
        _ => None,
    };
    let why = left(&job.selected).map(|why| format!("left out: {why}"));
    std::iter::once(clean(&job.name)).chain(drawn.matrix(job)).chain(nodes).chain(why).collect()
}

fn dot_edges(out: &mut String, workflow: &Workflow, job: &WorkflowJob, nodes: &Nodes<'_>) {
    let to = nodes.dot(&job.name);
    for requirement in &job.requires {
        let from = nodes.dot(&requirement.job);
        let ends = statuses(&requirement.statuses).map(|ends| format!("label={}", quoted(&ends)));
        let faint = is_faint(workflow, job, requirement).then(|| format!("style=dotted, color={FAINT}"));
        let attributes: Vec<String> = ends.into_iter().chain(faint).collect();
        let attributes = if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
        let _ = writeln!(out, "  {from} -> {to}{attributes};");
    }
}

/// Does an edge start or end at a job that is left out?
fn is_faint(workflow: &Workflow, job: &WorkflowJob, requirement: &Requirement) -> bool {
    let is_left = |name: &str| workflow.jobs.iter().any(|job| job.name == name && !job.selected.is_selected());
    !job.selected.is_selected() || is_left(&requirement.job)
}

fn shape(job: &WorkflowJob) -> String {
    let shape = match &job.kind {
        WorkflowJobKind::Build { .. } => "",
        WorkflowJobKind::Approval => ", shape=diamond",
        WorkflowJobKind::NoOp => ", shape=ellipse",
        WorkflowJobKind::Unavailable { .. } => ", style=\"rounded,dashed\"",
    };
    let faint = format!(", style=\"rounded,dotted\", color={FAINT}, fontcolor={FAINT}");
    if job.selected.is_selected() {
        shape.to_owned()
    } else {
        format!("{}{faint}", shape.replace(", style=\"rounded,dashed\"", ""))
    }
}

/// Names of a workflow's jobs in a graph, each another.
struct Nodes<'a> {
    names: BTreeMap<&'a str, String>,
}

impl<'a> Nodes<'a> {
    /// Names that look alike once they are harmless get a number.
    fn of(workflow: &'a Workflow) -> Self {
        let mut taken = BTreeSet::new();
        let mut names = BTreeMap::new();
        for job in &workflow.jobs {
            let plain = format!("{}/{}", clean(&workflow.name), clean(&job.name));
            let numbered = (2..).map(|number| format!("{plain} #{number}"));
            let free = std::iter::once(plain.clone()).chain(numbered).find(|name| taken.insert(name.clone()));
            names.insert(job.name.as_str(), free.unwrap_or(plain));
        }
        Self { names }
    }

    fn dot(&self, job: &str) -> String {
        quoted(self.names.get(job).map_or(job, String::as_str))
    }
}

/// Lines below each other.
fn dot_label(lines: &[String]) -> String {
    format!("\"{}\"", lines.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\\n"))
}

/// A string of the DOT language. A backslash there starts an escape of its own, so it is doubled.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

fn escaped(text: &str) -> String {
    clean(text).replace('\\', "\\\\").replace('"', "\\\"")
}

/// A `flowchart`, one subgraph a workflow. Ids are numbers, so that no name can be taken for a word of the language.
pub fn mermaid(pipeline: &Pipeline, drawn: Drawn) -> String {
    let mut out = String::from("flowchart LR\n");
    let mut faint = Vec::new();
    for (number, workflow) in drawn.workflows(pipeline).enumerate() {
        let id =
            |name: &str| workflow.jobs.iter().position(|job| job.name == name).map(|job| format!("w{number}j{job}"));
        let _ = writeln!(out, "  subgraph w{number}[{}]", mermaid_label(&head(workflow)));
        for (job, id) in drawn.jobs(workflow).filter_map(|job| Some((job, id(&job.name)?))) {
            let (open, close) = brackets(job);
            let _ = writeln!(out, "    {id}{open}{}{close}", mermaid_label(&lines(job, drawn)));
            faint.extend((!job.selected.is_selected()).then_some(id));
        }
        out.push_str("  end\n");
        faint.extend((!workflow.selected.is_selected()).then(|| format!("w{number}")));
        for job in drawn.jobs(workflow) {
            for (requirement, from, to) in job.requires.iter().filter_map(|it| Some((it, id(&it.job)?, id(&job.name)?)))
            {
                let arrow = if is_faint(workflow, job, requirement) { "-.->" } else { "-->" };
                let ends = statuses(&requirement.statuses).map(|ends| format!("|{}|", mermaid_label(&[ends])));
                let _ = writeln!(out, "  {from} {arrow}{} {to}", ends.unwrap_or_default());
            }
        }
    }
    if !faint.is_empty() {
        out.push_str("  classDef left stroke-dasharray:3 3,stroke:#999,color:#999\n");
        let _ = writeln!(out, "  class {} left", faint.join(","));
    }
    out
}

fn brackets(job: &WorkflowJob) -> (&'static str, &'static str) {
    match &job.kind {
        WorkflowJobKind::Build { .. } => ("[", "]"),
        WorkflowJobKind::Approval => ("{", "}"),
        WorkflowJobKind::NoOp => ("([", "])"),
        WorkflowJobKind::Unavailable { .. } => ("[[", "]]"),
    }
}

fn mermaid_label(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| entities(line)).collect();
    let text = lines.join("<br/>");
    format!("\"{}\"", if text.is_empty() { " " } else { &text })
}

/// Everything but letters, digits and harmless marks by its number: Mermaid has no escape for quotes, reads Markdown
/// and HTML inside of them, and takes `#` for the start of such a number.
fn entities(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        if c.is_alphanumeric() || " -_./:,=×()".contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use navvy_job::outcome::JobStatus;

    use super::super::scene::pipeline;
    use super::*;

    #[test]
    fn as_text() {
        insta::assert_snapshot!(text(&pipeline(), Drawn::Selected), @r#"
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
        insta::assert_snapshot!(dot(&pipeline(), Drawn::Selected), @r#"
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
    fn everything_as_text() {
        insta::assert_snapshot!(text(&pipeline(), Drawn::All), @r#"
        shop
        ├─ lint
        ├─ unit-eur
        │  └─ integration ×4  after lint, unit-eur
        │     ├─ vm
        │     └─ hold (approval)
        │        ├─ release (not available here)
        │        └─ notify "all" (no-op)  after hold (any end)
        ├─ mac
        └─ docs  (left out: its branch filter does not match branch `main`)
        nightly  (does not run: it has a schedule)
        └─ slow
        "#);
    }

    #[test]
    fn everything_for_graphviz() {
        insta::assert_snapshot!(dot(&odd(), Drawn::All), @r#"
        digraph pipeline {
          rankdir=LR;
          node [shape=box, style=rounded];
          subgraph cluster_0 {
            label="end; [x]";
            "end; [x]/a\"b`\\<i>#1;& | end" [label="a\"b`\\<i>#1;& | end\nos=\"linux\""];
            "end; [x]/a\"b`\\<i>#1;&  | end" [label="a\"b`\\<i>#1;&  | end\nleft out: its branch filter", style="rounded,dotted", color=gray60, fontcolor=gray60];
            "end; [x]/integration" [label="integration\n×4"];
          }
          "end; [x]/a\"b`\\<i>#1;& | end" -> "end; [x]/integration" [label="success or failed"];
          "end; [x]/a\"b`\\<i>#1;&  | end" -> "end; [x]/integration" [style=dotted, color=gray60];
          subgraph cluster_1 {
            label="nightly\ndoes not run: it has a schedule";
            fontcolor=gray60; color=gray60;
            "nightly/slow" [label="slow"];
          }
        }
        "#);
    }

    #[test]
    fn for_mermaid() {
        insta::assert_snapshot!(mermaid(&odd(), Drawn::All), @r#"
        flowchart LR
          subgraph w0["end#59; #91;x#93;"]
            w0j0["a#34;b#96;#92;#60;i#62;#35;1#59;#38; #124; end<br/>os=#34;linux#34;"]
            w0j1["a#34;b#96;#92;#60;i#62;#35;1#59;#38;  #124; end<br/>left out: its branch filter"]
            w0j2["integration<br/>×4"]
          end
          w0j0 -->|"success or failed"| w0j2
          w0j1 -.-> w0j2
          subgraph w1["nightly<br/>does not run: it has a schedule"]
            w1j0["slow"]
          end
          classDef left stroke-dasharray:3 3,stroke:#999,color:#999
          class w0j1,w1 left
        "#);
        insta::assert_snapshot!(mermaid(&pipeline(), Drawn::Selected), @r#"
        flowchart LR
          subgraph w0["shop"]
            w0j0["lint"]
            w0j1["unit-eur"]
            w0j2["integration"]
            w0j3["mac"]
            w0j4["vm"]
            w0j5{"hold"}
            w0j6[["release"]]
            w0j7(["notify #34;all#34;"])
          end
          w0j0 --> w0j2
          w0j1 --> w0j2
          w0j2 --> w0j4
          w0j2 --> w0j5
          w0j5 --> w0j6
          w0j5 -->|"any end"| w0j7
        "#);
    }

    #[test]
    fn nothing_at_all() {
        let empty = Pipeline { setup: false, workflows: Vec::new() };
        assert_eq!(text(&empty, Drawn::All), "There is nothing to draw.\n");
        assert_eq!(mermaid(&empty, Drawn::All), "flowchart LR\n");
        assert!(dot(&empty, Drawn::All).ends_with("}\n"));
    }

    /// Names that mean something in other languages, a job that is left out, a matrix.
    fn odd() -> Pipeline {
        let mut pipeline = pipeline();
        let workflow = &mut pipeline.workflows[0];
        workflow.jobs.truncate(3);
        workflow.name = "end; [x]".to_owned();
        workflow.jobs[0].name = "a\"b`\\<i>#1;&\n| end".to_owned();
        workflow.jobs[0].matrix = [("os".to_owned(), "\"linux\"".to_owned())].into();
        workflow.jobs[1].name = "a\"b`\\<i>#1;&  | end".to_owned();
        workflow.jobs[1].selected = Selection::Left { reason: "its branch filter".to_owned() };
        workflow.jobs[2].requires = vec![
            Requirement {
                job: workflow.jobs[0].name.clone(),
                statuses: [JobStatus::Failed, JobStatus::Success].into(),
            },
            Requirement { job: workflow.jobs[1].name.clone(), statuses: [JobStatus::Success].into() },
        ];
        pipeline
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
        assert!(text(&pipeline, Drawn::All).contains("unit-eur"));
    }
}
