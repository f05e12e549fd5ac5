//! Which image a config's name stands for.
//!
//! ```text
//! a config's name ─▶ the operator's rows ─▶ an image's own name ─▶ our rows ─▶ unknown
//!                    (exact before `*`, longer before shorter)
//! ```
//!
//! The names are those that configs of CircleCI's cloud use; what they stand for here is a Debian with the same tools, and the report says so.

use std::collections::BTreeMap;

use crate::error::ImageError;
use crate::name::is_name;
use crate::store::{Image, Images};

/// The name of a config that names none.
pub const DEFAULT: &str = "default";
/// What an image for ARM is called behind its other name.
const ARM: &str = "-arm64";

/// What a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The first of these images that is here.
    Images(Vec<String>),
    /// Navvy does not have it, and why.
    Refused(&'static str),
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// A name, in which `*` stands for anything.
    pub pattern: String,
    /// What the names that fit stand for.
    pub meaning: Meaning,
    /// The operator has set it.
    pub is_own: bool,
}

/// Names and what they stand for, in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Row>,
}

/// What a row of an operator cannot say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// An empty pattern, or one with characters that no name has.
    #[error("`{}` is no name of a config's image, with or without `*`", .0.escape_debug())]
    Pattern(String),
    /// Behind the sign of equality there is no image's name.
    #[error("`{}` stands for {}, which is no name of an image", .pattern, crate::name::shown(.name))]
    Name {
        /// The row's pattern.
        pattern: String,
        /// What stands there.
        name: String,
    },
}

const LINUX: [&str; 2] = ["debian-12-docker", "debian-12-full"];
const WINDOWS: &str = "there are no machines with Windows here";
const GPU: &str = "a machine gets a graphics processor only where its operator has passed one through and named an image for it in \
                   `[machine-images]`; no image of ours has the drivers, and it could not be tried";
const ANDROID: &str = "an emulator needs a machine within a machine, which no image of ours offers";

/// What names stand for where no operator says otherwise.
const BUILT_IN: [(&str, Result<[&str; 2], &str>); 10] = [
    (DEFAULT, Ok(LINUX)),
    ("ubuntu-2004:*", Ok(LINUX)),
    ("ubuntu-2204:*", Ok(LINUX)),
    ("ubuntu-2404:*", Ok(LINUX)),
    ("linux-cuda-*", Err(GPU)),
    ("ubuntu-*-cuda-*", Err(GPU)),
    ("*-gpu:*", Err(GPU)),
    ("windows-*-gpu-*", Err(GPU)),
    ("windows-*", Err(WINDOWS)),
    ("android:*", Err(ANDROID)),
];

impl Default for Table {
    fn default() -> Self {
        Self { rows: built_in() }
    }
}

fn built_in() -> Vec<Row> {
    let row = |(pattern, meaning): &(&str, Result<[&str; 2], &'static str>)| Row {
        pattern: (*pattern).to_owned(),
        meaning: match meaning {
            Ok(images) => Meaning::Images(images.iter().map(|&image| image.to_owned()).collect()),
            Err(why) => Meaning::Refused(why),
        },
        is_own: false,
    };
    let mut rows: Vec<Row> = BUILT_IN.iter().map(row).collect();
    sort(&mut rows);
    rows
}

/// What is exact goes before what is not, and what says more before what says less.
fn sort(rows: &mut [Row]) {
    rows.sort_by(|one, other| {
        let rank = |row: &Row| (row.pattern.contains('*'), std::cmp::Reverse(row.pattern.len()), row.pattern.clone());
        rank(one).cmp(&rank(other))
    });
}

impl Table {
    /// The operator's rows (pattern, name of an image), before ours.
    ///
    /// # Errors
    /// A pattern that fits no name, or a name that no image has.
    pub fn with(own: &BTreeMap<String, String>) -> Result<Self, TableError> {
        let mut rows = Vec::new();
        for (pattern, name) in own {
            let is_pattern = !pattern.is_empty()
                && pattern.len() <= 200
                && pattern.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '`' | '\\'));
            if !is_pattern {
                return Err(TableError::Pattern(pattern.clone()));
            }
            if !is_name(name) {
                return Err(TableError::Name { pattern: pattern.clone(), name: name.clone() });
            }
            rows.push(Row { pattern: pattern.clone(), meaning: Meaning::Images(vec![name.clone()]), is_own: true });
        }
        sort(&mut rows);
        rows.extend(built_in());
        Ok(Self { rows })
    }

    /// Its rows, in the order in which they are tried.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The image of this machine that a config's name stands for; `None` is the name of a config that names none. `architecture` is the
    /// guest's: `x86_64` or `aarch64`.
    ///
    /// # Errors
    /// An unknown name, one of something that Navvy does not have, or one of an image that is not here or damaged.
    pub fn find(&self, images: &Images, wanted: Option<&str>, architecture: &str) -> Result<Image, ImageError> {
        let wanted = wanted.unwrap_or(DEFAULT);
        let own = self.rows.iter().find(|row| row.is_own && fits(&row.pattern, wanted));
        if own.is_none() && images.has(wanted) {
            return checked(images.get(wanted)?, wanted, architecture);
        }
        let Some(row) = own.or_else(|| self.rows.iter().find(|row| fits(&row.pattern, wanted))) else {
            return Err(ImageError::Unknown { wanted: wanted.to_owned(), there: there(images)? });
        };
        match &row.meaning {
            Meaning::Refused(why) => Err(ImageError::Refused { wanted: wanted.to_owned(), why }),
            Meaning::Images(names) => first_of(images, wanted, names, row.is_own, architecture),
        }
    }
}

fn first_of(
    images: &Images,
    wanted: &str,
    names: &[String],
    is_own: bool,
    architecture: &str,
) -> Result<Image, ImageError> {
    // An operator's name is the image's whole name, unless there is one for ARM beside it.
    let arm = |name: &String| format!("{name}{ARM}");
    let names: Vec<String> = match architecture {
        "aarch64" if is_own => names.iter().flat_map(|name| [arm(name), name.clone()]).collect(),
        "aarch64" => names.iter().map(arm).collect(),
        _ => names.to_vec(),
    };
    match names.iter().find(|name| images.has(name)) {
        Some(name) => checked(images.get(name)?, wanted, architecture),
        None => Err(ImageError::NotBuilt { wanted: wanted.to_owned(), images: names, there: there(images)? }),
    }
}

fn checked(image: Image, wanted: &str, architecture: &str) -> Result<Image, ImageError> {
    if image.manifest.architecture == architecture {
        return Ok(image);
    }
    let (name, is) = (&image.manifest.name, &image.manifest.architecture);
    let there = format!("{name} is for {is}, and the machine is {architecture}");
    Err(ImageError::Unknown { wanted: wanted.to_owned(), there })
}

/// What there is, as the end of a sentence.
fn there(images: &Images) -> Result<String, ImageError> {
    let names: Vec<String> = images.list()?.into_iter().map(|listed| listed.name).collect();
    let place = images.directory().display();
    Ok(if names.is_empty() {
        format!("there are none in {place}")
    } else {
        format!("there are {} in {place}", names.join(", "))
    })
}

/// Whether a name fits a pattern, in which `*` stands for any text, none included.
pub fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(rows: &[(&str, &str)]) -> Result<Table, TableError> {
        Table::with(&rows.iter().map(|(pattern, name)| ((*pattern).into(), (*name).into())).collect())
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("ubuntu-2204:*", "ubuntu-2204:current", true),
            ("ubuntu-2204:*", "ubuntu-2204:", true),
            ("ubuntu-2204:*", "ubuntu-2204", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*ba", "aba", false),
            ("default", "default", true),
            ("default", "defaults", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_operator_s_rows_go_before_ours_and_exact_ones_before_others() {
        let table = own(&[("ubuntu-*", "one"), ("ubuntu-2204:*", "two"), ("ubuntu-2204:edge", "three")]).unwrap();
        let images = Images::at("/nonexistent/images");
        for (wanted, expected) in [
            ("ubuntu-2204:edge", "three"),
            ("ubuntu-2204:current", "two"),
            ("ubuntu-2404:current", "one"),
            ("default", "debian-12-docker"),
        ] {
            match table.find(&images, Some(wanted), "x86_64") {
                Err(ImageError::NotBuilt { images, .. }) => assert_eq!(images[0], expected, "{wanted}"),
                other => panic!("{wanted}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_navvy_does_not_have_is_refused_with_the_reason() {
        let table = Table::default();
        let images = Images::at("/nonexistent/images");
        for (wanted, why) in [
            ("windows-server-2022-gui:current", WINDOWS),
            ("windows-server-2019-gpu-nvidia:current", GPU),
            ("linux-cuda-12:default", GPU),
            ("android:2024.11.1", ANDROID),
        ] {
            let error = table.find(&images, Some(wanted), "x86_64").unwrap_err();
            assert!(matches!(error, ImageError::Refused { why: told, .. } if told == why), "{wanted}: {error}");
        }
        let error = table.find(&images, Some("solaris:11"), "x86_64").unwrap_err().to_string();
        assert_eq!(
            error,
            "`solaris:11` is no image of machines that is known here: there are none in /nonexistent/images"
        );
    }

    #[test]
    fn arm_has_images_of_its_own() {
        let error = Table::default().find(&Images::at("/nonexistent/images"), None, "aarch64").unwrap_err();
        assert!(error.to_string().contains("debian-12-docker-arm64 or debian-12-full-arm64"), "{error}");
    }

    #[test]
    fn rows_that_say_nothing_are_errors() {
        assert!(matches!(own(&[("", "a")]), Err(TableError::Pattern(_))));
        assert!(matches!(own(&[("a b", "a")]), Err(TableError::Pattern(_))));
        assert!(matches!(own(&[("a", "../etc")]), Err(TableError::Name { .. })));
    }
}
