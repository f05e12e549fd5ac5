//! `navvy-driver`: the Nomad task driver, started by a Nomad agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match navvy_driver::serve::run(variables) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // Nobody may be reading.
            let _unread = writeln!(std::io::stderr(), "navvy-driver: {error}");
            ExitCode::FAILURE
        }
    }
}
