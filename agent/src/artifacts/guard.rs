//! Secrets in what a job leaves for people and for other jobs: what is masked in logs is looked for here, too.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use navvy_output::mask::{self, Masks};
use serde::{Deserialize, Serialize};

use super::packed::{BOUNDS, Inside, Unseen};
use super::scan::Scan;
use super::text::TextCheck;

/// What becomes of artifacts and test results that hold a secret. Caches and workspaces are stored as they are, with a warning,
/// unless they are not looked through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretPolicy {
    /// Nothing of them is stored.
    #[default]
    Refuse,
    /// They are stored with `****` in its place. Nothing of them is stored if one that holds a secret is no text: a program
    /// or an archive with other bytes in it is broken.
    Mask,
    /// They are stored as they are, and not looked through.
    Allow,
}

/// Files that are named with their secrets, one by one.
pub const NAMED: usize = 20;

/// A file that holds secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// As it is shown; a secret in it is masked.
    pub file: String,
    /// Their names.
    pub secrets: String,
    /// Where in the file, in words, if they were packed there.
    pub within: Option<String>,
    /// Is it text, as far as it was looked at?
    pub is_text: bool,
}

impl Finding {
    /// `out/a.zip holds the value of TOKEN, in its member b`
    pub fn words(&self) -> String {
        let Self { file, secrets, within, .. } = self;
        let within = within.as_ref().map(|within| format!(", {within}")).unwrap_or_default();
        format!("{file} holds the value of {secrets}{within}")
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings {
    /// The first [`NAMED`].
    pub named: Vec<Finding>,
    /// Further files.
    pub more: usize,
    /// The first file that `****` would break.
    pub unmaskable: Option<Finding>,
    /// The first [`NAMED`] that were not looked into wholly: their names and why, as one sentence.
    pub unseen: Vec<String>,
    /// Further ones.
    pub more_unseen: usize,
}

impl Findings {
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    fn pass_over(&mut self, file: &str, unseen: Option<&Unseen>) {
        let Some(Unseen { why, more }) = unseen else { return };
        if self.unseen.len() == NAMED {
            self.more_unseen += 1;
            return;
        }
        let others = match more {
            0 => String::new(),
            1 => "; 1 more place in it is not looked into either".to_owned(),
            more => format!("; {more} more places in it are not looked into either"),
        };
        self.unseen.push(format!("{file} {why}{others}"));
    }

    /// What was not looked into, a line each.
    pub fn unseen_lines(&self) -> impl Iterator<Item = String> {
        let named = self.unseen.iter().map(|file| format!("Not looked into for secrets: {file}"));
        let more =
            (self.more_unseen > 0).then(|| format!("Not looked into for secrets: {} more files", self.more_unseen));
        named.chain(more)
    }

    /// `, and 3 more files hold secrets`: beside the first.
    pub fn others(&self) -> String {
        match self.named.len().saturating_sub(1) + self.more {
            0 => String::new(),
            1 => ", and 1 more file holds a secret".to_owned(),
            more => format!(", and {more} more files hold secrets"),
        }
    }
}

/// What a guard does with what it finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Refuse,
    Mask,
    Allow,
    /// Tells of it, and changes nothing.
    Tell,
}

/// Looks through the files of one step.
pub struct Guard {
    masks: Masks,
    rule: Rule,
    /// What each of the files is: an artifact, say.
    noun: &'static str,
    job: String,
    step: usize,
    findings: Findings,
    /// Bytes that may still be unpacked.
    unpacked: Arc<AtomicU64>,
    file: Option<Watched>,
}

/// The file that is being looked through.
struct Watched {
    scan: Scan,
    inside: Inside,
    text: TextCheck,
    shown: String,
    what: String,
    in_name: bool,
}

impl Guard {
    /// A guard of artifacts.
    pub fn new(masks: Masks, secrets: SecretPolicy, job: &str, step: usize) -> Self {
        let rule = match secrets {
            SecretPolicy::Refuse => Rule::Refuse,
            SecretPolicy::Mask => Rule::Mask,
            SecretPolicy::Allow => Rule::Allow,
        };
        let unpacked = Arc::new(AtomicU64::new(BOUNDS.step));
        let (noun, job, findings) = ("artifact", job.to_owned(), Findings::default());
        Self { masks, rule, noun, job, step, findings, unpacked, file: None }
    }

    /// Of what is stored as it is. `None`: there is nothing to look for.
    pub fn that_tells(masks: Masks, secrets: SecretPolicy, noun: &'static str, job: &str, step: usize) -> Option<Self> {
        let looks = secrets != SecretPolicy::Allow && !masks.is_empty();
        looks.then(|| Self { rule: Rule::Tell, noun, ..Self::new(masks, secrets, job, step) })
    }

    /// Nothing more may be stored.
    pub fn refuses(&self) -> bool {
        match self.rule {
            Rule::Refuse => !self.findings.is_empty(),
            Rule::Mask => self.findings.unmaskable.is_some(),
            Rule::Allow | Rule::Tell => false,
        }
    }

    /// A file of this name comes. Its name as it may be stored.
    pub fn begin(&mut self, name: Vec<u8>) -> Vec<u8> {
        if self.rule == Rule::Allow || self.masks.is_empty() {
            return name;
        }
        let (shown, what) = self.shown(&name);
        let place = || mask::MaskedIn::of_job(&self.job, what.clone());
        let masked = self.masks.whole(place, &name).into_owned();
        let in_name = masked != name;
        let text = TextCheck::default();
        let scan = Scan::new(&self.masks, &place());
        let inside = Inside::new(self.masks.clone(), place(), BOUNDS, self.unpacked.clone());
        self.file = Some(Watched { scan, inside, text, shown, what, in_name });
        if self.rule == Rule::Tell { name } else { masked }
    }

    /// Other names of a file, which nothing comes for.
    pub fn name(&mut self, name: Vec<u8>) -> Vec<u8> {
        let name = self.begin(name);
        self.end(&mut |_| {});
        name
    }

    /// `write` gets what may be stored of it by now.
    pub fn bytes(&mut self, bytes: &[u8], write: &mut impl FnMut(&[u8])) {
        let refuses = self.refuses();
        let mut write = |piece: &[u8]| {
            if !refuses {
                write(piece)
            }
        };
        match &mut self.file {
            Some(file) => {
                file.text.push(bytes);
                file.inside.push(bytes);
                file.scan.push(bytes, &mut write);
            }
            None => write(bytes),
        }
        let is_decided = match self.rule {
            Rule::Refuse | Rule::Tell => self.file.as_ref().is_some_and(Watched::holds_secrets),
            Rule::Mask => self.file.as_ref().is_some_and(|file| file.content_holds() && !file.text.may_be_text()),
            Rule::Allow => false,
        };
        if is_decided {
            // The rest of it is of no interest.
            self.found(false);
        }
    }

    /// The file is over. `write` gets what is left.
    pub fn end(&mut self, write: &mut impl FnMut(&[u8])) {
        let refuses = self.refuses();
        if let Some(file) = &mut self.file {
            file.inside.end();
            file.scan.finish(&mut |piece: &[u8]| {
                if !refuses {
                    write(piece)
                }
            });
        }
        if let Some(file) = &self.file {
            self.findings.pass_over(&file.shown, file.inside.unseen());
        }
        if self.file.as_ref().is_some_and(Watched::holds_secrets) {
            self.found(true);
        }
        self.file = None;
    }

    pub fn finish(self) -> Findings {
        self.findings
    }

    fn shown(&self, name: &[u8]) -> (String, String) {
        let shown = String::from_utf8_lossy(name);
        let place = || mask::MaskedIn::of_job(&self.job, format!("name of {} of step {}", self.noun, self.step));
        let shown = self.masks.text(place, &shown).into_owned();
        let what = format!("{} {shown} of step {}", self.noun, self.step);
        (shown, what)
    }

    /// `is_whole`: all of it has been looked at.
    fn found(&mut self, is_whole: bool) {
        let Some(file) = self.file.take() else { return };
        let is_text = if is_whole { file.text.is_text() } else { file.text.may_be_text() };
        let is_unmaskable = self.rule == Rule::Mask && file.content_holds() && !is_text;
        let is_first_unmaskable = is_unmaskable && self.findings.unmaskable.is_none();
        let is_named = self.findings.named.len() < NAMED;
        if !is_named {
            self.findings.more += 1;
        }
        if !is_named && !is_first_unmaskable {
            return;
        }
        let secrets = names_at(&self.masks, &self.job, &file.what);
        let finding = Finding { file: file.shown, secrets, within: file.inside.found().map(str::to_owned), is_text };
        if is_first_unmaskable {
            self.findings.unmaskable = Some(finding.clone());
        }
        if is_named {
            self.findings.named.push(finding);
        }
    }
}

impl Watched {
    fn holds_secrets(&self) -> bool {
        self.in_name || self.content_holds()
    }

    fn content_holds(&self) -> bool {
        self.scan.has_found() || self.inside.found().is_some()
    }
}

/// The names of the secrets that were masked at a place.
pub fn names_at(masks: &Masks, job: &str, what: &str) -> String {
    let here = masks.report().into_iter().filter(|line| line.place == what && line.job.as_deref() == Some(job));
    let mut names: Vec<String> = here.map(|line| line.secret).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(String, String)>;

    fn guard(secrets: SecretPolicy) -> Guard {
        let values = [("TOKEN", "hunter2hunter2"), ("OTHER", "correct horse")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Guard::new(Masks::new(&values), secrets, "build", 3)
    }

    /// What is stored of these files, in pieces of so many bytes, and what was found.
    fn guarded(secrets: SecretPolicy, size: usize, files: &[(&str, &str)]) -> (Pairs, Pairs) {
        let mut guard = guard(secrets);
        let mut stored = Vec::new();
        for (name, content) in files {
            let name = String::from_utf8(guard.begin(name.as_bytes().to_vec())).unwrap();
            let mut safe = Vec::new();
            for piece in content.as_bytes().chunks(size) {
                guard.bytes(piece, &mut |piece| safe.extend_from_slice(piece));
            }
            guard.end(&mut |piece| safe.extend_from_slice(piece));
            stored.push((name, String::from_utf8(safe).unwrap()));
        }
        let found = guard.finish().named.into_iter().map(|finding| (finding.file, finding.secrets));
        (stored, found.collect())
    }

    const FILES: [(&str, &str); 4] = [
        ("a", "nothing"),
        ("b", "it is hunter2hunter2, and correct horse"),
        ("hunter2hunter2.txt", "harmless"),
        ("z", "ends with aHVudGVyMmh1bnRlcjI="),
    ];

    #[test]
    fn secrets_are_found_wherever_a_file_is_cut() {
        for size in [1, 2, 7, 64] {
            let (stored, found) = guarded(SecretPolicy::Mask, size, &FILES);
            assert_eq!(stored[1], ("b".to_owned(), "it is ****, and ****".to_owned()));
            assert_eq!(stored[2], ("****.txt".to_owned(), "harmless".to_owned()));
            assert!(!stored[3].1.contains("aHVudGVyMmh1bnRlcjI"), "{stored:?}");
            let found: Vec<(&str, &str)> = found.iter().map(|(file, names)| (&**file, &**names)).collect();
            assert_eq!(found, [("b", "OTHER, TOKEN"), ("****.txt", "TOKEN"), ("z", "TOKEN")]);
        }
    }

    #[test]
    fn one_that_only_tells_names_the_same_files_and_changes_nothing() {
        let values = [("TOKEN".to_owned(), "hunter2hunter2".to_owned())];
        let guard = |secrets, values: &[(String, String)]| {
            Guard::that_tells(Masks::new(values), secrets, "cached file", "j", 1)
        };
        assert!(guard(SecretPolicy::Allow, &values).is_none() && guard(SecretPolicy::Mask, &[]).is_none());
        let mut guard = guard(SecretPolicy::Refuse, &values).unwrap();
        for (name, content) in FILES {
            assert_eq!(guard.begin(name.into()), name.as_bytes());
            guard.bytes(content.as_bytes(), &mut |_| {});
            guard.end(&mut |_| {});
        }
        let named: Vec<(String, String)> =
            guard.finish().named.into_iter().map(|finding| (finding.file, finding.secrets)).collect();
        assert_eq!(named, ["b", "****.txt", "z"].map(|file| (file.to_owned(), "TOKEN".to_owned())));
    }

    #[test]
    fn nothing_of_a_secret_goes_on_when_they_are_refused_and_everything_when_allowed() {
        let (stored, found) = guarded(SecretPolicy::Refuse, 5, &FILES);
        assert_eq!(found.len(), 3, "all of them are named");
        assert!(stored.iter().all(|(_, content)| !content.contains("hunter2") && !content.contains("horse")));
        let (stored, found) = guarded(SecretPolicy::Allow, 5, &FILES);
        assert_eq!(found, []);
        assert_eq!(stored[1].1, FILES[1].1);
    }

    /// The files that are named, the one that cannot be masked, and whether the set is refused.
    fn masked(size: usize, files: &[(&str, &[u8])]) -> (Vec<String>, Option<String>, bool) {
        let mut guard = guard(SecretPolicy::Mask);
        for (name, content) in files {
            guard.begin(name.as_bytes().to_vec());
            content.chunks(size).for_each(|piece| guard.bytes(piece, &mut |_| {}));
            guard.end(&mut |_| {});
        }
        let refuses = guard.refuses();
        let findings = guard.finish();
        let named = findings.named.into_iter().map(|finding| finding.file).collect();
        (named, findings.unmaskable.map(|finding| format!("{}: {}", finding.file, finding.secrets)), refuses)
    }

    #[test]
    fn a_secret_in_utf_16_is_found_wherever_a_file_is_cut() {
        let text = "\u{feff}it is hunter2hunter2!";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for size in [1, 2, 3, 7, 64] {
            for bytes in [&little, &big, &little[14..].to_vec()] {
                let (named, unmaskable, refuses) = masked(size, &[("wide", bytes)]);
                assert_eq!((named, refuses), (vec!["wide".to_owned()], true), "{size}: **** would break it");
                assert_eq!(unmaskable.as_deref(), Some("wide: TOKEN"), "{size}");
            }
            let harmless: Vec<u8> = "hunter2 hunter2".encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert_eq!(masked(size, &[("wide", &harmless)]), (vec![], None, false));
        }
    }

    #[test]
    fn a_secret_beyond_ascii_is_found_in_utf_16_in_each_form_that_is_found_in_utf_8() {
        let secret = "pä\"ß & 日本🦀";
        let json = serde_json::to_string(secret).unwrap();
        let forms = [
            secret,
            json.trim_matches('"'),
            "pä\"ß &amp; 日本🦀",
            "p&#228;&quot;&#223; &amp; &#26085;&#26412;&#129408;",
        ];
        let text = |form: &str| format!("\u{feff}é: {form}.");
        for text in forms.map(text) {
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            for bytes in [text.into_bytes(), little, big] {
                for size in [1, 3, 64] {
                    let masks = Masks::new(&[("WIDE".to_owned(), secret.to_owned())]);
                    let mut guard = Guard::new(masks, SecretPolicy::Refuse, "build", 3);
                    guard.begin(b"wide".to_vec());
                    bytes.chunks(size).for_each(|piece| guard.bytes(piece, &mut |_| {}));
                    guard.end(&mut |_| {});
                    let found = guard.finish().named;
                    assert_eq!(found.first().map(|found| &*found.secrets), Some("WIDE"), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn what_was_not_looked_into_is_named_whatever_else_is_wrong_with_the_file() {
        let mut guard = guard(SecretPolicy::Mask);
        for name in ["a.xz", "hunter2hunter2.xz"] {
            guard.begin(name.into());
            guard.bytes(b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46", &mut |_| {});
            guard.end(&mut |_| {});
        }
        guard.name(b"link".to_vec());
        assert!(!guard.refuses());
        let why = "is packed by xz, which Navvy does not unpack";
        let lines: Vec<String> = guard.finish().unseen_lines().collect();
        assert_eq!(lines, ["a.xz", "****.xz"].map(|name| format!("Not looked into for secrets: {name} {why}")));
    }

    #[test]
    fn what_is_no_text_is_never_masked_but_refused() {
        let text = ("log", &b"it is hunter2hunter2"[..]);
        let harmless = ("program", &b"\x7fELF\0nothing"[..]);
        let programs: [&[u8]; 4] = [
            b"\x7fELF\0 hunter2hunter2 \0",
            b"the NUL comes behind hunter2hunter2\0",
            b"\xff\xfe hunter2hunter2",
            b"hunter2hunter2 breaks off \xc3",
        ];
        for size in [1, 3, 64] {
            assert_eq!(masked(size, &[text, harmless]), (vec!["log".to_owned()], None, false));
            for program in programs {
                let (named, unmaskable, refuses) = masked(size, &[text, ("bin/tool", program), text]);
                assert_eq!(named, ["log", "bin/tool", "log"], "all are named");
                assert_eq!((unmaskable.as_deref(), refuses), (Some("bin/tool: TOKEN"), true), "{program:?} by {size}");
            }
        }
        let name = ("hunter2hunter2.bin", &b"\0\0"[..]);
        assert_eq!(masked(64, &[name]), (vec!["****.bin".to_owned()], None, false), "its bytes hold no secret");
        let many: Vec<(&str, &[u8])> = std::iter::repeat_n(text, NAMED + 3).chain([("tool", programs[0])]).collect();
        assert_eq!(masked(64, &many).1.as_deref(), Some("tool: TOKEN"), "however many come before it");
    }
}
