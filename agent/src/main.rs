//! `navvy`: the build agent's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(navvy_agent::cli::main(std::env::args_os()))
}
