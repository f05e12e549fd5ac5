//! Settings files: the user's, and the project's `.navvy.toml`.
//!
//! ```text
//! ~/.config/navvy/settings.toml ─▶ SettingsFile (user's) ────┐
//! .navvy.toml of the project ────▶ SettingsFile (project's) ─┴─▶ words of the command line that were not given
//! ```
//!
//! Both have the same keys, and an unknown key is an error. The project's file came with the repository: a
//! stranger may have written it. It may say how the project's jobs run, as its config does, and nothing of this host:
//! [`HOST_KEYS`] are refused in it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use navvy_docker::ImageSubstitutions;
use navvy_environment::allowed::Allowed;
use navvy_plain_file as plain_file;
use navvy_storage::StoreTable;
use serde::Deserialize;

use super::Settings;
use super::env_table::EnvTable;
use super::overcommit::Overcommit;
use super::projects::Projects;
use super::vm::VmTable;

/// The project's file, in the directory where the project begins.
pub const PROJECT_FILE: &str = ".navvy.toml";
/// What concerns the host or its user, and therefore stands in the user's file alone.
const HOST_KEYS: [&str; 8] =
    ["store", "host-egress", "overcommit", "allow-host", "contexts", "env-file-projects", "machine-images", "vm"];
/// No settings are longer; what claims to be is not read to its end.
const LONGEST: u64 = 1 << 20;

/// Whose settings they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    User,
    Project,
}

/// A settings file as it was read; where there is none, an empty one.
#[derive(Debug, Clone)]
pub struct SettingsFile {
    pub whose: Whose,
    /// Where it is, or would be.
    pub path: PathBuf,
    pub tables: Tables,
}

/// What a settings file may say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Tables {
    /// Which store (docs/storage.md).
    pub store: Option<StoreTable>,
    /// As `--image FROM=TO`, in this order.
    pub image: Vec<String>,
    /// As `--allow-missing-orbs`.
    pub allow_missing_orbs: Option<bool>,
    /// As `--host-egress`.
    pub host_egress: Option<bool>,
    /// As `--overcommit`.
    pub overcommit: Option<Overcommit>,
    /// As `--allow-host`.
    pub allow_host: Vec<String>,
    /// As `--env-file`, from where this file is.
    pub env_file: Vec<PathBuf>,
    /// Which projects the user gives the files of `env-file`. `None`: the user is asked.
    pub env_file_projects: Option<Projects>,
    /// The user's contexts; `*` stands for those that are not named.
    pub contexts: BTreeMap<String, ContextTable>,
    /// Which image of machines a config's name stands for; in the name `*` stands for anything.
    pub machine_images: BTreeMap<String, String>,
    /// As `--var`, for every job.
    pub env: EnvTable,
    /// Virtual machines of this host.
    pub vm: VmTable,
}

/// `[contexts.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextTable {
    /// Which projects get it. For another project the user is not asked.
    pub projects: Projects,
}

/// Why a settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("failed to read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: {why}", path = path.display())]
    Content { path: PathBuf, why: String },
    #[error("{path}: env-file {named}", path = path.display(), named = named.display())]
    EnvFile {
        path: PathBuf,
        named: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl SettingsFile {
    /// The user's: `~/.config/navvy/settings.toml`.
    ///
    /// # Errors
    /// It cannot be read, or says what is no setting.
    pub fn of_user(settings: &Settings) -> Result<Self, FileError> {
        let Some(path) = &settings.file else { return Ok(Self::empty(Whose::User, Path::new(""))) };
        Self::read(Whose::User, path)
    }

    /// The project's, which begins in this directory.
    ///
    /// # Errors
    /// The same; and a project's file says nothing of the host.
    pub fn of_project(project: &Path) -> Result<Self, FileError> {
        Self::read(Whose::Project, &project.join(PROJECT_FILE))
    }

    fn empty(whose: Whose, path: &Path) -> Self {
        Self { whose, path: path.to_owned(), tables: Tables::default() }
    }

    fn read(whose: Whose, path: &Path) -> Result<Self, FileError> {
        let text = match text_of(whose, path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::empty(whose, path)),
            Err(source) => return Err(FileError::Read { path: path.to_owned(), source }),
        };
        let tables = parse(whose, &text).map_err(|why| FileError::Content { path: path.to_owned(), why })?;
        Ok(Self { whose, path: path.to_owned(), tables })
    }
}

/// The project's settings, and where they say nothing the user's.
#[derive(Debug, Clone)]
pub struct SettingsFiles {
    pub project: SettingsFile,
    pub user: SettingsFile,
}

impl SettingsFiles {
    /// Of the project that begins in this directory.
    ///
    /// # Errors
    /// One of them cannot be read, or says what is no setting.
    pub fn read(settings: &Settings, project: &Path) -> Result<Self, FileError> {
        Ok(Self { project: SettingsFile::of_project(project)?, user: SettingsFile::of_user(settings)? })
    }

    /// What each says, the one that goes first before the other.
    fn tables(&self) -> [&Tables; 2] {
        [&self.project.tables, &self.user.tables]
    }

    /// `FROM=TO`, of which the first that fits counts.
    pub fn images(&self) -> impl Iterator<Item = &String> {
        self.tables().into_iter().flat_map(|tables| &tables.image)
    }

    /// `None`: neither says anything.
    pub fn allow_missing_orbs(&self) -> Option<bool> {
        self.tables().into_iter().find_map(|tables| tables.allow_missing_orbs)
    }

    /// Which projects get a context, by the user's own word alone. `None`: they say nothing.
    pub fn context_projects(&self, name: &str) -> Option<&Projects> {
        let tables = &self.user.tables.contexts;
        tables.get(name).or_else(|| tables.get("*")).map(|table| &table.projects)
    }

    /// Which projects get the files of the user's `env-file`, likewise.
    pub fn env_file_projects(&self) -> Option<&Projects> {
        self.user.tables.env_file_projects.as_ref()
    }

    /// The user's own word alone. `None`: they say nothing.
    pub fn host_egress(&self) -> Option<bool> {
        self.user.tables.host_egress
    }

    /// The same.
    pub fn overcommit(&self) -> Option<Overcommit> {
        self.user.tables.overcommit
    }

    /// The same.
    pub fn vm(&self) -> &VmTable {
        &self.user.tables.vm
    }

    /// The same.
    pub fn allow_host(&self) -> &[String] {
        &self.user.tables.allow_host
    }
}

/// A user's file may be a link, into their own collection of settings. A project's may not: it would have us read what the
/// project cannot.
pub(super) fn text_of(whose: Whose, path: &Path) -> io::Result<String> {
    match whose {
        Whose::User => plain_file::text(path, LONGEST),
        Whose::Project => plain_file::text_without_link(path, LONGEST),
    }
}

/// The text as settings, or what is wrong with it.
fn parse(whose: Whose, text: &str) -> Result<Tables, String> {
    if whose == Whose::Project {
        check_host_keys(text)?;
    }
    let tables: Tables = toml::from_str(text).map_err(|error| syntax(text, &error))?;
    for image in &tables.image {
        let parsed = ImageSubstitutions::parse(std::slice::from_ref(image));
        parsed.map_err(|error| format!("image: {}", navvy_job::chain::chain(&error)))?;
    }
    Allowed::parse(&tables.allow_host).map_err(|error| format!("allow-host: {error}"))?;
    tables.vm.check().map_err(|why| format!("vm: {why}"))?;
    Ok(tables)
}

fn check_host_keys(text: &str) -> Result<(), String> {
    // Text that is not TOML is reported below, with its line.
    let Ok(all) = toml::from_str::<BTreeMap<String, toml::Value>>(text) else { return Ok(()) };
    match HOST_KEYS.iter().find(|key| all.contains_key(**key)) {
        Some(key) => Err(format!(
            "a project's settings may not say `{key}`: it concerns this machine. It belongs in your own settings, \
             ~/.config/navvy/settings.toml"
        )),
        None => Ok(()),
    }
}

/// Where and what, but never the line itself: it may hold a secret.
pub(crate) fn syntax(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.get(..at).unwrap_or("").matches('\n').count() + 1;
    format!("line {line}: {}", navvy_job::chain::about_a_value(error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the two files say together; a message where one is refused.
    fn read(project: &str, user: &str) -> Result<SettingsFiles, String> {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_tests(&[]);
        settings.file = Some(directory.path().join("settings.toml"));
        std::fs::write(directory.path().join("settings.toml"), user).unwrap();
        std::fs::write(directory.path().join(PROJECT_FILE), project).unwrap();
        SettingsFiles::read(&settings, directory.path()).map_err(|error| navvy_job::chain::chain(&error))
    }

    #[test]
    fn the_project_s_settings_go_before_the_user_s() {
        let files = read("image = ['a=b']\nallow-missing-orbs = false", "image = ['*=c']\nallow-missing-orbs = true");
        let files = files.unwrap();
        assert_eq!(files.images().collect::<Vec<_>>(), ["a=b", "*=c"]);
        assert_eq!(files.allow_missing_orbs(), Some(false));
        assert_eq!(read("", "allow-missing-orbs = true").unwrap().allow_missing_orbs(), Some(true));
        let none = SettingsFiles::read(&Settings::for_tests(&[]), Path::new("/nonexistent")).unwrap();
        assert_eq!((none.images().count(), none.allow_missing_orbs()), (0, None));
    }

    #[test]
    fn a_key_or_a_value_that_is_none_is_refused_with_its_file() {
        for (text, words) in [
            ("imgae = []", "line 1: unknown field `imgae`"),
            ("\nallow-missing-orbs = 'yes'", "line 2: invalid type: string \"yes\", expected true or false"),
            ("allow_missing_orbs = true", "unknown field `allow_missing_orbs`"),
            ("image = 'a=b'", "line 1: invalid type: string"),
            ("image = ['a']", "image: "),
            ("image = [", "line 1: "),
        ] {
            let in_project = read(text, "").unwrap_err();
            assert!(in_project.contains(PROJECT_FILE) && in_project.contains(words), "{in_project}");
            let in_users = read("", text).unwrap_err();
            assert!(in_users.contains("settings.toml") && in_users.contains(words), "{in_users}");
        }
    }

    #[test]
    fn a_project_says_nothing_of_the_host() {
        let refused = read("host-egress = true", "").unwrap_err();
        assert!(refused.contains(PROJECT_FILE) && refused.contains("`host-egress`"), "{refused}");
        assert_eq!(read("", "host-egress = true").unwrap().host_egress(), Some(true));
        let refused = read("allow-host = ['3128']", "").unwrap_err();
        assert!(refused.contains(PROJECT_FILE) && refused.contains("`allow-host`"), "{refused}");
        assert_eq!(read("", "allow-host = ['3128']").unwrap().allow_host(), ["3128"]);
        let refused = read("", "allow-host = ['proxy:3128']").unwrap_err();
        assert!(refused.contains("allow-host: \"proxy:3128\""), "{refused}");
        let refused = read("[store]\nurl = 's3://theirs'", "").unwrap_err();
        assert!(refused.contains(PROJECT_FILE) && refused.contains("`store`"), "{refused}");
        assert!(refused.contains("concerns this machine") && refused.contains("settings.toml"), "{refused}");
        read("", "[store]\nurl = 's3://ours'").unwrap();
        for (text, key) in
            [("[contexts.prod]\nprojects = ['*']", "contexts"), ("env-file-projects = ['*']", "env-file-projects")]
        {
            let refused = read(text, "").unwrap_err();
            assert!(refused.contains(PROJECT_FILE) && refused.contains(&format!("`{key}`")), "{refused}");
            read("", text).unwrap();
        }
    }

    #[test]
    fn a_context_without_a_table_of_its_own_is_as_the_star_says() {
        let text = "[contexts.prod]\nprojects = ['/a']\n[contexts.'*']\nprojects = ['/b']";
        let files = read("", text).unwrap();
        let every = files.context_projects("other").unwrap().clone();
        assert_eq!(files.context_projects("staging"), Some(&every));
        assert_ne!(files.context_projects("prod"), Some(&every));
        assert_eq!((read("", "").unwrap().context_projects("prod"), files.env_file_projects()), (None, None));
        let refused = read("", "[contexts.prod]\nprojects = ['shop']").unwrap_err();
        assert!(refused.contains("line 2: \"shop\" names no projects"), "{refused}");
        assert!(read("", "[contexts.prod]\nproject = '*'").unwrap_err().contains("unknown field `project`"));
    }

    #[test]
    fn processors_are_overbooked_by_the_user_alone() {
        assert_eq!(read("", "overcommit = 2").unwrap().overcommit(), Some("2".parse().unwrap()));
        assert_eq!(read("", "overcommit = 1.5").unwrap().overcommit(), Some("1.5".parse().unwrap()));
        assert_eq!(read("", "").unwrap().overcommit(), None);
        let refused = read("overcommit = 2", "").unwrap_err();
        assert!(refused.contains("`overcommit`") && refused.contains("concerns this machine"), "{refused}");
        for text in ["overcommit = 0.5", "overcommit = 'two'", "overcommit = 17"] {
            let refused = read("", text).unwrap_err();
            assert!(refused.contains("settings.toml: line 1: "), "{refused}");
        }
    }

    #[test]
    fn a_project_s_file_leads_nowhere_else_and_never_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(PROJECT_FILE);
        let refused = || navvy_job::chain::chain(&SettingsFile::of_project(directory.path()).unwrap_err());
        std::fs::write(directory.path().join("elsewhere"), "").unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(refused().contains("symbolic link"), "{}", refused());
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(refused().contains("a named pipe, not a file"), "{}", refused());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, [b'#'; (1 << 20) + 1]).unwrap();
        assert!(refused().contains("longer than 1 MiB"), "{}", refused());
    }

    #[test]
    fn a_user_s_file_may_be_a_link_and_its_options_are_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("mine"), "[store.options]\ntoken = 'hunter2'").unwrap();
        std::os::unix::fs::symlink("mine", directory.path().join("settings.toml")).unwrap();
        let read = SettingsFile::read(Whose::User, &directory.path().join("settings.toml")).unwrap();
        let shown = format!("{read:?}");
        assert!(shown.contains("token") && !shown.contains("hunter2"), "{shown}");
    }
}
