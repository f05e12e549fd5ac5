//! Which store, and how to reach it: flag, environment, file, in this order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, RetryConfig};

use super::bucket::{Bucket, Cloud};
use super::error::{Result as StorageResult, StorageError};
use super::granted::Urls;
use super::http::{Pace, Transport};
use super::transfer::Shape;
use crate::settings::Settings;
use crate::settings::file::{FileError, SettingsFile, StoreTable};

/// Why no store could be opened.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("store {url:?} (from {origin}) is none: {why}")]
    Url { url: String, origin: Origin, why: String },
    #[error("no place for a store: set HOME or XDG_DATA_HOME, or name a store with --store or NAVVY_STORE")]
    NoHome,
    #[error(transparent)]
    File(FileError),
    #[error("{path}: [store.options] has {names}, which {scheme}:// does not know{hint}", path = path.display())]
    Options { path: PathBuf, names: String, scheme: &'static str, hint: String },
    #[error("certificate file {path}: {why}", path = path.display())]
    Ca { path: PathBuf, why: String },
    #[error("{0} is no proxy's URL")]
    Proxy(&'static str),
    #[error("failed to make an HTTP client: {0}")]
    Client(String),
}

/// Who named the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Environment,
    File,
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
    Directory(PathBuf),
    Cloud { scheme: Scheme, bucket: String, root: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    S3,
    Gs,
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

    /// For whoever mistypes one.
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

/// Proxies, as the usual variables name them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: Option<String>,
    pub https: Option<String>,
    /// `NO_PROXY`
    pub except: Option<String>,
}

impl Proxies {
    fn new(settings: &Settings) -> Self {
        // Small letters first, as everybody does it.
        let get = |name: &str| {
            let small = settings.get(&name.to_ascii_lowercase()).or_else(|| settings.get(name));
            small.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let all = get("ALL_PROXY");
        Self { http: get("HTTP_PROXY").or(all.clone()), https: get("HTTPS_PROXY").or(all), except: get("NO_PROXY") }
    }
}

/// A proxy's URL may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("except", &self.except)
            .finish()
    }
}

/// Everything a store is opened with.
#[derive(Clone, PartialEq, Eq)]
pub struct StorageSettings {
    pub location: Location,
    pub origin: Origin,
    /// What the cloud's library takes, credentials among them.
    pub options: BTreeMap<String, String>,
    /// One more authority to trust, as PEM.
    pub ca: Option<PathBuf>,
    pub proxies: Proxies,
    pub pace: Pace,
    pub shape: Shape,
    pub retries: Retries,
}

/// How often and how long a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    pub most: usize,
    /// No retry is begun after this.
    pub within: Duration,
    /// The first pause; each is up to three times the one before, at random, and at most `last`.
    pub first: Duration,
    pub last: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            most: 8,
            within: Duration::from_secs(120),
            first: Duration::from_millis(100),
            last: Duration::from_secs(15),
        }
    }
}

impl Retries {
    pub(super) fn config(self) -> RetryConfig {
        let backoff = BackoffConfig { init_backoff: self.first, max_backoff: self.last, base: 3. };
        RetryConfig { backoff, max_retries: self.most, retry_timeout: self.within }
    }
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
    /// From the flag `--store`, `NAVVY_STORE` or the settings file, whichever comes first; else the user's data directory.
    ///
    /// # Errors
    /// Nothing names a store that could be one, or the file is not what it should be.
    pub fn gather(settings: &Settings, flag: Option<&str>) -> Result<Self, SettingsError> {
        let table = SettingsFile::of_user(settings).map_err(SettingsError::File)?.tables.store.unwrap_or_default();
        let variable = settings.get("NAVVY_STORE").filter(|url| !url.is_empty());
        let named = flag.map(|url| (url, Origin::Flag)).or_else(|| variable.map(|url| (url, Origin::Environment)));
        let (location, origin) = match named.or_else(|| table.url.as_deref().map(|url| (url, Origin::File))) {
            Some((url, origin)) => (location(url, origin, settings.home.as_deref())?, origin),
            None => {
                let data = settings.data.as_ref().ok_or(SettingsError::NoHome)?;
                (Location::Directory(data.join("store")), Origin::Default)
            }
        };
        Ok(Self {
            options: options(&location, settings, &table)?,
            ca: settings.get("NAVVY_STORE_CA").filter(|path| !path.is_empty()).map(PathBuf::from).or(table.ca),
            proxies: Proxies::new(settings),
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

    /// Opens the store. A cloud is not spoken to yet.
    ///
    /// # Errors
    /// A directory that cannot be made, a certificate, a proxy or an option that makes no sense.
    pub fn open(&self) -> StorageResult<Bucket> {
        match &self.location {
            Location::Directory(path) => Bucket::directory(path),
            Location::Cloud { scheme, bucket, root } => self.open_cloud(*scheme, bucket, root),
        }
    }

    fn open_cloud(&self, scheme: Scheme, bucket: &str, root: &str) -> StorageResult<Bucket> {
        let name = self.location.to_string();
        let failed = |source| StorageError::Store { store: name.clone(), verb: "open it", source };
        let transport = Transport::new(self)?;
        let retry = self.retries.config();
        let urls = Urls { transport: transport.clone(), retries: self.retries };
        // Each cloud's store is a type of its own; beyond this macro they are the same.
        macro_rules! open {
            ($builder:ty, $with_name:ident) => {{
                let builder =
                    self.options.iter().fold(<$builder>::new(), |builder, (name, value)| match name.parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    });
                let builder = builder.$with_name(bucket).with_retry(retry).with_http_connector(transport);
                let store = Arc::new(builder.build().map_err(failed)?);
                let uploads = (scheme == Scheme::S3).then_some(urls);
                let cloud = Cloud { pages: store.clone(), multipart: store.clone(), signer: store.clone(), uploads };
                Bucket::cloud(name.clone(), root, store, cloud)
            }};
        }
        match scheme {
            Scheme::S3 => open!(AmazonS3Builder, with_bucket_name),
            Scheme::Gs => open!(GoogleCloudStorageBuilder, with_bucket_name),
            Scheme::Az => open!(MicrosoftAzureBuilder, with_container_name),
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

/// A URL as somebody wrote it, without what they should not have written into it.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

/// The cloud's own variables, and over them the file's table.
fn options(
    location: &Location,
    settings: &Settings,
    table: &StoreTable,
) -> Result<BTreeMap<String, String>, SettingsError> {
    let Location::Cloud { scheme, .. } = location else { return Ok(BTreeMap::new()) };
    let mut options = BTreeMap::new();
    for (name, value) in &settings.variables {
        let small = name.to_ascii_lowercase();
        let ours = scheme.variables().iter().any(|prefix| name.starts_with(prefix)) && scheme.knows(&small);
        if ours && !value.is_empty() {
            options.insert(small, value.clone());
        }
    }
    let unknown: Vec<&str> = table.options.keys().map(String::as_str).filter(|name| !scheme.knows(name)).collect();
    if !unknown.is_empty() {
        let path = settings.file.clone().unwrap_or_default();
        let hint = neighbours(&unknown, scheme.usual());
        return Err(SettingsError::Options { path, names: unknown.join(", "), scheme: scheme.as_str(), hint });
    }
    // Later ones win where the library takes them in this order: names without a prefix sort after `aws_…`.
    options.extend(table.options.iter().map(|(name, value)| (prefixed(*scheme, name), value.clone())));
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
    fn gathered(variables: &[(&str, &str)], file: &str, flag: Option<&str>) -> Result<StorageSettings, String> {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_tests(variables);
        settings.file = Some(directory.path().join("settings.toml"));
        std::fs::write(directory.path().join("settings.toml"), file).unwrap();
        StorageSettings::gather(&settings, flag).map_err(|error| error.to_string())
    }

    const HOME: (&str, &str) = ("HOME", "/home/u");

    #[test]
    fn flag_goes_before_variable_before_file_before_default() {
        let file = "[store]\nurl = 's3://from-file/p/'";
        let place =
            |variables: &[(&str, &str)], file, flag| gathered(variables, file, flag).unwrap().location.to_string();
        let variable = ("NAVVY_STORE", "gs://from-variable");
        assert_eq!(place(&[HOME, variable], file, Some("file://~/x")), "file:///home/u/x");
        assert_eq!(place(&[HOME, variable], file, None), "gs://from-variable");
        assert_eq!(place(&[HOME], file, None), "s3://from-file/p");
        assert_eq!(place(&[HOME], "", None), "file:///home/u/.local/share/navvy/store");
        assert_eq!(place(&[HOME, ("XDG_DATA_HOME", "/d")], "", None), "file:///d/navvy/store");
        assert!(gathered(&[], "", None).unwrap_err().contains("XDG_DATA_HOME"));
    }

    #[test]
    fn what_is_no_store_says_so_and_what_would_be() {
        let refused = |url| gathered(&[HOME], "", Some(url)).unwrap_err();
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
        let file = "[store]\nurl = 's3://b'\n[store.options]\nregion = 'from-file'\nsecret_access_key = 'hunter2'";
        let settings = gathered(&variables, file, None).unwrap();
        let options: Vec<(&str, &str)> = settings.options.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [("aws_access_key_id", "id"), ("aws_region", "from-file"), ("aws_secret_access_key", "hunter2")];
        assert_eq!(options, expected);
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(gathered(&variables, "", None).unwrap().options.len(), 0, "a directory has none");
    }

    #[test]
    fn a_mistake_in_the_file_is_named_and_its_text_is_not_shown() {
        let refused = |file: &str| gathered(&[HOME], file, None).unwrap_err();
        let typo = refused("[store]\nurl = 's3://b'\n[store.options]\nregoin = 'x'\nodd = 'y'");
        assert!(typo.contains("odd, regoin") && typo.contains("did you mean region for regoin"), "{typo}");
        let unknown = refused("[store]\nurl = 's3://b'\nsecret = 'hunter2'");
        assert!(unknown.contains("line 3") && unknown.contains("secret") && !unknown.contains("hunter2"), "{unknown}");
        let broken = refused("[store]\nurl = 's3://b'\n[store.options]\ntoken = hunter2");
        assert!(broken.contains("line 4") && !broken.contains("hunter2"), "{broken}");
    }

    #[test]
    fn proxies_are_read_as_everybody_does_and_their_passwords_not_shown() {
        let proxies = |variables: &[(&str, &str)]| Proxies::new(&Settings::for_tests(variables));
        let proxy = "http://u:hunter2@p:1";
        let read =
            proxies(&[("HTTPS_PROXY", "http://x"), ("https_proxy", proxy), ("no_proxy", "a,b"), ("http_proxy", "")]);
        assert_eq!(
            (read.https.as_deref(), read.http.as_deref(), read.except.as_deref()),
            (Some(proxy), None, Some("a,b"))
        );
        assert!(!format!("{read:?}").contains("hunter2"));
        assert_eq!(proxies(&[("ALL_PROXY", proxy)]).http.as_deref(), Some(proxy));
        let mut settings = StorageSettings::directory("/".as_ref());
        settings.proxies.http = Some("http://u:hunter2@:bad:port".into());
        let error = Transport::new(&settings).unwrap_err();
        assert!(error.to_string().contains("HTTP_PROXY") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_certificate_file_that_holds_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let opened = || {
            let settings = StorageSettings { ca: Some(path.clone()), ..StorageSettings::directory("/".as_ref()) };
            Transport::new(&settings).map(drop).map_err(|error| error.to_string())
        };
        assert!(opened().unwrap_err().contains("ca.pem"));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(opened().unwrap_err().contains("no certificate in it"));
    }

    #[test]
    fn a_store_whose_path_leaves_no_room_for_keys_is_refused() {
        let mut settings = StorageSettings::directory("/".as_ref());
        let root = "p/".repeat(400);
        settings.location = Location::Cloud { scheme: Scheme::S3, bucket: "b".into(), root };
        settings.options.insert("aws_region".into(), "us-east-1".into());
        assert!(matches!(settings.open(), Err(StorageError::NoRoom(_))));
    }
}
