//! Templates of cache keys: what the original takes of Go's text templates, and its words for what is wrong.
//!
//! ```text
//! v1-{{ .Branch }}-{{ checksum "go.sum" }}  ─▶ parts ─▶ what they need is looked up ─▶ v1-main-47DEQ…
//! ```
//!
//! Known: `checksum "FILE"`, `epoch`, `arch`, `.Branch`, `.BuildNum`, `.CheckoutKey`, `.Environment.NAME`, `.Revision`;
//! `{{-` and `-}}` take the white space beside them away.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;

/// Characters of a key.
pub const LONGEST: usize = 900;

/// White space, as Go's templates know it.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

const FUNCTIONS: [&str; 3] = ["arch", "checksum", "epoch"];
const FIELDS: [&str; 5] = ["Branch", "BuildNum", "CheckoutKey", "Environment", "Revision"];

/// A template, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// `1:4`, for an error.
    at: String,
    what: What,
}

/// What a part of a template asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// This text itself.
    Text(String),
    /// Checksum of this file, as written.
    Checksum(String),
    /// Seconds since 1970.
    Epoch,
    /// Operating system, CPU family and model: [`Values::arch`].
    Arch,
    /// `Branch`, `BuildNum`, `CheckoutKey`, `Revision`.
    Field(&'static str),
    /// A variable's name.
    Environment(String),
}

/// As a template writes it.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Checksum(file) => write!(f, "{{{{ checksum {file:?} }}}}"),
            Self::Epoch => f.write_str("{{ epoch }}"),
            Self::Arch => f.write_str("{{ arch }}"),
            Self::Field(name) => write!(f, "{{{{ .{name} }}}}"),
            Self::Environment(name) => write!(f, "{{{{ .Environment.{name} }}}}"),
        }
    }
}

/// Why a template has no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not a template; the rest of the message is Go's own.
    #[error("error computing cache key: template: cacheKey:{0}")]
    Template(String),
    /// The key is too long; the number is that of its characters.
    #[error("error computing cache key: it has {0} characters, and {LONGEST} are allowed")]
    TooLong(usize),
    /// All its parts are empty.
    #[error("error computing cache key: it is empty")]
    Empty,
}

/// What templates may ask for.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// `.Branch`
    pub branch: String,
    /// `.BuildNum`
    pub build_num: String,
    /// `.CheckoutKey`
    pub checkout_key: String,
    /// `.Revision`
    pub revision: String,
    /// Variables for `.Environment`, by name.
    pub environment: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub epoch: i64,
    /// Operating system, CPU family and model: `linux-amd64-6_85`.
    pub arch: String,
    /// SHA-256 of the files that templates name, or why a file has none.
    pub checksums: BTreeMap<String, Result<[u8; 32], String>>,
}

impl Template {
    /// Reads a template, and refuses what Go's would.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (mut parts, mut rest, mut trims) = (Vec::new(), text, false);
        loop {
            let (before, action) = match rest.split_once("{{") {
                Some((before, action)) => (before, Some(action)),
                None => (rest, None),
            };
            let before = if trims { before.trim_start_matches(SPACE) } else { before };
            let trimmed = action.and_then(|action| action.strip_prefix('-')).and_then(|rest| rest.strip_prefix(SPACE));
            let before = if trimmed.is_some() { before.trim_end_matches(SPACE) } else { before };
            if !before.is_empty() {
                parts.push(Part { at: String::new(), what: What::Text(before.to_owned()) });
            }
            let Some(action) = action else { return Ok(Self(parts)) };
            let mut words = Words { text, rest: trimmed.unwrap_or(action) };
            parts.extend(words.part()?);
            (rest, trims) = words.close()?;
        }
    }

    /// The files whose checksums it asks for, as written.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| if let What::Checksum(file) = &part.what { Some(file.as_str()) } else { None })
    }

    /// Must [`Values::arch`] be known?
    pub fn asks_for_arch(&self) -> bool {
        self.0.iter().any(|part| part.what == What::Arch)
    }

    /// What its parts ask for, in order.
    pub fn asked(&self) -> impl Iterator<Item = &What> {
        self.0.iter().map(|part| &part.what)
    }

    /// What each of its parts becomes.
    pub fn pieces(&self, values: &Values) -> Result<Vec<String>, KeyError> {
        self.0.iter().map(|part| part.render(values)).collect()
    }

    /// The key.
    pub fn render(&self, values: &Values) -> Result<String, KeyError> {
        let key = self.pieces(values)?.concat();
        match key.chars().count() {
            0 => Err(KeyError::Empty),
            count if count > LONGEST => Err(KeyError::TooLong(count)),
            _ => Ok(key),
        }
    }
}

impl Part {
    fn render(&self, values: &Values) -> Result<String, KeyError> {
        Ok(match &self.what {
            What::Text(text) => text.clone(),
            What::Epoch => values.epoch.to_string(),
            What::Arch => values.arch.clone(),
            What::Field("Branch") => values.branch.clone(),
            What::Field("BuildNum") => values.build_num.clone(),
            What::Field("Revision") => values.revision.clone(),
            What::Field(_) => values.checkout_key.clone(),
            // As Go prints what a map does not have.
            What::Environment(name) => values.environment.get(name).cloned().unwrap_or_else(|| "<no value>".to_owned()),
            What::Checksum(file) => match values.checksums.get(file) {
                Some(Ok(digest)) => shown(digest),
                Some(Err(why)) => return Err(self.executing(&format!("checksum {file:?}"), &called(why))),
                None => return Err(self.executing(&format!("checksum {file:?}"), &called("it was not looked at"))),
            },
        })
    }

    fn executing(&self, what: &str, why: &str) -> KeyError {
        executing(&self.at, what, why)
    }
}

fn executing(at: &str, what: &str, why: &str) -> KeyError {
    KeyError::Template(format!("{at}: executing \"cacheKey\" at <{what}>: {why}"))
}

fn called(why: &str) -> String {
    format!("error calling checksum: {why}")
}

/// A checksum in a key: base64, without a slash.
pub fn shown(digest: &[u8; 32]) -> String {
    base64::engine::general_purpose::STANDARD.encode(digest).replace('/', "_")
}

/// What stands between braces, being read.
struct Words<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    /// `LINE:COLUMN` of what comes next; the column from 0, as in Go.
    fn at(&self) -> String {
        let before = &self.text[..self.text.len() - self.rest.len()];
        let line = before.matches('\n').count() + 1;
        format!("{line}:{}", before.len() - before.rfind('\n').map_or(0, |newline| newline + 1))
    }

    fn line(&self) -> usize {
        self.text[..self.text.len() - self.rest.len()].matches('\n').count() + 1
    }

    fn wrong(&self, why: impl std::fmt::Display) -> KeyError {
        KeyError::Template(format!("{}: {why}", self.line()))
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches(SPACE);
    }

    /// Nothing for an empty comment.
    fn part(&mut self) -> Result<Option<Part>, KeyError> {
        // Nothing stands between it and the braces but the hyphens' white space.
        if let Some(comment) = self.rest.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| self.wrong("unclosed comment"))?;
            self.rest = &comment[end + 2..];
            let is_closed = self.rest.starts_with("}}")
                || self.rest.strip_prefix(SPACE).is_some_and(|rest| rest.starts_with("-}}"));
            return if is_closed { Ok(None) } else { Err(self.wrong("comment ends before closing delimiter")) };
        }
        self.skip_space();
        let at = self.at();
        let what = match self.rest.chars().next() {
            Some('.') => self.field(&at)?,
            Some('"' | '`') => What::Text(self.string()?),
            Some(letter) if letter.is_alphabetic() || letter == '_' => self.function(&at)?,
            _ if self.rest.starts_with("}}") => return Err(self.wrong("missing value for command")),
            None => return Err(self.wrong("unclosed action")),
            Some(other) => return Err(self.wrong(format!("unexpected {:?} in command", other.to_string()))),
        };
        Ok(Some(Part { at, what }))
    }

    fn name(&mut self) -> &'a str {
        let end = self.rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        name
    }

    fn function(&mut self, at: &str) -> Result<What, KeyError> {
        let line = self.line();
        let name = self.name();
        match name {
            "epoch" => Ok(What::Epoch),
            "arch" => Ok(What::Arch),
            "checksum" => {
                self.skip_space();
                match self.rest.chars().next() {
                    Some('"' | '`') => self.string().map(What::Checksum),
                    _ => Err(executing(at, "checksum", "it wants one file, in quotes: checksum \"FILE\"")),
                }
            }
            _ => {
                let hint = neighbour(name, &FUNCTIONS);
                Err(KeyError::Template(format!("{line}: function {name:?} not defined{hint}")))
            }
        }
    }

    fn field(&mut self, at: &str) -> Result<What, KeyError> {
        let whole = self.rest;
        let mut names = Vec::new();
        while let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            names.push(self.name());
        }
        let shown = &whole[..whole.len() - self.rest.len()];
        let unknown = |name: &str, hint: String| {
            executing(at, shown, &format!("can't evaluate field {name} in a cache key's values{hint}"))
        };
        match names[..] {
            ["Environment", name] if !name.is_empty() => Ok(What::Environment(name.to_owned())),
            ["Environment"] => Err(executing(at, shown, "name one variable: .Environment.NAME")),
            ["Environment", _, more, ..] | [_, more, ..] => Err(unknown(more, String::new())),
            [name] => match FIELDS.iter().find(|known| **known == name) {
                Some(known) => Ok(What::Field(known)),
                None => Err(unknown(name, neighbour(name, &FIELDS))),
            },
            [] => Err(unknown("", String::new())),
        }
    }

    /// Reads a text in double quotes with Go's commonest escapes, or in back quotes.
    fn string(&mut self) -> Result<String, KeyError> {
        let quote = self.rest.chars().next().unwrap_or('"');
        let (mut value, mut letters) = (String::new(), self.rest.char_indices().skip(1));
        while let Some((at, letter)) = letters.next() {
            match letter {
                _ if letter == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(value);
                }
                '\n' if quote == '"' => break,
                '\\' if quote == '"' => match letters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => return Err(self.wrong("unknown escape in a quoted string: there are \\\\, \\\", \\n and \\t")),
                },
                letter => value.push(letter),
            }
        }
        Err(self.wrong("unterminated quoted string"))
    }

    /// What comes behind `}}`, and whether its white space goes.
    fn close(mut self) -> Result<(&'a str, bool), KeyError> {
        let trimmed = self.rest.trim_start_matches(SPACE);
        if let Some(rest) = trimmed.strip_prefix("-}}").filter(|_| trimmed.len() < self.rest.len()) {
            return Ok((rest, true));
        }
        self.rest = trimmed;
        match trimmed.strip_prefix("}}") {
            Some(rest) => Ok((rest, false)),
            None if trimmed.is_empty() => Err(self.wrong("unclosed action")),
            None => {
                let word: String = trimmed.chars().take_while(|letter| !letter.is_whitespace()).take(20).collect();
                Err(self.wrong(format!("unexpected {word:?} in operand; a cache key's actions have one word each")))
            }
        }
    }
}

fn neighbour(name: &str, known: &[&str]) -> String {
    let closeness = |known: &str| strsim::jaro(&known.to_lowercase(), &name.to_lowercase());
    let best = known.iter().max_by(|a, b| closeness(a).total_cmp(&closeness(b)));
    match best.filter(|best| closeness(best) > 0.7) {
        Some(best) => format!("; did you mean {best}?"),
        None => format!("; there are {}", known.join(", ")),
    }
}

/// What `arch` says of a machine, given `uname -m` and `/proc/cpuinfo`: `linux-amd64-6_85`.
pub fn arch(machine: &str, cpuinfo: &str) -> String {
    let said = |names: [&str; 2]| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| names.contains(&name.trim()));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let name = match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    // ARM tells architecture and part where others tell family and model.
    format!("linux-{name}-{}_{}", said(["cpu family", "CPU architecture"]), said(["model", "CPU part"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            branch: "main".into(),
            build_num: "7".into(),
            revision: "abc".into(),
            environment: BTreeMap::from([("V".into(), "2".into())]),
            epoch: 1_700_000_000,
            arch: "linux-amd64-6_85".into(),
            checksums: BTreeMap::from([
                ("go.sum".into(), Ok([0xff; 32])),
                ("none".into(), Err("open /p/none: no such file or directory".into())),
            ]),
            ..Values::default()
        }
    }

    fn rendered(text: &str) -> String {
        match Template::parse(text).and_then(|template| template.render(&values())) {
            Ok(key) => key,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn everything_a_template_may_ask_for() {
        let table = [
            ("plain", "plain"),
            ("v1-{{ .Branch }}-{{.Revision}}-{{ .BuildNum }}", "v1-main-abc-7"),
            ("{{ .Environment.V }}{{ .Environment.NONE }}", "2<no value>"),
            ("{{ epoch }}-{{ arch }}", "1700000000-linux-amd64-6_85"),
            ("a {{- \" \" -}} b", "a b"),
            ("x{{/* why */}}{{ .CheckoutKey }}y", "xy"),
            ("{{ `raw\\` }}{{ \"a\\\"}}\" }}", "raw\\a\"}}"),
            ("a } b }} c", "a } b }} c"),
            // White space is what it is to Go: no more than these four, and any of them beside a hyphen.
            ("a\t\r\n {{-\t.Branch\n-}}\r\n\t b", "amainb"),
            ("a\u{a0}{{- .Branch -}}\u{2003}b", "a\u{a0}main\u{2003}b"),
        ];
        for (text, key) in table {
            assert_eq!(rendered(text), key, "{text}");
        }
        // 32 bytes are 44 characters; there is a `/` in them, and it is replaced.
        assert_eq!(rendered("{{ checksum \"go.sum\" }}"), format!("{}8=", "_".repeat(42)));
        let template = Template::parse("{{ checksum \"a\" }}-{{ arch }}-{{ checksum `b` }}").unwrap();
        assert_eq!(template.files().collect::<Vec<_>>(), ["a", "b"]);
        assert!(template.asks_for_arch());
    }

    #[test]
    fn what_is_wrong_is_said_in_the_originals_words_with_what_would_be_right() {
        let table = [
            (
                "v1-{{ checksum \"none\" }}",
                "template: cacheKey:1:6: executing \"cacheKey\" at <checksum \"none\">: error calling checksum: open \
                 /p/none: no such file or directory",
            ),
            ("{{ .FOO }}", "template: cacheKey:1:3: executing \"cacheKey\" at <.FOO>: can't evaluate field FOO in"),
            ("{{ .Brnch }}", "did you mean Branch?"),
            ("\n{{ chksum \"x\" }}", "template: cacheKey:2: function \"chksum\" not defined; did you mean checksum?"),
            ("{{ .Branch", "unclosed action"),
            ("{{ }}", "missing value for command"),
            ("{{ checksum }}", "it wants one file"),
            ("{{ checksum \"a }}", "unterminated quoted string"),
            ("{{ .Branch | print }}", "unexpected \"|\" in operand"),
            ("{{ .Branch.X }}", "can't evaluate field X"),
            ("{{ .Environment }}", ".Environment.NAME"),
            ("{{ .CheckoutKey }}", "it is empty"),
            ("{{ 7 }}", "unexpected \"7\" in command"),
            // A hyphen takes white space away only where there is some beside it; a comment has none.
            ("{{-.Branch }}", "unexpected \"-\" in command"),
            ("{{ .Branch-}}", "unexpected \"-}}\" in operand"),
            ("a{{ /* why */}}", "unexpected \"/\" in command"),
            ("a{{/* why */ }}", "comment ends before closing delimiter"),
        ];
        for (text, wanted) in table {
            let found = rendered(text);
            assert!(found.starts_with("error computing cache key: ") && found.contains(wanted), "{text}: {found}");
        }
        assert_eq!(rendered(&"k".repeat(900)).len(), 900);
        assert!(rendered(&"ü".repeat(901)).contains("901 characters"));
    }

    #[test]
    fn machines_have_names() {
        let intel = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: x\n";
        assert_eq!(arch("x86_64", intel), "linux-amd64-6_85");
        assert_eq!(arch("aarch64", "CPU architecture: 8\nCPU part\t: 0xd0c\n"), "linux-arm64-8_0xd0c");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_as_a_template_never_panics(text in "[-a-z.{}\"`\\\\ \n|ü]{0,40}") {
            rendered(&text);
        }
    }
}
