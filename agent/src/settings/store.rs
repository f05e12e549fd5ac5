//! Which store, as the user's flag, variables and settings file say.

use navvy_storage::{SettingsError, Sources, StorageSettings};

use super::Settings;
use super::file::{FileError, SettingsFile};

/// Why no store is known.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The settings file is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Gathers a store's settings. `flag` is `--store`. No store is opened.
///
/// # Errors
/// Nothing names a store that could be one, or the settings file is not what it should be.
pub fn store(settings: &Settings, flag: Option<&str>) -> Result<StorageSettings, StoreError> {
    let table = SettingsFile::of_user(settings)?.tables.store.unwrap_or_default();
    let sources = Sources {
        flag,
        variables: &settings.variables,
        home: settings.home.as_deref(),
        data: settings.data.as_deref(),
        table,
        file: settings.file.as_deref(),
    };
    Ok(StorageSettings::gather(sources)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_in_the_users_data_directory() {
        let store =
            |variables: &[(&str, &str)]| store(&Settings::for_tests(variables), None).unwrap().location.to_string();
        assert_eq!(store(&[("HOME", "/home/u")]), "file:///home/u/.local/share/navvy/store");
        assert_eq!(store(&[("HOME", "/home/u"), ("XDG_DATA_HOME", "/d")]), "file:///d/navvy/store");
    }

    #[test]
    fn a_mistake_in_the_file_is_named_and_its_text_is_not_shown() {
        let refused = |file: &str| {
            let directory = tempfile::tempdir().unwrap();
            let mut settings = Settings::for_tests(&[("HOME", "/home/u")]);
            let path = directory.path().join("settings.toml");
            std::fs::write(&path, file).unwrap();
            settings.file = Some(path);
            store(&settings, None).unwrap_err().to_string()
        };
        let typo = refused("[store]\nurl = 's3://b'\n[store.options]\nregoin = 'x'\nodd = 'y'");
        assert!(typo.contains("odd, regoin") && typo.contains("did you mean region for regoin"), "{typo}");
        let unknown = refused("[store]\nurl = 's3://b'\nsecret = 'hunter2'");
        assert!(unknown.contains("line 3") && unknown.contains("secret") && !unknown.contains("hunter2"), "{unknown}");
        let broken = refused("[store]\nurl = 's3://b'\n[store.options]\ntoken = hunter2");
        assert!(broken.contains("line 4") && !broken.contains("hunter2"), "{broken}");
    }
}
