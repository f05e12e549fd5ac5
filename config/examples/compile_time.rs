//! How long a config of 5,000 lines takes to compile, and what memory: prints the median of N runs in milliseconds, and the
//! peak of the process in MB. With `text` it prints the config instead, for others to read.
//!
//! `cargo run --release -p navvy-config --example compile_time -- [N|text]`

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::time::Instant;

use navvy_config::{Inputs, Source, compile};

const LINES: usize = 5_000;
const HEAD: &str = r#"version: 2.1
parameters:
  deploy: {type: boolean, default: false}
executors:
  box:
    parameters: {tag: {type: string, default: "1.0"}}
    docker:
      - image: cimg/base:<< parameters.tag >>
      - image: cimg/postgres:14.0
commands:
  greet:
    parameters:
      name: {type: string}
      loud: {type: boolean, default: false}
    steps:
      - when:
          condition: << parameters.loud >>
          steps: [{run: "echo HELLO << parameters.name >>"}]
      - run: {name: "Greet << parameters.name >>", command: "echo hello << parameters.name >>"}
jobs:
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let word = std::env::args().nth(1);
    let text = config()?;
    if word.as_deref() == Some("text") {
        return Ok(write!(stdout(), "{text}")?);
    }
    let runs: usize = word.map_or(Ok(21), |text| text.parse())?;
    let mut times: Vec<f64> = (0..runs.max(1)).map(|_| once(&text)).collect::<Result<_, _>>()?;
    times.sort_by(f64::total_cmp);
    writeln!(stdout(), "{:.2} {:.1}", times[times.len() / 2], peak()?)?;
    Ok(())
}

/// The most memory that this process had resident, as Linux counts it.
fn peak() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

fn once(text: &str) -> Result<f64, String> {
    let started = Instant::now();
    let outcome = compile(&Source { name: "generated.yml", text }, &Inputs::default());
    let elapsed = started.elapsed().as_secs_f64() * 1000.0;
    let jobs = outcome.pipeline.ok_or_else(|| format!("{:?}", outcome.diagnostics.first()))?.workflows[0].jobs.len();
    if jobs == 0 { Err("no jobs".to_owned()) } else { Ok(elapsed) }
}

/// Jobs of 20 lines and invocations of 5 until there are enough lines.
fn config() -> Result<String, std::fmt::Error> {
    let mut text = HEAD.to_owned();
    let jobs = (LINES - HEAD.lines().count()) / 26;
    for job in 0..jobs {
        job_lines(&mut text, job)?;
    }
    writeln!(text, "workflows:\n  all:\n    jobs:")?;
    for job in 0..jobs {
        writeln!(text, "      - job-{job}:\n          matrix: {{parameters: {{size: [small, large]}}}}")?;
        writeln!(
            text,
            "          context: [one, two]\n          filters:\n            branches: {{only: [main, /rel-.*/]}}"
        )?;
        writeln!(
            text,
            "          requires: {}",
            if job == 0 { "[]".to_owned() } else { format!("[job-{}]", job / 2) }
        )?;
    }
    while text.lines().count() < LINES {
        text.push_str("# the end\n");
    }
    Ok(text)
}

fn job_lines(text: &mut String, job: usize) -> std::fmt::Result {
    writeln!(text, "  job-{job}:\n    parameters:\n      size: {{type: string, default: small}}")?;
    writeln!(text, "    executor: {{name: box, tag: \"{job}\"}}\n    resource_class: << parameters.size >>")?;
    writeln!(text, "    environment:\n      NUMBER: \"{job}\"\n      SIZE: << parameters.size >>")?;
    writeln!(text, "    steps:\n      - checkout\n      - restore_cache: {{keys: [v1-, v0-]}}")?;
    writeln!(text, "      - greet: {{name: job {job}}}\n      - run:\n          name: Build")?;
    writeln!(text, "          command: |\n            make -j4 SIZE=<< parameters.size >>\n            make test")?;
    writeln!(text, "      - store_artifacts:\n          path: out\n      - save_cache: {{key: v1-, paths: [out]}}")
}
