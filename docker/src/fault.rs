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

/// Words of an engine that does not see a directory of this machine.
const UNSEEN: [&str; 3] =
    ["bind source path does not exist", "mounts denied", "error while creating mount source path"];

/// The engine says that our files are not there for it.
pub(super) fn lacks_our_files(message: &str) -> bool {
    has_one_of(message, &UNSEEN)
}

/// What engines say when a container cannot be had the way its image wants it; all else of a primary is ours.
const IMAGES: [&str; 10] = [
    "cannot mount volume over existing file",
    "invalid volume specification",
    "is not directory",
    "not a directory",
    "file name too long",
    "environment variable",
    "argument list too long",
    "exec format error",
    "error mounting",
    "invalid signal",
];
/// With these in it, the machine may be at fault all the same.
const MACHINES: [&str; 9] = [
    "no space left",
    "cannot allocate memory",
    "resource temporarily unavailable",
    "too many open files",
    "input/output error",
    "device or resource busy",
    "permission denied",
    "operation not permitted",
    "bind source path does not exist",
];

/// A primary, of which all but the image is the same in every task, cannot be made or started for its image's sake.
pub(super) fn is_images(message: &str) -> bool {
    has_one_of(message, &IMAGES) && !has_one_of(message, &MACHINES)
}

fn has_one_of(message: &str, words: &[&str]) -> bool {
    let lower = message.to_ascii_lowercase();
    words.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_words_tell_images_from_machines_and_from_unseen_files() {
        let init = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: ";
        for image in [
            "environment variable name can't be empty: \"=x\": unknown",
            "error mounting \"/var/lib/docker/volumes/e1/_data\" to rootfs at \"/proc/self\": not a directory",
        ] {
            assert!(is_images(&format!("{init}{image}")) && !lacks_our_files(image), "{image}");
        }
        assert!(is_images(
            "cannot mount volume over existing file, file exists /var/lib/docker/overlay2/a/merged/etc/hosts"
        ));
        for machine in
            ["error mounting \"x\" to rootfs: no space left on device", "cannot allocate memory", "network x not found"]
        {
            assert!(!is_images(&format!("{init}{machine}")), "{machine}");
        }
        let unseen = "invalid mount config for type \"bind\": bind source path does not exist: /run/navvy/x/sockets";
        assert!(lacks_our_files(unseen) && !is_images(unseen));
        assert!(lacks_our_files("Mounts denied: \nThe path /run/navvy is not shared from the host"));
    }
}
