//! Debian packages: installed, upgraded under running programs, removed and purged, in a container.

use std::path::Path;

use navvy_tests::Program;

#[test]
fn packages_install_upgrade_under_running_programs_and_leave_nothing() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/package");
    let answer = Program::new(script).args(["--test"]).run();
    answer.ends(0, &["package-test: purge", "nothing is left"]);
}
