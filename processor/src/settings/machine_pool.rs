//! `[machine_pool]` of the settings file: machines that this processor keeps ready. Without it there is no pool, and nothing of one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_job::chain::{about_a_value, chain};
use navvy_job::resource::Size;
use navvy_storage::Proxies;
use navvy_vm::cloud::call::Pace;
use navvy_vm::ec2::Clients;
use navvy_vm::far::{Clouds, Ec2Table, GceTable};
use navvy_vm::pool::rules::{Rules, RulesFile};
use navvy_vm::settings::{Accelerator, NoSubnet, Settings, Snapshots};
use navvy_vm_image::Images;

use super::{Gathering, set};

/// Name of the table.
pub(super) const NAME: &str = "machine_pool";

/// Keys that say who makes machines, and how.
const OF_MAKER: [&str; 10] = [
    "provider",
    "state",
    "images",
    "accelerator",
    "snapshots",
    "network",
    "cpus",
    "memory",
    "start_limit",
    "answer_limit",
];
/// Tables of clouds, as agents have them in `[vm]`.
const OF_CLOUDS: [&str; 2] = ["ec2", "gce"];
/// Of [`OF_MAKER`], what says how machines of this host are made.
const OF_HOST: [&str; 5] = ["state", "images", "accelerator", "snapshots", "network"];
/// Keys that say how many (`navvy_vm::pool::rules`).
const OF_RULES: [&str; 13] = [
    "prescale",
    "prescale_max",
    "time_zone",
    "demand_factor",
    "forecast_factor",
    "forecast_constant",
    "quota",
    "quotas",
    "at_once",
    "recycle_after_hours",
    "oldest_hours",
    "surplus_after_seconds",
    "patience_seconds",
];
/// With a shorter limit no machine would ever be ready.
const LIMITS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// The pool that a processor keeps.
#[derive(Clone)]
pub struct MachinePool {
    /// What it goes by.
    pub rules: Rules,
    /// How machines are made.
    pub machines: Settings,
    /// Who makes them: this host, or a cloud.
    pub made: navvy_vm::Machines,
    /// Places of the agents on this host.
    pub host: HostPaths,
}

impl std::fmt::Debug for MachinePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rules, machines, made, host } = self;
        let mut shown = f.debug_struct("MachinePool");
        shown.field("rules", rules).field("machines", machines).field("made", &made.name()).field("host", host);
        shown.finish()
    }
}

/// The table, as far as it was read.
pub(super) struct Table {
    pub table: toml::Table,
    /// Where it stands, for people.
    pub place: String,
}

/// One of some words.
fn word<T: Copy>(words: &[(&str, T)], said: &str) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == said).map(|(_, meant)| *meant);
    let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("{said:?} is none of {}", known()))
}

impl Gathering {
    /// `None`: there is no pool.
    pub(super) fn machine_pool(&mut self, variables: &BTreeMap<String, String>) -> Option<MachinePool> {
        let Table { mut table, place } = self.machine_pool.take()?;
        let before = self.errors.len();
        let known = || OF_MAKER.iter().chain(&OF_CLOUDS).chain(&OF_RULES);
        for key in table.keys().filter(|key| !known().any(|known| known == key)) {
            let known = known().copied().collect::<Vec<_>>().join(", ");
            self.errors.push(format!("{key} in {place}: there is no such setting; there are {known}"));
        }
        let mut texts: BTreeMap<&str, String> = BTreeMap::new();
        for key in OF_MAKER {
            match table.remove(key) {
                Some(toml::Value::String(text)) => drop(texts.insert(key, text)),
                Some(toml::Value::Integer(number)) if key == "cpus" => drop(texts.insert(key, number.to_string())),
                Some(other) => {
                    let kind = other.type_str();
                    self.errors
                        .push(format!("{key} in {place}: a text belongs there, in quotation marks, and no {kind}"));
                }
                None => {}
            }
        }
        let mut wrong = |key: &str, why: String| self.errors.push(format!("{key} in {place}: {why}"));
        // Hosts that are there are entered by keys of their operator's, which are not lent.
        let providers = [("qemu", None), ("ec2", Some("ec2")), ("gce", Some("gce"))];
        let cloud = texts.get("provider").map_or(Ok(None), |said| word(&providers, said));
        let cloud = cloud.unwrap_or_else(|why| {
            wrong("provider", why);
            None
        });
        if let Some(key) = OF_HOST.iter().find(|key| cloud.is_some() && texts.contains_key(*key)) {
            wrong(
                key,
                "this is for machines of this host, and the provider is a cloud: remove the one or the other"
                    .to_owned(),
            );
        }
        let (host, machines) = maker(&texts, variables, &mut wrong);
        let home = set(variables, "HOME").map(PathBuf::from);
        let made = made(cloud, &machines, &table, (variables, home.as_deref())).unwrap_or_else(|why| {
            wrong(cloud.unwrap_or("provider"), why);
            navvy_vm::Machines::qemu(machines.clone())
        });
        table.retain(|key, _| OF_RULES.contains(&key));
        // One by one: an error of the whole does not say whose it is.
        for (key, value) in &table {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            if let Err(error) = alone.try_into::<RulesFile>() {
                wrong(key, about_a_value(error.message()));
            }
        }
        let rules = table.try_into::<RulesFile>().ok().map(|file| file.rules());
        let rules = rules.unwrap_or_else(|| Err(Vec::new())).map_err(|errors| {
            self.errors.extend(errors.into_iter().map(|error| format!("{place}: {error}")));
        });
        let rules = rules.ok().filter(|_| self.errors.len() == before)?;
        // Images of this host may come later.
        let counted = if made.are_here() { Ok(rules) } else { made.counted_rules(rules) };
        let counted =
            counted.map_err(|wrong| self.errors.extend(wrong.into_iter().map(|why| format!("{place}: {why}"))));
        Some(MachinePool { rules: counted.ok()?, machines, made, host })
    }
}

/// Who makes machines. Nothing is asked of anybody yet.
fn made(
    cloud: Option<&str>,
    machines: &Settings,
    table: &toml::Table,
    (variables, home): (&BTreeMap<String, String>, Option<&Path>),
) -> Result<navvy_vm::Machines, String> {
    let Some(name) = cloud else { return Ok(navvy_vm::Machines::qemu(machines.clone())) };
    let said = table.get(name).ok_or_else(|| {
        format!("provider = \"{name}\" needs a table [machine_pool.{name}], which says where machines come from")
    })?;
    let mut made = of_cloud(name, said, machines, (variables, home))?;
    // What another cloud has made stays looked after as long as its table is there.
    for other in OF_CLOUDS.into_iter().filter(|other| *other != name) {
        if let Some(said) = table.get(other) {
            made = made.beside(of_cloud(other, said, machines, (variables, home))?);
        }
    }
    Ok(made)
}

fn of_cloud(
    name: &str,
    said: &toml::Value,
    machines: &Settings,
    (variables, home): (&BTreeMap<String, String>, Option<&Path>),
) -> Result<navvy_vm::Machines, String> {
    let said = said.clone();
    let client = |proxies: &Proxies| navvy_storage::client(None, proxies).map_err(|error| chain(&error));
    let clients = Clients { cloud: client(&Proxies::of(variables))?, direct: client(&Proxies::default())? };
    let clouds = Clouds { variables, home, clients, pace: Pace::default() };
    let words = |error: toml::de::Error| about_a_value(error.message());
    let made = match name {
        "ec2" => navvy_vm::Machines::ec2(machines.clone(), &said.try_into::<Ec2Table>().map_err(words)?, clouds),
        _ => navvy_vm::Machines::gce(machines.clone(), &said.try_into::<GceTable>().map_err(words)?, clouds),
    };
    made.map_err(|fault| chain(&fault))
}

/// Where machines of this host are, and what they are made with.
fn maker(
    texts: &BTreeMap<&str, String>,
    variables: &BTreeMap<String, String>,
    wrong: &mut impl FnMut(&str, String),
) -> (HostPaths, Settings) {
    let mut path = |key: &str| {
        let path = texts.get(key).map(PathBuf::from)?;
        if !path.is_absolute() {
            wrong(
                key,
                format!(
                    "{:?} is not absolute: after a change of directory it would be another one",
                    path.display().to_string()
                ),
            );
        }
        Some(path)
    };
    let (state, images) = (path("state"), path("images"));
    let home = set(variables, "HOME").map(PathBuf::from);
    let mut host = HostPaths::new(variables, home.as_deref());
    host.state = state.unwrap_or(host.state);
    let usual = || Images::of(variables, rustix::process::geteuid().is_root());
    let images = match images.map_or_else(usual, |images| Ok(Images::at(images))) {
        Ok(images) => images,
        Err(error) => {
            wrong("images", format!("{error}; name their directory here"));
            Images::at("/var/lib/navvy/images")
        }
    };
    let mut machines = Settings::new(images);
    machines.most = most(texts, wrong);
    let accelerators = [("auto", Accelerator::Auto), ("kvm", Accelerator::Kvm), ("tcg", Accelerator::Tcg)];
    let snapshots = [("use", Snapshots::Use), ("make", Snapshots::Make), ("off", Snapshots::Off)];
    if let Some(said) = texts.get("accelerator") {
        word(&accelerators, said).map_or_else(|why| wrong("accelerator", why), |meant| machines.accelerator = meant);
    }
    if let Some(said) = texts.get("snapshots") {
        word(&snapshots, said).map_or_else(|why| wrong("snapshots", why), |meant| machines.snapshots = meant);
    }
    if let Some(said) = texts.get("network") {
        said.parse().map_or_else(|why: NoSubnet| wrong("network", why.to_string()), |meant| machines.network = meant);
    }
    for (key, limit) in [("start_limit", &mut machines.start_limit), ("answer_limit", &mut machines.answer_limit)] {
        let Some(said) = texts.get(key) else { continue };
        match navvy_job::figures::read_duration(said) {
            Ok(read) if LIMITS.contains(&read) => *limit = read,
            Ok(_) => wrong(key, format!("{said:?} is not between 1s and 1h")),
            Err(why) => wrong(key, why.to_string()),
        }
    }
    (host, machines)
}

/// What a machine gets at most. `None`: as much as its class says.
fn most(texts: &BTreeMap<&str, String>, wrong: &mut impl FnMut(&str, String)) -> Option<Size> {
    let cpus = texts.get("cpus").map(|said| match said.parse() {
        Ok(cpus @ 1..=1024) => cpus,
        _ => {
            wrong("cpus", format!("{said} is no number from 1 to 1024"));
            1
        }
    });
    let memory = texts.get("memory").and_then(|said| match navvy_job::figures::read_size(said) {
        Ok(memory) => Some(memory),
        Err(why) => {
            wrong("memory", why.to_string());
            None
        }
    });
    let most = Size { millicpus: cpus.map_or(u64::MAX, |cpus: u64| cpus * 1000), memory: memory.unwrap_or(u64::MAX) };
    (cpus.is_some() || memory.is_some()).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::super::{ServeArgs, Settings};
    use super::*;

    fn gathered(file: &str) -> Result<Option<MachinePool>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("processor.toml");
        std::fs::write(&path, file).unwrap();
        let variables =
            [("HOME", "/home/u"), ("NAVVY_PROCESSOR_SETTINGS", path.to_str().unwrap()), ("NAVVY_IMAGES", "/i")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::gather(&ServeArgs::default(), &variables.into());
        settings.map(|settings| settings.machine_pool).map_err(|errors| errors.to_string())
    }

    #[test]
    fn without_the_table_there_is_no_pool_and_with_it_machines_are_of_this_host() {
        assert!(gathered("lease = '30s'\n").unwrap().is_none());
        let usual = gathered("[machine_pool]\n").unwrap().unwrap();
        assert_eq!((usual.rules, usual.machines.most), (Rules::default(), None));
        assert_eq!(usual.host.state.to_str(), Some("/home/u/.local/state/navvy"));
        assert_eq!(usual.machines.images.directory().to_str(), Some("/i"));
        let said = gathered(
            "[machine_pool]\nprovider = 'qemu'\nstate = '/s'\nimages = '/other'\naccelerator = 'tcg'\nsnapshots = 'off'\nnetwork = '10.77.0.0/24'\n\
             start_limit = '90s'\ncpus = 1\nmemory = '640M'\nquota = 3\ntime_zone = 'Europe/Berlin'\n\
             prescale = [{class = 'medium', image = 'debian-12-minimal', count = 2, cron = '* 8-17 * * 1-5'}]\n",
        );
        let said = said.unwrap().unwrap();
        assert_eq!((said.host.state.to_str(), said.machines.images.directory().to_str()), (Some("/s"), Some("/other")));
        assert_eq!((said.machines.accelerator, said.machines.snapshots), (Accelerator::Tcg, Snapshots::Off));
        assert_eq!(said.machines.start_limit, Duration::from_secs(90));
        assert_eq!(said.machines.network, "10.77.0.0/24".parse().unwrap());
        assert_eq!(said.machines.most, Some(Size { millicpus: 1000, memory: 640 << 20 }));
        assert_eq!((said.rules.quota, said.rules.prescaled.len()), (3, 1));
    }

    const EC2: &str = "[machine_pool]\nprovider = 'ec2'\nprescale = [{class = 'medium', image = 'ubuntu-2204:current', count = 1}]\n\
                       [machine_pool.ec2]\nregion = 'eu-central-1'\nimages = [{name = 'ubuntu-*', image = 'ami-1'}]\n\
                       types = [{name = 't3a.medium', cpus = 2, memory = '4G'}]\n";

    #[test]
    fn a_cloud_s_machines_are_counted_by_the_rows_that_make_them() {
        let pool = gathered(EC2).unwrap().unwrap();
        assert_eq!((pool.made.name(), pool.rules.prescaled[0].kind.image.as_str()), ("ec2", "ubuntu-*"));
        let told = |from: &str, to: &str| {
            assert!(EC2.contains(from), "{from}");
            gathered(&EC2.replace(from, to)).unwrap_err()
        };
        for (from, to, words) in [
            ("provider = 'ec2'", "provider = 'gce'", "gce in machine_pool of "),
            ("region = 'eu-central-1'", "zone = 'x'", "ec2 in machine_pool of "),
            (
                "'ubuntu-2204:current'",
                "'windows'",
                "prescale entry 1: image \"windows\": no entry of [[vm.ec2.images]]",
            ),
            ("provider = 'ec2'", "provider = 'ec2'\nstate = '/s'", "this is for machines of this host"),
            ("provider = 'ec2'", "provider = 'ssh'", "\"ssh\" is none of qemu, ec2, gce"),
        ] {
            let told = told(from, to);
            assert!(told.contains(words), "{to}: {told}");
        }
    }

    #[test]
    fn what_is_wrong_names_key_and_value_and_what_to_write() {
        for (file, words) in [
            ("machine_pool = 'yes'\n", &["machine_pool in ", "it must be a table"][..]),
            ("[machine_pool]\nquotta = 1\n", &["quotta in machine_pool of ", "there is no such setting", "quota"]),
            ("[machine_pool]\nprovider = 'xen'\n", &["provider in ", "\"xen\" is none of qemu"]),
            ("[machine_pool]\nprovider = 1\n", &["provider in ", "no integer"]),
            ("[machine_pool]\nstate = 'here'\n", &["state in ", "\"here\" is not absolute"]),
            ("[machine_pool]\naccelerator = 'fast'\n", &["accelerator in ", "\"fast\" is none of auto, kvm, tcg"]),
            ("[machine_pool]\nsnapshots = 'yes'\n", &["snapshots in ", "\"yes\" is none of use, make, off"]),
            ("[machine_pool]\nnetwork = '10.0.0.0'\n", &["network in ", "write it like 10.209.0.0/16"]),
            ("[machine_pool]\nstart_limit = '0s'\n", &["start_limit in ", "\"0s\" is not between 1s and 1h"]),
            ("[machine_pool]\nanswer_limit = '5'\n", &["answer_limit in ", "`5` is not a duration"]),
            ("[machine_pool]\ncpus = 0\n", &["cpus in ", "0 is no number from 1 to 1024"]),
            ("[machine_pool]\nmemory = 'much'\n", &["memory in ", "`much` is not a size"]),
            ("[machine_pool]\nmemory = 512\n", &["memory in ", "no integer"]),
            ("[machine_pool]\nquota = 0\n", &["quota: 0 is no number from 1 to 10000"]),
            ("[machine_pool]\nquota = 'many'\n", &["quota in machine_pool of ", "many"]),
            ("[machine_pool]\ntime_zone = 'Mars/Base'\n", &["time_zone", "Mars/Base"]),
            (
                "[machine_pool]\nprescale = [{class = 'm', image = 'i', count = 1, corn = '* * * * *'}]\n",
                &["prescale in machine_pool of ", "corn"],
            ),
            (
                "[machine_pool]\nprescale = [{class = 'm', image = 'i', count = 6}]\n",
                &["prescale entry 1: count is 6", "prescale_max"],
            ),
        ] {
            let told = gathered(file).unwrap_err();
            assert!(words.iter().all(|word| told.contains(word)), "{file}: {told}");
        }
        let told = gathered("[machine_pool]\nstate = 'here'\nquota = 0\nprovider = 'xen'\nnone = 1\n").unwrap_err();
        assert_eq!(told.lines().count(), 4, "{told}");
    }
}
