//! What the machines of a pool are counted by, and which of them a task can take.
//!
//! ```text
//! pool.toml   class, image ─┐
//!                           ├─▶ counted: class, the image's own name (this host's) │ the operator's row for that name (elsewhere)
//! a task      class, image ─┘         │
//!                                     └─▶ Source: what a machine of this kind starts from
//! ```

use std::collections::BTreeMap;

use navvy_environment::request::{Machine as WantedMachine, Prepare, Purpose, Wanted};
use navvy_job::chain::chain;
use navvy_job::resource::{Size, machine_class_names};

use crate::machines::Machines;
use crate::pool::rules::{Kind, Prescaled, Rules};
use crate::provider::{Provider, Source};
use crate::settings::Extras;

impl Machines {
    /// The kind as a pool of these machines counts it: whatever name an operator or a task has for an image, those that start from the same
    /// are of one kind.
    ///
    /// # Errors
    /// Its class or its image is not to be had: all that is wrong, in sentences.
    pub fn counted(&self, kind: &Kind) -> Result<Kind, Vec<String>> {
        let (_, source) = self.start_of(kind)?;
        Ok(Kind { class: kind.class.clone(), image: source.counted().to_owned() })
    }

    /// The same of all that an operator asks of a pool.
    ///
    /// # Errors
    /// All that is not to be had, each with its place.
    pub fn counted_rules(&self, mut rules: Rules) -> Result<Rules, Vec<String>> {
        let mut wrong = Vec::new();
        for (nth, entry) in (1..).zip(&mut rules.prescaled) {
            match self.counted_entry(entry) {
                Ok(kind) => entry.kind = kind,
                Err(whys) => wrong.extend(whys.into_iter().map(|why| format!("prescale entry {nth}: {why}"))),
            }
        }
        let mut quotas = BTreeMap::new();
        for (kind, most) in std::mem::take(&mut rules.quotas) {
            match self.counted(&kind) {
                // Of two names of one image the smaller quota holds.
                Ok(kind) => {
                    let known = quotas.entry(kind).or_insert(most);
                    *known = most.min(*known);
                }
                Err(whys) => wrong.extend(whys.into_iter().map(|why| format!("quotas: {why}"))),
            }
        }
        rules.quotas = quotas;
        if wrong.is_empty() { Ok(rules) } else { Err(wrong) }
    }

    /// Hosts that are there are so many, and no more.
    fn counted_entry(&self, entry: &Prescaled) -> Result<Kind, Vec<String>> {
        let Prescaled { kind, count, .. } = entry;
        if let (_, Source::Hosts(_, candidates)) = self.start_of(kind)?
            && *count as usize > candidates.hosts.len()
        {
            let (most, image) = (candidates.hosts.len(), &kind.image);
            return Err(vec![format!(
                "count is {count}, and [[vm.ssh.hosts]] of your settings has {most} for the image {image:?}"
            )]);
        }
        self.counted(kind)
    }

    /// How large a machine of a kind is, and what it starts from. Nothing is asked for it.
    pub(crate) fn start_of(&self, kind: &Kind) -> Result<(Size, Source), Vec<String>> {
        let Kind { class, image } = kind;
        let size = self.settings.size_of(class).ok_or_else(|| {
            let known: Vec<_> = machine_class_names().collect();
            format!("class {class:?} is no class of machines; there are {}", known.join(", "))
        });
        let none = Size { millicpus: 0, memory: 0 };
        let source = self.image_of(kind, *size.as_ref().unwrap_or(&none));
        let source = source.map_err(|why| format!("image {image:?}: {why}"));
        match (size, source) {
            (Ok(size), Ok(source)) => Ok((size, source)),
            (size, source) => Err(size.err().into_iter().chain(source.err()).collect()),
        }
    }

    fn image_of(&self, kind: &Kind, size: Size) -> Result<Source, String> {
        if let Provider::Qemu(_) = self.provider {
            let found = self.settings.images.get(&kind.image);
            return found.map(Source::from).map_err(|error| {
                let hint = error.hint().map_or_else(String::new, |hint| format!("; {}", hint.trim_end_matches('.')));
                format!("{error}{hint}")
            });
        }
        let (image, class) = (Some(kind.image.clone()), Some(kind.class.clone()));
        let wanted = WantedMachine { image, purpose: Purpose::Steps, layers: None, class };
        self.provider.choose(&self.settings, &wanted, size).map_err(|fault| chain(&fault))
    }

    /// What a pool may have that is just what this task needs, where machines are elsewhere: nothing of this host limits them.
    pub(crate) fn kind_elsewhere(&self, request: &Prepare, extras: &Extras, source: &Source) -> Result<Kind, String> {
        let Wanted::Machine(wanted) = &request.wanted else { return Err("containers are wanted".to_owned()) };
        if !extras.disks.is_empty() {
            return Err("the job has disks of its own (Docker layers)".to_owned());
        }
        let class = wanted.class.clone().ok_or("the machine is of no resource class")?;
        let kind = Kind { class, image: source.counted().to_owned() };
        let (_, of_class) = self.start_of(&kind).map_err(|wrong| wrong.join("; "))?;
        match (source, &of_class) {
            (Source::Cloud(_, gets), Source::Cloud(_, has)) if gets.size != has.size => Err(format!(
                "the job gets a {} here, and its class {} has a {}",
                gets.size.name, kind.class, has.size.name
            )),
            _ => Ok(kind),
        }
    }
}
