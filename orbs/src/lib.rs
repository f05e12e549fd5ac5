//! The orb path: where orbs that a config names by reference are looked for on this machine.
//!
//! ```text
//! circleci/node@5 ─▶ lock: 5.2.0, sha256:… ─▶ .circleci/orbs/circleci/node@5.2.0.yml ─▶ as locked? ─▶ text
//!        │ not locked: the newest 5.x.y              │ not there
//!        └─────────────────────────────────────────▶ └▶ ~/.local/share/navvy/orbs/circleci/node@5.2.0.yml
//! ```
//!
//! The orbs of dynamic config come with Navvy ([`builtin`]) and are used where none is here. Nothing is fetched: a person puts orbs here, with `navvy orb add` or by hand (docs/orbs.md).

#![warn(missing_docs)]

pub mod builtin;
pub mod lock;
pub mod place;
pub mod tree;

use navvy_config::{File, NoOrb, OrbReference, OrbSource, OrbText};

use lock::{Entry, Lock};
use place::{Found, Place};

/// A config's places for orbs and its lock.
#[derive(Debug, Clone)]
pub struct OrbPath {
    /// The project's, then the user's.
    pub places: Vec<Place>,
    /// What references stand for, and how each source's digest must be.
    pub lock: Lock,
}

impl OrbPath {
    /// Every version of an orb that is here, the nearest place first.
    fn candidates(&self, wanted: &OrbReference) -> Result<Vec<Found>, NoOrb> {
        let mut found = Vec::new();
        for place in &self.places {
            found.extend(place.versions(wanted)?);
        }
        Ok(found)
    }

    /// The newest file that fits; of equal ones the nearest.
    fn best(&self, wanted: &OrbReference) -> Result<Option<Found>, NoOrb> {
        let fits = |found: &Found| match (wanted.version(), found.reference.version()) {
            (Some(wanted), Some(version)) => wanted.covers(version),
            _ => found.reference == *wanted,
        };
        let candidates = self.candidates(wanted)?.into_iter().filter(fits);
        Ok(candidates.reduce(|best, next| if next.reference > best.reference { next } else { best }))
    }

    /// What `reference` stands for once the lock has been asked.
    fn wanted(&self, reference: &OrbReference) -> OrbReference {
        self.lock.entry(reference).map_or_else(|| reference.clone(), |entry| entry.resolved.clone())
    }

    /// What to say of an orb that is not here. What cannot be looked at is no answer, but another error.
    fn missing(&self, reference: &OrbReference, wanted: &OrbReference) -> Result<NoOrb, NoOrb> {
        let files: Vec<String> = self.places.iter().filter_map(|place| place.file_name(wanted)).collect();
        if files.is_empty() {
            let help = "an address with anything but plain names between its slashes has no place in the orb path; \
                        write the orb out under `orbs:` instead";
            return Ok(NoOrb::Missing { help: help.to_owned() });
        }
        let mut lines = Vec::new();
        if wanted != reference {
            lines.push(format!("{} has locked it to {wanted}", self.lock.shown));
        }
        lines.push(format!("its source belongs in {}", files.join(", or in ")));
        lines.push(match wanted {
            OrbReference::Registry { name, .. } => {
                let wanted = wanted.to_string();
                let orb = shell_words::quote(&wanted);
                format!("to put it there: circleci orb source {orb} > {name}.yml, then navvy orb add {name}.yml {orb}")
            }
            OrbReference::Url(url) => {
                let orb = shell_words::quote(url);
                format!("to put it there: curl -fsSLo orb.yml {orb}, then navvy orb add orb.yml {orb}")
            }
        });
        let here: Vec<String> = self.candidates(wanted)?.iter().map(|found| found.reference.to_string()).collect();
        if !here.is_empty() {
            lines.push(format!("of this orb there is here: {}", here.join(", ")));
        }
        if wanted != reference && self.best(reference)?.is_some() {
            lines.push("or lock it to the newest of these: navvy orb lock".to_owned());
        }
        if let Some(Entry { line, .. }) =
            self.lock.entry(reference).filter(|_| builtin::in_place_of(reference).is_some())
        {
            lines.push(format!("or take the one that is built into Navvy: remove line {line} of {}", self.lock.shown));
        }
        lines.push("or go on without what comes from it: --allow-missing-orbs".to_owned());
        Ok(NoOrb::Missing { help: lines.join("\n") })
    }

    /// Refuses what is not as it was locked, by this reference or by another one of the same version.
    fn check(&self, reference: &OrbReference, found: &Found, digest: &str) -> Result<(), NoOrb> {
        let locked = self.lock.entry(reference).or_else(|| self.lock.resolved(&found.reference));
        match locked {
            Some(Entry { digest: expected, line, .. }) if expected != digest => Err(NoOrb::Refused {
                message: format!("{} is not what {}:{line} has locked", found.shown, self.lock.shown),
                help: format!(
                    "put the source back whose digest is sha256:{expected}, or, if sha256:{digest} is what you want, \
                     run `navvy orb lock`"
                ),
            }),
            _ => Ok(()),
        }
    }
}

impl OrbSource for OrbPath {
    fn find(&self, reference: &OrbReference) -> Result<OrbText, NoOrb> {
        let wanted = self.wanted(reference);
        let Some(found) = self.best(&wanted)? else {
            // What is locked is that source and no other.
            let built_in = builtin::in_place_of(reference).filter(|_| self.lock.entry(reference).is_none());
            return match built_in {
                Some(text) => Ok(text),
                None => Err(self.missing(reference, &wanted)?),
            };
        };
        let text = found.read()?;
        self.check(reference, &found, &lock::digest(&text))?;
        let Found { reference: resolved, shown: name, .. } = found;
        Ok(OrbText { resolved, file: File { name, text: text.into() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        top: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            Self { top: tempfile::tempdir().unwrap() }
        }

        fn put(&self, path: &str, text: &str) -> &Self {
            let path = self.top.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }

        fn path(&self, lock: &str) -> OrbPath {
            let place =
                |name: &str| Place { directory: self.top.path().join(name), shown: name.to_owned(), within: None };
            let lock = Lock::parse("orbs.lock", lock).unwrap();
            OrbPath { places: vec![place("project"), place("user")], lock }
        }

        fn text(&self, lock: &str, reference: &str) -> String {
            match self.path(lock).find(&reference.parse().unwrap()) {
                Ok(found) => format!("{} {}", found.file.name, found.file.text),
                Err(NoOrb::Missing { help }) => format!("missing\n{help}"),
                Err(NoOrb::Refused { message, help }) => format!("refused: {message}\n{help}"),
            }
        }
    }

    #[test]
    fn the_newest_version_that_fits_is_taken() {
        let bench = Bench::new();
        bench
            .put("project/a/b@1.9.0.yml", "p190")
            .put("user/a/b@1.10.0.yml", "u1100")
            .put("user/a/b@2.0.0.yml", "u200");
        bench.put("user/a/b@1.9.0.yml", "u190").put("user/a/b@dev:x%2Fy.yml", "dev").put("user/a/bb@1.99.0.yml", "no");
        assert_eq!(bench.text("", "a/b@1"), "user/a/b@1.10.0.yml u1100");
        assert_eq!(bench.text("", "a/b@1.9"), "project/a/b@1.9.0.yml p190");
        assert_eq!(bench.text("", "a/b@1.9.0"), "project/a/b@1.9.0.yml p190");
        assert_eq!(bench.text("", "a/b@volatile"), "user/a/b@2.0.0.yml u200");
        assert_eq!(bench.text("", "a/b@dev:x/y"), "user/a/b@dev:x%2Fy.yml dev");
    }

    #[test]
    fn a_file_may_be_called_by_the_rule_that_picks_a_version() {
        let bench = Bench::new();
        bench.put("project/a/b@1.yml", "one");
        assert_eq!(bench.text("", "a/b@1"), "project/a/b@1.yml one");
        assert!(bench.text("", "a/b@1.2").starts_with("missing"));
        bench.put("user/a/b@1.0.0.yml", "exact");
        assert_eq!(bench.text("", "a/b@1"), "user/a/b@1.0.0.yml exact");
    }

    #[test]
    fn addresses_have_places_too() {
        let bench = Bench::new();
        bench.put("project/https/h.example/o/orb.yml", "url");
        assert_eq!(bench.text("", "https://h.example/o/orb.yml"), "project/https/h.example/o/orb.yml url");
        assert!(bench.text("", "https://h.example/../orb.yml").contains("has no place"));
        assert!(bench.text("", "https://h.example/orb.yml?x=1").contains("has no place"));
    }

    #[test]
    fn what_is_missing_tells_where_it_belongs_and_how_to_get_it() {
        let bench = Bench::new();
        bench.put("project/a/b@2.0.0.yml", "");
        insta::assert_snapshot!(bench.text("", "a/b@1.2"), @r##"
        missing
        its source belongs in project/a/b@1.2.yml, or in user/a/b@1.2.yml
        to put it there: circleci orb source a/b@1.2 > b.yml, then navvy orb add b.yml a/b@1.2
        of this orb there is here: a/b@2.0.0
        or go on without what comes from it: --allow-missing-orbs
        "##);
        insta::assert_snapshot!(bench.text("", "https://h.example/orb.yml"), @r##"
        missing
        its source belongs in project/https/h.example/orb.yml, or in user/https/h.example/orb.yml
        to put it there: curl -fsSLo orb.yml https://h.example/orb.yml, then navvy orb add orb.yml https://h.example/orb.yml
        or go on without what comes from it: --allow-missing-orbs
        "##);
    }

    #[test]
    fn a_lock_fixes_version_and_content() {
        let bench = Bench::new();
        bench.put("project/a/b@1.1.0.yml", "old").put("project/a/b@1.2.0.yml", "new");
        let lock = |version: &str, text: &str| format!("version 1\na/b@1 {version} sha256:{}\n", lock::digest(text));
        assert_eq!(bench.text(&lock("1.1.0", "old"), "a/b@1"), "project/a/b@1.1.0.yml old");
        assert_eq!(bench.text(&lock("1.1.0", "old"), "a/b@1.2.0"), "project/a/b@1.2.0.yml new");
        insta::assert_snapshot!(bench.text(&lock("1.1.0", "other"), "a/b@1"), @r##"
        refused: project/a/b@1.1.0.yml is not what orbs.lock:2 has locked
        put the source back whose digest is sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, or, if sha256:cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4 is what you want, run `navvy orb lock`
        "##);
        assert!(bench.text(&lock("1.1.0", "other"), "a/b@1.1.0").starts_with("refused"));
        insta::assert_snapshot!(bench.text(&lock("1.0.0", "gone"), "a/b@1"), @r##"
        missing
        orbs.lock has locked it to a/b@1.0.0
        its source belongs in project/a/b@1.0.0.yml, or in user/a/b@1.0.0.yml
        to put it there: circleci orb source a/b@1.0.0 > b.yml, then navvy orb add b.yml a/b@1.0.0
        of this orb there is here: a/b@1.1.0, a/b@1.2.0
        or lock it to the newest of these: navvy orb lock
        or go on without what comes from it: --allow-missing-orbs
        "##);
    }

    #[test]
    fn what_a_person_put_here_is_chosen_over_what_is_built_in() {
        let bench = Bench::new();
        for name in ["continuation", "path-filtering"] {
            let reference = format!("circleci/{name}@2.0.1");
            assert!(bench.text("", &reference).starts_with(&format!("circleci/{name} (built in) ")));
            let file = format!("circleci/{name}@2.0.1.yml");
            bench.put(&format!("user/{file}"), "mine");
            assert_eq!(bench.text("", &reference), format!("user/{file} mine"));
            // Of another version nothing is here but what is built in.
            assert!(bench.text("", &format!("circleci/{name}@1")).contains("(built in)"));
        }
    }

    #[test]
    fn what_is_locked_is_not_replaced_by_what_is_built_in() {
        let bench = Bench::new();
        let lock = format!("version 1\ncircleci/continuation@2 2.0.1 sha256:{0}\n", lock::digest("mine"));
        insta::assert_snapshot!(bench.text(&lock, "circleci/continuation@2"), @r##"
        missing
        orbs.lock has locked it to circleci/continuation@2.0.1
        its source belongs in project/circleci/continuation@2.0.1.yml, or in user/circleci/continuation@2.0.1.yml
        to put it there: circleci orb source circleci/continuation@2.0.1 > continuation.yml, then navvy orb add continuation.yml circleci/continuation@2.0.1
        or take the one that is built into Navvy: remove line 2 of orbs.lock
        or go on without what comes from it: --allow-missing-orbs
        "##);
        bench.put("project/circleci/continuation@2.0.1.yml", "mine");
        assert_eq!(bench.text(&lock, "circleci/continuation@2"), "project/circleci/continuation@2.0.1.yml mine");
        bench.put("project/circleci/continuation@2.0.1.yml", "other");
        assert!(bench.text(&lock, "circleci/continuation@2").starts_with("refused"));
    }

    #[test]
    fn what_cannot_be_listed_is_not_replaced_by_what_lies_elsewhere() {
        let bench = Bench::new();
        bench.put("project/circleci", "no directory").put("user/circleci/continuation@2.0.1.yml", "mine");
        for reference in ["circleci/continuation@2.0.1", "circleci/continuation@1", "circleci/other@1"] {
            let told = bench.text("", reference);
            assert!(told.starts_with("refused: project/circleci cannot be listed: "), "{told}");
        }
        bench.put("project/https", "no directory").put("user/https/h.example/o.yml", "mine");
        let told = bench.text("", "https://h.example/o.yml");
        assert!(told.starts_with("refused: project/https/h.example/o.yml cannot be read: "), "{told}");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let bench = Bench::new();
        std::fs::create_dir_all(bench.top.path().join("project/a/b@1.0.0.yml")).unwrap();
        assert!(
            bench.text("", "a/b@1").starts_with("refused: project/a/b@1.0.0.yml cannot be read: it is a directory")
        );
        bench.put("user/a/c@1.0.0.yml", "");
        std::fs::write(bench.top.path().join("user/a/c@1.0.0.yml"), b"\xff").unwrap();
        assert!(bench.text("", "a/c@1").contains("is not UTF-8 text"));
    }
}
