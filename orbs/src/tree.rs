//! An orb's source as its repository has it: `@orb.yml`, a file for every element, and what they include.
//!
//! ```text
//! src/@orb.yml  src/commands/greet.yml  src/jobs/…  src/executors/…  src/examples/…     src/scripts/greet.sh
//!      └───────────────┴── parts ─▶ navvy_config::pack_orb ─▶ one source                        │
//!                                        └── <<include(scripts/greet.sh)>> ─────────────────────┘
//! ```
//!
//! Nothing outside of the directory of `@orb.yml` is read, wherever names and links lead.

use std::fs;
use std::path::{Component, Path, PathBuf};

use navvy_config::{File, OrbPart, OrbPlace, OrbSection};
use navvy_plain_file as plain_file;

/// The compiler refuses larger sources.
const LARGEST: u64 = 8 << 20;
const TOP: &str = "@orb.yml";

/// The directory of an `@orb.yml`.
#[derive(Debug)]
pub struct Tree {
    /// Without links.
    root: PathBuf,
    shown: String,
}

/// Why a directory is no source of an orb, or cannot be read as one.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TreeError {
    /// What is wrong, in a sentence.
    pub message: String,
    /// What to do; `None` if there is nothing to say.
    pub hint: Option<String>,
}

impl Tree {
    /// The tree in `directory`, or in its `src`.
    ///
    /// # Errors
    /// Neither holds a tree.
    pub fn open(directory: &Path) -> Result<Self, TreeError> {
        let shown = directory.display().to_string();
        if directory.is_file() {
            let add = format!("navvy orb add {} NAMESPACE/NAME@VERSION", shell_words::quote(&shown));
            return Err(TreeError {
                message: format!("{shown} is a file, not the directory of an orb's source"),
                hint: Some(format!("An orb that is one file already needs no packing: {add}")),
            });
        }
        if !directory.is_dir() {
            return Err(TreeError { message: format!("there is no directory {shown}"), hint: None });
        }
        let inside = directory.join("src");
        let root = [directory, &inside].into_iter().find(|directory| directory.join(TOP).exists());
        let root = root.ok_or_else(|| no_top(directory, &shown))?;
        let shown = root.display().to_string();
        let root = root.canonicalize().map_err(|error| unreadable(&shown, &error))?;
        Ok(Self { root, shown })
    }

    /// How messages call it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Every file that is a part of the orb, `@orb.yml` first.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn parts(&self) -> Result<Vec<OrbPart>, TreeError> {
        let mut parts = vec![self.part(TOP, OrbPlace::Top)?];
        for name in self.sources("")?.into_iter().filter(|name| name != TOP) {
            parts.push(self.part(&name, OrbPlace::Top)?);
        }
        for section in OrbSection::ALL {
            let directory = section.key();
            if !self.root.join(directory).exists() {
                continue;
            }
            for name in self.sources(directory)? {
                let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
                let place = match stem.starts_with('@') {
                    true => OrbPlace::Elements(section),
                    false => OrbPlace::Element(section, stem.to_owned()),
                };
                parts.push(self.part(&format!("{directory}/{name}"), place)?);
            }
        }
        Ok(parts)
    }

    /// The text of a file that an element includes.
    ///
    /// # Errors
    /// Why it cannot be included.
    pub fn include(&self, path: &str) -> Result<String, String> {
        // As the original has it, a path begins at the top also with a slash before it.
        let relative = path.trim_start_matches('/');
        self.read(relative)
    }

    fn part(&self, relative: &str, place: OrbPlace) -> Result<OrbPart, TreeError> {
        let text = self.read(relative).map_err(|message| TreeError { message, hint: None })?;
        let name = format!("{}/{relative}", self.shown.trim_end_matches('/'));
        Ok(OrbPart { place, file: File { name, text: text.into() } })
    }

    /// The YAML files of a directory of the tree, sorted. Others, and what is hidden, are not the orb's.
    fn sources(&self, directory: &str) -> Result<Vec<String>, TreeError> {
        let path = self.root.join(directory);
        let failed = |error: &std::io::Error| unreadable(&format!("{}/{directory}", self.shown), error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_source = name.ends_with(".yml") || name.ends_with(".yaml");
            if is_source && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Why not, in words, where it is not a file of text of this tree.
    fn read(&self, relative: &str) -> Result<String, String> {
        let failed = |error: &std::io::Error| format!("could not read {}/{relative}: {error}", self.shown);
        let outside = || format!("{relative} leads outside of {}, and nothing there is read", self.shown);
        // First by its words, so that nothing tells what is there and what is not; then by where links lead.
        if leaves(Path::new(relative)) {
            return Err(outside());
        }
        let path = self.root.join(relative).canonicalize().map_err(|error| failed(&error))?;
        if !path.starts_with(&self.root) {
            return Err(outside());
        }
        let bytes = plain_file::read(&path, LARGEST).map_err(|error| failed(&error))?;
        String::from_utf8(bytes).map_err(|_| format!("{}/{relative} is not UTF-8 text", self.shown))
    }
}

/// Whether a path goes above where it begins.
fn leaves(path: &Path) -> bool {
    let mut depth = 0_usize;
    for component in path.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

fn no_top(directory: &Path, shown: &str) -> TreeError {
    let message = format!("there is no {TOP} in {shown} or in {}", directory.join("src").display());
    let whole = ["orb.yml", "src/orb.yml"].map(|name| directory.join(name)).into_iter().find(|path| path.is_file());
    let hint = match whole {
        Some(path) => {
            let path = path.display().to_string();
            let add = format!("navvy orb add {} NAMESPACE/NAME@VERSION", shell_words::quote(&path));
            format!("{path} may be an orb that is one file already: {add}")
        }
        None => {
            format!("The source of an orb has a {TOP} at its top, and its elements in commands/, jobs/, executors/.")
        }
    };
    TreeError { message, hint: Some(hint) }
}

fn unreadable(shown: &str, error: &std::io::Error) -> TreeError {
    TreeError { message: format!("could not read {shown}: {error}"), hint: None }
}
