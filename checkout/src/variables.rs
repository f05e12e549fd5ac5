//! From facts to what a config and its steps see: pipeline values and `CIRCLE_*` variables. No I/O.
//!
//! What only the real service knows is absent, not invented: OIDC tokens, pull requests, the previous build. Ids of the
//! project and its organization are always the same for one origin, so caches keyed by them keep working.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use navvy_config::Value;
use navvy_job::claim::RunFacts;
use navvy_job::compiled::Variables;
use sha2::{Digest as _, Sha256};

use super::GitFacts;

/// A directory inside the environment; steps may use it as scratch.
pub const INTERNAL_TASK_DATA: &str = "/tmp";

/// Numbers and names of one task in its run.
#[derive(Debug, Clone, Copy)]
pub struct TaskNumbers<'a> {
    /// The run's part.
    pub run: &'a RunFacts,
    /// A UUID.
    pub workflow_id: &'a str,
    /// Id of the job in its workflow, not of the task.
    pub job_id: &'a str,
    /// As the workflow calls it.
    pub job_name: &'a str,
    /// Which of the parallel tasks this is, from 0.
    pub node_index: u32,
    /// How many there are; 1 without parallelism.
    pub node_total: u32,
    /// As written in the config.
    pub working_directory: &'a str,
    /// Ids of the jobs that this one requires.
    pub upstream_job_ids: &'a [String],
    /// Where a person finds the job: locally the directory of its logs, as a `file:` URL.
    pub build_url: &'a str,
    /// Who started it.
    pub user: Option<&'a str>,
    /// A directory inside the environment.
    pub internal_task_data: &'a str,
}

/// What a task's claim says of its run. `workspace` is the same for reruns of one workflow.
pub fn run_facts(facts: &GitFacts, pipeline: &str, workspace: &str, build_number: u64) -> RunFacts {
    RunFacts {
        project: project_id(facts),
        pipeline: pipeline.to_owned(),
        workspace: workspace.to_owned(),
        build_number,
        branch: branch(facts).map(str::to_owned),
        tag: facts.tag.clone(),
        revision: facts.head.clone(),
        repository: facts.origin.as_ref().map(|origin| origin.url.clone()),
    }
}

/// The `CIRCLE_*` variables of a task, `BASH_ENV` and `CIRCLE_SHELL_ENV` aside. Those without a value are not there.
pub fn built_in(facts: &GitFacts, numbers: &TaskNumbers<'_>) -> Variables {
    let run = numbers.run;
    let mut variables: Variables = Vec::with_capacity(32);
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    set("CI", "true".to_owned());
    set("CIRCLECI", "true".to_owned());
    set("CIRCLE_BUILD_NUM", run.build_number.to_string());
    set("CIRCLE_BUILD_URL", numbers.build_url.to_owned());
    set("CIRCLE_INTERNAL_TASK_DATA", numbers.internal_task_data.to_owned());
    set("CIRCLE_JOB", numbers.job_name.to_owned());
    set("CIRCLE_NODE_INDEX", numbers.node_index.to_string());
    set("CIRCLE_NODE_TOTAL", numbers.node_total.to_string());
    set("CIRCLE_ORGANIZATION_ID", organization_id(facts));
    set("CIRCLE_PIPELINE_ID", run.pipeline.clone());
    set("CIRCLE_PROJECT_ID", run.project.clone());
    set("CIRCLE_PROJECT_REPONAME", facts.repo_name());
    set("CIRCLE_PROJECT_USERNAME", facts.repo_owner());
    set("CIRCLE_STAGE", numbers.job_name.to_owned());
    set("CIRCLE_WORKFLOW_ID", numbers.workflow_id.to_owned());
    set("CIRCLE_WORKFLOW_JOB_ID", numbers.job_id.to_owned());
    set("CIRCLE_WORKFLOW_UPSTREAM_JOB_IDS", numbers.upstream_job_ids.join(","));
    set("CIRCLE_WORKFLOW_WORKSPACE_ID", run.workspace.clone());
    set("CIRCLE_WORKING_DIRECTORY", numbers.working_directory.to_owned());
    let optional = [
        ("CIRCLE_BRANCH", run.branch.as_deref()),
        ("CIRCLE_REPOSITORY_URL", run.repository.as_deref()),
        ("CIRCLE_SHA1", run.revision.as_deref()),
        ("CIRCLE_TAG", run.tag.as_deref()),
        ("CIRCLE_USERNAME", numbers.user),
    ];
    variables.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))));
    variables.sort_unstable();
    variables
}

/// Pipeline values without `pipeline.`, as a push of what is checked out would have them.
///
/// `id` and `number` belong to the run ([`pipeline_numbers`]); `git.branch` and `git.tag` to the compiler's inputs.
/// `git.commit.*` are there once the facts have the commit.
pub fn pipeline_values(facts: &GitFacts) -> BTreeMap<String, Value> {
    let origin = facts.origin.as_ref();
    let url = origin.map_or_else(
        || format!("file://{}", facts.top.display()),
        |origin| origin.web_url().unwrap_or_else(|| origin.url.clone()),
    );
    let commit_url = facts.head.as_ref().filter(|_| origin.is_some()).map(|head| format!("{url}/commit/{head}"));
    let provider = origin.map_or("github", |origin| origin.vcs_type());
    let slug = origin.map_or("gh", |origin| origin.vcs_slug());
    let is_default = facts.tag.is_none() && facts.branch.is_some() && facts.branch == facts.default_branch;
    let reference = match &facts.tag {
        Some(tag) => Some(format!("refs/tags/{tag}")),
        None => facts.branch.as_ref().map(|branch| format!("refs/heads/{branch}")),
    };
    let commit = facts.commit.as_ref();
    let (name, owner) = (facts.repo_name(), facts.repo_owner());
    let texts: [(&str, Option<String>); 27] = [
        ("project.git_url", Some(url.clone())),
        ("project.type", Some(provider.to_owned())),
        ("project.slug", Some(format!("{slug}/{owner}/{name}"))),
        ("integration_source", Some(provider.to_owned())),
        ("git.revision", facts.head.clone()),
        ("git.base_revision", facts.base_revision.clone()),
        ("git.repo_url", Some(url.clone())),
        ("git.repo_owner", Some(owner.clone())),
        ("git.repo_name", Some(name.clone())),
        ("git.repo_id", Some(project_id(facts))),
        ("git.commit.url", commit_url.clone()),
        ("git.commit.subject", commit.map(|commit| commit.subject.clone())),
        ("git.commit.body", commit.map(|commit| commit.body.clone())),
        ("git.commit.author_login", commit.map(|commit| login(&commit.author_email))),
        ("git.commit.author_name", commit.map(|commit| commit.author_name.clone())),
        ("git.commit.author_email", commit.map(|commit| commit.author_email.clone())),
        ("config.repository.name", Some(name.clone())),
        ("config.repository.url", Some(url.clone())),
        ("config.ref", reference.clone()),
        ("config.sha", facts.head.clone()),
        ("trigger.type", Some("webhook".to_owned())),
        ("trigger_source", Some("webhook".to_owned())),
        ("event.name", Some("push".to_owned())),
        ("event.action", Some("push".to_owned())),
        ("event.github.ref", reference),
        ("event.github.after", facts.head.clone()),
        ("event.github.head_commit.url", commit_url),
    ];
    let more = [
        ("git.branch.is_default", Value::Bool(is_default)),
        ("event.github.repository.name", Value::Text(name)),
        ("event.github.repository.url", Value::Text(url)),
        ("event.github.repository.owner.login", Value::Text(owner)),
    ];
    let texts = texts.into_iter().map(|(name, text)| (name, text.map_or(Value::Null, Value::Text)));
    texts.chain(more).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The values that number a pipeline.
pub fn pipeline_numbers(id: &str, number: u64) -> BTreeMap<String, Value> {
    let number = Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    BTreeMap::from([("id".to_owned(), Value::Text(id.to_owned())), ("number".to_owned(), number)])
}

/// The same for every clone of one origin, however its URL is written; without one, for the directory.
pub fn project_id(facts: &GitFacts) -> String {
    match &facts.origin {
        Some(origin) => {
            let host = origin.host.as_deref().unwrap_or("");
            let path = if host.is_empty() { origin.url.clone() } else { format!("{}/{}", origin.owner, origin.name) };
            id("project", &format!("{host}/{path}"))
        }
        None => id("project", &facts.top.to_string_lossy()),
    }
}

/// A name for a directory, by its real path. An origin is a stranger's word; where something lies is not.
pub fn directory_id(real: &Path) -> String {
    let mut digest = Sha256::new_with_prefix(b"navvy directory ");
    digest.update(real.as_os_str().as_bytes());
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The same for all repositories of one owner.
pub fn organization_id(facts: &GitFacts) -> String {
    let host = facts.origin.as_ref().and_then(|origin| origin.host.as_deref()).unwrap_or("");
    id("organization", &format!("{host}/{}", facts.repo_owner()))
}

/// A UUID made from a name, as version 5 makes them, with SHA-256.
fn id(space: &str, name: &str) -> String {
    let digest = Sha256::digest(format!("navvy {space} {}", name.to_lowercase()).as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A build of a tag has no branch.
fn branch(facts: &GitFacts) -> Option<&str> {
    facts.branch.as_deref().filter(|_| facts.tag.is_none())
}

/// GitHub's private addresses hold the login (`1+ada@users.noreply.github.com`); of others the first part must do.
fn login(email: &str) -> String {
    let local = email.split('@').next().unwrap_or("");
    local
        .split_once('+')
        .filter(|(id, _)| id.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(local, |(_, name)| name)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Commit, Remote};

    fn built(facts: &GitFacts) -> Variables {
        let numbers = TaskNumbers {
            run: &run_facts(facts, "pipeline", "workspace", 12),
            workflow_id: "workflow",
            job_id: "job",
            job_name: "build-1",
            node_index: 1,
            node_total: 4,
            working_directory: "~/project",
            upstream_job_ids: &[],
            build_url: "file:///logs",
            user: Some("ada"),
            internal_task_data: "/tmp/navvy",
        };
        built_in(facts, &numbers)
    }

    fn facts() -> GitFacts {
        GitFacts {
            top: "/home/ada/shop".into(),
            is_repo: true,
            head: Some("a".repeat(40)),
            branch: Some("main".to_owned()),
            origin: Remote::parse("git@github.com:acme/shop.git"),
            default_branch: Some("main".to_owned()),
            ..GitFacts::default()
        }
    }

    fn lines(variables: &Variables) -> String {
        variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    #[test]
    fn variables_of_a_branch() {
        insta::assert_snapshot!(lines(&built(&facts())), @r"
        CI=true
        CIRCLECI=true
        CIRCLE_BRANCH=main
        CIRCLE_BUILD_NUM=12
        CIRCLE_BUILD_URL=file:///logs
        CIRCLE_INTERNAL_TASK_DATA=/tmp/navvy
        CIRCLE_JOB=build-1
        CIRCLE_NODE_INDEX=1
        CIRCLE_NODE_TOTAL=4
        CIRCLE_ORGANIZATION_ID=07d3727c-b9f1-5fbf-9eb5-5ab4e3921691
        CIRCLE_PIPELINE_ID=pipeline
        CIRCLE_PROJECT_ID=8d71abd6-22a8-57d2-ad94-984e7b422158
        CIRCLE_PROJECT_REPONAME=shop
        CIRCLE_PROJECT_USERNAME=acme
        CIRCLE_REPOSITORY_URL=git@github.com:acme/shop.git
        CIRCLE_SHA1=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        CIRCLE_STAGE=build-1
        CIRCLE_USERNAME=ada
        CIRCLE_WORKFLOW_ID=workflow
        CIRCLE_WORKFLOW_JOB_ID=job
        CIRCLE_WORKFLOW_UPSTREAM_JOB_IDS=
        CIRCLE_WORKFLOW_WORKSPACE_ID=workspace
        CIRCLE_WORKING_DIRECTORY=~/project
        ");
    }

    #[test]
    fn a_tag_build_has_no_branch() {
        let variables = built(&GitFacts { tag: Some("v1".to_owned()), ..facts() });
        assert!(variables.contains(&("CIRCLE_TAG".to_owned(), "v1".to_owned())));
        assert!(!variables.iter().any(|(name, _)| name == "CIRCLE_BRANCH"));
    }

    #[test]
    fn without_git_there_are_still_names() {
        let variables = built(&GitFacts { top: "/srv/thing".into(), ..GitFacts::default() });
        assert!(variables.contains(&("CIRCLE_PROJECT_REPONAME".to_owned(), "thing".to_owned())));
        assert!(variables.contains(&("CIRCLE_PROJECT_USERNAME".to_owned(), "local".to_owned())));
        assert!(!variables.iter().any(|(name, _)| name == "CIRCLE_SHA1" || name == "CIRCLE_REPOSITORY_URL"));
    }

    #[test]
    fn values_of_a_push() {
        let commit = Commit {
            subject: "Mend it".to_owned(),
            body: String::new(),
            author_name: "Ada".to_owned(),
            author_email: "17+ada@users.noreply.github.com".to_owned(),
        };
        let values = pipeline_values(&GitFacts { commit: Some(commit), ..facts() });
        let text: String = values.iter().map(|(name, value)| format!("{name}: {value:?}\n")).collect();
        insta::assert_snapshot!(text, @r#"
        config.ref: Text("refs/heads/main")
        config.repository.name: Text("shop")
        config.repository.url: Text("https://github.com/acme/shop")
        config.sha: Text("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
        event.action: Text("push")
        event.github.after: Text("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
        event.github.head_commit.url: Text("https://github.com/acme/shop/commit/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
        event.github.ref: Text("refs/heads/main")
        event.github.repository.name: Text("shop")
        event.github.repository.owner.login: Text("acme")
        event.github.repository.url: Text("https://github.com/acme/shop")
        event.name: Text("push")
        git.base_revision: Null
        git.branch.is_default: Bool(true)
        git.commit.author_email: Text("17+ada@users.noreply.github.com")
        git.commit.author_login: Text("ada")
        git.commit.author_name: Text("Ada")
        git.commit.body: Text("")
        git.commit.subject: Text("Mend it")
        git.commit.url: Text("https://github.com/acme/shop/commit/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
        git.repo_id: Text("8d71abd6-22a8-57d2-ad94-984e7b422158")
        git.repo_name: Text("shop")
        git.repo_owner: Text("acme")
        git.repo_url: Text("https://github.com/acme/shop")
        git.revision: Text("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
        integration_source: Text("github")
        project.git_url: Text("https://github.com/acme/shop")
        project.slug: Text("gh/acme/shop")
        project.type: Text("github")
        trigger.type: Text("webhook")
        trigger_source: Text("webhook")
        "#);
    }

    #[test]
    fn ids_belong_to_the_origin_not_to_its_spelling() {
        let with = |url: &str| GitFacts { origin: Remote::parse(url), ..facts() };
        let ids = |url: &str| (project_id(&with(url)), organization_id(&with(url)));
        assert_eq!(ids("git@github.com:acme/shop.git"), ids("https://github.com/Acme/shop"));
        assert_ne!(ids("git@github.com:acme/shop.git").0, ids("git@github.com:acme/other.git").0);
        assert_eq!(ids("git@github.com:acme/shop.git").1, ids("git@github.com:acme/other.git").1);
        assert_eq!(ids("/srv/shop.git").0.len(), 36);
    }
}
