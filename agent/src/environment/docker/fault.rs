//! What went wrong, out of an engine's words. Engines answer many different things with status 500 and a text (20.10
//! does so for names that do not resolve), so both are looked at.

use bollard::errors::Error;

/// One line for a person, causes included.
pub(super) fn describe(error: &Error) -> String {
    let text = match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::RequestTimeoutError => "the engine did not answer in time".to_owned(),
        other => chain(other),
    };
    if text.is_empty() { error.to_string() } else { text }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        // Many wrappers repeat what they wrap.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}

/// HTTP status of an engine's answer, if it answered.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// No such container, image or network.
pub(super) fn is_missing(error: &Error) -> bool {
    status(error) == Some(404)
}

/// The engine is gone, as opposed to: it answered that something failed.
pub(super) fn is_disconnect(error: &Error) -> bool {
    !matches!(error, Error::DockerResponseServerError { .. } | Error::DockerStreamError { .. })
        && !matches!(error, Error::DockerContainerWaitError { .. })
}
