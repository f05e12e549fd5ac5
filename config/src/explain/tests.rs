use super::explain;
use crate::input::{Inputs, Source};
use crate::testing::fixtures;

fn on(branch: Option<&str>, tag: Option<&str>) -> Inputs {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Inputs { branch: owned(branch), tag: owned(tag), allow_missing_orbs: true, ..Inputs::default() }
}

/// Every line of every explanation.
fn told(text: &str, inputs: &Inputs, job: &str, workflow: Option<&str>) -> String {
    let explained = explain(&Source { name: "config.yml", text }, inputs, job, workflow);
    let mut out = String::new();
    for found in &explained.found {
        let runs = if found.runs { "runs" } else { "does not run" };
        out += &format!("{}/{} {runs}\n", found.workflow, found.job);
        found.why.iter().for_each(|why| out += &format!("  {why}\n"));
        found.values.iter().for_each(|told| out += &format!("  {} = {} [{}]\n", told.name, told.value, told.from));
    }
    out + &explained.neighbour.map(|name| format!("did you mean {name}?\n")).unwrap_or_default()
}

fn everything() -> String {
    fixtures().into_iter().find(|(name, _)| name == "everything.yml").unwrap().1
}

fn why(text: &str, inputs: &Inputs, job: &str) -> Vec<String> {
    explain(&Source { name: "config.yml", text }, inputs, job, None).found.remove(0).why
}

#[test]
fn every_value_names_its_line() {
    insta::assert_snapshot!(told(&everything(), &on(Some("main"), None), "build-plain", None));
}

#[test]
fn an_executor_with_arguments_and_the_jobs_own_class() {
    insta::assert_snapshot!(told(&everything(), &on(Some("release/2"), None), "test", Some("main")));
}

#[test]
fn a_name_in_several_workflows_is_told_for_each() {
    let text = everything();
    let explained = explain(&Source { name: "c", text: &text }, &on(Some("main"), None), "test", None);
    let names: Vec<_> = explained.found.iter().map(|it| (it.workflow.as_str(), it.job.as_str(), it.runs)).collect();
    assert_eq!(names, [("main", "test", true), ("nightly", "test", false)]);
}

#[test]
fn a_name_that_does_not_exist_has_its_neighbour() {
    assert_eq!(told(&everything(), &on(Some("main"), None), "deplyo", None), "did you mean deploy?\n");
    assert_eq!(told(&everything(), &on(Some("main"), None), "build", Some("nightly")), "");
}

#[test]
fn where_there_is_no_branch_the_filter_is_told() {
    let text = "version: 2.1\njobs:\n  j: {docker: [{image: i}], steps: [checkout]}\nworkflows:\n  w:\n    jobs:\n      - j: \
                {filters: {branches: {only: main}}}\n      - j: {name: k}\n";
    let told = why(text, &on(None, None), "j");
    assert!(
        told[1].starts_with("its branch filter keeps out what has no branch: nothing in `only` matches"),
        "{told:?}"
    );
    assert_eq!(why(text, &on(None, None), "k")[1], "it has no branch filter: it needs no branch");
}

#[test]
fn without_workflows_and_without_anything_to_run() {
    let implicit = fixtures().into_iter().find(|(name, _)| name == "implicit.yml").unwrap().1;
    let told = why(&implicit, &on(Some("docs"), None), "build");
    assert_eq!(told[0], "the config has no workflows: its job `build` runs on every push (config.yml:3)");
    assert_eq!(told[1], "its branch filter keeps out branch `docs`: `ignore` names `docs` (config.yml:5)");
    let people = fixtures().into_iter().find(|(name, _)| name == "approvals.yml").unwrap().1;
    let explained = explain(&Source { name: "c", text: &people }, &on(Some("main"), None), "first: the boss", None);
    assert_eq!(explained.found[0].values[0].value, "an approval: a person lets it pass");
}

/// Each layer requires all of the one before it, and the first is left out: the reasons are not written out each time.
#[test]
fn a_wide_and_deep_graph_is_explained_in_bounded_space() {
    let mut text = String::from("version: 2.1\njobs: {b: {type: no-op}}\nworkflows:\n  w:\n    jobs:\n");
    for layer in 0_i32..6 {
        for job in 0..12 {
            let before: Vec<String> = (0..12).map(|other| format!("j{}-{other}", layer - 1)).collect();
            let rest = match layer {
                0 => "filters: {branches: {only: never}}".to_owned(),
                _ => format!("requires: [{}]", before.join(", ")),
            };
            text += &format!("      - b: {{name: j{layer}-{job}, {rest}}}\n");
        }
    }
    let lines = why(&text, &on(Some("main"), None), "j5-0");
    assert!(lines.iter().map(String::len).sum::<usize>() < 100_000, "{}", lines[2].len());
    assert!(lines[2].contains("its branch filter does not match branch `main`"), "{}", lines[2]);
}

#[test]
fn reasons() {
    let text = everything();
    let (main, tag) = (on(Some("main"), None), on(None, Some("v1")));
    insta::assert_debug_snapshot!([
        why(&text, &main, "deploy"),
        why(&text, &main, "report"),
        why(&text, &main, "mac"),
        why(&text, &tag, "test"),
        why(&text, &tag, "gate"),
        why(&text, &on(Some("topic"), None), "report"),
    ]);
    let only = |job| explain(&Source { name: "config.yml", text: &text }, &main, job, Some("on-demand")).found;
    insta::assert_debug_snapshot!(only("deploy")[0].why);
}
