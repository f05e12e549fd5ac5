//! When something holds: the five fields of a cron expression, asked minute by minute.

use std::str::FromStr;

use jiff::civil::{DateTime, Weekday};

/// A cron expression: minute, hour, day of the month, month, day of the week. It holds in each minute that all five name; where
/// both days are restricted, one of them is enough, as cron has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    either_day: bool,
}

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields.
    #[error(
        "a schedule has five fields (minute, hour, day of the month, month, day of the week); this one has {found}"
    )]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// A field makes no sense.
    #[error(
        "{text:?} is no {field}: write numbers from {from} to {to}, as in `{from}`, `{from}-{to}`, `*/2` or `{from},{to}`"
    )]
    Field {
        /// What the field is.
        field: &'static str,
        /// What stands there.
        text: String,
        /// Its lowest number.
        from: u8,
        /// Its highest number.
        to: u8,
    },
}

struct Field {
    name: &'static str,
    from: u8,
    to: u8,
    words: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 5] = [
    Field { name: "minute", from: 0, to: 59, words: &[] },
    Field { name: "hour", from: 0, to: 23, words: &[] },
    Field { name: "day of the month", from: 1, to: 31, words: &[] },
    Field { name: "month", from: 1, to: 12, words: &MONTHS },
    // 7 is Sunday, too.
    Field { name: "day of the week", from: 0, to: 7, words: &WEEKDAYS },
];

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = words[..] else {
            return Err(CronError::Fields { found: words.len() });
        };
        let [of_minute, of_hour, of_day, of_month, of_weekday] = &FIELDS;
        let weekdays = of_weekday.set(weekday)?;
        Ok(Self {
            minutes: of_minute.set(minute)?,
            hours: of_hour.set(hour)?,
            days: of_day.set(day)?,
            months: of_month.set(month)?,
            weekdays: weekdays | (weekdays >> 7 & 1),
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }
}

impl Cron {
    /// Does it hold in the minute of this local time?
    pub fn holds(&self, at: DateTime) -> bool {
        let has = |set: u64, number: i8| set >> number & 1 == 1;
        let by_day = has(self.days, at.day());
        let by_weekday = has(self.weekdays, at.weekday().since(Weekday::Sunday));
        has(self.minutes, at.minute())
            && has(self.hours, at.hour())
            && has(self.months, at.month())
            && if self.either_day { by_day || by_weekday } else { by_day && by_weekday }
    }
}

impl Field {
    /// The numbers that a field's text names, as bits.
    fn set(&self, text: &str) -> Result<u64, CronError> {
        text.split(',').try_fold(0, |set, part| Some(set | self.part(part)?)).ok_or_else(|| CronError::Field {
            field: self.name,
            text: text.chars().take(40).collect(),
            from: self.from,
            to: self.to,
        })
    }

    fn part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u8>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.from, self.to),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            // `5/15` begins there and goes on to the end.
            None if step.is_some() => (self.number(range)?, self.to),
            None => (self.number(range)?, self.number(range)?),
        };
        let step = usize::from(step.unwrap_or(1));
        (first <= last).then(|| (first..=last).step_by(step).fold(0, |set, number| set | 1 << number))
    }

    fn number(&self, text: &str) -> Option<u8> {
        let word = self.words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let number = match word {
            Some(position) => u8::try_from(position).ok()? + self.from,
            None => text.parse().ok()?,
        };
        (self.from..=self.to).contains(&number).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::datetime;

    use super::*;

    fn holds(text: &str, at: DateTime) -> bool {
        text.parse::<Cron>().unwrap().holds(at)
    }

    #[test]
    fn a_schedule_holds_in_the_minutes_that_it_names() {
        // A Monday.
        let at = datetime(2026, 11, 30, 9, 30, 12, 0);
        for text in ["* * * * *", "30 9 30 11 1", "*/15 8-17 * * MON-fri", "0,30 * * nov *", "0/10 * * * *"] {
            assert!(holds(text, at), "{text}");
        }
        for text in ["31 * * * *", "* 10-17 * * *", "* * * * sat,sun", "*/7 * * * *", "* * 29 * *", "* * * 10 *"] {
            assert!(!holds(text, at), "{text}");
        }
    }

    #[test]
    fn either_of_two_days_is_enough_and_seven_is_sunday() {
        let monday = datetime(2026, 11, 30, 0, 0, 0, 0);
        assert!(holds("* * 1 * 1", monday));
        assert!(holds("* * 30 * 2", monday));
        assert!(!holds("* * 1 * 2", monday));
        let sunday = datetime(2026, 11, 29, 0, 0, 0, 0);
        assert!(holds("* * * * 7", sunday) && holds("* * * * 0", sunday) && holds("* * * * 5-7", sunday));
    }

    #[test]
    fn what_is_no_schedule_says_so() {
        let error = |text: &str| text.parse::<Cron>().unwrap_err();
        assert_eq!(error("* * *"), CronError::Fields { found: 3 });
        for text in [
            "60 * * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "* * * * 8",
            "-1 * * * *",
            ", * * * *",
        ] {
            assert!(matches!(error(text), CronError::Field { .. }), "{text}");
        }
    }
}
