//! Durations: `10m`, `1.25h`, `1800s`.

use std::time::Duration;

/// A duration and whether its unit had to be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsed {
    pub duration: Duration,
    pub without_unit: bool,
}

/// Far longer than any limit; keeps absurd numbers out of the arithmetic.
const LONGEST: f64 = 365.0 * 24.0 * 3600.0;

/// Parts may follow each other, as in `1h30m`. A number without a unit counts seconds.
pub(super) fn parse(text: &str) -> Option<Parsed> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    let mut without_unit = false;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after, |c| c.is_ascii_alphabetic());
        without_unit |= unit.is_empty();
        seconds += number.parse::<f64>().ok()? * factor(unit)?;
        rest = after.trim_start();
    }
    let valid = !text.trim().is_empty() && (0.0..=LONGEST).contains(&seconds);
    valid.then(|| Parsed { duration: Duration::from_secs_f64(seconds), without_unit })
}

fn split(text: &str, part: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !part(c)).unwrap_or(text.len()))
}

fn factor(unit: &str) -> Option<f64> {
    match unit {
        "ms" => Some(0.001),
        "" | "s" | "sec" | "secs" | "second" | "seconds" => Some(1.0),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60.0),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3600.0),
        "d" | "day" | "days" => Some(86_400.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_durations() {
        let seconds = |text: &str| parse(text).map(|parsed| parsed.duration.as_secs());
        assert_eq!(seconds("10m"), Some(600));
        assert_eq!(seconds("1.25h"), Some(4500));
        assert_eq!(seconds("1800s"), Some(1800));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds(""), None);
        assert_eq!(seconds("10 parsecs"), None);
        assert_eq!(seconds("99999999999999h"), None);
        assert!(parse("1200").is_some_and(|parsed| parsed.without_unit));
    }
}
