//! Resource classes: named sizes of a task (docs/config-rules.md, §9).

use serde::{Deserialize, Serialize};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What a whole task may use: primary and services together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Thousandths of a CPU.
    pub millicpus: u64,
    /// Bytes.
    pub memory: u64,
}

impl Size {
    /// This many whole CPUs, and memory in GiB.
    pub const fn new(cpus: u64, gib: u64) -> Self {
        Self { millicpus: cpus * 1000, memory: gib * GIB }
    }

    /// Does `self` fit into what is left of `room`?
    pub fn fits(self, room: Self) -> bool {
        self.millicpus <= room.millicpus && self.memory <= room.memory
    }

    /// The smaller of both in each dimension.
    pub fn clamp_to(self, room: Self) -> Self {
        Self { millicpus: self.millicpus.min(room.millicpus), memory: self.memory.min(room.memory) }
    }

    /// Sum in each dimension; at most the largest number.
    pub fn plus(self, other: Self) -> Self {
        Self {
            millicpus: self.millicpus.saturating_add(other.millicpus),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    /// Difference in each dimension; at least 0.
    pub fn minus(self, other: Self) -> Self {
        Self {
            millicpus: self.millicpus.saturating_sub(other.millicpus),
            memory: self.memory.saturating_sub(other.memory),
        }
    }
}

/// The docker executor's class when the config names none.
pub const DEFAULT_DOCKER_CLASS: &str = "medium";
/// The machine executor's class when the config names none.
pub const DEFAULT_MACHINE_CLASS: &str = "medium";

/// The class of the machine that a job in containers has its remote Docker engine in.
pub const REMOTE_DOCKER_CLASS: &str = "medium";

/// Classes of the docker executor. Generation twins (`medium.gen2`) have the size of their class.
const DOCKER: &[(&str, Size)] = &[
    ("small", Size::new(1, 2)),
    ("medium", Size::new(2, 4)),
    ("medium+", Size::new(3, 6)),
    ("large", Size::new(4, 8)),
    ("xlarge", Size::new(8, 16)),
    ("2xlarge", Size::new(16, 32)),
    ("2xlarge+", Size::new(20, 40)),
    ("arm.medium", Size::new(2, 8)),
    ("arm.large", Size::new(4, 16)),
    ("arm.xlarge", Size::new(8, 32)),
    ("arm.2xlarge", Size::new(16, 64)),
];

/// Classes of Linux virtual machines.
const MACHINE: &[(&str, Size)] = &[
    ("medium", Size { millicpus: 2000, memory: 7 * GIB + 512 * MIB }),
    ("large", Size::new(4, 15)),
    ("xlarge", Size::new(8, 32)),
    ("2xlarge", Size::new(16, 64)),
    ("2xlarge+", Size::new(32, 64)),
    ("arm.medium", Size::new(2, 8)),
    ("arm.large", Size::new(4, 16)),
    ("arm.xlarge", Size::new(8, 32)),
    ("arm.2xlarge", Size::new(16, 64)),
];

/// Sizes of the `.gen2` and `.gen3` machines, which differ from their elder namesakes.
const MACHINE_GENERATIONS: &[(&str, Size)] = &[
    ("medium", Size::new(2, 8)),
    ("large", Size::new(4, 16)),
    ("xlarge", Size::new(8, 32)),
    ("2xlarge", Size::new(16, 64)),
    ("2xlarge+", Size::new(32, 128)),
];

/// Size of a class of the docker executor; `None` for an unknown class.
pub fn docker_class(name: &str) -> Option<Size> {
    let plain = name.strip_suffix(".gen2").or_else(|| name.strip_suffix(".gen3")).unwrap_or(name);
    find(DOCKER, plain)
}

/// Size of a class of Linux machines; `None` for an unknown class.
pub fn machine_class(name: &str) -> Option<Size> {
    match name.strip_suffix(".gen2").or_else(|| name.strip_suffix(".gen3")) {
        Some(plain) => find(MACHINE_GENERATIONS, plain),
        None => find(MACHINE, name),
    }
}

/// Names of the docker executor's classes, smallest first.
pub fn docker_class_names() -> impl Iterator<Item = &'static str> {
    DOCKER.iter().map(|(name, _)| *name)
}

/// Names of the machine executor's classes, smallest first.
pub fn machine_class_names() -> impl Iterator<Item = &'static str> {
    MACHINE.iter().map(|(name, _)| *name)
}

/// `namespace/name`: a class served by the user's own runners.
pub fn is_self_hosted(name: &str) -> bool {
    let Some((namespace, class)) = name.split_once('/') else { return false };
    let word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    word(namespace) && word(class)
}

fn find(table: &[(&str, Size)], name: &str) -> Option<Size> {
    table.iter().find(|(known, _)| *known == name).map(|(_, size)| *size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_documented_sizes() {
        assert_eq!(docker_class("medium"), Some(Size { millicpus: 2000, memory: 4 << 30 }));
        assert_eq!(docker_class("medium.gen2"), docker_class("medium"));
        assert_eq!(machine_class("medium").unwrap().memory, 7_680 << 20);
        assert_eq!(machine_class("medium.gen3"), Some(Size::new(2, 8)));
        assert_eq!(docker_class("huge"), None);
    }

    #[test]
    fn self_hosted_classes_have_one_slash() {
        assert!(is_self_hosted("acme/big-box"));
        assert!(!is_self_hosted("medium"));
        assert!(!is_self_hosted("a/b/c"));
        assert!(!is_self_hosted("acme/"));
    }
}
