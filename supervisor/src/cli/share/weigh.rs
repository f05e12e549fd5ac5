//! What each test weighs, and what is to be said of that.

use std::io;

use super::flags::{Flags, SplitBy, TimingsType};
use super::timings::{self, Table, Timings};

/// Items without a timing that are named one by one.
const NAMED: usize = 20;

/// Weights in the order of the names.
pub struct Weighed {
    /// `None`: all the same.
    pub weights: Option<Vec<u64>>,
    /// Lines for stderr.
    pub remarks: Vec<String>,
}

impl Weighed {
    fn equal(remarks: Vec<String>) -> Self {
        Self { weights: None, remarks }
    }
}

pub fn weigh(flags: &Flags<'_>, names: &[&[u8]]) -> Weighed {
    match flags.split_by {
        SplitBy::Name => Weighed::equal(vec![]),
        SplitBy::FileSize => by_size(names),
        SplitBy::Timings => {
            let read = timings::read(flags.timings_file.as_deref());
            let parsed = read.as_deref().map_err(String::clone).and_then(Timings::parse);
            parsed.map_or_else(|why| without_timings(&why), |timings| by_timings(flags, &timings, names))
        }
    }
}

/// The original's words: people look for them.
fn without_timings(why: &str) -> Weighed {
    Weighed::equal(vec![
        format!("Error reading historical timing data: {why}"),
        "Requested weighting by historical based timing, but they are not present. Falling back to weighting by name."
            .to_owned(),
    ])
}

fn by_size(names: &[&[u8]]) -> Weighed {
    let looked: Vec<io::Result<u64>> = names.iter().map(|name| size(name)).collect();
    let is_gone = |looked: &io::Result<u64>| looked.as_ref().is_err_and(names_nothing);
    let gone: Vec<&[u8]> =
        names.iter().zip(&looked).filter(|(_, looked)| is_gone(looked)).map(|(name, _)| *name).collect();
    let mut remarks = unknown_sizes(names, &looked);
    remarks.extend(missing("file", &gone, &vec![None; gone.len()]));
    let sizes: Vec<Option<u64>> = looked.into_iter().map(Result::ok).collect();
    let known: Vec<u64> = sizes.iter().flatten().copied().collect();
    if known.is_empty() {
        if !names.is_empty() {
            remarks.push("None of the names is a file. Falling back to weighting by name.".to_owned());
        }
        return Weighed::equal(remarks);
    }
    let mean = (known.iter().map(|size| u128::from(*size)).sum::<u128>() / known.len() as u128) as u64;
    Weighed { weights: Some(sizes.into_iter().map(|size| size.unwrap_or(mean)).collect()), remarks }
}

fn size(name: &[u8]) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    std::fs::metadata(std::ffi::OsStr::from_bytes(name)).map(|meta| meta.len())
}

fn names_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Files that are there and cannot be looked at: no size is another thing than no file.
fn unknown_sizes(names: &[&[u8]], looked: &[io::Result<u64>]) -> Vec<String> {
    let all = names.iter().zip(looked).filter_map(|(name, looked)| Some((name, looked.as_ref().err()?)));
    let all = all.filter(|(_, error)| !names_nothing(error));
    let told = |(name, error): (&&[u8], &io::Error)| {
        format!("The size of \"{}\" is not known: {error}", String::from_utf8_lossy(name))
    };
    let mut lines: Vec<String> = all.clone().take(NAMED).map(told).collect();
    let more = all.count() - lines.len();
    if more > 0 {
        lines.push(format!("The sizes of {more} more are not known"));
    }
    lines
}

fn by_timings(flags: &Flags<'_>, timings: &Timings<'_>, names: &[&[u8]]) -> Weighed {
    let (kind, table) = match flags.timings_type {
        TimingsType::Auto => detect(timings, names),
        kind => (kind, timings.table(kind)),
    };
    let found: Vec<Option<u64>> = names.iter().map(|name| look_up(&table, name)).collect();
    let known = found.iter().flatten().count();
    if known == 0 && flags.timings_type == TimingsType::Auto {
        return undetected(names, &table, &found);
    }
    let mut remarks = missing("timing", names, &found);
    if known * 2 < names.len() {
        let (of, examples) = (names.len(), examples(&table, names, &found));
        remarks.push(format!("timings known for {known} of {of} items; do {} match?{examples}", plural(kind)));
    }
    let weights = found.into_iter().map(|time| time.unwrap_or(flags.time_default)).collect();
    Weighed { weights: Some(weights), remarks }
}

/// Files unless more of the names are classes, or there are no files at all.
fn detect<'a>(timings: &'a Timings<'_>, names: &[&[u8]]) -> (TimingsType, Table<'a>) {
    let hits = |table: &Table<'_>| names.iter().filter(|name| look_up(table, name).is_some()).count();
    let files = timings.table(TimingsType::File);
    let known = hits(&files);
    if known == names.len() {
        return (TimingsType::File, files);
    }
    let classes = timings.table(TimingsType::Class);
    if hits(&classes) > known || files.is_empty() {
        return (TimingsType::Class, classes);
    }
    (TimingsType::File, files)
}

fn undetected(names: &[&[u8]], table: &Table<'_>, found: &[Option<u64>]) -> Weighed {
    if names.is_empty() {
        return Weighed::equal(vec![]);
    }
    let mut text =
        "Error autodetecting timing type, falling back to weighting by name. Autodetect no matching filename \
                    or classname."
            .to_owned();
    text.push_str(&examples(table, names, found));
    text.push_str(" If file names are used, double check paths for absolute vs relative.");
    Weighed::equal(vec![text])
}

fn look_up(table: &Table<'_>, name: &[u8]) -> Option<u64> {
    table.get(std::str::from_utf8(name).ok()?).copied()
}

fn plural(kind: TimingsType) -> &'static str {
    match kind {
        TimingsType::File | TimingsType::Auto => "paths",
        TimingsType::Class => "class names",
        TimingsType::Name => "test names",
    }
}

/// A line for each of the first that have none, and one for the rest.
fn missing(what: &str, names: &[&[u8]], found: &[Option<u64>]) -> Vec<String> {
    let without = names.iter().zip(found).filter(|(_, found)| found.is_none()).map(|(name, _)| name);
    let mut lines: Vec<String> = without
        .clone()
        .take(NAMED)
        .map(|name| format!("No {what} found for \"{}\"", String::from_utf8_lossy(name)))
        .collect();
    let more = without.count() - lines.len();
    if more > 0 {
        lines.push(format!("No {what} found for {more} more"));
    }
    lines
}

/// A name that has no timing beside one that has: the one most like it, which ends in the same words.
fn examples(table: &Table<'_>, names: &[&[u8]], found: &[Option<u64>]) -> String {
    let Some(name) = names.iter().zip(found).find(|(_, found)| found.is_none()).map(|(name, _)| *name) else {
        return String::new();
    };
    let alike = |key: &str| key.bytes().rev().zip(name.iter().rev()).take_while(|(a, b)| a == *b).count();
    let nearest = table.keys().max_by(|a, b| alike(a).cmp(&alike(b)).then(b.cmp(a)));
    let known = nearest.map_or("has none of this kind".to_owned(), |known| format!("has \"{known}\""));
    format!(" The list has \"{}\", the last run {known}.", String::from_utf8_lossy(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of timings: pairs of file and class, a second each, the file in the list's first place ten.
    fn timings(room: &tempfile::TempDir, cases: &[(&str, &str)]) -> String {
        let case = |(file, class): &(&str, &str)| format!(r#"{{"file":"{file}","classname":"{class}","run_time":1}}"#);
        let text = format!(r#"{{"tests":[{}]}}"#, cases.iter().map(case).collect::<Vec<_>>().join(","));
        let path = room.path().join("results.json");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn weighed(file: &str, more: &[&str], names: &[&str]) -> Weighed {
        let file = format!("--timings-file={file}");
        let words: Vec<&str> =
            ["--index=0", "--total=2", "--split-by=timings", &file].iter().chain(more).copied().collect();
        let flags = Flags::parse(&words, false, |_| None).unwrap();
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        weigh(&flags, &names)
    }

    #[test]
    fn no_file_means_by_name_in_the_known_words() {
        let weighed = weighed("/nowhere/at/all", &[], &["a"]);
        assert_eq!(weighed.weights, None);
        assert_eq!(weighed.remarks[0], "Error reading historical timing data: file does not exist");
        assert!(weighed.remarks[1].ends_with("Falling back to weighting by name."));
    }

    #[test]
    fn files_or_classes_are_told_by_what_matches() {
        let room = tempfile::tempdir().unwrap();
        let file = timings(&room, &[("a.py", "A"), ("a.py", "B"), ("b.py", "C")]);
        assert_eq!(weighed(&file, &[], &["a.py", "b.py"]).weights, Some(vec![2_000_000, 1_000_000]));
        assert_eq!(weighed(&file, &[], &["A", "B", "a.py"]).weights, Some(vec![1_000_000; 3]));
        let none = weighed(&file, &[], &["./a.py"]);
        assert_eq!(none.weights, None);
        assert_eq!(
            none.remarks,
            ["Error autodetecting timing type, falling back to weighting by name. Autodetect no matching filename or \
              classname. The list has \"./a.py\", the last run has \"a.py\". If file names are used, double check paths \
              for absolute vs relative."]
        );
    }

    #[test]
    fn what_has_no_timing_is_named_and_given_the_default() {
        let room = tempfile::tempdir().unwrap();
        let file = timings(&room, &[("a.py", "A")]);
        let one = weighed(&file, &["--time-default=5s"], &["a.py", "new.py"]);
        assert_eq!(one.weights, Some(vec![1_000_000, 5_000_000]));
        assert_eq!(one.remarks, ["No timing found for \"new.py\""]);
    }

    #[test]
    fn a_poor_match_is_told_with_an_example() {
        let room = tempfile::tempdir().unwrap();
        let file = timings(&room, &[("spec/a.rb", "A"), ("spec/z.rb", "Z")]);
        let mut names: Vec<String> = (0..30).map(|n| format!("./spec/n{n:02}/a.rb")).collect();
        names.push("spec/a.rb".to_owned());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let poor = weighed(&file, &[], &names);
        assert_eq!(poor.remarks.len(), NAMED + 2);
        assert_eq!(poor.remarks[NAMED], "No timing found for 10 more");
        assert_eq!(
            poor.remarks[NAMED + 1],
            "timings known for 1 of 31 items; do paths match? The list has \"./spec/n00/a.rb\", the last run has \
             \"spec/a.rb\"."
        );
        let classes = weighed(&file, &["--timings-type=classname"], &["x", "y"]);
        assert_eq!(classes.weights, Some(vec![1_000_000; 2]));
        assert!(
            classes.remarks[2].contains("timings known for 0 of 2 items; do class names match?"),
            "{:?}",
            classes.remarks
        );
    }

    #[test]
    fn sizes_are_weights_and_what_is_no_file_weighs_the_mean() {
        let room = tempfile::tempdir().unwrap();
        let path = |name: &str| room.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("a"), [0; 10]).unwrap();
        std::fs::write(path("b"), [0; 30]).unwrap();
        let names = [path("a"), path("b"), path("c")];
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let weighed = by_size(&names);
        assert_eq!(weighed.weights, Some(vec![10, 30, 20]));
        assert_eq!(weighed.remarks.len(), 1);
        assert_eq!(by_size(&names[2..]).weights, None);
    }
}
