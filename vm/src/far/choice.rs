//! Which image and size a task's machine has at its provider's, by the operator's rows. Pure.

use std::cmp::Reverse;

use navvy_environment::request::{Machine, Purpose};
use navvy_job::resource::Size;
use navvy_vm_image::table::{DEFAULT, fits};
use serde::{Deserialize, Deserializer};

use crate::error::Fault;

/// An image of a cloud, and the configs' names that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Row {
    /// A config's name of an image; `*` in it stands for any text. `default`: configs that name none.
    pub name: String,
    /// The cloud's own name of the image.
    pub image: String,
    /// As whom steps run in it.
    #[serde(default = "step_user")]
    pub user: String,
    /// The version of its Docker engine, if it has one.
    #[serde(default)]
    pub docker: Option<String>,
}

/// A size that a cloud has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Type {
    /// The cloud's own name of it: `t3a.medium`, `e2-standard-2`.
    pub name: String,
    /// Its processors.
    pub cpus: u32,
    /// Its memory, in bytes; written as in `4G`.
    #[serde(deserialize_with = "size")]
    pub memory: u64,
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    navvy_job::figures::read_size(&text).map_err(serde::de::Error::custom)
}

/// The user of Navvy's own images.
pub fn step_user() -> String {
    "circleci".to_owned()
}

/// The row that fits best: an exact name before one with `*`, a longer one before a shorter one.
///
/// # Errors
/// No row fits: which there are, and where another is written.
pub fn row<'a, T>(
    rows: &'a [T],
    patterns: impl Fn(&'a T) -> &'a [String],
    wanted: Option<&str>,
    key: &str,
) -> Result<Vec<&'a T>, String> {
    let wanted = wanted.unwrap_or(DEFAULT);
    let best = |row: &'a T| best(patterns(row), Some(wanted)).map(rank);
    let mut found: Vec<_> = rows.iter().filter_map(|row| best(row).map(|rank| (rank, row))).collect();
    found.sort_by_key(|(rank, _)| *rank);
    if found.is_empty() {
        let there: Vec<&str> = rows.iter().flat_map(patterns).map(String::as_str).collect();
        return Err(format!(
            "no entry of [[{key}]] in your settings fits the image {wanted:?} (there are: {}); add one with that name, or with `*`",
            if there.is_empty() { "none".to_owned() } else { there.join(", ") }
        ));
    }
    Ok(found.into_iter().map(|(_, row)| row).collect())
}

/// Which of these patterns fits a name best. A pattern is a name, too: the one that is found fits itself best.
pub fn best<'a>(patterns: impl IntoIterator<Item = &'a String>, wanted: Option<&str>) -> Option<&'a str> {
    let wanted = wanted.unwrap_or(DEFAULT);
    let fitting = patterns.into_iter().filter(|pattern| fits(pattern, wanted));
    fitting.min_by_key(|pattern| rank(pattern)).map(String::as_str)
}

fn rank(pattern: &str) -> (bool, Reverse<usize>) {
    (pattern.contains('*'), Reverse(pattern.len()))
}

/// The smallest that has all that the class gives, else the largest. `false`: it has less.
pub fn of_size(types: &[Type], size: Size) -> Option<(&Type, bool)> {
    let has_all = |it: &&Type| u64::from(it.cpus) * 1000 >= size.millicpus && it.memory >= size.memory;
    let rank = |it: &&Type| (it.cpus, it.memory);
    let smallest = types.iter().filter(has_all).min_by_key(rank).map(|found| (found, true));
    smallest.or_else(|| types.iter().max_by_key(rank).map(|found| (found, false)))
}

/// What serves a task with its Docker engine must have one.
pub fn check_docker(docker: Option<&str>, name: &str, wanted: &Machine) -> Result<(), Fault> {
    match docker {
        None if wanted.purpose == Purpose::RemoteDocker => Err(Fault::Unsupported(format!(
            "{name} has no Docker engine by your settings (key `docker`), which setup_remote_docker needs"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rows: &[&str], wanted: Option<&str>) -> Result<String, String> {
        let rows: Vec<Vec<String>> = rows.iter().map(|name| vec![(*name).to_owned()]).collect();
        row(&rows, |row| row.as_slice(), wanted, "vm.ec2.images").map(|found| found[0][0].clone())
    }

    #[test]
    fn the_row_that_says_most_counts_and_a_missing_one_is_named() {
        let rows = ["*", "ubuntu-*", "ubuntu-2204:*", "ubuntu-2204:current", "default"];
        assert_eq!(names(&rows, Some("ubuntu-2204:current")).unwrap(), "ubuntu-2204:current");
        assert_eq!(names(&rows, Some("ubuntu-2204:2024")).unwrap(), "ubuntu-2204:*");
        assert_eq!(names(&rows, Some("else")).unwrap(), "*");
        assert_eq!(names(&rows, None).unwrap(), "default");
        let told = names(&["ubuntu-2204:*"], Some("android:1")).unwrap_err();
        assert!(
            told.contains("[[vm.ec2.images]]") && told.contains("\"android:1\"") && told.contains("ubuntu-2204:*"),
            "{told}"
        );
        assert!(names(&[], None).unwrap_err().contains("there are: none"));
    }

    #[test]
    fn what_a_name_is_counted_by_serves_that_name_whatever_the_rows() {
        let rows = ["*", "ubuntu-*", "*-2204:*", "ubuntu-2204:current", "default"].map(str::to_owned);
        for name in ["ubuntu-2204:current", "ubuntu-2404:x", "debian-2204:x", "else", "default", "*", "ubuntu-*"] {
            let counted = best(&rows, Some(name)).unwrap();
            assert_eq!(best(&rows, Some(counted)), Some(counted), "{name}");
            assert!(fits(counted, name), "{name}: {counted}");
        }
        assert_eq!((best(&rows, None), best(&rows[1..2], Some("else"))), (Some("default"), None));
    }

    #[test]
    fn a_class_gets_the_smallest_type_that_has_it_all() {
        let of = |name: &str, cpus, gib: u64| Type { name: name.to_owned(), cpus, memory: gib << 30 };
        let types = [of("large", 8, 32), of("small", 1, 2), of("memory", 2, 16), of("medium", 2, 8)];
        let chosen = |cpus, gib| of_size(&types, Size::new(cpus, gib)).map(|(it, all)| (it.name.as_str(), all));
        assert_eq!(chosen(1, 1), Some(("small", true)));
        assert_eq!(chosen(2, 7), Some(("medium", true)));
        assert_eq!(chosen(1, 9), Some(("memory", true)));
        assert_eq!(chosen(16, 64), Some(("large", false)));
        assert!(of_size(&[], Size::new(1, 1)).is_none());
    }
}
