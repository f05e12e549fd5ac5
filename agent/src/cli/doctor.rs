//! `navvy doctor`.

use navvy_docker::endpoint::{self, Inputs, RealFiles};
use navvy_environment::allowed::Allowed;
use navvy_job::chain::chain;
use navvy_job::exit_code;
use navvy_ui::sanitize::tame;

use super::args::host::DoctorArgs;
use super::{CliError, machines, out};
use crate::doctor::{self, Check, Outside, Status};
use crate::settings::Settings;
use crate::settings::file::SettingsFile;

pub fn run(settings: &Settings, arguments: &DoctorArgs) -> Result<u8, CliError> {
    let inputs = Inputs {
        flag: arguments.docker.as_deref(),
        environment: &settings.variables,
        home: settings.home.as_deref(),
        files: &RealFiles,
    };
    let endpoint = endpoint::find(&inputs);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| CliError::infra(&error))?;
    let user = SettingsFile::of_user(settings).map_err(|error| CliError::usage(chain(&error)))?;
    let host_egress = user.tables.host_egress.unwrap_or(false);
    // It was read without error.
    let allowed = Allowed::parse(&user.tables.allow_host).unwrap_or_default();
    let outside = Outside { variables: &settings.variables, host_egress, allowed: &allowed };
    let checks = super::host::finish(
        runtime,
        doctor::examine(endpoint, machines::of_no_image(settings), &settings.paths, outside),
    );
    let printed = out::print(&tame(&render(&checks), true));
    let code = match doctor::worst(&checks) {
        Status::Ok | Status::Warn => exit_code::PASSED,
        Status::Fail => exit_code::NO_DOCKER,
    };
    out::settle(code, printed)
}

fn render(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let mark = match check.status {
            Status::Ok => "✓",
            Status::Warn => "!",
            Status::Fail => "✗",
        };
        text.push_str(&format!("{mark} {:width$}  {}\n", check.name, check.found));
        if let Some(mend) = &check.mend {
            text.push_str(&format!("  {:width$}  → {mend}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_says_what_was_found_and_how_to_mend_it() {
        let checks = [
            Check { name: "docker", status: Status::Ok, found: "20.10".into(), mend: None },
            Check { name: "disk", status: Status::Warn, found: "1 GiB left".into(), mend: Some("free some".into()) },
        ];
        assert_eq!(render(&checks), "✓ docker  20.10\n! disk    1 GiB left\n          → free some\n");
    }
}
