//! The texts around a step's output. Log scrapers know them, so their wording is that of CircleCI.

use navvy_job::figures::go_duration;
use navvy_job::outcome::StepOutcome;
use navvy_protocol::supervisor::{Exit, Exited, OutOfMemory};

use super::shell::Shell;

/// First lines shown above a step's output.
pub fn header(shell: &Shell, command: &str) -> String {
    format!("#!{shell}\n{command}")
}

/// How a step ended, given how its process did.
pub fn outcome(exited: &Exited) -> StepOutcome {
    match (&exited.out_of_memory, exited.exit) {
        (_, Exit::Code(0)) => StepOutcome::Success,
        (Some(memory), _) => StepOutcome::OutOfMemory { detail: out_of_memory(memory) },
        (None, Exit::Code(code)) => StepOutcome::ExitCode { code },
        (None, Exit::Signal(signal)) => StepOutcome::Signal { signal },
    }
}

/// Lines below a step's output.
pub fn trailers(exited: Option<&Exited>, outcome: &StepOutcome) -> Vec<String> {
    let mut lines = Vec::new();
    match outcome {
        StepOutcome::NoOutput { limit } => {
            lines.push(format!("Too long with no output (exceeded {}): context deadline exceeded", go_duration(*limit)))
        }
        StepOutcome::JobLimit { limit } => {
            lines.push(format!("The job's time limit of {} was reached", go_duration(*limit)));
        }
        StepOutcome::Canceled => lines.push("Step was canceled".to_owned()),
        StepOutcome::Error { reason } => lines.push(reason.clone()),
        StepOutcome::OutOfMemory { detail } => {
            lines.extend(exited.map(exit_lines).unwrap_or_default());
            lines.push(detail.clone());
        }
        _ => lines.extend(exited.map(exit_lines).unwrap_or_default()),
    }
    // A step may survive the loss of one of its processes; its author still wants to know.
    if let (StepOutcome::Success, Some(memory)) = (outcome, exited.and_then(|e| e.out_of_memory.as_ref())) {
        lines.push(out_of_memory(memory));
    }
    lines
}

fn exit_lines(exited: &Exited) -> Vec<String> {
    match exited.exit {
        Exit::Code(0) => vec![],
        Exit::Code(code) => {
            vec![format!("Exited with code exit status {code}"), format!("CircleCI received exit code {code}")]
        }
        Exit::Signal(signal) => vec![
            format!("Received \"{}\" signal", signal_name(signal)),
            format!("CircleCI received exit code {}", 128 + signal),
        ],
    }
}

fn out_of_memory(memory: &OutOfMemory) -> String {
    let mut text = String::from("Out of memory: the kernel killed ");
    match memory.kills {
        1 => text.push_str("a process of this job"),
        kills => text.push_str(&format!("{kills} processes of this job")),
    }
    if let Some(limit) = memory.limit {
        text.push_str(&format!("; limit {}", mebibytes(limit)));
    }
    if let Some(peak) = memory.peak {
        text.push_str(&format!(", peak {}", mebibytes(peak)));
    }
    if !memory.largest.is_empty() {
        let largest: Vec<_> =
            memory.largest.iter().take(3).map(|p| format!("{} ({}) {}", p.name, p.pid, mebibytes(p.rss))).collect();
        text.push_str(&format!("; largest when last looked at: {}", largest.join(", ")));
    }
    text.push_str(". A larger resource_class may help.");
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// The signal's name in the original's texts.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGUSR1 => "user defined signal 1",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGUSR2 => "user defined signal 2",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::collections::BTreeSet;

    use navvy_protocol::supervisor::{Process, Usage};

    use super::*;

    fn exited(exit: Exit) -> Exited {
        Exited {
            exit,
            output: 0,
            usage: Usage::default(),
            out_of_memory: None,
            halted: false,
            lacks: BTreeSet::new(),
            main_ended: None,
            left_running: 0,
        }
    }

    fn texts(exited: &Exited) -> Vec<String> {
        trailers(Some(exited), &outcome(exited))
    }

    #[test]
    fn exit_codes_and_signals_have_the_known_texts() {
        assert!(texts(&exited(Exit::Code(0))).is_empty());
        assert_eq!(texts(&exited(Exit::Code(2))), ["Exited with code exit status 2", "CircleCI received exit code 2"]);
        assert_eq!(texts(&exited(Exit::Signal(9))), ["Received \"killed\" signal", "CircleCI received exit code 137"]);
    }

    #[test]
    fn the_no_output_text_is_the_originals() {
        let outcome = StepOutcome::NoOutput { limit: Duration::from_secs(600) };
        assert_eq!(trailers(None, &outcome), ["Too long with no output (exceeded 10m0s): context deadline exceeded"]);
    }

    #[test]
    fn out_of_memory_tells_limit_peak_and_processes() {
        let mut end = exited(Exit::Code(1));
        end.out_of_memory = Some(OutOfMemory {
            kills: 1,
            limit: Some(64 << 20),
            peak: Some(64 << 20),
            largest: vec![Process { pid: 7, name: "gcc".into(), rss: 60 << 20 }],
        });
        let text = texts(&end).join("\n");
        assert!(text.contains("limit 64 MiB, peak 64 MiB"), "{text}");
        assert!(text.contains("gcc (7) 60 MiB"), "{text}");
    }
}
