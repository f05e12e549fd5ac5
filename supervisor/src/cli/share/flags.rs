//! The flags of `tests split` and `tests run`.

use crate::cli::neighbour_of;

/// Most nodes of one job; a larger number is a typing error.
const MOST_NODES: usize = 100_000;
/// As in the original's older versions: with 0 all new tests would land on one node.
const TIME_DEFAULT: u64 = 1_000_000;
/// Below `$CIRCLE_INTERNAL_TASK_DATA`, where the agent and the original put it.
const TIMINGS_FILE: &str = "circle-test-results/results.json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitBy {
    Name,
    FileSize,
    Timings,
}

/// The name by which an item is found among the timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimingsType {
    File,
    Class,
    Name,
    /// File or class, by what matches.
    Auto,
}

#[derive(Debug, PartialEq)]
pub struct Flags<'a> {
    /// From 0, below `total`.
    pub index: usize,
    /// At least 1.
    pub total: usize,
    pub split_by: SplitBy,
    pub timings_type: TimingsType,
    /// Microseconds for what has no timing.
    pub time_default: u64,
    /// `None`: there is no place to look at.
    pub timings_file: Option<String>,
    pub show_counts: bool,
    pub verbose: bool,
    /// The command of `tests run`.
    pub command: Option<&'a str>,
    /// Where the list is; `None` is stdin.
    pub file: Option<&'a str>,
}

const VALUES: [&str; 7] = ["index", "total", "split-by", "timings-type", "time-default", "timings-file", "command"];
const SWITCHES: [&str; 2] = ["show-counts", "verbose"];

/// Words taken apart, not yet understood.
#[derive(Default)]
struct Given<'a> {
    values: Vec<(&'a str, &'a str)>,
    switches: Vec<&'a str>,
    files: Vec<&'a str>,
}

impl<'a> Given<'a> {
    fn take_apart(words: &[&'a str]) -> Result<Self, String> {
        let mut given = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some("") => given.files.extend(words.by_ref()),
                Some(option) => given.option(option, &mut words)?,
                None if word == "-v" => given.switches.push("verbose"),
                None if word.starts_with('-') && word.len() > 1 => return Err(unknown(word)),
                None if word == "-" => {}
                None => given.files.push(word),
            }
        }
        Ok(given)
    }

    fn option(&mut self, option: &'a str, words: &mut impl Iterator<Item = &'a str>) -> Result<(), String> {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        if SWITCHES.contains(&name) {
            match value {
                None | Some("true" | "1") => self.switches.push(name),
                Some("false" | "0") => {}
                Some(value) => return Err(format!("--{name}={value}: expected true or false")),
            }
            return Ok(());
        }
        if !VALUES.contains(&name) {
            return Err(unknown(&format!("--{name}")));
        }
        let value = value.or_else(|| words.next()).ok_or_else(|| format!("--{name} needs a value"))?;
        self.values.push((name, value));
        Ok(())
    }

    /// The value of a flag. If it is given several times, the last one counts, as in the original.
    fn value(&self, name: &str) -> Option<&'a str> {
        self.values.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn switch(&self, name: &str) -> bool {
        self.switches.contains(&name)
    }
}

fn unknown(option: &str) -> String {
    let known = VALUES.iter().chain(&SWITCHES).map(|name| format!("--{name}"));
    let near = neighbour_of(option, known).map_or_else(String::new, |near| format!(" Did you mean {near}?"));
    format!("{option}: unknown option.{near}")
}

impl<'a> Flags<'a> {
    /// `runs`: of `tests run`, which needs a command.
    pub fn parse(words: &[&'a str], runs: bool, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let given = Given::take_apart(words)?;
        let node = |name: &str, fallback: &str| number(name, given.value(name), fallback, variable(fallback));
        let (index, total) = (node("index", "CIRCLE_NODE_INDEX")?, node("total", "CIRCLE_NODE_TOTAL")?);
        if total == 0 || total > MOST_NODES {
            return Err(format!("there are {total} nodes; expected 1 to {MOST_NODES}"));
        }
        if index >= total {
            return Err(format!("there is no node {index} among {total}: they are counted from 0"));
        }
        let command = given.value("command").filter(|command| !command.trim().is_empty());
        if runs && command.is_none() {
            return Err("--command is missing: what is to be run, for instance --command=\"xargs pytest\"".to_owned());
        }
        if !runs && command.is_some() {
            return Err("--command belongs to `circleci tests run`".to_owned());
        }
        if let [_, second, ..] = given.files.as_slice() {
            return Err(format!("{second:?}: the list comes from one file; names come from it or from stdin"));
        }
        let in_task_data = || Some(format!("{}/{TIMINGS_FILE}", variable("CIRCLE_INTERNAL_TASK_DATA")?));
        Ok(Self {
            index,
            total,
            split_by: split_by(given.value("split-by"))?,
            timings_type: timings_type(given.value("timings-type"))?,
            time_default: given.value("time-default").map_or(Ok(TIME_DEFAULT), time_default)?,
            timings_file: given.value("timings-file").map(str::to_owned).or_else(in_task_data),
            show_counts: given.switch("show-counts"),
            verbose: given.switch("verbose"),
            command,
            file: given.files.first().copied(),
        })
    }
}

fn number(name: &str, given: Option<&str>, variable: &str, value: Option<String>) -> Result<usize, String> {
    let (text, place) = match (given, value.filter(|value| !value.is_empty())) {
        (Some(given), _) => (given.to_owned(), format!("--{name}")),
        (None, Some(value)) => (value, variable.to_owned()),
        (None, None) => return Err(format!("--{name} is not given and {variable} is not set")),
    };
    text.trim().parse().map_err(|_| format!("{place} is {text:?}, which is not a number from 0"))
}

fn split_by(text: Option<&str>) -> Result<SplitBy, String> {
    match text.unwrap_or("name") {
        "name" => Ok(SplitBy::Name),
        "filesize" => Ok(SplitBy::FileSize),
        "timings" => Ok(SplitBy::Timings),
        other => Err(choice("split-by", other, &["name", "filesize", "timings"])),
    }
}

fn timings_type(text: Option<&str>) -> Result<TimingsType, String> {
    match text.unwrap_or("autodetect") {
        "filename" | "file" => Ok(TimingsType::File),
        "classname" => Ok(TimingsType::Class),
        "testname" | "name" => Ok(TimingsType::Name),
        "autodetect" => Ok(TimingsType::Auto),
        other => Err(choice("timings-type", other, &["filename", "classname", "testname", "autodetect"])),
    }
}

fn choice(option: &str, text: &str, known: &[&str]) -> String {
    let near = neighbour_of(text, known.iter().map(|name| (*name).to_owned()));
    let near = near.map_or_else(String::new, |near| format!(" Did you mean {near}?"));
    format!("--{option}={text}: expected {}.{near}", known.join(", "))
}

/// Units of time, in microseconds: so many, by so many.
const UNITS: [(&str, u64, u64); 7] = [
    ("h", 3_600_000_000, 1),
    ("m", 60_000_000, 1),
    ("s", 1_000_000, 1),
    ("ms", 1000, 1),
    ("us", 1, 1),
    ("µs", 1, 1),
    ("ns", 1, 1000),
];

/// `1m30s`, `500ms`, as Go writes durations, or seconds. Microseconds. In whole numbers: what reads any fraction is large.
fn time_default(text: &str) -> Result<u64, String> {
    let wrong = || format!("--time-default={text}: expected a time such as 10s, 500ms or 1m30s");
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<u64>() {
        return Ok(seconds.saturating_mul(1_000_000));
    }
    let mut micros = 0_u64;
    loop {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit = UNITS.iter().find(|(name, ..)| *name == &after[..unit_end]);
        let (Some((_, many, by)), false) = (unit, whole.is_empty() && fraction.is_empty()) else { return Err(wrong()) };
        let number = |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<u64>().map_err(|_| wrong()) };
        // Six digits of it are a millionth.
        let fraction = &fraction[..fraction.len().min(6)];
        let part = number(fraction)? * many / 10_u64.pow(fraction.len() as u32);
        micros = micros.saturating_add((number(whole)?.saturating_mul(*many)).saturating_add(part) / by);
        rest = &after[unit_end..];
        if rest.is_empty() {
            return Ok(micros);
        }
    }
}

/// The digits that a text begins with, and what comes behind them.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "CIRCLE_NODE_INDEX" => Some("1".to_owned()),
            "CIRCLE_NODE_TOTAL" => Some("4".to_owned()),
            "CIRCLE_INTERNAL_TASK_DATA" => Some("/tmp".to_owned()),
            _ => None,
        }
    }

    fn parse<'a>(words: &[&'a str]) -> Result<Flags<'a>, String> {
        Flags::parse(words, false, environment)
    }

    #[test]
    fn the_environment_says_what_no_flag_does() {
        let flags = parse(&[]).unwrap();
        assert_eq!((flags.index, flags.total, flags.split_by), (1, 4, SplitBy::Name));
        assert_eq!(flags.timings_file.as_deref(), Some("/tmp/circle-test-results/results.json"));
        assert_eq!((flags.timings_type, flags.time_default), (TimingsType::Auto, 1_000_000));
    }

    #[test]
    fn both_spellings_of_an_option_are_one() {
        let one = ["--index=0", "--total=2", "--split-by=timings", "--timings-type=classname", "--show-counts", "list"];
        let other = [
            "list",
            "--index",
            "0",
            "--total",
            "2",
            "--split-by",
            "timings",
            "--timings-type",
            "classname",
            "--show-counts",
        ];
        assert_eq!(parse(&one).unwrap(), parse(&other).unwrap());
        assert!(!parse(&["--show-counts=false"]).unwrap().show_counts);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (words, expected) in [
            (&["--index=4"][..], "no node 4 among 4"),
            (&["--total=0"], "0 nodes"),
            (&["--index=x"], "--index is \"x\""),
            (&["--split-by=timing"], "Did you mean timings?"),
            (&["--timings-type=filname"], "Did you mean filename?"),
            (&["--splitby=name"], "Did you mean --split-by?"),
            (&["--index"], "--index needs a value"),
            (&["-x"], "-x: unknown option"),
            (&["a", "b"], "one file"),
            (&["--command=x"], "tests run"),
            (&["--time-default=soon"], "10s, 500ms"),
            (&["--show-counts=maybe"], "true or false"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
        let missing = Flags::parse(&[], false, |_| None).unwrap_err();
        assert!(missing.contains("CIRCLE_NODE_INDEX is not set"), "{missing}");
        assert!(Flags::parse(&[], true, environment).unwrap_err().contains("--command is missing"));
    }

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, micros) in [
            ("10s", 10_000_000),
            ("500ms", 500_000),
            ("1m30s", 90_000_000),
            ("0", 0),
            ("2", 2_000_000),
            ("1.5s", 1_500_000),
            ("1.25m", 75_000_000),
            (".5s", 500_000),
            ("1500ns", 1),
            ("1h0.0000001s", 3_600_000_000),
        ] {
            assert_eq!(time_default(text), Ok(micros), "{text}");
        }
        for text in ["", "s", "1x", "1s2", "-1s", "1..2s"] {
            assert!(time_default(text).is_err(), "{text}");
        }
    }
}
