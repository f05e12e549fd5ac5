//! Compiles every config of a directory and compares it with what is known of it: `scripts/corpus CONFIGS FACTS [ARGUED]`.
//!
//! `CONFIGS` holds `NAME.yml`, `FACTS` what any right compiler makes of it in `NAME.yml.json`; `ARGUED` names the facts that
//! are known to differ, a line each: file, fact and why, between tabs. Prints for every file how many facts agree, are
//! undecided, differ, or differ and are argued, and how long it took; then the sums. 1 if any differs.

mod compare;
mod corpus;
mod orbs;

use std::error::Error;
use std::io::{Write as _, stdout};
use std::path::Path;
use std::process::ExitCode;

use corpus::Corpus;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [configs, facts, argued @ ..] = &arguments[..] else { return Err("usage: CONFIGS FACTS [ARGUED]".into()) };
    let corpus = Corpus::read(Path::new(configs), Path::new(facts), argued.first().map(Path::new))?;
    let result = corpus.check();
    write!(stdout(), "{result}")?;
    Ok(if result.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
