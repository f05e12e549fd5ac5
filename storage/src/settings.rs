//! Which store, and how to reach it: flag, environment, file, in this order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use serde::Deserialize;

use super::http::{Pace, Proxies};
use super::patience::Retries;
use super::transfer::Shape;

/// Why no store could be opened.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The name of the store is not one.
    #[error("{url:?} (from {origin}) is not a store: {why}")]
    Url {
        /// As it was given, without a password.
        url: String,
        /// Who gave it.
        origin: Origin,
        /// What is wrong with it.
        why: String,
    },
    /// No store was named, and the usual directory is not known.
    #[error("no place for a store: set HOME or XDG_DATA_HOME, or name a store with --store or NAVVY_STORE")]
    NoHome,
    /// The settings file has options that the cloud's library would ignore.
    #[error("{path}: [store.options] has {names}, which {scheme}:// does not know{hint}", path = path.display())]
    Options {
        /// The settings file.
        path: PathBuf,
        /// The options, in words.
        names: String,
        /// Scheme of the store's URL.
        scheme: &'static str,
        /// A likely name in place of a wrong one, or empty.
        hint: String,
    },
}

/// Who named the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `--store`.
    Flag,
    /// `NAVVY_STORE`.
    Environment,
    /// The settings file.
    File,
    /// The user's own data directory.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "--store",
            Self::Environment => "NAVVY_STORE",
            Self::File => "settings.toml",
            Self::Default => "the default",
        })
    }
}

/// Which store it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A cloud's bucket.
    Cloud {
        /// Which cloud.
        scheme: Scheme,
        /// Name of the bucket or container.
        bucket: String,
        /// Path in the bucket where the store begins, or empty.
        root: String,
    },
}

/// Clouds that can hold a store, by the schemes of their URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `s3://`: Amazon S3, and what speaks its protocol.
    S3,
    /// `gs://`: Google Cloud Storage.
    Gs,
    /// `az://`: Azure Blob Storage.
    Az,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        }
    }

    /// What its variables begin with.
    fn variables(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["AWS_"],
            Self::Gs => &["GOOGLE_"],
            Self::Az => &["AZURE_"],
        }
    }

    fn knows(self, option: &str) -> bool {
        match self {
            Self::S3 => option.parse::<AmazonS3ConfigKey>().is_ok(),
            Self::Gs => option.parse::<GoogleConfigKey>().is_ok(),
            Self::Az => option.parse::<AzureConfigKey>().is_ok(),
        }
    }

    /// The usual options of a scheme, to correct a typing error.
    fn usual(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &[
                "access_key_id",
                "secret_access_key",
                "token",
                "region",
                "endpoint",
                "virtual_hosted_style_request",
                "checksum_algorithm",
                "unsigned_payload",
                "skip_signature",
                "disable_bulk_delete",
            ],
            Self::Gs => &["service_account", "service_account_key", "application_credentials", "skip_signature"],
            Self::Az => {
                &["account_name", "account_key", "client_id", "client_secret", "tenant_id", "sas_key", "endpoint"]
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file://{}", path.display()),
            Self::Cloud { scheme, bucket, root } if root.is_empty() => write!(f, "{}://{bucket}", scheme.as_str()),
            Self::Cloud { scheme, bucket, root } => write!(f, "{}://{bucket}/{root}", scheme.as_str()),
        }
    }
}

/// The table `[store]` of a settings file.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreTable {
    /// URL of the store, as `--store` takes it.
    pub url: Option<String>,
    /// File with an authority's certificate, as `NAVVY_STORE_CA` names it.
    pub ca: Option<PathBuf>,
    /// What the cloud's library takes, credentials among them.
    pub options: BTreeMap<String, String>,
}

/// Options may be credentials: they are shown by name alone.
impl fmt::Debug for StoreTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<&String> = self.options.keys().collect();
        f.debug_struct("StoreTable").field("ca", &self.ca).field("options", &options).finish_non_exhaustive()
    }
}

/// What the settings of a store are gathered from. The first that names one wins: flag, variable, file; else the default.
#[derive(Debug, Clone)]
pub struct Sources<'a> {
    /// `--store`
    pub flag: Option<&'a str>,
    /// The process's environment: `NAVVY_STORE`, `NAVVY_STORE_CA`, the clouds' own variables, proxies.
    pub variables: &'a BTreeMap<String, String>,
    /// What `~/` stands for.
    pub home: Option<&'a Path>,
    /// What Navvy keeps for its user: the default store is a directory in it.
    pub data: Option<&'a Path>,
    /// Table `[store]` of the user's settings file.
    pub table: StoreTable,
    /// That file, for errors.
    pub file: Option<&'a Path>,
}

/// Everything a store is opened with.
#[derive(Clone, PartialEq, Eq)]
pub struct StorageSettings {
    /// Where the store is.
    pub location: Location,
    /// Who named it.
    pub origin: Origin,
    /// What the cloud's library takes, credentials among them.
    pub options: BTreeMap<String, String>,
    /// One more authority to trust, as PEM.
    pub ca: Option<PathBuf>,
    /// Proxies on the way to it.
    pub proxies: Proxies,
    /// When a transfer counts as stalled.
    pub pace: Pace,
    /// How bodies are cut into parts.
    pub shape: Shape,
    /// How long a request is tried again.
    pub retries: Retries,
}

/// Options are named, never shown: most are credentials.
impl fmt::Debug for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageSettings")
            .field("location", &self.location)
            .field("origin", &self.origin)
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .field("ca", &self.ca)
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

impl StorageSettings {
    /// The first of the flag `--store`, `NAVVY_STORE` and the settings file that names a store counts; else the store is in the
    /// user's data directory.
    ///
    /// # Errors
    /// The URL is not a store's, no store was named and the usual directory is not known, or an option is not known.
    pub fn gather(sources: Sources<'_>) -> Result<Self, SettingsError> {
        let set = |name: &str| sources.variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let variable = set("NAVVY_STORE").map(|url| (url, Origin::Environment));
        let named = sources.flag.map(|url| (url, Origin::Flag)).or(variable);
        let (location, origin) = match named.or_else(|| sources.table.url.as_deref().map(|url| (url, Origin::File))) {
            Some((url, origin)) => (location(url, origin, sources.home)?, origin),
            None => {
                let data = sources.data.ok_or(SettingsError::NoHome)?;
                (Location::Directory(data.join("store")), Origin::Default)
            }
        };
        Ok(Self {
            options: options(&location, &sources)?,
            ca: set("NAVVY_STORE_CA").map(PathBuf::from).or(sources.table.ca),
            proxies: Proxies::of(sources.variables),
            location,
            origin,
            pace: Pace::default(),
            shape: Shape::default(),
            retries: Retries::default(),
        })
    }

    /// A directory, and everything else by default.
    pub fn directory(path: &Path) -> Self {
        Self {
            location: Location::Directory(path.to_owned()),
            origin: Origin::Default,
            options: BTreeMap::new(),
            ca: None,
            proxies: Proxies::default(),
            pace: Pace::default(),
            shape: Shape::default(),
            retries: Retries::default(),
        }
    }
}

fn location(url: &str, origin: Origin, home: Option<&Path>) -> Result<Location, SettingsError> {
    let wrong = |why: &str| SettingsError::Url { url: without_password(url), origin, why: why.to_owned() };
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(wrong("write file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"));
    };
    let scheme = match scheme {
        "file" => {
            return directory(rest, home).ok_or_else(|| wrong("a file:// store needs an absolute path, or ~/PATH"));
        }
        "s3" => Scheme::S3,
        "gs" => Scheme::Gs,
        "az" => Scheme::Az,
        other => return Err(wrong(&unknown_scheme(other))),
    };
    let (bucket, root) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.contains(['@', '?', '#', ':']) {
        return Err(wrong(
            "a bucket's name follows ://, and nothing else stands there; credentials go into the settings",
        ));
    }
    let root = root.trim_matches('/');
    if object_store::path::Path::parse(root).is_err() || root.contains(['?', '#']) {
        return Err(wrong("its path has an empty segment, . or .., or characters that paths should not have"));
    }
    Ok(Location::Cloud { scheme, bucket: bucket.to_owned(), root: root.to_owned() })
}

fn directory(path: &str, home: Option<&Path>) -> Option<Location> {
    let path = match path.strip_prefix("~/") {
        Some(beneath) => home?.join(beneath),
        None => PathBuf::from(path),
    };
    path.is_absolute().then_some(Location::Directory(path))
}

fn unknown_scheme(scheme: &str) -> String {
    let known = ["file", "s3", "gs", "az"];
    let near = known.iter().max_by(|a, b| strsim::jaro(a, scheme).total_cmp(&strsim::jaro(b, scheme)));
    match near.filter(|near| strsim::jaro(near, scheme) > 0.6) {
        Some(near) => format!("{scheme}:// is unknown; did you mean {near}://?"),
        None => format!("{scheme}:// is unknown; there are file://, s3://, gs:// and az://"),
    }
}

/// A URL as its author wrote it, without the credentials that do not belong there.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

/// The cloud's own variables, and over them the file's table.
fn options(location: &Location, sources: &Sources<'_>) -> Result<BTreeMap<String, String>, SettingsError> {
    let Location::Cloud { scheme, .. } = location else { return Ok(BTreeMap::new()) };
    let mut options = BTreeMap::new();
    for (name, value) in sources.variables {
        let small = name.to_ascii_lowercase();
        let ours = scheme.variables().iter().any(|prefix| name.starts_with(prefix)) && scheme.knows(&small);
        if ours && !value.is_empty() {
            options.insert(small, value.clone());
        }
    }
    let unknown: Vec<&str> =
        sources.table.options.keys().map(String::as_str).filter(|name| !scheme.knows(name)).collect();
    if !unknown.is_empty() {
        let path = sources.file.map(Path::to_owned).unwrap_or_default();
        let hint = neighbours(&unknown, scheme.usual());
        return Err(SettingsError::Options { path, names: unknown.join(", "), scheme: scheme.as_str(), hint });
    }
    // Later ones win where the library takes them in this order: names without a prefix sort after `aws_…`.
    options.extend(sources.table.options.iter().map(|(name, value)| (prefixed(*scheme, name), value.clone())));
    Ok(options)
}

/// One spelling for each option, so that the file's wins over the environment's.
fn prefixed(scheme: Scheme, name: &str) -> String {
    let prefix = scheme.variables()[0].to_ascii_lowercase();
    let long = format!("{prefix}{name}");
    if !name.starts_with(&prefix) && scheme.knows(&long) { long } else { name.to_owned() }
}

fn neighbours(unknown: &[&str], known: &[&str]) -> String {
    let near = |name: &str| {
        let best = known.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
        best.filter(|best| strsim::jaro(best, name) > 0.7).map(|best| format!("{best} for {name}"))
    };
    let hints: Vec<String> = unknown.iter().filter_map(|name| near(name)).collect();
    if hints.is_empty() { String::new() } else { format!("; did you mean {}?", hints.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings of a process with these variables and this file.
    fn gathered(
        variables: &[(&str, &str)],
        table: &StoreTable,
        flag: Option<&str>,
    ) -> Result<StorageSettings, SettingsError> {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let home = variables.get("HOME").map(Path::new);
        let data = home.map(|home| home.join(".local/share/navvy"));
        let (data, file) = (data.as_deref(), Some(Path::new("/c/settings.toml")));
        StorageSettings::gather(Sources { flag, variables: &variables, home, data, table: table.clone(), file })
    }

    fn table(url: &str, options: &[(&str, &str)]) -> StoreTable {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        StoreTable { url: Some(url.to_owned()), ca: None, options }
    }

    const HOME: (&str, &str) = ("HOME", "/home/u");

    #[test]
    fn flag_goes_before_variable_before_file_before_default() {
        let (file, none) = (table("s3://from-file/p/", &[]), StoreTable::default());
        let place =
            |variables: &[(&str, &str)], table, flag| gathered(variables, table, flag).unwrap().location.to_string();
        let variable = ("NAVVY_STORE", "gs://from-variable");
        assert_eq!(place(&[HOME, variable], &file, Some("file://~/x")), "file:///home/u/x");
        assert_eq!(place(&[HOME, variable], &file, None), "gs://from-variable");
        assert_eq!(place(&[HOME], &file, None), "s3://from-file/p");
        assert_eq!(place(&[HOME], &none, None), "file:///home/u/.local/share/navvy/store");
        assert!(gathered(&[], &none, None).unwrap_err().to_string().contains("XDG_DATA_HOME"));
    }

    #[test]
    fn what_is_no_store_says_so_and_what_would_be() {
        let refused = |url| gathered(&[HOME], &StoreTable::default(), Some(url)).unwrap_err().to_string();
        assert!(refused("s4://b").contains("did you mean s3://?"), "{}", refused("s4://b"));
        assert!(refused("bucket").contains("s3://BUCKET/PREFIX"));
        assert!(refused("file://relative").contains("absolute"));
        assert!(refused("s3://").contains("bucket"));
        assert!(refused("s3://b/a/../c").contains(".."));
        let error = refused("s3://key:hunter2@bucket/p");
        assert!(error.contains("credentials go into the settings") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn options_come_from_the_clouds_own_variables_and_the_file_goes_first() {
        let variables =
            [HOME, ("AWS_REGION", "from-variable"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_ODD", "x"), ("REGION", "y")];
        let file = table("s3://b", &[("region", "from-file"), ("secret_access_key", "hunter2")]);
        let settings = gathered(&variables, &file, None).unwrap();
        let options: Vec<(&str, &str)> = settings.options.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [("aws_access_key_id", "id"), ("aws_region", "from-file"), ("aws_secret_access_key", "hunter2")];
        assert_eq!(options, expected);
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(
            gathered(&variables, &StoreTable::default(), None).unwrap().options.len(),
            0,
            "a directory has none"
        );
    }

    #[test]
    fn an_option_that_the_cloud_does_not_know_is_named_with_its_neighbour() {
        let error =
            gathered(&[HOME], &table("s3://b", &[("regoin", "x"), ("odd", "y")]), None).unwrap_err().to_string();
        assert!(error.contains("odd, regoin") && error.contains("did you mean region for regoin"), "{error}");
        assert!(error.contains("/c/settings.toml"), "{error}");
    }

    #[test]
    fn a_store_whose_path_leaves_no_room_for_keys_is_refused() {
        let mut settings = StorageSettings::directory("/".as_ref());
        let root = "p/".repeat(400);
        settings.location = Location::Cloud { scheme: Scheme::S3, bucket: "b".into(), root };
        settings.options.insert("aws_region".into(), "us-east-1".into());
        assert!(matches!(settings.open(), Err(crate::StorageError::NoRoom(_))));
    }
}
