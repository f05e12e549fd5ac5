//! Approvals: given on the command line, asked for on a terminal, otherwise held.

use std::io::BufRead as _;

use tokio::sync::mpsc;

use super::names::ALL;
use crate::cli::args::run::RunArgs;
use crate::pipeline::Approvals;

pub fn approvals(arguments: &RunArgs, interactive: bool) -> Approvals {
    let all = arguments.approve.iter().any(|name| name == ALL);
    let given = arguments.approve.iter().filter(|name| *name != ALL).cloned().collect();
    let ask = interactive && !all && !arguments.view.json && !arguments.shell_on_fail;
    Approvals { all, given, answers: ask.then(listen) }
}

/// Reads answers from the terminal, a line each, for as long as someone listens.
fn listen() -> mpsc::UnboundedReceiver<bool> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let spawned = std::thread::Builder::new().name("answers".to_owned()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            let yes = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
            if sender.send(yes).is_err() {
                return;
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "Approvals cannot be asked for.");
    }
    receiver
}
