//! A pool's figures, for people and for programs.

use navvy_ui::sanitize::clean;
use navvy_ui::text::{pad, width};
use navvy_vm::pool::figures::{KindReport, Report};

use crate::cli::CliError;

/// One object.
pub fn json(report: &Report) -> Result<String, CliError> {
    crate::cli::host::json_lines([report])
}

/// A table of kinds, and what has happened.
pub fn text(report: &Report) -> String {
    let head = ["CLASS", "IMAGE", "MAKING", "READY", "GIVEN", "REMOVING", "WAITING", "OLDEST"].map(str::to_owned);
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(report.kinds.iter().map(row)).collect();
    let mut text = String::new();
    if report.kinds.is_empty() {
        text.push_str("The pool has no machines.\n");
    } else {
        let widths: Vec<usize> =
            (0..8).map(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or_default()).collect();
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
    }
    if report.is_emptied {
        text.push_str("It is being emptied: no machine is given any more.\n");
    }
    let counted = |counts: &std::collections::BTreeMap<String, u64>| match counts.is_empty() {
        true => "none".to_owned(),
        false => counts.iter().map(|(word, count)| format!("{count} {}", clean(word))).collect::<Vec<_>>().join(", "),
    };
    let waits = &report.waits;
    text.push_str(&format!(
        "Begun: {}. Removed: {}. Faults: {}.\n",
        report.launches,
        counted(&report.removals),
        counted(&report.faults)
    ));
    text.push_str(&format!("Given: {}, {} of them without waiting for a second.\n", waits.count, waits.at_most[0]));
    text
}

fn row(kind: &KindReport) -> [String; 8] {
    let numbers = [kind.making, kind.warm, kind.given, kind.removing, kind.waiting].map(|count| count.to_string());
    let [making, warm, given, removing, waiting] = numbers;
    let none_of_a_stranger = |name: &str| if name.is_empty() { "-".to_owned() } else { clean(name).to_string() };
    let oldest = format!("{} s", kind.oldest_s);
    [none_of_a_stranger(&kind.class), none_of_a_stranger(&kind.image), making, warm, given, removing, waiting, oldest]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table_and_two_lines() {
        let report: Report = serde_json::from_value(serde_json::json!({
            "is_surveyed": true, "is_emptied": false,
            "kinds": [{"class": "medium", "image": "debian-12-docker", "making": 1, "warm": 2, "given": 0, "removing": 0, "waiting": 0,
                       "oldest_s": 71}],
            "launches": 4, "faults": {"late": 1}, "removals": {"used": 1},
            "waits": {"at_most": [3, 3, 3, 3, 3, 3, 3], "count": 3, "sum_s": 0},
        }))
        .unwrap();
        assert_eq!(
            text(&report),
            "CLASS   IMAGE             MAKING  READY  GIVEN  REMOVING  WAITING  OLDEST\n\
             medium  debian-12-docker  1       2      0      0         0        71 s\n\
             Begun: 4. Removed: 1 used. Faults: 1 late.\nGiven: 3, 3 of them without waiting for a second.\n"
        );
        assert!(json(&report).unwrap().contains("\"warm\":2"));
    }
}
