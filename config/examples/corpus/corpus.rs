//! A directory of configs, and how much of what is known of them holds.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use navvy_config::{Diagnostic, Inputs, Severity, Source, Value as Given, compile, render};
use serde_json::Value;

use crate::compare::{Fact, compare};
use crate::orbs;

/// Configs by name, each with its facts.
pub struct Corpus {
    files: BTreeMap<String, (String, Value)>,
    /// Facts that are known to differ: file and fact, and why.
    argued: BTreeMap<(String, String), String>,
}

/// What came out, file by file.
pub struct Outcome {
    files: BTreeMap<String, File>,
    /// Argued, but there is nothing left to argue about.
    stale: Vec<(String, String)>,
}

/// What came out of one file.
#[derive(Default)]
pub struct File {
    agreed: usize,
    undecided: usize,
    /// Each in words.
    differing: Vec<String>,
    argued: Vec<String>,
    /// Registry orbs that are not here; the file does not compile without them.
    missing_orbs: usize,
    took: Duration,
}

impl Corpus {
    /// Reads all files; the text of `argued` holds a line for each fact that may differ.
    pub fn read(configs: &Path, facts: &Path, argued: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(configs).map_err(|error| format!("{}: {error}", configs.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let beside = facts.join(format!("{name}.json"));
            let facts = fs::read_to_string(&beside).map_err(|error| format!("{}: {error}", beside.display()))?;
            let facts = serde_json::from_str(&facts).map_err(|error| format!("{}: {error}", beside.display()))?;
            files.insert(name.clone(), (fs::read_to_string(configs.join(&name))?, facts));
        }
        let argued = argued.map_or_else(|| Ok(String::new()), fs::read_to_string)?;
        Ok(Self { files, argued: argued.lines().skip(1).filter_map(argument).collect() })
    }

    pub fn check(&self) -> Outcome {
        let files: BTreeMap<_, _> =
            self.files.iter().map(|(name, (text, facts))| (name.clone(), self.file(name, text, facts))).collect();
        let differs = |(file, fact): &(String, String)| {
            let start = format!("{fact}\n");
            files.get(file).is_some_and(|file| file.argued.iter().any(|told| told.starts_with(&start)))
        };
        let stale = self.argued.keys().filter(|argued| !differs(argued)).cloned().collect();
        Outcome { files, stale }
    }

    fn file(&self, name: &str, text: &str, facts: &Value) -> File {
        let source = Source { name, text };
        let began = Instant::now();
        let outcome = compile(&source, &inputs(true));
        let mut file = File { took: began.elapsed(), ..File::default() };
        let strict = compile(&source, &inputs(false));
        file.missing_orbs = count(&strict.diagnostics);
        let mut found = orbs::compare(text, &strict.diagnostics, &outcome.diagnostics);
        match outcome.pipeline {
            Some(pipeline) => found.extend(compare(facts, &pipeline)),
            None => {
                let errors: Vec<_> = errors(&outcome.diagnostics).cloned().collect();
                file.differing.push(format!("does not compile\n{}", render(&source, &errors)));
            }
        }
        found.into_iter().for_each(|fact| self.judge(name, fact, &mut file));
        file
    }

    fn judge(&self, name: &str, fact: Fact, file: &mut File) {
        if fact.expected.is_null() {
            file.undecided += 1;
        } else if fact.expected == fact.found {
            file.agreed += 1;
        } else {
            let Fact { path, expected, found } = fact;
            let told = format!("{path}\n    fact   {expected}\n    found  {found}");
            match self.argued.get(&(name.to_owned(), path)) {
                Some(why) => file.argued.push(format!("{told}\n    argued {why}")),
                None => file.differing.push(told),
            }
        }
    }
}

fn argument(line: &str) -> Option<((String, String), String)> {
    let mut cells = line.split('\t');
    Some(((cells.next()?.to_owned(), cells.next()?.to_owned()), cells.next()?.to_owned()))
}

/// The pipeline that the facts assume.
fn inputs(allow_missing_orbs: bool) -> Inputs {
    let given = |name: &str, value: &str| (name.to_owned(), Given::Text(value.to_owned()));
    let values = BTreeMap::from([
        given("trigger_source", "webhook"),
        given("project.type", "github"),
        ("git.branch.is_default".to_owned(), Given::Bool(true)),
    ]);
    Inputs { values, allow_missing_orbs, ..Inputs::default() }
}

fn errors(diagnostics: &[Diagnostic]) -> impl Iterator<Item = &Diagnostic> {
    diagnostics.iter().filter(|told| told.severity == Severity::Error)
}

fn count(diagnostics: &[Diagnostic]) -> usize {
    errors(diagnostics)
        .filter(|told| told.code == "missing-orb")
        .map(|told| told.span.start)
        .collect::<BTreeSet<_>>()
        .len()
}

impl Outcome {
    /// Nothing differs but what is argued, and all that is argued differs.
    pub fn holds(&self) -> bool {
        !self.files.is_empty() && self.stale.is_empty() && self.files.values().all(|file| file.differing.is_empty())
    }

    fn sum(&self, of: impl Fn(&File) -> usize) -> usize {
        self.files.values().map(of).sum()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "agreed undecided differing argued  orbs      ms  file")?;
        for (name, file) in &self.files {
            writeln!(out, "{file}  {name}")?;
            file.differing.iter().try_for_each(|told| writeln!(out, "  DIFFERS {told}"))?;
            file.argued.iter().try_for_each(|told| writeln!(out, "  argued {told}"))?;
        }
        for (file, fact) in &self.stale {
            writeln!(out, "DIFFERS {file}: {fact} is argued, but it agrees")?;
        }
        let took: Duration = self.files.values().map(|file| file.took).sum();
        let with_orbs = self.sum(|file| usize::from(file.missing_orbs > 0));
        let total = self.files.len();
        writeln!(
            out,
            "{total} files; {} compile alone, {with_orbs} name the registry orbs that they miss, {} in all",
            total - with_orbs,
            self.sum(|file| file.missing_orbs)
        )?;
        writeln!(
            out,
            "{} facts agree, {} are undecided, {} differ, {} differ and are argued; {} ms",
            self.sum(|file| file.agreed),
            self.sum(|file| file.undecided),
            self.sum(|file| file.differing.len()),
            self.sum(|file| file.argued.len()),
            took.as_millis()
        )
    }
}

impl fmt::Display for File {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agreed, undecided, differing, argued, missing_orbs, took } = self;
        let (differing, argued, took) = (differing.len(), argued.len(), took.as_secs_f64() * 1000.0);
        write!(out, "{agreed:6} {undecided:9} {differing:9} {argued:6} {missing_orbs:5} {took:7.1}")
    }
}
