//! What a pool has done and has now, for people and for `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::core::{Core, Counts};
use super::record::Why;
use super::rules::Kind;

/// Upper bounds of what is counted of waits, in seconds.
const BOUNDS: [u64; 7] = [0, 1, 5, 15, 60, 180, 300];

/// Counted since the process began.
#[derive(Debug, Default)]
pub(super) struct Figures {
    launches: u64,
    faults: BTreeMap<&'static str, u64>,
    removals: BTreeMap<Why, u64>,
    waits: Waits,
}

/// Waits of takers that got a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// How many took at most 0, 1, 5, 15, 60, 180 and 300 seconds.
    pub at_most: [u64; 7],
    /// How many there were.
    pub count: u64,
    /// All of them together, in seconds.
    pub sum_s: u64,
}

/// What a pool tells of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// It has been seen, since the pool began, what is there.
    pub is_surveyed: bool,
    /// It is being emptied: nothing is kept ready any more, and nothing is given.
    pub is_emptied: bool,
    /// Machines and wishes, a line for each kind.
    pub kinds: Vec<KindReport>,
    /// Machines that were begun.
    pub launches: u64,
    /// Faults, by their words.
    pub faults: BTreeMap<String, u64>,
    /// Machines that went, by why.
    pub removals: BTreeMap<String, u64>,
    /// How long takers waited.
    pub waits: Waits,
}

/// Of one kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KindReport {
    /// Resource class.
    pub class: String,
    /// Image.
    pub image: String,
    /// Being made.
    pub making: u32,
    /// Ready.
    pub warm: u32,
    /// In somebody's hands.
    pub given: u32,
    /// Being removed.
    pub removing: u32,
    /// Wishes that wait.
    pub waiting: u32,
    /// Age of the oldest machine, in seconds.
    pub oldest_s: u64,
}

impl Figures {
    pub(super) fn launch(&mut self) {
        self.launches += 1;
    }

    pub(super) fn fault(&mut self, word: &'static str) {
        *self.faults.entry(word).or_default() += 1;
    }

    pub(super) fn removal(&mut self, why: Why) {
        *self.removals.entry(why).or_default() += 1;
    }

    pub(super) fn wait(&mut self, waited_s: u64) {
        self.waits.count += 1;
        self.waits.sum_s += waited_s;
        for (bound, count) in BOUNDS.iter().zip(&mut self.waits.at_most) {
            *count += u64::from(waited_s <= *bound);
        }
    }

    pub(super) fn report(&self, core: &Core, now_s: u64) -> Report {
        let of_kind = |(kind, counts): (Kind, Counts)| KindReport {
            class: kind.class,
            image: kind.image,
            making: counts.making,
            warm: counts.warm,
            given: counts.given,
            removing: counts.removing,
            waiting: counts.waiting,
            oldest_s: counts.oldest_s,
        };
        let word = |why: &Why| serde_json::to_value(why).ok().and_then(|word| Some(word.as_str()?.to_owned()));
        Report {
            is_surveyed: core.is_surveyed(),
            is_emptied: core.is_emptied(),
            kinds: core.counts(now_s).into_iter().map(of_kind).collect(),
            launches: self.launches,
            faults: self.faults.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
            removals: self.removals.iter().filter_map(|(why, count)| Some((word(why)?, *count))).collect(),
            waits: self.waits.clone(),
        }
    }
}

impl Report {
    /// Is every machine that is there in somebody's hands? No, as long as that is not known.
    pub fn has_none_of_its_own(&self) -> bool {
        self.is_surveyed && self.kinds.iter().all(|kind| kind.making == 0 && kind.warm == 0 && kind.removing == 0)
    }

    /// In the words of Prometheus.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let mut say = |line: std::fmt::Arguments<'_>| {
            let _a_string_takes_everything = writeln!(text, "{line}");
        };
        say(format_args!(
            "# HELP navvy_pool_machines Machines of the pool, by where they stand.\n# TYPE navvy_pool_machines gauge"
        ));
        for kind in &self.kinds {
            let labels = kind.labels();
            for (state, count) in
                [("making", kind.making), ("warm", kind.warm), ("given", kind.given), ("removing", kind.removing)]
            {
                say(format_args!("navvy_pool_machines{{{labels},state=\"{state}\"}} {count}"));
            }
        }
        say(format_args!("# HELP navvy_pool_waiting Takers that wait.\n# TYPE navvy_pool_waiting gauge"));
        for kind in &self.kinds {
            say(format_args!("navvy_pool_waiting{{{}}} {}", kind.labels(), kind.waiting));
        }
        say(format_args!(
            "# HELP navvy_pool_oldest_seconds Age of the oldest machine.\n# TYPE navvy_pool_oldest_seconds gauge"
        ));
        for kind in &self.kinds {
            say(format_args!("navvy_pool_oldest_seconds{{{}}} {}", kind.labels(), kind.oldest_s));
        }
        say(format_args!(
            "# HELP navvy_pool_launches_total Machines that were begun.\n# TYPE navvy_pool_launches_total counter\n\
             navvy_pool_launches_total {}",
            self.launches
        ));
        say(format_args!("# HELP navvy_pool_faults_total Faults, by kind.\n# TYPE navvy_pool_faults_total counter"));
        for (word, count) in &self.faults {
            say(format_args!("navvy_pool_faults_total{{fault=\"{word}\"}} {count}"));
        }
        say(format_args!(
            "# HELP navvy_pool_removals_total Machines that went, by why.\n# TYPE navvy_pool_removals_total counter"
        ));
        for (why, count) in &self.removals {
            say(format_args!("navvy_pool_removals_total{{why=\"{why}\"}} {count}"));
        }
        say(format_args!(
            "# HELP navvy_pool_wait_seconds How long takers waited.\n# TYPE navvy_pool_wait_seconds histogram"
        ));
        for (bound, count) in BOUNDS.iter().zip(self.waits.at_most) {
            say(format_args!("navvy_pool_wait_seconds_bucket{{le=\"{bound}\"}} {count}"));
        }
        say(format_args!(
            "navvy_pool_wait_seconds_bucket{{le=\"+Inf\"}} {count}\nnavvy_pool_wait_seconds_sum {}\nnavvy_pool_wait_seconds_count {count}",
            self.waits.sum_s,
            count = self.waits.count,
        ));
        text
    }
}

impl KindReport {
    fn labels(&self) -> String {
        format!("class=\"{}\",image=\"{}\"", escaped(&self.class), escaped(&self.image))
    }
}

/// A label's value, which a config may have named.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::record::{Record, Stage};
    use super::super::rules::Rules;
    use super::*;
    use crate::machine_id::MachineId;

    #[test]
    fn figures_are_said_in_prometheus_words() {
        let mut figures = Figures::default();
        figures.launch();
        figures.fault("capacity");
        figures.removal(Why::HolderGone);
        figures.wait(0);
        figures.wait(4);
        let kind = Kind { class: "a\"b".to_owned(), image: "i".to_owned() };
        let warm = || Record {
            version: Record::VERSION,
            id: MachineId::random(),
            kind: kind.clone(),
            born_s: 0,
            stage: Stage::Warm { since_s: 1 },
        };
        let core = Core::restore(Rules::default(), [warm(), warm()]);
        let report = figures.report(&core, 2);
        assert!(!report.has_none_of_its_own());
        let text = report.prometheus();
        for line in [
            "navvy_pool_machines{class=\"a\\\"b\",image=\"i\",state=\"warm\"} 2",
            "navvy_pool_faults_total{fault=\"capacity\"} 1",
            "navvy_pool_removals_total{why=\"holder-gone\"} 1",
            "navvy_pool_wait_seconds_bucket{le=\"1\"} 1",
            "navvy_pool_wait_seconds_bucket{le=\"5\"} 2",
            "navvy_pool_wait_seconds_sum 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
