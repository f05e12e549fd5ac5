//! Times and sizes for people.

use std::time::Duration;

const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];

/// A time in milliseconds, as events and files say it.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A measured time in milliseconds, as exact as a person wants it: `40ms`, `1.2s`, `3m 04s`, `1h 02m`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..100 => format!("{ms}ms"),
        100..59_950 => format!("{}.{}s", (ms + 50) / 1000, (ms + 50) % 1000 / 100),
        _ => long((ms + 500) / 1000),
    }
}

/// A time in milliseconds that still runs: whole seconds, so that it changes once a second.
pub fn running(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => long(seconds),
    }
}

/// A limit in the form that a config uses: `10m`, `1h 30m`.
pub fn limit(limit: Duration) -> String {
    let seconds = limit.as_secs();
    if seconds == 0 {
        return duration(millis(limit));
    }
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let words: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    words.join(" ")
}

/// A duration as Go prints it, because the original's texts have it so: `10m0s`.
pub fn go_duration(duration: Duration) -> String {
    let total = duration.as_secs();
    let (hours, minutes) = (total / 3600, total / 60 % 60);
    let millis = duration.subsec_millis();
    let seconds = match millis {
        0 => format!("{}s", total % 60),
        _ => format!("{}.{}s", total % 60, format!("{millis:03}").trim_end_matches('0')),
    };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

fn long(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A number of bytes: `512 B`, `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of a unit, so that no float is needed.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}

/// CPUs out of thousandths: `2`, `0.5`.
pub fn cpus(millis: u64) -> String {
    match millis % 1000 {
        0 => format!("{}", millis / 1000),
        rest => format!("{}.{}", millis / 1000, format!("{rest:03}").trim_end_matches('0')),
    }
}

/// Reads a duration: a number with its unit, `90s`, `10m`, `1.5h`.
///
/// # Errors
/// What was expected instead.
pub fn read_duration(text: &str) -> Result<Duration, String> {
    let advice = || format!("`{text}` is not a duration; write a number with a unit: 90s, 10m, 1.5h");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(advice)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| advice())?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(advice()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| advice())
}

/// Reads a number of bytes: `64M`, `1.5GiB`, `0`. Units are powers of 1024; without one it is bytes.
///
/// # Errors
/// What was expected instead.
pub fn read_size(text: &str) -> Result<u64, String> {
    let advice = || format!("`{text}` is not a size; write a number of bytes, or one with a unit: 512K, 64M, 1.5G");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| advice())?;
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(advice()),
    };
    let bytes = number * (1_u64 << shift) as f64;
    // 2^63: far beyond any disk, and exact as a float.
    if bytes <= 9_223_372_036_854_775_808.0 { Ok(bytes as u64) } else { Err(advice()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_its_own_grain() {
        let shown: Vec<String> = [0, 99, 100, 1_249, 9_960, 59_949, 59_950, 184_000, 3_599_600, 3_720_000]
            .iter()
            .map(|ms| duration(*ms))
            .collect();
        assert_eq!(shown, ["0ms", "99ms", "0.1s", "1.2s", "10.0s", "59.9s", "1m 00s", "3m 04s", "1h 00m", "1h 02m"]);
    }

    #[test]
    fn a_running_time_counts_whole_seconds() {
        assert_eq!([running(0), running(59_999), running(60_000)], ["0s", "59s", "1m 00s"]);
    }

    #[test]
    fn limits_are_short() {
        assert_eq!(limit(Duration::from_secs(600)), "10m");
        assert_eq!(limit(Duration::from_secs(5400)), "1h 30m");
        assert_eq!(limit(Duration::from_millis(500)), "0.5s");
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        let shown = [0, 1023, 1024, 1536, 12_897_485, 4 << 30, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "12.3 MiB", "4 GiB", "16777215.9 TiB"]);
    }

    #[test]
    fn cpus_are_short() {
        assert_eq!([cpus(2000), cpus(500), cpus(1250)], ["2", "0.5", "1.25"]);
    }

    #[test]
    fn durations_look_like_gos() {
        assert_eq!(go_duration(Duration::from_secs(5)), "5s");
        assert_eq!(go_duration(Duration::from_millis(1500)), "1.5s");
        assert_eq!(go_duration(Duration::from_secs(3600)), "1h0m0s");
    }

    #[test]
    fn sizes_have_binary_units() {
        let sizes = ["0", "12", "512K", "64M", "64MiB", "1.5g", "2 GB"].map(read_size);
        assert_eq!(sizes.map(Result::unwrap), [0, 12, 512 << 10, 64 << 20, 64 << 20, 3 << 29, 2 << 30]);
        for text in ["", "M", "-1", "1 quart", "99999999T", "."] {
            assert!(read_size(text).is_err(), "{text:?}");
        }
    }
}
