//! Sizes that people write: `64M`, `1.5GiB`, `0`.

/// Bytes. Units are powers of 1024; without one it is bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
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
    fn sizes_have_binary_units() {
        let sizes = ["0", "12", "512K", "64M", "64MiB", "1.5g", "2 GB"].map(parse_size);
        assert_eq!(sizes.map(Result::unwrap), [0, 12, 512 << 10, 64 << 20, 64 << 20, 3 << 29, 2 << 30]);
        for text in ["", "M", "-1", "1 quart", "99999999T", "."] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }
}
