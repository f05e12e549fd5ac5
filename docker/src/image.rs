//! Images: used when they are here, pulled when they are not, by the policy asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder};
use futures_util::StreamExt as _;
use globset::{Glob, GlobMatcher};
use navvy_environment::plan::ImageConfig;
use navvy_environment::request::PullPolicy;
use tokio::sync::watch;

use super::engine::{Engine, Shared};
use super::fault;
use super::reference::{InvalidReference, Reference};

/// Waits between attempts of a pull that may yet succeed; its length is the number of further attempts.
const BACK_OFF: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// Progress is drawn, not counted: more often than this is not seen.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// An image that is here.
#[derive(Debug, Clone)]
pub struct LocalImage {
    pub config: ImageConfig,
    /// `NAME@sha256:…` as the registry knows it, if it came from one.
    pub repository_digest: Option<String>,
    /// Digest of the image's config: always there.
    pub id: String,
    /// RFC 3339, as the image says.
    pub created: Option<String>,
    /// `None`: it was here.
    pub pulled: Option<PullStats>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullStats {
    /// Bytes that came over the network.
    pub bytes: u64,
    pub duration: Duration,
}

/// Why an image cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Name(#[from] InvalidReference),
    #[error("image {image} is not here, and is not fetched because of --pull never; {hint}")]
    NotHere { image: String, hint: String },
    #[error("failed to pull image {image}: {fault}; {hint}")]
    Pull { image: String, fault: PullFault, hint: String },
    #[error("failed to ask the engine about image {image}: {message}")]
    Engine { image: String, message: String, disconnected: bool },
}

/// What a registry (or the way to it) said, sorted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", kind.prefix())]
pub struct PullFault {
    pub kind: PullFaultKind,
    /// In the engine's words.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullFaultKind {
    NotFound,
    Denied,
    NoSuchHost,
    Refused,
    Architecture,
    NoSpace,
    RateLimited,
    /// A server's own fault or a broken transfer.
    Transient,
    Other,
}

impl PullFaultKind {
    /// May another attempt succeed?
    pub fn is_retried(self) -> bool {
        matches!(self, Self::RateLimited | Self::Transient)
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::NotFound => "the registry has no such image: ",
            Self::Denied => "the registry refused access: ",
            Self::NoSuchHost => "the registry's name does not resolve: ",
            Self::Refused => "nothing listens at the registry's address: ",
            Self::Architecture => "the image is not made for this machine: ",
            Self::NoSpace => "no space left: ",
            Self::RateLimited => "the registry asks to slow down: ",
            Self::Transient | Self::Other => "",
        }
    }
}

/// Words that engines of several ages use, the more telling first: the same text often holds several.
const FAULT_WORDS: &[(PullFaultKind, &[&str])] = &[
    (PullFaultKind::NoSpace, &["no space left on device"]),
    (PullFaultKind::RateLimited, &["toomanyrequests", "too many requests"]),
    (PullFaultKind::Architecture, &["no matching manifest", "does not match the specified platform"]),
    (
        PullFaultKind::Denied,
        &[
            "unauthorized",
            "authentication required",
            "access denied",
            "denied:",
            "no basic auth credentials",
            "forbidden",
        ],
    ),
    (PullFaultKind::NotFound, &["manifest unknown", "name unknown", "not found", "no such image", "does not exist"]),
    (
        PullFaultKind::NoSuchHost,
        &["no such host", "server misbehaving", "name resolution", "name or service not known"],
    ),
    (PullFaultKind::Refused, &["connection refused", "no route to host", "network is unreachable"]),
    (
        PullFaultKind::Transient,
        &[
            "unexpected http status: 5",
            "status code 5",
            "500 internal server error",
            "502 bad gateway",
            "503 service",
            "504 gateway",
            "unexpected eof",
            ": eof",
            "connection reset",
            "broken pipe",
            "timeout",
            "deadline exceeded",
            "request canceled",
            "verification failed",
            "unavailable",
        ],
    ),
];

/// Sorts an engine's words about a pull. Its status helps only with the clear ones: 20.10 answers 500 to most.
fn classify(status: Option<u16>, message: &str) -> PullFaultKind {
    let lower = message.to_ascii_lowercase();
    let by_words = FAULT_WORDS.iter().find(|(_, words)| words.iter().any(|word| lower.contains(word)));
    match (by_words, status) {
        (Some((kind, _)), _) => *kind,
        (None, Some(404)) => PullFaultKind::NotFound,
        (None, Some(401 | 403)) => PullFaultKind::Denied,
        (None, Some(429)) => PullFaultKind::RateLimited,
        (None, _) => PullFaultKind::Other,
    }
}

/// Pulls on their way: one serves all tasks of this process that want the same image.
#[derive(Default)]
pub(super) struct Pulls(Mutex<HashMap<String, watch::Receiver<PullState>>>);

#[derive(Debug, Clone)]
enum PullState {
    Running { done: u64, total: Option<u64> },
    Ended(Result<PullStats, PullFault>),
}

/// What is reported while a pull goes on: bytes done and, once known, their total.
pub type OnProgress<'a> = &'a (dyn Fn(u64, Option<u64>) + Send + Sync);

impl Engine {
    /// An image that is here, after pulling it if `policy` says so. `credentials` are asked for only then.
    pub(super) async fn image(
        &self,
        name: &str,
        policy: PullPolicy,
        credentials: impl AsyncFnOnce() -> Option<DockerCredentials>,
        progress: OnProgress<'_>,
    ) -> Result<LocalImage, ImageError> {
        let reference = Reference::parse(name)?;
        if policy != PullPolicy::Always
            && let Some(image) = self.local_image(&reference).await?
        {
            return Ok(image);
        }
        if policy == PullPolicy::Never {
            return Err(ImageError::NotHere {
                image: name.to_owned(),
                hint: self.substitution_hint(name, &reference).await,
            });
        }
        let stats = match self.pull(&reference, credentials().await, progress).await {
            Ok(stats) => stats,
            Err(fault) => {
                let hint = self.substitution_hint(name, &reference).await;
                return Err(ImageError::Pull { image: name.to_owned(), fault, hint });
            }
        };
        match self.local_image(&reference).await? {
            Some(image) => Ok(LocalImage { pulled: Some(stats), ..image }),
            None => Err(ImageError::Engine {
                image: name.to_owned(),
                message: "it was pulled and is not here".to_owned(),
                disconnected: false,
            }),
        }
    }

    async fn local_image(&self, reference: &Reference) -> Result<Option<LocalImage>, ImageError> {
        match self.docker().inspect_image(&reference.to_string()).await {
            Ok(found) => Ok(Some(local_image(found, reference))),
            Err(e) if fault::is_missing(&e) => Ok(None),
            Err(e) => Err(ImageError::Engine {
                image: reference.to_string(),
                message: fault::describe(&e),
                disconnected: fault::is_disconnect(&e),
            }),
        }
    }

    /// Joins a pull of the same image or starts one.
    async fn pull(
        &self,
        reference: &Reference,
        credentials: Option<DockerCredentials>,
        progress: OnProgress<'_>,
    ) -> Result<PullStats, PullFault> {
        let mut state = self.join_pull(reference, credentials);
        loop {
            let seen = state.borrow_and_update().clone();
            match seen {
                PullState::Ended(result) => return result,
                PullState::Running { done, total } if done > 0 => progress(done, total),
                PullState::Running { .. } => {}
            }
            if state.changed().await.is_err() {
                let message = "the pull was given up".to_owned();
                return Err(PullFault { kind: PullFaultKind::Other, message });
            }
        }
    }

    fn join_pull(&self, reference: &Reference, credentials: Option<DockerCredentials>) -> watch::Receiver<PullState> {
        let key = reference.to_string();
        let mut pulls = self.shared.pulls.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A pull that has ended serves no further task: with `--pull always` the next task asks again.
        let running = pulls.get(&key).filter(|state| matches!(*state.borrow(), PullState::Running { .. }));
        if let Some(running) = running.filter(|state| state.has_changed().is_ok()) {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(PullState::Running { done: 0, total: None });
        pulls.insert(key, receiver.clone());
        let (shared, reference) = (Arc::clone(&self.shared), reference.clone());
        tokio::spawn(carry_out_pull(shared, reference, credentials, sender));
        receiver
    }

    /// What to add to the command line so that the job runs with something that is here.
    async fn substitution_hint(&self, name: &str, wanted: &Reference) -> String {
        let tags = self.docker().list_images(Some(ListImagesOptionsBuilder::new().build())).await;
        let tags: Vec<String> = tags.into_iter().flatten().flat_map(|image| image.repo_tags).collect();
        let fitting = fitting_image(wanted, &tags).unwrap_or("SOME-IMAGE-THAT-IS-HERE");
        format!("to run with another image, add: --image '{name}={fitting}'")
    }
}

/// Pulls, again and again where that makes sense, until it is done or no task waits for it any more.
async fn carry_out_pull(
    shared: Arc<Shared>,
    reference: Reference,
    credentials: Option<DockerCredentials>,
    state: watch::Sender<PullState>,
) {
    // The map's own receiver does not count as someone who waits.
    let abandoned = async {
        while state.receiver_count() > 1 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let result = tokio::select! {
        result = pull_with_retries(&shared, &reference, credentials, &state) => result,
        () = abandoned => Err(PullFault { kind: PullFaultKind::Other, message: "cancelled".to_owned() }),
    };
    state.send_replace(PullState::Ended(result));
    shared.pulls.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&reference.to_string());
}

async fn pull_with_retries(
    shared: &Shared,
    reference: &Reference,
    credentials: Option<DockerCredentials>,
    state: &watch::Sender<PullState>,
) -> Result<PullStats, PullFault> {
    let mut waits = BACK_OFF.iter();
    loop {
        match pull_once(shared, reference, credentials.clone(), state).await {
            Err(fault) if fault.kind.is_retried() => match waits.next() {
                Some(wait) => tokio::time::sleep(*wait).await,
                None => return Err(fault),
            },
            other => return other,
        }
    }
}

async fn pull_once(
    shared: &Shared,
    reference: &Reference,
    credentials: Option<DockerCredentials>,
    state: &watch::Sender<PullState>,
) -> Result<PullStats, PullFault> {
    let started = Instant::now();
    let options =
        CreateImageOptionsBuilder::new().from_image(&reference.familiar_repository()).tag(reference.version()).build();
    let mut messages = shared.docker.create_image(Some(options), None, credentials);
    let mut layers = Layers::default();
    let mut shown = started;
    while let Some(message) = messages.next().await {
        let message = message.map_err(|e| {
            let message = fault::describe(&e);
            let lost = fault::is_disconnect(&e);
            // Without its engine a pull cannot go on, but it has done so before.
            let kind = if lost { PullFaultKind::Transient } else { classify(fault::status(&e), &message) };
            PullFault { kind, message }
        })?;
        layers.note(&message);
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            state.send_replace(PullState::Running { done: layers.done(), total: layers.total() });
        }
    }
    Ok(PullStats { bytes: layers.done(), duration: started.elapsed() })
}

/// Bytes of an image's layers, as a pull's messages tell them.
#[derive(Default)]
struct Layers(HashMap<String, (u64, u64)>);

impl Layers {
    fn note(&mut self, message: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&message.id, &message.status) else { return };
        let number = |value: Option<i64>| value.and_then(|n| u64::try_from(n).ok());
        let detail = message.progress_detail.as_ref();
        match status.as_str() {
            "Downloading" => {
                let done = detail.and_then(|d| number(d.current)).unwrap_or_default();
                let total = detail.and_then(|d| number(d.total)).unwrap_or_default();
                self.0.insert(id.clone(), (done, total.max(done)));
            }
            "Download complete" => {
                if let Some((done, total)) = self.0.get_mut(id) {
                    *done = *total;
                }
            }
            _ => {}
        }
    }

    fn done(&self) -> u64 {
        self.0.values().map(|(done, _)| done).sum()
    }

    fn total(&self) -> Option<u64> {
        let total = self.0.values().map(|(_, total)| total).sum();
        (total > 0).then_some(total)
    }
}

fn local_image(found: ImageInspect, reference: &Reference) -> LocalImage {
    let config = found.config.unwrap_or_default();
    let repository = format!("{}@", reference.familiar_repository());
    let digests = found.repo_digests.unwrap_or_default();
    LocalImage {
        repository_digest: digests.iter().find(|digest| digest.starts_with(&repository)).or(digests.first()).cloned(),
        id: found.id.unwrap_or_default(),
        created: found.created.map(|created| created.to_string()),
        pulled: None,
        config: ImageConfig {
            env: config.env.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            working_directory: config.working_dir.unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            exposed_ports: config.exposed_ports.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default(),
            architecture: found.architecture.unwrap_or_default(),
        },
    }
}

/// The image that is here and comes nearest: same repository, same last name, or Navvy's own.
fn fitting_image<'a>(wanted: &Reference, tags: &'a [String]) -> Option<&'a str> {
    let here = || tags.iter().filter_map(|tag| Some((tag.as_str(), Reference::parse(tag).ok()?)));
    let same_repository = here().find(|(_, known)| known.registry == wanted.registry && known.path == wanted.path);
    let same_name = || here().find(|(_, known)| known.base_name() == wanted.base_name());
    let own = || here().find(|(_, known)| known.path == "navvy/base");
    same_repository.or_else(same_name).or_else(own).map(|(tag, _)| tag)
}

/// `--image FROM=TO`, in order; FROM is a glob over image names as the config writes them.
#[derive(Debug, Clone, Default)]
pub struct ImageSubstitutions(Vec<(GlobMatcher, String)>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubstitutionError {
    #[error("image substitution {text:?} is not FROM=TO")]
    Form { text: String },
    #[error("image substitution {text:?}: {why}")]
    Pattern { text: String, why: String },
    #[error("image substitution {text:?}: {source}")]
    Image { text: String, source: InvalidReference },
}

impl ImageSubstitutions {
    /// If several patterns fit, the first counts.
    pub fn parse(texts: &[String]) -> Result<Self, SubstitutionError> {
        texts.iter().map(|text| parse_substitution(text)).collect::<Result<_, _>>().map(Self)
    }

    /// The image to take instead; `None` when no pattern fits.
    pub fn apply(&self, image: &str) -> Option<String> {
        let full = Reference::parse(image).map(|reference| reference.to_string()).unwrap_or_default();
        let fits = |pattern: &GlobMatcher| pattern.is_match(image) || pattern.is_match(&full);
        self.0.iter().find(|(pattern, _)| fits(pattern)).map(|(_, to)| to.clone())
    }
}

fn parse_substitution(text: &str) -> Result<(GlobMatcher, String), SubstitutionError> {
    let form = || SubstitutionError::Form { text: text.to_owned() };
    let (from, to) = text.split_once('=').ok_or_else(form)?;
    if from.is_empty() || to.is_empty() {
        return Err(form());
    }
    Reference::parse(to).map_err(|source| SubstitutionError::Image { text: text.to_owned(), source })?;
    let pattern =
        Glob::new(from).map_err(|e| SubstitutionError::Pattern { text: text.to_owned(), why: e.to_string() })?;
    Ok((pattern.compile_matcher(), to.to_owned()))
}

/// An architecture in the words of images (`amd64`), from those of the kernel (`x86_64`).
pub fn image_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" | "arm64" => "arm64",
        "i386" | "i686" => "386",
        machine if machine.starts_with("armv") => "arm",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_words_are_sorted() {
        use PullFaultKind::*;
        let dns = "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io on 10.0.0.2:53: no such host";
        let denied = "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access";
        for (status, message, kind) in [
            (Some(500), dns, NoSuchHost),
            (Some(404), denied, Denied),
            (Some(404), "manifest for a:b not found: manifest unknown: manifest unknown", NotFound),
            (Some(500), "Get \"http://localhost:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused", Refused),
            (Some(500), "unauthorized: authentication required", Denied),
            (Some(500), "toomanyrequests: You have reached your pull rate limit", RateLimited),
            (Some(500), "received unexpected HTTP status: 503 Service Unavailable", Transient),
            (None, "unexpected EOF", Transient),
            (None, "no matching manifest for linux/amd64 in the manifest list entries", Architecture),
            (None, "write /var/lib/docker/tmp/x: no space left on device", NoSpace),
            (Some(404), "", NotFound),
            (Some(500), "something new", Other),
        ] {
            assert_eq!(classify(status, message), kind, "{message}");
        }
    }

    #[test]
    fn the_first_fitting_substitution_counts() {
        let texts = ["cimg/node:*=local/node:1", "cimg/*=navvy/base:bookworm", "postgres:latest=pg:2"];
        let substitutions = ImageSubstitutions::parse(&texts.map(str::to_owned)).unwrap();
        assert_eq!(substitutions.apply("cimg/node:20").as_deref(), Some("local/node:1"));
        assert_eq!(substitutions.apply("cimg/node").as_deref(), Some("local/node:1"));
        assert_eq!(substitutions.apply("cimg/go:1.2").as_deref(), Some("navvy/base:bookworm"));
        assert_eq!(substitutions.apply("postgres").as_deref(), Some("pg:2"));
        assert_eq!(substitutions.apply("redis"), None);
    }

    #[test]
    fn bad_substitutions_are_refused() {
        for text in ["a", "=b", "a=", "a=B A", "[=b"] {
            assert!(ImageSubstitutions::parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }

    #[test]
    fn the_hint_names_what_comes_nearest() {
        let tags = ["navvy/base:bookworm", "mirror.local/cimg/node:18", "cimg/go:1"].map(str::to_owned);
        let fitting = |name: &str| fitting_image(&Reference::parse(name).unwrap(), &tags);
        assert_eq!(fitting("cimg/go:2"), Some("cimg/go:1"));
        assert_eq!(fitting("node:20"), Some("mirror.local/cimg/node:18"));
        assert_eq!(fitting("redis"), Some("navvy/base:bookworm"));
        assert_eq!(fitting_image(&Reference::parse("redis").unwrap(), &[]), None);
    }

    #[test]
    fn layers_add_up() {
        let message = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: Some(bollard::models::ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        layers.note(&message("a", "Downloading", Some(5), Some(10)));
        layers.note(&message("b", "Downloading", Some(1), Some(4)));
        layers.note(&message("c", "Extracting", Some(100), Some(100)));
        layers.note(&message("a", "Download complete", None, None));
        assert_eq!((layers.done(), layers.total()), (11, Some(14)));
    }
}
