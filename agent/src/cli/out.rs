//! Standard output: the one way out of everything that a command prints.
//!
//! The reader may have seen enough and gone (`| head`): that is not an error, and is not reported. Any other failure is
//! one, for what was asked for did not arrive: a full disk must not look like an empty answer.

use std::io::{self, ErrorKind, Write as _};

use navvy_job::exit_code;

use super::CliError;

/// Prints text.
pub fn print(text: &str) -> Result<(), CliError> {
    write(text.as_bytes())
}

/// Prints bytes as they are.
pub fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// What came of writing: a reader who has gone is as good as one who has read all.
pub fn written(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(lost(&error)),
        _ => Ok(()),
    }
}

/// Exit of a command that has more to say than it printed: its own bad end counts more than output that was lost, which is
/// reported all the same.
pub fn settle(code: u8, printed: Result<(), CliError>) -> Result<u8, CliError> {
    match printed {
        Ok(()) => Ok(code),
        Err(lost) if matches!(code, exit_code::PASSED | exit_code::INCOMPLETE) => Err(lost),
        Err(lost) => {
            super::report(&lost);
            Ok(code)
        }
    }
}

/// Output that was lost.
fn lost(error: &io::Error) -> CliError {
    CliError::infra_text(format!("could not write to standard output: {error}"))
        .hint("What was printed is not complete. Look at where standard output goes: is that disk full?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Result<()> {
        io::Write::write_all(&mut std::fs::File::options().write(true).open("/dev/full").unwrap(), b"x")
    }

    #[test]
    fn a_reader_who_has_gone_is_no_error_and_a_full_disk_is_one() {
        written(Err(ErrorKind::BrokenPipe.into())).unwrap();
        let error = written(full()).unwrap_err();
        assert_eq!(error.exit_code(), exit_code::INFRA);
        assert!(error.render().contains("No space left on device"), "{}", error.render());
    }

    #[test]
    fn a_bad_end_counts_more_than_lost_output() {
        assert_eq!(settle(exit_code::JOB_FAILED, written(full())).unwrap(), exit_code::JOB_FAILED);
        assert_eq!(settle(exit_code::PASSED, written(full())).unwrap_err().exit_code(), exit_code::INFRA);
        assert_eq!(settle(exit_code::INCOMPLETE, written(full())).unwrap_err().exit_code(), exit_code::INFRA);
        assert_eq!(settle(exit_code::PASSED, Ok(())).unwrap(), exit_code::PASSED);
    }
}
