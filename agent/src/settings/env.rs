//! The files of variables that a settings file's `env-file` names.
//!
//! Values in a project's files are its own: nothing of this host is put into them, neither a file outside the project nor a
//! variable of the caller.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::file::{FileError, SettingsFile, Whose, text_of};

impl SettingsFile {
    /// Those of the files that `env-file` names which are `wanted`, and what is in them. No other is opened.
    ///
    /// # Errors
    /// One cannot be read, or a project's leads out of the project.
    pub fn env_files(
        &self,
        home: Option<&Path>,
        wanted: impl Fn(&Path) -> bool,
    ) -> Result<Vec<(PathBuf, String)>, FileError> {
        let mut read = Vec::new();
        for named in &self.tables.env_file {
            let failed = |source| FileError::EnvFile { path: self.path.clone(), named: named.clone(), source };
            let path = self.place(named, home).map_err(failed)?;
            if wanted(&path) {
                let text = text_of(self.whose, &path).map_err(failed)?;
                read.push((path, text));
            }
        }
        Ok(read)
    }

    /// Where the files are that `env-file` names; those that cannot be known yet are reported when they are read.
    pub fn env_file_places(&self, home: Option<&Path>) -> Vec<PathBuf> {
        self.tables.env_file.iter().filter_map(|named| self.place(named, home).ok()).collect()
    }

    fn place(&self, named: &Path, home: Option<&Path>) -> io::Result<PathBuf> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        match (self.whose, named.strip_prefix("~"), home) {
            (Whose::User, Ok(rest), Some(home)) => Ok(home.join(rest)),
            (Whose::User, ..) => Ok(directory.join(named)),
            (Whose::Project, ..) => inside(directory, named),
        }
    }
}

/// The real place of a project's file: by no link does it lie elsewhere.
fn inside(project: &Path, named: &Path) -> io::Result<PathBuf> {
    let leads_out =
        || io::Error::other("a project's settings may only name files of the project, and this one is outside");
    if !named.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(leads_out());
    }
    let (project, path) = (project.canonicalize()?, project.join(named).canonicalize()?);
    // A link from one file of the project to another stays inside.
    if path.starts_with(&project) { Ok(path) } else { Err(leads_out()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::settings::file::{PROJECT_FILE, Tables};
    use navvy_job::chain::chain;
    use navvy_job::compiled::Variables;

    fn table(text: &str) -> Result<Variables, String> {
        toml::from_str::<Tables>(text).map(|tables| tables.env.0).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn plain_variables_stand_in_a_table() {
        let variables = table("[env]\nB = 'x'\nA = 7\nC = true").unwrap();
        let expected = [("A", "7"), ("B", "x"), ("C", "true")];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for (text, words) in [
            ("[env]\nA = 1.10", "env.A is not text; write its value in quotes"),
            ("[env]\nA = ['hunter2']", "env.A is not text"),
            ("[env]\nA-B = 'hunter2'", "\"A-B\" is not a variable name"),
            ("[env]\nA = 'hunter2\\u0000'", ""),
            ("[env]\nA = \"hunter2\\u0000\"", "env.A holds a NUL"),
            ("env = 'A=hunter2'", "invalid type"),
        ] {
            match (table(text), words) {
                (Err(error), words) => assert!(error.contains(words) && !words.contains("hunter2"), "{error}"),
                (Ok(_), words) => assert!(words.is_empty(), "{text} is refused"),
            }
        }
        let shown = format!("{:?}", toml::from_str::<Tables>("[env]\nA = 'hunter2'").unwrap());
        assert!(shown.contains('A') && !shown.contains("hunter2"), "{shown}");
    }

    struct Here(tempfile::TempDir);

    impl Here {
        fn new() -> Self {
            let here = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir(here.path("project")).unwrap();
            std::fs::create_dir(here.path("home")).unwrap();
            here
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn file(&self, name: &str) -> &Self {
            std::fs::write(self.path(name), name).unwrap();
            self
        }

        fn read(&self, whose: Whose, named: &str) -> Result<String, String> {
            let path = match whose {
                Whose::Project => self.path("project").join(PROJECT_FILE),
                Whose::User => self.path("home/settings.toml"),
            };
            let tables = Tables { env_file: vec![named.into()], ..Tables::default() };
            let file = SettingsFile { whose, path, tables };
            let mut read = file.env_files(Some(&self.path("home")), |_| true).map_err(|error| chain(&error))?;
            Ok(read.remove(0).1)
        }
    }

    #[test]
    fn a_project_names_files_of_its_own_alone() {
        let here = Here::new();
        here.file("secret").file("project/.env").file("home/mine.env");
        let of_project = |named: &str| here.read(Whose::Project, named);
        assert_eq!(of_project(".env").unwrap(), "project/.env");
        assert_eq!(of_project("./.env").unwrap(), "project/.env");
        let absolute = here.path("project/.env").display().to_string();
        for named in ["../secret", "/etc/hostname", "~/mine.env", &absolute, "nothing/../../secret"] {
            let error = of_project(named).unwrap_err();
            assert!(error.contains(PROJECT_FILE) && error.contains("env-file"), "{error}");
        }
        symlink("../secret", here.path("project/link")).unwrap();
        symlink("..", here.path("project/up")).unwrap();
        symlink(".env", here.path("project/other")).unwrap();
        assert!(of_project("link").unwrap_err().contains("this one is outside"));
        assert!(of_project("up/secret").unwrap_err().contains("this one is outside"));
        assert_eq!(of_project("other").unwrap(), "project/.env");
        rustix::fs::mknodat(rustix::fs::CWD, here.path("project/pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        assert!(of_project("pipe").unwrap_err().contains("it is a named pipe, not a file"));
    }

    #[test]
    fn a_user_names_any_file() {
        let here = Here::new();
        here.file("home/mine.env").file("elsewhere");
        for (named, expected) in
            [("mine.env", "home/mine.env"), ("~/mine.env", "home/mine.env"), ("../elsewhere", "elsewhere")]
        {
            assert_eq!(here.read(Whose::User, named).unwrap(), expected);
        }
        let error = here.read(Whose::User, "none").unwrap_err();
        assert!(error.contains("settings.toml: env-file none: "), "{error}");
    }
}
