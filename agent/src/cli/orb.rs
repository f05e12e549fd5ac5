//! `navvy orb …`: puts orbs where configs find them, lists them, locks them, packs them.
//!
//! ```text
//! add:  source ─▶ checked ─▶ place ─▶ lock          lock:  config, without its lock ─▶ every import ─▶ lock
//! list: places, lock, the config's imports ─▶ table pack:  source tree ─▶ one source
//! ```

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navvy_checkout::variables::pipeline_values;
use navvy_config::{ImportedOrb, Inputs, NoOrb, OrbReference, Outcome, Source};
use navvy_job::exit_code;
use navvy_orbs::lock::{Lock, digest};
use navvy_orbs::place::{Found, Place};
use navvy_orbs::tree::{Tree, TreeError};
use navvy_orbs::{OrbPath, builtin};
use navvy_plain_file as plain_file;
use navvy_ui::sanitize::{first_line, tame};

use super::CliError;
use super::args::SourceArgs;
use super::args::orb::{OrbAddArgs, OrbArgs, OrbCommand, OrbListArgs, OrbLockArgs, OrbPackArgs};
use super::out::print;
use super::source::{
    ConfigFile, LOCK, STDIN, count, inputs, nearest_config, orb_path, project_facts, tell, unlocked_path, user_orbs,
};
use crate::settings::Settings;

pub fn run(settings: &Settings, arguments: OrbArgs) -> Result<u8, CliError> {
    match arguments.command {
        OrbCommand::Add(arguments) => add(settings, &arguments),
        OrbCommand::List(arguments) => list(settings, &arguments),
        OrbCommand::Lock(arguments) => lock(settings, &arguments),
        OrbCommand::Pack(arguments) => pack(&arguments),
    }
}

/// A config and all that has to do with its orbs.
struct Project {
    file: ConfigFile,
    inputs: Inputs,
    path: OrbPath,
}

impl Project {
    fn open(settings: &Settings, file: Option<&Path>) -> Result<Self, CliError> {
        let project = Self::open_unlocked(settings, file)?;
        Ok(Self { path: orb_path(settings, &project.file)?, ..project })
    }

    /// As if there were no lock.
    fn open_unlocked(settings: &Settings, file: Option<&Path>) -> Result<Self, CliError> {
        let file = ConfigFile::find(file, settings.here()?)?;
        let facts = project_facts(settings, &file)?;
        let path = unlocked_path(settings, &file);
        let inputs = inputs(&SourceArgs::default(), path.clone(), &facts, pipeline_values(&facts))?;
        Ok(Self { file, inputs, path })
    }

    /// Compiled with the orbs of `path`.
    fn compile(&self, path: OrbPath, allow_missing_orbs: bool) -> Outcome {
        let orbs = Some(Arc::new(path) as _);
        navvy_config::compile(&self.file.source(), &Inputs { orbs, allow_missing_orbs, ..self.inputs.clone() })
    }

    /// Compiled with this lock; the outcome names the orbs that the config and its orbs import.
    fn locked_by(&self, lock: &Lock) -> Outcome {
        self.compile(OrbPath { lock: lock.clone(), ..self.path.clone() }, true)
    }

    fn lock_file(&self) -> PathBuf {
        self.file.home().join(LOCK)
    }

    fn write(&self, lock: &Lock) -> Result<(), CliError> {
        let shown = &self.path.lock.shown;
        let written = lock.write(&self.lock_file(), &self.file.top());
        written.map_err(|error| CliError::config(format!("could not write {shown}: {error}")))
    }
}

fn add(settings: &Settings, arguments: &OrbAddArgs) -> Result<u8, CliError> {
    let reference: OrbReference = arguments.reference.parse().map_err(|why| {
        let hint = "An orb is named NAMESPACE/NAME@VERSION; give the whole VERSION, such as 1.2.3.";
        CliError::usage(format!("{} is not a reference to an orb: it {why}", arguments.reference)).hint(hint)
    })?;
    let is_stdin = |file: &Path| file == Path::new(STDIN);
    if is_stdin(&arguments.file) && arguments.config.as_deref().is_some_and(is_stdin) {
        return Err(CliError::usage("standard input cannot be both the orb and the config"));
    }
    let name = arguments.file.display().to_string();
    if arguments.file.is_dir() {
        let [name, orb] = [&name, &arguments.reference].map(|word| shell_words::quote(word));
        let hint = format!("The source tree of an orb becomes one file: navvy orb pack {name} | navvy orb add - {orb}");
        return Err(CliError::config(format!("{name} is a directory, not an orb")).hint(hint));
    }
    let text = source(&arguments.file, &name)?;
    let project = if arguments.user { None } else { Some(Project::open(settings, arguments.config.as_deref())?) };
    let path = match &project {
        Some(project) => project.path.clone(),
        None => OrbPath { places: user_orbs(settings).into_iter().collect(), lock: Lock::default() },
    };
    check(&name, &text, path.clone())?;
    let place = path.places.first();
    let place = place.ok_or_else(|| CliError::usage("there is no home directory to keep orbs in"))?;
    let mut told = put(place, &reference, &text, arguments.force)?;
    told.extend(replaces_built_in(place, &reference));
    if let Some(project) = project {
        told.push_str(&lock_added(&project, &reference, &digest(&text))?);
    }
    print(&tame(&told, true))?;
    Ok(exit_code::PASSED)
}

/// What to know of an orb that now counts in place of the one that is built in.
fn replaces_built_in(place: &Place, reference: &OrbReference) -> Option<String> {
    let warning = builtin::warning(reference)?;
    let file = place.file_name(reference)?;
    Some(format!("{warning}To go back to the one that is built in, remove {file}, and its line in the lock.\n"))
}

/// The compiler refuses longer ones.
const LONGEST: u64 = (8 << 20) + 1;

fn source(file: &Path, name: &str) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let read = match name {
        "-" => std::io::stdin().lock().take(LONGEST).read_to_end(&mut bytes).map(drop),
        _ => plain_file::given(file).and_then(|file| plain_file::rest(file, LONGEST)).map(|read| bytes = read),
    };
    read.map_err(|error| CliError::config(format!("could not read {name}: {error}")))?;
    String::from_utf8(bytes).map_err(|_| CliError::config(format!("{name}: the file is not UTF-8 text")))
}

/// Refuses what is no orb, or is wrong. Orbs that it imports may come later.
fn check(name: &str, text: &str, path: OrbPath) -> Result<(), CliError> {
    let source = Source { name, text };
    let orbs = Some(Arc::new(path) as _);
    let outcome = navvy_config::compile_orb(&source, &Inputs { orbs, allow_missing_orbs: true, ..Inputs::default() });
    tell(&outcome.render(&source));
    match outcome.pipeline {
        Some(_) => Ok(()),
        None => Err(CliError::config(format!("{name}: {}; nothing was added", count(&outcome.diagnostics)))),
    }
}

/// What was done, in a line.
fn put(place: &Place, reference: &OrbReference, text: &str, force: bool) -> Result<String, CliError> {
    let Some(found) = place.file(reference) else {
        let hint = "An address under which an orb is kept has only plain names between its slashes.";
        return Err(CliError::usage(format!("{reference} has no place in the orb path")).hint(hint));
    };
    let there = match found.exists() {
        Ok(exists) => exists.then(|| found.read()),
        Err(why) => Some(Err(why)),
    };
    match there {
        Some(Ok(old)) if old == text => return Ok(format!("{} is there already.\n", found.shown)),
        Some(old) if !force => {
            let message = match old {
                Ok(old) => format!("{} is there with another content: sha256:{}", found.shown, digest(&old)),
                Err(NoOrb::Refused { message, .. }) => message,
                Err(NoOrb::Missing { .. }) => format!("{} went away meanwhile", found.shown),
            };
            let hint = "A version of an orb never changes. `--force` replaces it all the same.";
            return Err(CliError::usage(message).hint(hint));
        }
        _ => {}
    }
    let put = place.put(reference, text);
    let found = put.map_err(|error| CliError::config(format!("could not write {}: {error}", found.shown)))?;
    Ok(format!("Added {} (sha256:{}).\n", found.shown, digest(text)))
}

/// Locks what was added, and what the config imports and is not locked yet. What was done, in lines.
fn lock_added(project: &Project, added: &OrbReference, new: &str) -> Result<String, CliError> {
    let mut lock = project.path.lock.clone();
    let mut told = String::new();
    if lock.relock(added, new) {
        told.push_str(&format!("{} has its new digest.\n", lock.shown));
    }
    let Outcome { orbs: imports, pipeline, .. } = project.locked_by(&lock);
    for (reference, resolved) in imports.iter().filter_map(|orb| Some((&orb.reference, orb.resolved.as_ref()?))) {
        if lock.entry(reference).is_none() {
            told.push_str(&locked(&mut lock, &project.path, reference, resolved)?);
        } else if resolved != added && covers(reference, added) {
            let now = resolved.version().map(ToString::to_string).unwrap_or_default();
            let line =
                format!("{reference} stays at {now}, as {} has it; `navvy orb lock` takes the newest.\n", lock.shown);
            if !told.contains(&line) {
                told.push_str(&line);
            }
        }
    }
    // A config that is wrong may name more than was seen.
    if pipeline.is_some() && !imports.iter().any(|orb| orb.resolved.as_ref() == Some(added)) {
        told.push_str(&not_named(&project.file.name, &imports, added));
    }
    if lock.resolved(added).is_none() {
        lock.set(added, added, new);
    }
    project.write(&lock)?;
    Ok(told)
}

/// Why the config does not use what was added; nothing where that has been told.
fn not_named(config: &str, imports: &[ImportedOrb], added: &OrbReference) -> String {
    let mut others: Vec<String> = imports
        .iter()
        .map(|orb| &orb.reference)
        .filter(|reference| reference.title() == added.title())
        .map(ToString::to_string)
        .collect();
    others.dedup();
    match others.as_slice() {
        [] => format!("{config} does not name {}.\n", added.title()),
        _ if imports.iter().any(|orb| covers(&orb.reference, added)) => String::new(),
        others => format!("{config} names {}, which {added} is not.\n", others.join(" and ")),
    }
}

fn covers(reference: &OrbReference, other: &OrbReference) -> bool {
    let versions = reference.version().zip(other.version());
    reference.title() == other.title() && versions.is_some_and(|(rule, version)| rule.covers(version))
}

/// Puts the file that an import was resolved to into the lock. What was done, in a line.
fn locked(
    lock: &mut Lock,
    path: &OrbPath,
    reference: &OrbReference,
    resolved: &OrbReference,
) -> Result<String, CliError> {
    for found in path.places.iter().filter_map(|place| place.file(resolved)) {
        if found.exists().map_err(refused)? {
            let digest = digest(&found.read().map_err(refused)?);
            let is_new = lock.set(reference, resolved, &digest);
            let line = format!("Locked {reference} to {}.\n", described(resolved, &digest));
            return Ok(if is_new { line } else { String::new() });
        }
    }
    // It is built in.
    Ok(String::new())
}

fn refused(why: NoOrb) -> CliError {
    match why {
        NoOrb::Refused { message, help } => CliError::config(message).hint(help),
        NoOrb::Missing { help } => CliError::config("an orb is not here").hint(help),
    }
}

fn described(resolved: &OrbReference, digest: &str) -> String {
    match resolved.version() {
        Some(version) => format!("{version}, sha256:{digest}"),
        None => format!("sha256:{digest}"),
    }
}

fn lock(settings: &Settings, arguments: &OrbLockArgs) -> Result<u8, CliError> {
    let project = Project::open_unlocked(settings, arguments.config.as_deref())?;
    let mut fresh = Lock::empty(&project.path.lock.shown);
    let outcome = project.compile(project.path.clone(), false);
    tell(&outcome.render(&project.file.source()));
    if outcome.pipeline.is_none() {
        let counted = count(&outcome.diagnostics);
        return Err(CliError::config(format!("{}: {counted}; nothing was locked", project.file.name)));
    }
    let mut told = String::new();
    for (reference, resolved) in outcome.orbs.iter().filter_map(|orb| Some((&orb.reference, orb.resolved.as_ref()?))) {
        told.push_str(&locked(&mut fresh, &project.path, reference, resolved)?);
    }
    if fresh.is_empty() && !project.lock_file().exists() {
        told.push_str("This config names no orbs: there is nothing to lock.\n");
    } else {
        project.write(&fresh)?;
    }
    print(&tame(&told, true))?;
    Ok(exit_code::PASSED)
}

fn list(settings: &Settings, arguments: &OrbListArgs) -> Result<u8, CliError> {
    let project = match Project::open(settings, arguments.config.as_deref()) {
        Ok(project) => Some(project),
        // Outside of a project there are the user's.
        Err(_) if arguments.config.is_none() && !in_project(settings) => None,
        Err(error) => return Err(error),
    };
    let (places, imports) = match &project {
        Some(project) => (project.path.places.clone(), project.locked_by(&project.path.lock).orbs),
        None => (user_orbs(settings).into_iter().collect(), Vec::new()),
    };
    let table = table(&places, &imports, project.as_ref().map(|project| &project.path.lock))?;
    print(&tame(&table, true))?;
    Ok(exit_code::PASSED)
}

/// Prints one source for what lies in a directory.
fn pack(arguments: &OrbPackArgs) -> Result<u8, CliError> {
    let tree = Tree::open(&arguments.directory).map_err(not_a_tree)?;
    let packed = navvy_config::pack_orb(&tree.parts().map_err(not_a_tree)?, &|path| tree.include(path));
    tell(&packed.render());
    match packed.text {
        Some(text) => print(&text)?,
        None => {
            return Err(CliError::config(format!(
                "{}: {}; nothing was packed",
                tree.shown(),
                count(&packed.diagnostics)
            )));
        }
    }
    Ok(exit_code::PASSED)
}

fn not_a_tree(error: TreeError) -> CliError {
    let TreeError { message, hint } = error;
    let error = CliError::config(message);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn in_project(settings: &Settings) -> bool {
    settings.here().is_ok_and(|here| !matches!(nearest_config(here), Ok(None)))
}

/// What is there, then what is not.
fn table(places: &[Place], imports: &[ImportedOrb], lock: Option<&Lock>) -> Result<String, CliError> {
    let mut used: BTreeMap<&OrbReference, Vec<String>> = BTreeMap::new();
    for orb in imports {
        if let Some(resolved) = &orb.resolved {
            let names = used.entry(resolved).or_default();
            let name = use_of(&orb.reference, lock);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let mut rows = Vec::new();
    for place in places {
        for found in place.all().map_err(refused)? {
            let used = used.remove(&found.reference).unwrap_or_default();
            rows.push(row(&found, &used));
        }
    }
    // What is used and lies nowhere is built in.
    let built_in = |(reference, used): (&OrbReference, Vec<String>)| {
        let used = format!("used as {}", used.join(", "));
        [reference.to_string(), "built in".to_owned(), "-".to_owned(), used]
    };
    rows.extend(used.into_iter().filter(|(reference, _)| builtin::in_place_of(reference).is_some()).map(built_in));
    let mut text = columns(&rows);
    let mut missing: Vec<String> = imports.iter().filter(|orb| orb.resolved.is_none()).map(absent).collect();
    missing.dedup();
    missing.iter().for_each(|line| text.push_str(line));
    Ok(if text.is_empty() { "No orbs are here, and none are named.\n".to_owned() } else { text })
}

fn use_of(reference: &OrbReference, lock: Option<&Lock>) -> String {
    let locked = lock.is_some_and(|lock| lock.entry(reference).is_some());
    format!("{reference}{}", if locked { " (locked)" } else { "" })
}

fn row(found: &Found, used: &[String]) -> [String; 4] {
    let digest = match found.read() {
        Ok(text) => format!("sha256:{}", digest(&text)),
        Err(_) => "cannot be read".to_owned(),
    };
    let used = if used.is_empty() { "not used".to_owned() } else { format!("used as {}", used.join(", ")) };
    [found.reference.to_string(), found.shown.clone(), digest, used]
}

fn absent(orb: &ImportedOrb) -> String {
    format!("{}: used, and not here or not fit for use; `navvy config validate` tells more\n", orb.reference)
}

fn columns(rows: &[[String; 4]]) -> String {
    let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [widest(0), widest(1), widest(2)];
    let line = |[reference, place, digest, used]: &[String; 4]| {
        let [a, b, c] = widths;
        format!("{reference:a$}  {place:b$}  {digest:c$}  {used}\n")
    };
    rows.iter().map(|row| line(&row.each_ref().map(|cell| first_line(cell)))).collect()
}
