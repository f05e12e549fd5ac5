//! Keys that decide whether something runs, and how often.
//!
//! A key that its map does not know is ignored, with a warning. One of these would then decide nothing, and more would
//! run than was meant. Misspelt, or in the wrong map, it is an error.

use crate::neighbour::is_slip;

/// Such keys, as one map sees them.
pub(crate) struct Rules {
    /// Its own.
    own: &'static [&'static str],
    /// Those that belong elsewhere, and what to do with them.
    elsewhere: &'static [(&'static str, &'static str)],
}

const AT_THE_JOB: &str = "write it where a workflow uses the job, below the job's name";
const CONDITION: &str =
    "a condition stands in the workflow, around steps, or as `filters` where a workflow uses the job";
const AT_EACH_JOB: &str = "write it at each job of the workflow, below the job's name";
const IN_FILTERS: &str = "`filters` at each job of the workflow takes it";
const IN_TRIGGERS: &str = "write it in `triggers`: `triggers: [{schedule: {cron: …, filters: …}}]`";
const AT_THE_GROUP: &str = "write it where a workflow uses the group, below the group's name";

impl Rules {
    pub const NONE: Self = Self { own: &[], elsewhere: &[] };

    pub const OF_JOB: Self = Self {
        own: &[],
        elsewhere: &[
            ("filters", AT_THE_JOB),
            ("requires", AT_THE_JOB),
            ("context", AT_THE_JOB),
            ("serial-group", AT_THE_JOB),
            ("when", CONDITION),
            ("unless", CONDITION),
        ],
    };

    pub const OF_WORKFLOW: Self = Self {
        own: &["when", "unless", "triggers"],
        elsewhere: &[
            ("filters", AT_EACH_JOB),
            ("requires", AT_EACH_JOB),
            ("context", AT_EACH_JOB),
            ("branches", IN_FILTERS),
            ("tags", IN_FILTERS),
            ("condition", "the condition of a workflow is its `when` or `unless`"),
            ("schedule", IN_TRIGGERS),
            ("cron", IN_TRIGGERS),
        ],
    };

    pub const OF_GROUP: Self = Self {
        own: &[],
        elsewhere: &[
            ("filters", AT_THE_GROUP),
            ("requires", AT_THE_GROUP),
            ("serial-group", AT_THE_GROUP),
            ("context", "write it at each job of the group, below the job's name"),
            ("when", "a condition stands in the workflow, or as `filters` where a workflow uses the group"),
            ("unless", "a condition stands in the workflow, or as `filters` where a workflow uses the group"),
        ],
    };

    pub const OF_MATRIX: Self = Self { own: &["exclude"], elsewhere: &[] };

    /// What was meant by a key that the map does not know, if it was one of these: a code and advice.
    pub fn meant(&self, key: &str) -> Option<(&'static str, String)> {
        if let Some(own) = self.own.iter().find(|own| is_slip(key, own)) {
            return Some(("unknown-key", format!("did you mean `{own}`?")));
        }
        let (name, advice) = self.elsewhere.iter().find(|(name, _)| is_slip(key, name))?;
        let question = if key == *name { String::new() } else { format!("did you mean `{name}`? ") };
        Some(("misplaced-key", format!("{question}{advice}")))
    }
}
