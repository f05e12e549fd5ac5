//! What a pool goes by: an operator's settings, and how many machines they ask for now (pure).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::cron::{Cron, CronError};

/// What machines of a pool have in common: one can be given for another of its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Resource class, as the config has it.
    pub class: String,
    /// Name of the image.
    pub image: String,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.image, self.class)
    }
}

/// So many machines of a kind are kept ready while the schedule holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prescaled {
    /// Of which kind.
    pub kind: Kind,
    /// `None`: always.
    pub schedule: Option<Cron>,
    /// How many.
    pub count: u32,
}

/// What a pool goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Machines that are kept ready.
    pub prescaled: Vec<Prescaled>,
    /// In which schedules are meant.
    pub time_zone: TimeZone,
    /// Machines for each one that is waited for.
    pub demand_factor: f64,
    /// Machines for each one that is foreseen.
    pub forecast_factor: f64,
    /// Machines beyond those that are foreseen.
    pub forecast_constant: f64,
    /// Machines of all kinds and states at once.
    pub quota: u32,
    /// Machines of one kind at once, where there is a limit of its own.
    pub quotas: BTreeMap<Kind, u32>,
    /// Machines that are made at once.
    pub at_once: u32,
    /// A machine that was never given is replaced after this.
    pub recycle_after: Duration,
    /// A machine that was given, or that nobody knows of, is removed after this.
    pub oldest: Duration,
    /// A machine that is ready and not wanted is removed after this.
    pub surplus_after: Duration,
    /// Who waits longer gets a fault.
    pub patience: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            prescaled: Vec::new(),
            time_zone: TimeZone::UTC,
            demand_factor: 2.0,
            forecast_factor: 1.4,
            forecast_constant: 0.0,
            quota: 10,
            quotas: BTreeMap::new(),
            at_once: 2,
            recycle_after: Duration::from_secs(24 * 3600),
            oldest: Duration::from_secs(12 * 3600),
            surplus_after: Duration::from_secs(600),
            patience: Duration::from_secs(300),
        }
    }
}

/// What is known of a kind, beside its machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// How many wait now.
    pub waiting: u32,
    /// How many will be asked for while one machine is being made, by those of late.
    pub foreseen: u32,
}

impl Rules {
    /// How many machines of a kind ought to be there that are given to nobody, before quotas.
    pub fn wanted(&self, kind: &Kind, demand: Demand, now_s: u64) -> u32 {
        let by_demand = scaled(demand.waiting, self.demand_factor, 0.0);
        let constant = if demand == Demand::default() { 0.0 } else { self.forecast_constant };
        let by_forecast = scaled(demand.foreseen, self.forecast_factor, constant);
        self.prescaled(kind, now_s).max(by_demand).max(by_forecast).max(demand.waiting)
    }

    /// How many of a kind the schedules keep ready now: the largest number of those that hold.
    pub fn prescaled(&self, kind: &Kind, now_s: u64) -> u32 {
        let second = i64::try_from(now_s).ok().and_then(|second| Timestamp::from_second(second).ok());
        let now = second.unwrap_or_default().to_zoned(self.time_zone.clone()).datetime();
        let holds = |entry: &&Prescaled| entry.schedule.as_ref().is_none_or(|schedule| schedule.holds(now));
        let counts = self.prescaled.iter().filter(|entry| entry.kind == *kind).filter(holds).map(|entry| entry.count);
        counts.max().unwrap_or(0)
    }

    /// Most machines of a kind.
    pub fn quota_of(&self, kind: &Kind) -> u32 {
        self.quotas.get(kind).copied().unwrap_or(self.quota).min(self.quota)
    }
}

fn scaled(count: u32, factor: f64, constant: f64) -> u32 {
    let machines = (f64::from(count) * factor + constant).ceil();
    // Floats saturate when they become integers; less than nothing is none.
    machines as u32
}

/// A pool's settings, as they stand in a file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesFile {
    #[serde(default)]
    prescale: Vec<PrescaleEntry>,
    #[serde(default)]
    quotas: Vec<QuotaEntry>,
    time_zone: Option<String>,
    demand_factor: Option<f64>,
    forecast_factor: Option<f64>,
    forecast_constant: Option<f64>,
    quota: Option<u32>,
    at_once: Option<u32>,
    prescale_max: Option<u32>,
    recycle_after_hours: Option<u32>,
    oldest_hours: Option<u32>,
    surplus_after_seconds: Option<u32>,
    patience_seconds: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrescaleEntry {
    class: String,
    image: String,
    cron: Option<String>,
    count: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaEntry {
    class: String,
    image: String,
    most: u32,
}

/// What is wrong with a pool's settings.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RulesError {
    /// An entry's schedule makes no sense.
    #[error("prescale entry {nth}: {source}")]
    Schedule {
        /// Which entry, from 1.
        nth: usize,
        /// What is wrong.
        source: CronError,
    },
    /// More than is kept ready of one kind.
    #[error(
        "prescale entry {nth}: count is {count}, and at most {most} are kept ready; a larger `prescale_max` allows more"
    )]
    TooMany {
        /// Which entry, from 1.
        nth: usize,
        /// What it asks for.
        count: u32,
        /// What is allowed.
        most: u32,
    },
    /// There is no such time zone.
    #[error("time_zone: this machine knows no time zone {name:?}; names are such as Europe/Berlin")]
    TimeZone {
        /// What stands there.
        name: String,
    },
    /// A number is of no use.
    #[error("{name}: {value} is no number from {from} to {to}")]
    Number {
        /// Which setting.
        name: &'static str,
        /// What stands there.
        value: f64,
        /// The lowest that makes sense.
        from: f64,
        /// The highest that makes sense.
        to: f64,
    },
}

/// Most machines of a kind that schedules keep ready, if nothing else is said.
const PRESCALE_MAX: u32 = 5;

impl RulesFile {
    /// The rules that it means.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn rules(&self) -> Result<Rules, Vec<RulesError>> {
        let usual = Rules::default();
        let mut wrong = Vec::new();
        let mut number = |name, value: Option<f64>, usual: f64, (from, to): (f64, f64)| {
            let value = value.unwrap_or(usual);
            if !(from..=to).contains(&value) {
                wrong.push(RulesError::Number { name, value, from, to });
            }
            value
        };
        let factor = (0.0, 100.0);
        let demand_factor = number("demand_factor", self.demand_factor, usual.demand_factor, factor);
        let forecast_factor = number("forecast_factor", self.forecast_factor, usual.forecast_factor, factor);
        let constant = number("forecast_constant", self.forecast_constant, usual.forecast_constant, factor);
        let mut whole = |name, value: Option<u32>, usual: u64, to: f64| {
            number(name, value.map(f64::from), usual as f64, (1.0, to)) as u32
        };
        let hours = |span: Duration| span.as_secs() / 3600;
        let quota = whole("quota", self.quota, u64::from(usual.quota), 10_000.0);
        let at_once = whole("at_once", self.at_once, u64::from(usual.at_once), 1000.0);
        let recycle = whole("recycle_after_hours", self.recycle_after_hours, hours(usual.recycle_after), 8760.0);
        let oldest = whole("oldest_hours", self.oldest_hours, hours(usual.oldest), 8760.0);
        let surplus = whole("surplus_after_seconds", self.surplus_after_seconds, usual.surplus_after.as_secs(), 1e6);
        let patience = whole("patience_seconds", self.patience_seconds, usual.patience.as_secs(), 1e5);
        let prescaled = self.prescaled(&mut wrong);
        let time_zone = self.zone(&mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Rules {
            prescaled,
            time_zone,
            demand_factor,
            forecast_factor,
            forecast_constant: constant,
            quota,
            quotas: self.quotas.iter().map(QuotaEntry::pair).collect(),
            at_once,
            recycle_after: Duration::from_secs(u64::from(recycle) * 3600),
            oldest: Duration::from_secs(u64::from(oldest) * 3600),
            surplus_after: Duration::from_secs(u64::from(surplus)),
            patience: Duration::from_secs(u64::from(patience)),
        })
    }

    fn prescaled(&self, wrong: &mut Vec<RulesError>) -> Vec<Prescaled> {
        let most = self.prescale_max.unwrap_or(PRESCALE_MAX);
        let mut prescaled = Vec::new();
        for (nth, entry) in (1..).zip(&self.prescale) {
            if entry.count > most {
                wrong.push(RulesError::TooMany { nth, count: entry.count, most });
            }
            let kind = Kind { class: entry.class.clone(), image: entry.image.clone() };
            match entry.cron.as_deref().map(str::parse).transpose() {
                Ok(schedule) => prescaled.push(Prescaled { kind, schedule, count: entry.count }),
                Err(source) => wrong.push(RulesError::Schedule { nth, source }),
            }
        }
        prescaled
    }

    fn zone(&self, wrong: &mut Vec<RulesError>) -> TimeZone {
        let Some(name) = &self.time_zone else { return TimeZone::UTC };
        TimeZone::get(name).unwrap_or_else(|_| {
            wrong.push(RulesError::TimeZone { name: name.clone() });
            TimeZone::UTC
        })
    }
}

impl QuotaEntry {
    fn pair(&self) -> (Kind, u32) {
        (Kind { class: self.class.clone(), image: self.image.clone() }, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        Kind { class: "medium".to_owned(), image: "debian-12-docker".to_owned() }
    }

    fn rules(json: serde_json::Value) -> Result<Rules, Vec<RulesError>> {
        serde_json::from_value::<RulesFile>(json).unwrap().rules()
    }

    #[test]
    fn the_formula_doubles_the_demand_and_scales_the_forecast() {
        let rules = Rules::default();
        let wanted = |waiting, foreseen| rules.wanted(&kind(), Demand { waiting, foreseen }, 0);
        assert_eq!([wanted(0, 0), wanted(3, 0), wanted(0, 5), wanted(0, 6), wanted(3, 5)], [0, 6, 7, 9, 7]);
        let less = Rules { demand_factor: 0.0, ..Rules::default() };
        assert_eq!(less.wanted(&kind(), Demand { waiting: 2, foreseen: 0 }, 0), 2, "whoever waits gets one");
    }

    #[test]
    fn schedules_keep_machines_ready_in_their_own_time() {
        let entry = |cron, count| serde_json::json!({"class": "medium", "image": "debian-12-docker", "cron": cron, "count": count});
        let rules = rules(serde_json::json!({
            "time_zone": "Europe/Berlin",
            "prescale": [entry("* 8-17 * * 1-5", 4), entry("* * * * *", 1)],
        }))
        .unwrap();
        let at = |text: &str| u64::try_from(text.parse::<Timestamp>().unwrap().as_second()).unwrap();
        assert_eq!(rules.prescaled(&kind(), at("2026-11-30T07:30:00Z")), 4);
        assert_eq!(rules.prescaled(&kind(), at("2026-11-30T17:30:00Z")), 1);
        assert_eq!(rules.prescaled(&Kind { class: "large".to_owned(), ..kind() }, at("2026-11-30T07:30:00Z")), 0);
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let entry = serde_json::json!({"class": "medium", "image": "i", "cron": "* *", "count": 6});
        let wrong = rules(serde_json::json!({"time_zone": "Mars/Base", "quota": 0, "prescale": [entry]})).unwrap_err();
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        assert!(serde_json::from_str::<RulesFile>(r#"{"prescaled": []}"#).is_err(), "a word that it does not have");
    }
}
