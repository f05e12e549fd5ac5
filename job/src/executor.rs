//! What carries jobs out: the kinds that an agent tells its processor, and the one that a job needs. Pure.

use std::fmt;

use crate::compiled::Executor;

/// One kind of what jobs run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExecutorKind {
    /// Containers.
    Docker,
    /// Virtual machines with a processor of the x86 family.
    Machine,
    /// Virtual machines with an ARM processor.
    MachineArm,
}

impl ExecutorKind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Docker, Self::Machine, Self::MachineArm];

    /// As it crosses a wire and stands in a database: `docker`, `machine`, `machine-arm64`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Machine => "machine",
            Self::MachineArm => "machine-arm64",
        }
    }

    /// What a word stands for. `None`: a newer version's, or nothing at all.
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Of machines with this architecture, as Rust calls it: `x86_64`, `aarch64`.
    pub fn of_machines(architecture: &str) -> Option<Self> {
        match architecture {
            "x86_64" => Some(Self::Machine),
            "aarch64" => Some(Self::MachineArm),
            _ => None,
        }
    }

    /// What a job of this executor and resource class needs. `None`: no agent has it.
    pub fn of(executor: &Executor, class: &str) -> Option<Self> {
        match executor {
            Executor::Docker { .. } => Some(Self::Docker),
            Executor::Machine { .. } if class.starts_with("arm.") => Some(Self::MachineArm),
            Executor::Machine { .. } => Some(Self::Machine),
            Executor::Macos { .. } => None,
        }
    }
}

impl fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What one agent can carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecutorKinds([bool; ExecutorKind::ALL.len()]);

impl ExecutorKinds {
    /// Everything.
    pub const ALL: Self = Self([true; ExecutorKind::ALL.len()]);

    /// By the words that an agent says. Agents of versions that had containers alone say nothing, and words of newer versions
    /// stand for nothing that this one could hand out.
    pub fn told<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut words = words.into_iter().peekable();
        match words.peek() {
            None => [ExecutorKind::Docker].into_iter().collect(),
            Some(_) => words.filter_map(ExecutorKind::read).collect(),
        }
    }

    /// Each that there is, in the order of [`ExecutorKind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = ExecutorKind> {
        ExecutorKind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }

    /// Is this one there?
    pub fn has(self, kind: ExecutorKind) -> bool {
        self.0[kind as usize]
    }

    /// Is there none?
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl FromIterator<ExecutorKind> for ExecutorKinds {
    fn from_iter<I: IntoIterator<Item = ExecutorKind>>(kinds: I) -> Self {
        let mut all = Self::default();
        kinds.into_iter().for_each(|kind| all.0[kind as usize] = true);
        all
    }
}

/// Why no Linux machine can be what a `machine` job asks for.
pub fn why_no_machine(class: &str, image: Option<&str>) -> Option<&'static str> {
    if class.starts_with("windows.") || image.is_some_and(|image| image.starts_with("windows")) {
        return Some("there are no machines with Windows here");
    }
    class.starts_with("gpu.").then_some("there are no machines with a graphics processor here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_what_it_was_written_for() {
        for kind in ExecutorKind::ALL {
            assert_eq!(ExecutorKind::read(kind.word()), Some(kind));
            assert_eq!(ExecutorKinds::told([kind.word()]).iter().collect::<Vec<_>>(), [kind]);
        }
    }

    #[test]
    fn who_says_nothing_has_containers_and_who_says_what_is_unknown_has_nothing() {
        assert_eq!(ExecutorKinds::told([]).iter().collect::<Vec<_>>(), [ExecutorKind::Docker]);
        assert!(ExecutorKinds::told(["macos", "DOCKER", ""]).is_empty());
        let both = ExecutorKinds::told(["machine", "wasm", "docker"]);
        assert_eq!(both.iter().collect::<Vec<_>>(), [ExecutorKind::Docker, ExecutorKind::Machine]);
    }

    #[test]
    fn a_job_needs_what_its_executor_and_its_class_say() {
        let machine = Executor::Machine { image: None, docker_layer_caching: false };
        assert_eq!(ExecutorKind::of(&machine, "arm.large"), Some(ExecutorKind::MachineArm));
        assert_eq!(ExecutorKind::of(&machine, "acme/arm"), Some(ExecutorKind::Machine));
        assert_eq!(ExecutorKind::of(&Executor::Docker { containers: vec![] }, "arm.large"), Some(ExecutorKind::Docker));
        assert_eq!(ExecutorKind::of(&Executor::Macos { xcode: None }, "large"), None);
        assert!(why_no_machine("medium", Some("windows-server-2022")).is_some_and(|why| why.contains("Windows")));
        assert!(why_no_machine("gpu.nvidia.small", None).is_some_and(|why| why.contains("graphics")));
        assert_eq!(why_no_machine("arm.medium", Some("ubuntu-2404:current")), None);
    }
}
