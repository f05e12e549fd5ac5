//! Real configs compile to what is known of them, and broken ones are refused at the right line.

#[path = "../../examples/corpus/compare.rs"]
mod compare;
#[path = "../../examples/corpus/corpus.rs"]
mod corpus;
#[path = "../../examples/corpus/orbs.rs"]
mod orbs;

mod broken;

use std::path::Path;

use corpus::Corpus;

/// What `scripts/corpus config/corpus/dev config/corpus/facts config/corpus/argued.tsv` does.
#[test]
fn every_fact_agrees_or_is_argued() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let corpus = Corpus::read(&home.join("dev"), &home.join("facts"), Some(&home.join("argued.tsv"))).unwrap();
    let outcome = corpus.check();
    assert!(outcome.holds(), "{outcome}");
}
