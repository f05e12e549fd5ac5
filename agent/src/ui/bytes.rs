//! Sizes for people: `512 B`, `12.3 MiB`.

const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];

/// A number of bytes.
pub fn human(bytes: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_unit_that_fits() {
        let shown = [0, 1023, 1024, 1536, 12_897_485, 4 << 30, u64::MAX].map(human);
        assert_eq!(shown, ["0 B", "1023 B", "1 KiB", "1.5 KiB", "12.3 MiB", "4 GiB", "16777215.9 TiB"]);
    }

    #[test]
    fn cpus_are_short() {
        assert_eq!([cpus(2000), cpus(500), cpus(1250)], ["2", "0.5", "1.25"]);
    }
}
