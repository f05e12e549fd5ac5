//! The table of the language's rules names a test for each, and each of these tests is there.

use std::collections::BTreeSet;
use std::path::Path;

const TABLE: &str = include_str!("../../../docs/config-rules.md");

#[test]
fn every_rule_names_tests_that_exist() {
    let mut known = BTreeSet::new();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for directory in [tests.clone(), tests.join("diagnostics"), tests.join("language"), tests.join("robust")] {
        for file in std::fs::read_dir(directory).into_iter().flatten().flatten().filter(|file| file.path().is_file()) {
            let text = std::fs::read_to_string(file.path()).unwrap();
            let after = text.split("#[test]\n").skip(1).filter_map(|test| test.trim_start().strip_prefix("fn "));
            known.extend(after.filter_map(|test| test.split_once('(')).map(|(name, _)| name.to_owned()));
        }
    }
    let rows: Vec<&str> =
        TABLE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| section")).collect();
    assert!(rows.len() > 60);
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let tests: Vec<&str> = tests.split(',').map(|name| name.trim().trim_matches('`')).collect();
        assert!(!tests.is_empty());
        let gone: Vec<_> = tests.iter().filter(|test| !known.contains(**test)).collect();
        assert!(gone.is_empty(), "{row}\nnames {gone:?}");
    }
}
