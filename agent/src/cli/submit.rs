//! `navvy submit`: a config, and what is checked out, to a processor.
//!
//! ```text
//! config ─▶ text ─────────────┐
//! git ─▶ what is built ───────┼─▶ api::Submit ─▶ id, number ─▶ --follow: the views of `navvy run`
//! orbs ─▶ sources that it names┤
//! --tree ─▶ working tree, sent before ┘
//! ```
//!
//! The processor compiles. Here the config is compiled only to learn which orbs it names.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use navvy_checkout::variables::{pipeline_numbers, pipeline_values};
use navvy_checkout::{GitFacts, WorkingTree};
use navvy_config::{Inputs, NoOrb, OrbReference, OrbSource, OrbText};
use navvy_job::exit_code;
use navvy_orbs::OrbPath;
use navvy_protocol::api;
use navvy_protocol::processor::trace::{self, TraceParent};
use navvy_ui::sanitize::{clean, tame};
use reqwest::Method;

use super::args::remote::{FollowViewArgs, SubmitArgs};
use super::follow::Following;
use super::processor::{Processor, failed, project, slug};
use super::run::plan::PIPELINE_NUMBER;
use super::source::{self, ConfigFile, orb_path, settings_files};
use super::{CliError, host, out};
use crate::remote::client::LONG_DEADLINE;
use crate::remote::tree;
use crate::settings::Settings;

pub fn run(settings: &Settings, mut arguments: SubmitArgs) -> Result<u8, CliError> {
    let file = ConfigFile::find(arguments.source.file.as_deref(), settings.here()?)?;
    arguments.source.fill_in(&settings_files(settings, &file)?);
    let processor = Processor::named(settings, &arguments.processor)?;
    let facts = facts(settings, &file, &arguments)?;
    let slug = match &arguments.project {
        Some(named) => project(settings, Some(named))?,
        None => slug(&facts),
    };
    let submit = submission(settings, &file, &arguments, &facts)?;
    if !arguments.tree {
        not_there(&facts, arguments.revision.is_some()).iter().for_each(|text| say(&format!("Warning: {text}\n")));
    }
    let sending = Sending { settings, processor: &processor, slug: &slug };
    let tree = match arguments.tree {
        true => Some(Arc::new(WorkingTree::open(file.project(), settings.elsewhere)?)),
        false => None,
    };
    host::finish(host::runtime()?, async {
        let submitted = sending.send(submit, tree).await?;
        sending.tell(&submitted, &arguments.view, arguments.follow).await
    })
}

/// A config on its way.
struct Sending<'a> {
    settings: &'a Settings,
    processor: &'a Processor,
    slug: &'a str,
}

impl Sending<'_> {
    async fn send(&self, mut submit: api::Submit, tree: Option<Arc<WorkingTree>>) -> Result<api::Submitted, CliError> {
        let client = &self.processor.client;
        if let Some(tree) = tree {
            let (sent, report) = tree::send(client, tree).await.map_err(failed)?;
            report.lines().iter().for_each(|line| say(&format!("{line}\n")));
            submit.tree = Some(sent.tree);
        }
        let path = ["project", self.slug, "pipeline"];
        client.send_within(Method::POST, &path, &submit, LONG_DEADLINE).await.map_err(failed)
    }

    async fn tell(&self, submitted: &api::Submitted, view: &FollowViewArgs, follow: bool) -> Result<u8, CliError> {
        tell(self.settings, self.processor, self.slug, submitted, view, follow).await
    }
}

/// Says which pipeline it is, and shows it if that is wanted.
pub async fn tell(
    settings: &Settings,
    processor: &Processor,
    slug: &str,
    submitted: &api::Submitted,
    view: &FollowViewArgs,
    follow: bool,
) -> Result<u8, CliError> {
    submitted.warnings.iter().for_each(|warning| source::tell(&format!("{}\n", warning.trim_end())));
    let (id, at) = (clean(&submitted.id), processor.client.at());
    let of = if slug.is_empty() { String::new() } else { format!(" of {}", clean(slug)) };
    let text = format!("Pipeline {}{of}: {id}\n{at}/api/v2/pipeline/{id}\n", submitted.number);
    if follow {
        // Standard output has events or lines alone.
        say(&text);
        return Following { settings, processor, pipeline: &submitted.id, view }.to_the_end(true).await;
    }
    match view.json {
        true => out::print(&host::json_lines([submitted])?)?,
        false => out::print(&format!("{text}`navvy follow {id}` shows it.\n"))?,
    }
    Ok(exit_code::PASSED)
}

/// Words beside what is printed.
fn say(text: &str) {
    // Where standard error takes nothing, there is nobody to tell.
    std::io::stderr().lock().write_all(tame(text, false).as_bytes()).ok();
}

/// What is built.
fn facts(settings: &Settings, file: &ConfigFile, arguments: &SubmitArgs) -> Result<GitFacts, CliError> {
    let mut facts = source::facts(settings, file, &arguments.source)?;
    if let Some(revision) = &arguments.revision {
        if facts.head.as_ref() != Some(revision) {
            // It may be on any branch, or on none.
            facts.branch = facts.branch.filter(|_| arguments.source.branch.is_some());
            facts.base_revision = None;
        }
        facts.head = Some(revision.clone());
    }
    match facts.load_commit() {
        // A commit that is not here is the processor's to find.
        Err(error) if arguments.revision.is_none() && !error.is_missing() => return Err(error.into()),
        Err(error) => tracing::debug!(%error, "The commit's text is not sent."),
        Ok(()) => {}
    }
    Ok(facts)
}

/// Why a clone will not find what is checked out.
fn not_there(facts: &GitFacts, is_named: bool) -> Option<String> {
    if facts.origin.is_none() {
        return Some("this project has no remote that a job could clone; `--tree` sends the files instead".to_owned());
    }
    // What git cannot tell, it cannot tell for better or worse.
    (!is_named && facts.is_pushed().ok()? == Some(false)).then(|| {
        "no branch of origin that was fetched holds HEAD: a job cannot clone it before it is pushed; `--tree` sends the files \
         as they are now instead"
            .to_owned()
    })
}

/// What is sent.
fn submission(
    settings: &Settings,
    file: &ConfigFile,
    arguments: &SubmitArgs,
    facts: &GitFacts,
) -> Result<api::Submit, CliError> {
    let source = &arguments.source;
    let parameters = source.parameters.iter().map(|text| source::key_value("-p", text));
    let commit = facts.commit.as_ref();
    Ok(api::Submit {
        config: file.text.clone(),
        config_name: file.name.clone(),
        parameters: parameters.collect::<Result<_, _>>()?,
        workflow: arguments.workflow.clone(),
        vcs: api::Vcs {
            origin_repository_url: facts.origin.as_ref().map(|origin| origin.url.clone()),
            branch: facts.branch.clone(),
            tag: facts.tag.clone(),
            revision: facts.head.clone(),
            default_branch: facts.default_branch.clone(),
            subject: commit.map(|commit| commit.subject.clone()),
            body: commit.map(|commit| commit.body.clone()),
            author_name: commit.map(|commit| commit.author_name.clone()),
            author_email: commit.map(|commit| commit.author_email.clone()),
        },
        contexts: arguments.contexts.clone(),
        tree: None,
        orbs: orbs(settings, file, arguments, facts)?,
        allow_missing_orbs: source.allows_missing_orbs(),
        traceparent: Some(traceparent(settings.get(trace::VARIABLE))),
    })
}

/// The trace that this is a part of, or one that begins here.
fn traceparent(given: Option<&str>) -> String {
    let begin = || {
        let (trace, span) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        let mut random = [0; 24];
        random[..16].copy_from_slice(trace.as_bytes());
        random[16..].copy_from_slice(&span.as_bytes()[..8]);
        TraceParent::begin(random)
    };
    given.and_then(TraceParent::read).unwrap_or_else(begin).to_string()
}

/// The sources of all orbs that the config names, and of those that they name.
fn orbs(
    settings: &Settings,
    file: &ConfigFile,
    arguments: &SubmitArgs,
    facts: &GitFacts,
) -> Result<BTreeMap<String, String>, CliError> {
    let asked = Arc::new(Asked { path: orb_path(settings, file)?, found: Mutex::default(), refused: Mutex::default() });
    let mut values = pipeline_values(facts);
    values.extend(pipeline_numbers("00000000-0000-0000-0000-000000000000", PIPELINE_NUMBER));
    let inputs = Inputs {
        orbs: Some(Arc::clone(&asked) as Arc<dyn OrbSource>),
        ..source::inputs(&arguments.source, orb_path(settings, file)?, facts, values)?
    };
    // What is wrong with the config the processor tells, which may know more than this version.
    drop(navvy_config::compile(&file.source(), &inputs));
    let refused = asked.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match refused.into_iter().next() {
        Some((message, help)) => Err(CliError::config(message).hint(help)),
        None => Ok(asked.found.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    }
}

/// Remembers what a config asks for.
#[derive(Debug)]
struct Asked {
    path: OrbPath,
    found: Mutex<BTreeMap<String, String>>,
    /// What is here and must not be used: another content than the lock has, or one that cannot be read.
    refused: Mutex<Vec<(String, String)>>,
}

impl OrbSource for Asked {
    fn find(&self, reference: &OrbReference) -> Result<OrbText, NoOrb> {
        let found = self.path.find(reference);
        match &found {
            Ok(orb) => {
                let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(reference.to_string(), orb.file.text.to_string());
            }
            Err(NoOrb::Refused { message, help }) => {
                let mut all = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                all.push((message.clone(), help.clone()));
            }
            Err(NoOrb::Missing { .. }) => {}
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::SourceArgs;

    /// A project with this config and these orbs, and where it begins.
    fn project(config: &str, orbs: &[(&str, &str)]) -> (tempfile::TempDir, Settings, ConfigFile) {
        let directory = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(directory.path()).unwrap();
        let put = |path: &str, text: &str| {
            let path = top.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(".circleci/config.yml", config);
        put(".git/HEAD", "ref: refs/heads/main\n");
        [".git/objects", ".git/refs"].iter().for_each(|path| std::fs::create_dir_all(top.join(path)).unwrap());
        orbs.iter().for_each(|(path, text)| put(&format!(".circleci/{path}"), text));
        let settings = Settings { here: Ok(top.clone()), ..Settings::for_tests(&[]) };
        let file = ConfigFile::find(None, &top).unwrap();
        (directory, settings, file)
    }

    fn arguments() -> SubmitArgs {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Words {
            #[command(flatten)]
            arguments: SubmitArgs,
        }
        Words::parse_from(["submit", "-p", "a=b=c", "--context", "x", "--branch", "main"]).arguments
    }

    fn submitted(settings: &Settings, file: &ConfigFile) -> Result<api::Submit, String> {
        let arguments = arguments();
        let facts = facts(settings, file, &arguments).unwrap();
        submission(settings, file, &arguments, &facts).map_err(|error| error.render())
    }

    const CONFIG: &str = "version: 2.1\norbs: {one: acme/one@1, gone: acme/gone@1}\njobs: {a: {docker: [{image: x}], steps: [one/go]}}\n\
                          workflows: {w: {jobs: [a]}}\n";
    const ONE: &str = "version: 2.1\norbs: {two: acme/two@2.0.0}\ncommands: {go: {steps: [two/do]}}\n";
    const TWO: &str = "version: 2.1\ncommands: {do: {steps: [{run: x}]}}\n";

    #[test]
    fn orbs_that_are_here_go_along_by_the_names_that_the_config_gives_them() {
        let orbs =
            [("orbs/acme/one@1.2.3.yml", ONE), ("orbs/acme/two@2.0.0.yml", TWO), ("orbs/acme/other@1.0.0.yml", TWO)];
        let (_directory, settings, file) = project(CONFIG, &orbs);
        let submit = submitted(&settings, &file).unwrap();
        let sent: Vec<(&str, &str)> = submit.orbs.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(sent, [("acme/one@1", ONE), ("acme/two@2.0.0", TWO)]);
        assert_eq!((submit.config.as_str(), submit.config_name.as_str()), (CONFIG, ".circleci/config.yml"));
        assert_eq!(submit.parameters.get("a").map(String::as_str), Some("b=c"));
        assert_eq!(
            (submit.contexts.as_slice(), submit.vcs.branch.as_deref()),
            (["x".to_owned()].as_slice(), Some("main"))
        );
        let trace = submit.traceparent.unwrap();
        assert_eq!(trace.split('-').map(str::len).collect::<Vec<_>>(), [2, 32, 16, 2]);
    }

    #[test]
    fn an_orb_that_is_not_what_the_lock_has_is_not_sent() {
        let lock = format!("version 1\nacme/one@1 1.2.3 sha256:{}\n", navvy_orbs::lock::digest("another"));
        let orbs = [("orbs/acme/one@1.2.3.yml", ONE), ("orbs.lock", lock.as_str())];
        let (_directory, settings, file) = project(CONFIG, &orbs);
        let told = submitted(&settings, &file).unwrap_err();
        assert!(told.contains("is not what") && told.contains("orbs.lock"), "{told}");
    }

    #[test]
    fn another_commit_than_the_one_that_is_checked_out_has_no_branch_of_its_own() {
        let (_directory, settings, file) = project(CONFIG, &[]);
        let of = |branch: Option<&str>| {
            let source = SourceArgs { branch: branch.map(str::to_owned), ..SourceArgs::default() };
            let arguments = SubmitArgs { revision: Some("0123".to_owned()), source, ..arguments() };
            let facts = facts(&settings, &file, &arguments).unwrap();
            (facts.head, facts.branch)
        };
        let checked_out =
            facts(&settings, &file, &SubmitArgs { source: SourceArgs::default(), ..arguments() }).unwrap();
        assert_eq!(checked_out.branch.as_deref(), Some("main"));
        assert_eq!(of(None), (Some("0123".to_owned()), None));
        assert_eq!(of(Some("main")), (Some("0123".to_owned()), Some("main".to_owned())));
    }

    #[test]
    fn a_project_that_no_job_can_clone_is_told_of() {
        assert!(not_there(&GitFacts::default(), false).is_some_and(|text| text.contains("--tree")));
    }
}
