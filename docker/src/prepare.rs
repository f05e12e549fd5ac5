//! From nothing to an environment whose supervisor answers.
//!
//! ```text
//! images ┐
//! info   ├─▶ plan ─▶ cgroup, run directory ─▶ create primary ─▶ start primary ─┬▶ supervisor answers
//! network┘                                     create services ─▶ attach ──────┴▶ start services
//! ```
//!
//! Fails at any arrow; what was made by then is removed again. A caller that drops the future midway calls
//! [`Engine::remove_task`], which needs to know nothing but the task's id.

mod answer;
mod error;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use navvy_environment::HostPaths;
use navvy_environment::cgroup::{self, Facts};
use navvy_environment::egress::CA_DIR;
use navvy_environment::link::SocketPlace;
use navvy_environment::plan::{self, Entry, Machine, Plan, PlanError, service_title};
use navvy_environment::request::ServiceOutput;
use navvy_environment::request::{Died, OnEvent, Prepare, PrepareEvent};
use navvy_environment::run_dir::{self, Kept, RunDirError};
use navvy_environment::supervisor::Connect;
use navvy_job::compiled::Container;
use navvy_job::resource::Size;
use navvy_journal::standing::Mark;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) use self::answer::stay_present;
use self::answer::{wait_for_socket, with_last_words};
pub use self::error::{PrepareError, PrepareErrorKind};
use self::error::{StartError, container_error, not_shared};
use super::dial;
use super::disk::EngineDisk;
use super::engine::{Engine, EngineInfo};
use super::environment::{DockerEnvironment, keep_last_words};
use super::image::{ImageError, LocalImage, image_architecture};
use super::services::Output;
use super::upload::UploadError;
use super::walls::Walls;
use super::{credentials, network, report};

/// What a failed preparation has made is removed within this.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(30);
impl Engine {
    /// Makes an environment whose supervisor answers, or leaves nothing behind.
    pub async fn prepare(
        &self,
        request: Prepare,
        host: &HostPaths,
        events: OnEvent<'_>,
    ) -> Result<DockerEnvironment, PrepareError> {
        let preparation = Preparation { engine: self, request: &request, host, events };
        match preparation.run().await {
            Ok(environment) => Ok(environment),
            Err(kind) => {
                let leftovers = self.remove_task(&request.task, host, CLEAN_UP_LIMIT).await;
                Err(PrepareError { kind, leftovers })
            }
        }
    }
}

/// What one preparation looks at all the time.
struct Preparation<'a> {
    engine: &'a Engine,
    request: &'a Prepare,
    host: &'a HostPaths,
    events: OnEvent<'a>,
}

/// Containers that run, and a supervisor that answers.
struct Started {
    link: Arc<dyn Connect>,
    how: String,
    services: Vec<ServiceOutput>,
    died: watch::Receiver<Option<Died>>,
    away: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    create_times: Vec<Duration>,
    start_time: Duration,
}

impl Preparation<'_> {
    async fn run(&self) -> Result<DockerEnvironment, PrepareErrorKind> {
        self.report(report::agent());
        let (info, network, images) = self.look_around().await?;
        self.check_architectures(info, &images)?;
        let disk = self.disk(info)?;
        let bin = self.engine.supervisor(self.host)?;
        run_dir::mark(&self.run_directory(), &Mark::Running(self.request.owner.clone()))?;
        if let Some(journal) = &self.request.journal {
            // Written while the engine was asked.
            journal.opened().await?;
        }
        let parent = self.cgroup_parent(info);
        let mut started = None;
        let mut plan = None;
        let mut is_unshared = false;
        for &upload in entries(self.engine.needs_upload(), is_remapped(info)) {
            let entry = match upload {
                true => Entry::Upload,
                false => Entry::Mounts { bin: bin.clone(), run: run_dir::shared(&self.run_directory()) },
            };
            let made = self.plan(&images, entry, parent.as_ref().ok(), info)?;
            match self.start_all(&made, &bin, disk.as_ref().ok()).await {
                Ok(running) => {
                    (plan, started) = (Some(made), Some(running));
                    break;
                }
                Err(StartError::Final(kind)) => return Err(kind),
                Err(StartError::NotShared { why, is_certain }) => {
                    self.give_up_sharing(upload, &why, &made).await?;
                    is_unshared = is_certain;
                }
            }
        }
        let (Some(plan), Some(started)) = (plan, started) else {
            return Err(self.no_answer("the engine shares no files with this machine"));
        };
        if is_unshared {
            // Only now: where the other way fails as well, sharing was not what it lacked.
            self.engine.remember_upload();
        }
        let walls = self.engine.walls_around(network);
        self.report_all(&plan, &images, &started, &walls, parent.as_ref());
        self.report(report::disk(disk.as_ref()));
        Ok(self.environment(plan, images, started))
    }

    /// Everything that must be known before anything is made, at once.
    async fn look_around(&self) -> Result<(&EngineInfo, &Walls, Vec<LocalImage>), PrepareErrorKind> {
        let info = async { self.engine.info().await.map_err(PrepareErrorKind::from) };
        let network = async { self.engine.network(&self.host.search_path).await.map_err(PrepareErrorKind::from) };
        let images = try_join_all(self.request.wanted.containers().iter().map(|container| self.image(container)));
        let images = async { images.await.map_err(PrepareErrorKind::from) };
        let (info, network, images) = tokio::try_join!(info, network, images)?;
        for line in report::system(info) {
            self.report(line);
        }
        Ok((info, network, images))
    }

    async fn image(&self, container: &Container) -> Result<LocalImage, ImageError> {
        let progress = |done, total| {
            (self.events)(PrepareEvent::Progress { what: format!("pulling {}", container.image), done, total });
        };
        let warn = |message| (self.events)(PrepareEvent::Warning(message));
        let login = async || {
            let auth = container.auth.as_ref();
            credentials::find(&container.image, auth, &self.request.secrets, self.host, warn).await
        };
        self.engine.image(&container.image, self.request.pull, login, &progress).await
    }

    fn check_architectures(&self, info: &EngineInfo, images: &[LocalImage]) -> Result<(), PlanError> {
        let wanted = image_architecture(&info.architecture);
        let foreign = |found: &str| !found.is_empty() && found != wanted;
        let pairs = self.request.wanted.containers().iter().zip(images);
        let first = pairs.map(|(container, image)| (container, &image.config.architecture)).find(|(_, a)| foreign(a));
        first.map_or(Ok(()), |(container, found)| {
            let (image, found, wanted) = (container.image.clone(), found.clone(), wanted.to_owned());
            Err(PlanError::Architecture { image, found, wanted })
        })
    }

    /// The parent for all containers, or why there is none.
    fn cgroup_parent(&self, info: &EngineInfo) -> Result<String, String> {
        let facts = Facts {
            engine_is_local: self.engine.endpoint().looks_local() && !self.engine.needs_upload(),
            uid: run_dir::uid(),
            driver: &info.cgroup_driver,
            version: &info.cgroup_version,
        };
        cgroup::make(&self.cgroup(), self.size(), self.request.pids, facts).map_err(|e| e.to_string())
    }

    fn cgroup(&self) -> cgroup::Place {
        cgroup::Place::of(&self.request.task, self.request.cgroup_parent.as_ref())
    }

    /// The engine's disk, if it can be seen, with enough of it left to begin something.
    fn disk(&self, info: &EngineInfo) -> Result<Result<EngineDisk, String>, PrepareErrorKind> {
        let is_local = self.engine.endpoint().looks_local() && !self.engine.needs_upload();
        let disk = EngineDisk::of(info, is_local, self.request.disk_floor);
        let free = disk.as_ref().ok().and_then(|disk| Some((disk, disk.look().ok()?)));
        match free.and_then(|(disk, free)| Some(disk.trouble(disk.lack(free)?, free))) {
            Some(trouble) => Err(PrepareErrorKind::NoSpace(trouble)),
            None => Ok(disk),
        }
    }

    /// What the containers have together: the class without what the engine needs for services.
    fn size(&self) -> Size {
        plan::without_engines_share(self.request.size, self.services())
    }

    fn services(&self) -> usize {
        self.request.wanted.containers().len().saturating_sub(1)
    }

    fn run_directory(&self) -> PathBuf {
        run_dir::place(self.host.runtime.as_deref(), run_dir::uid(), &self.request.task)
    }

    fn plan(
        &self,
        images: &[LocalImage],
        entry: Entry,
        parent: Option<&String>,
        info: &EngineInfo,
    ) -> Result<Plan, PlanError> {
        let machine = Machine {
            task: self.request.task.clone(),
            owner: self.request.owner.to_label(),
            is_adoptable: self.request.is_adoptable,
            entry,
            network: network::NAME.to_owned(),
            cgroup_parent: parent.cloned(),
            size: self.size(),
            pids: self.request.pids,
            idle_limit_s: self.request.idle_limit.as_secs(),
            has_all_ids: !info.rootless && !is_remapped(info),
            egress: self.request.egress.visible_variables(),
            authorities: self.request.egress.bundle().map(|bundle| bundle.directory.clone()),
        };
        let configs: Vec<_> = images.iter().map(|image| image.config.clone()).collect();
        plan::plan(self.request.wanted.containers(), &configs, &machine)
    }

    /// Removes what the shared way has made, so that the other way can be tried under the same names.
    async fn give_up_sharing(&self, was_upload: bool, why: &str, plan: &Plan) -> Result<(), PrepareErrorKind> {
        if was_upload {
            return Err(self.no_answer(why));
        }
        self.report(format!("No socket can be shared with the container ({why}); uploading the supervisor instead"));
        let names = names(plan);
        let left = self.engine.remove_containers(&self.request.task, &names, CLEAN_UP_LIMIT).await;
        left.first().map_or(Ok(()), |left| Err(self.no_answer(&format!("{why}; could not remove {left}"))))
    }

    fn no_answer(&self, message: &str) -> PrepareErrorKind {
        let image = self.request.wanted.containers().first().map(|c| c.image.clone()).unwrap_or_default();
        PrepareErrorKind::NoAnswer { image, message: message.to_owned() }
    }

    async fn start_all(
        &self,
        plan: &Plan,
        bin: &std::path::Path,
        disk: Option<&EngineDisk>,
    ) -> Result<Started, StartError> {
        let uploads = plan.containers[0].mounts.is_empty();
        let shared = match uploads {
            true => None,
            false => Some(open_run_directory(&self.run_directory()).map_err(|e| StartError::unshared(e.to_string()))?),
        };
        let (place, kept) = shared.unzip();
        let begun = Instant::now();
        self.create(plan, 0).await.map_err(|e| if uploads { StartError::Final(e) } else { not_shared(e) })?;
        let primary_created = begun.elapsed();
        let secret = match uploads {
            true => Some(self.upload(plan, bin).await?),
            false => None,
        };
        self.upload_authorities(plan, 0).await?;
        let mut tasks = JoinSet::new();
        let words = self.primary_words(plan, &mut tasks).await?;
        let begun = Instant::now();
        let service_indices = 1..plan.containers.len();
        let (started, attached) = tokio::join!(
            self.start(plan, 0),
            try_join_all(service_indices.map(|index| self.create_and_attach(plan, index)))
        );
        started.map_err(|e| if uploads { StartError::Final(e) } else { not_shared(e) })?;
        let attached = attached?;
        let (died, away) = self.watch(plan, &mut tasks, words, disk);
        let services = try_join_all((1..plan.containers.len()).map(|index| self.start(plan, index)));
        let (answering, services_started) = tokio::join!(self.reach(plan, place, secret, died.clone()), services);
        let link = answering?;
        services_started?;
        let allowed = self.engine.allow(&self.request.task, self.request.egress.allowed(), self.host).await;
        allowed.map_err(|message| PrepareErrorKind::Allow { message })?;
        let (create_times, outputs): (Vec<_>, Vec<_>) = attached.into_iter().unzip();
        let services = self.follow(plan, outputs, &mut tasks);
        Ok(Started {
            link,
            how: report::supervisor(kept.as_ref()),
            services,
            died,
            away,
            tasks,
            create_times: [vec![primary_created], create_times].concat(),
            start_time: begun.elapsed(),
        })
    }

    /// Learns of the primary's end, also of the one that it gets for the disk's sake.
    fn watch(
        &self,
        plan: &Plan,
        tasks: &mut JoinSet<()>,
        words: watch::Receiver<String>,
        disk: Option<&EngineDisk>,
    ) -> (watch::Receiver<Option<Died>>, watch::Receiver<bool>) {
        let full = self.engine.clone().condemned(disk.cloned(), self.request.task.clone(), names(plan));
        self.engine.watch_primary(tasks, plan.containers[0].name.clone(), words, full)
    }

    async fn create(&self, plan: &Plan, index: usize) -> Result<(), PrepareErrorKind> {
        let container = &plan.containers[index];
        self.engine.create(&self.request.task, container).await.map_err(|e| container_error("create", container, &e))
    }

    async fn create_and_attach(&self, plan: &Plan, index: usize) -> Result<(Duration, Output), PrepareErrorKind> {
        let begun = Instant::now();
        self.create(plan, index).await?;
        let took = begun.elapsed();
        self.upload_authorities(plan, index).await?;
        let container = &plan.containers[index];
        let output = self.engine.attach(&container.name).await;
        Ok((took, output.map_err(|e| container_error("attach to", container, &e))?))
    }

    async fn start(&self, plan: &Plan, index: usize) -> Result<(), PrepareErrorKind> {
        let container = &plan.containers[index];
        let started = self.engine.docker().start_container(&container.name, None).await;
        started.map_err(|e| container_error("start", container, &e))
    }

    async fn upload(&self, plan: &Plan, bin: &std::path::Path) -> Result<String, PrepareErrorKind> {
        let container = &plan.containers[0];
        self.engine.upload_supervisor(&container.name, bin).await.map_err(|e| match e {
            UploadError::Engine(e) => container_error("upload the supervisor into", container, &e),
            UploadError::Io(e) => self.no_answer(&format!("failed to pack the supervisor: {e}")),
        })
    }

    /// Where the bundle of authorities is not mounted.
    async fn upload_authorities(&self, plan: &Plan, index: usize) -> Result<(), PrepareErrorKind> {
        let container = &plan.containers[index];
        let is_mounted = container.mounts.iter().any(|mount| mount.target == CA_DIR);
        let Some(bundle) = self.request.egress.bundle().filter(|_| !is_mounted) else { return Ok(()) };
        self.engine.upload_authorities(&container.name, bundle).await.map_err(|e| match e {
            UploadError::Engine(e) => container_error("upload the CA bundle into", container, &e),
            UploadError::Io(e) => PrepareErrorKind::Authorities { path: bundle.directory.clone(), source: e },
        })
    }

    /// What the primary's main process writes: read for errors only (or, if it is the user's own, as a stream).
    async fn primary_words(
        &self,
        plan: &Plan,
        tasks: &mut JoinSet<()>,
    ) -> Result<watch::Receiver<String>, PrepareErrorKind> {
        let container = &plan.containers[0];
        let output = self.engine.attach(&container.name).await;
        let output = output.map_err(|e| container_error("attach to", container, &e))?;
        let (sender, words) = watch::channel(String::new());
        tasks.spawn(keep_last_words(output, sender));
        Ok(words)
    }

    /// Waits until the supervisor answers.
    async fn reach(
        &self,
        plan: &Plan,
        place: Option<SocketPlace>,
        secret: Option<String>,
        died: watch::Receiver<Option<Died>>,
    ) -> Result<Arc<dyn Connect>, StartError> {
        if let Some(place) = place {
            return wait_for_socket(place, died).await;
        }
        let secret = secret.unwrap_or_default();
        let link = dial::open(self.engine, &plan.containers[0].name, secret).await;
        link.map(|link| Arc::new(link) as Arc<dyn Connect>)
            .map_err(|e| StartError::Final(self.no_answer(&with_last_words(&e.to_string(), &died))))
    }

    fn follow(&self, plan: &Plan, outputs: Vec<Output>, tasks: &mut JoinSet<()>) -> Vec<ServiceOutput> {
        let services = plan.containers.iter().zip(self.request.wanted.containers()).skip(1);
        let followed = services.zip(outputs).map(|((planned, container), output)| {
            let (title, image) = (service_title(container), planned.image.clone());
            self.engine.follow_service(tasks, output, title, image, planned.name.clone())
        });
        followed.collect()
    }

    fn report(&self, line: String) {
        (self.events)(PrepareEvent::Report(line));
    }

    fn report_all(
        &self,
        plan: &Plan,
        images: &[LocalImage],
        started: &Started,
        network: &Walls,
        parent: Result<&String, &String>,
    ) {
        let now = jiff::Timestamp::now();
        for ((planned, image), took) in plan.containers.iter().zip(images).zip(&started.create_times) {
            for line in report::image(&planned.image, image, now) {
                self.report(line);
            }
            self.report(report::created(&planned.name, *took));
        }
        self.report(format!("Supervisor: {}", started.how));
        // The engine may see other cgroups than this process does.
        let used = cgroup::is_used(&self.cgroup(), self.size()).map_err(|e| e.to_string());
        let together = match (parent, used.as_ref()) {
            (Ok(name), Ok(true)) => Ok(name.as_str()),
            (Ok(_), Ok(false)) => Err("the engine sees other cgroups, or systemd has not taken the limits"),
            (Err(why), _) | (Ok(_), Err(why)) => Err(why.as_str()),
        };
        self.report(report::limits(self.size(), self.request.pids, together));
        if let Some(line) = report::engines_share(self.request.size.memory - self.size().memory, self.services()) {
            self.report(line);
        }
        self.report(report::network(network));
        let egress = self.request.egress.report(plan.containers.len() > 1);
        for note in egress.iter().chain(&self.request.notes).chain(&plan.notes) {
            self.report(note.clone());
        }
        self.report(format!("Time to start containers: {}", report::duration(started.start_time)));
    }

    fn environment(&self, plan: Plan, images: Vec<LocalImage>, started: Started) -> DockerEnvironment {
        let assignments = images.into_iter().next().map(|image| image.config.env).unwrap_or_default();
        let pair = |text: String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut tasks = started.tasks;
        tasks.spawn(stay_present(Arc::clone(&started.link), self.request.idle_limit));
        DockerEnvironment {
            engine: self.engine.clone(),
            task: self.request.task.clone(),
            host: self.host.clone(),
            names: names(&plan),
            link: started.link,
            image_env: assignments.into_iter().filter_map(pair).collect(),
            step_user: plan.step_user,
            egress: self.request.egress.variables(),
            idle_limit: self.request.idle_limit,
            services: started.services,
            died: started.died,
            away: started.away,
            _tasks: tasks,
        }
    }
}

/// Is root of a container somebody who is nobody else on the machine (`userns-remap`)? A rootless engine's is the engine's own user.
fn is_remapped(info: &EngineInfo) -> bool {
    info.security_options.iter().any(|option| option.contains("name=userns"))
}

/// Ways in, to be tried in this order: `true` is upload. The run directory, which is this process's user's alone, is closed to somebody
/// else: the supervisor would end at once, and each job would begin with a container for nothing.
fn entries(needs_upload: bool, is_remapped: bool) -> &'static [bool] {
    if needs_upload || is_remapped { &[true] } else { &[false, true] }
}

fn names(plan: &Plan) -> Vec<String> {
    plan.containers.iter().map(|container| container.name.clone()).collect()
}

/// A task's id is never used twice, so what is there is what an earlier try left.
fn open_run_directory(path: &std::path::Path) -> Result<(SocketPlace, Kept), RunDirError> {
    let failed = |source| RunDirError::Make { path: path.to_owned(), source };
    run_dir::remove(path).map_err(failed)?;
    let kept = run_dir::make(path)?;
    Ok((SocketPlace::open(&run_dir::shared(path)).map_err(failed)?, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_users_are_mapped_no_container_is_started_for_nothing() {
        assert_eq!(entries(false, false), [false, true]);
        for (needs_upload, is_remapped) in [(true, false), (true, true), (false, true)] {
            assert_eq!(entries(needs_upload, is_remapped), [true]);
        }
    }
}
