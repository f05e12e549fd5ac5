//! Which agents a processor works with: those of its own major version, two minor versions away at most, either way.

/// How many minor versions.
const AWAY: u64 = 2;
/// The processor's own.
pub const OURS: &str = env!("CARGO_PKG_VERSION");

/// Whether an agent of version `theirs` and a processor of version `ours` understand each other.
///
/// # Errors
/// Why not, and what to do.
pub fn understands(theirs: &str, ours: &str) -> Result<(), String> {
    let shown: String = theirs.chars().filter(|c| !c.is_control()).take(40).collect();
    let Some((major, minor)) = numbers(theirs) else {
        return Err(format!("the agent's version is {shown:?}, which is none; this processor is navvy {ours}"));
    };
    let (our_major, our_minor) = numbers(ours).unwrap_or((major, minor));
    if major == our_major && minor.abs_diff(our_minor) <= AWAY {
        return Ok(());
    }
    let older = if (major, minor) < (our_major, our_minor) { "the agent" } else { "the processor" };
    Err(format!(
        "the agent is navvy {shown} and the processor {ours}: they work together up to {AWAY} minor versions apart; update {older}"
    ))
}

/// Major and minor of `1.2.3`, `1.2.3-rc.1`.
fn numbers(version: &str) -> Option<(u64, u64)> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let mut parts = version.splitn(3, '.');
    let (major, minor, _patch) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_minor_versions_away_is_understood_either_way_and_three_is_not() {
        for theirs in ["1.5.0", "1.3.9", "1.7.0", "1.4.2", "1.6.0-rc.1", "1.5.0+build"] {
            assert_eq!(understands(theirs, "1.5.1"), Ok(()), "{theirs}");
        }
        for (theirs, why) in [
            ("1.2.9", "update the agent"),
            ("1.8.0", "update the processor"),
            ("2.5.1", "update the processor"),
            ("0.5.1", "update the agent"),
            ("", "which is none"),
            ("1.5", "which is none"),
            ("1.-5.0", "which is none"),
            ("1.99999999999999999999.0", "which is none"),
        ] {
            let told = understands(theirs, "1.5.1").unwrap_err();
            assert!(told.contains(why), "{theirs}: {told}");
        }
        assert_eq!(understands(OURS, OURS), Ok(()));
    }
}
