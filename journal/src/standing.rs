//! Who looks after a task, as its objects tell (pure).
//!
//! ```text
//!                mark (beside the run directory)      container's name
//! running        OWNER                                navvy-TASK-ROLE
//! kept           kept/UNIXTIME/OWNER                  navvy-TASK-kept-UNIXTIME-ROLE
//! adoptable      adoptable/UNIXTIME/OWNER             navvy-TASK-kept-UNIXTIME-ROLE
//! ```
//!
//! Labels of a container cannot change, so its name says whether it has been held since.

use navvy_job::id::TaskId;

use super::owner::Owner;

/// Seconds for which a task that another user held stays beyond its time: that user may be inside.
const STRANGERS_WAIT: u64 = 3600;

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The owner looks after the task.
    Running(Owner),
    /// Until then (seconds since 1970); the owner is who left it.
    Kept(u64, Owner),
    /// The same, for a successor to take over until then.
    Adoptable(u64, Owner),
}

impl Mark {
    /// The text that the mark's link holds.
    pub fn to_text(&self) -> String {
        match self {
            Self::Running(owner) => owner.to_label(),
            Self::Kept(until, owner) => format!("kept/{until}/{}", owner.to_label()),
            Self::Adoptable(until, owner) => format!("adoptable/{until}/{}", owner.to_label()),
        }
    }

    /// Reads [`Self::to_text`]; `None` for any other text.
    pub fn from_text(text: &str) -> Option<Self> {
        let held = |rest: &str| {
            let (until, owner) = rest.split_once('/')?;
            Some((until.parse().ok()?, Owner::from_label(owner)?))
        };
        match (text.strip_prefix("kept/").and_then(held), text.strip_prefix("adoptable/").and_then(held)) {
            (Some((until, owner)), _) => Some(Self::Kept(until, owner)),
            (_, Some((until, owner))) => Some(Self::Adoptable(until, owner)),
            _ => Owner::from_label(text).map(Self::Running),
        }
    }

    /// The owner, or the process that left the task.
    pub fn owner(&self) -> &Owner {
        match self {
            Self::Running(owner) | Self::Kept(_, owner) | Self::Adoptable(_, owner) => owner,
        }
    }
}

/// What a container's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameSays {
    /// The name is the one that it was made with: its label names the owner.
    Nothing,
    /// The container was renamed: it is held until then (seconds since 1970).
    KeptUntil(u64),
}

impl NameSays {
    /// The name that says this. `role` is `primary` or `service-K`.
    pub fn name(&self, task: &TaskId, role: &str) -> String {
        match self {
            Self::Nothing => format!("navvy-{task}-{role}"),
            Self::KeptUntil(until) => format!("navvy-{task}-kept-{until}-{role}"),
        }
    }

    /// What a name says, and the role in it. `None`: the name is not one of ours.
    pub fn parse<'a>(task: &TaskId, name: &'a str) -> Option<(Self, &'a str)> {
        let rest = name.strip_prefix("navvy-")?.strip_prefix(task.as_str())?.strip_prefix('-')?;
        if let Some((until, role)) = rest.strip_prefix("kept-").and_then(|held| held.split_once('-')) {
            return Some((Self::KeptUntil(until.parse().ok()?), role));
        }
        Some((Self::Nothing, rest))
    }
}

/// Everything that is known of who looks after a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// `Some(None)` is a mark that this version cannot read.
    pub mark: Option<Option<Mark>>,
    /// One for each container of the task.
    pub names: Vec<NameSays>,
    /// Owners by labels of containers and volumes. `None` is a label that this version cannot read.
    pub labels: Vec<Option<Owner>>,
    /// What the journal says.
    pub journal: Option<Mark>,
    /// A process holds the journal's lock.
    pub is_held: bool,
    /// A person is in the environment.
    pub is_visited: bool,
    /// Its primary container runs.
    pub is_alive: bool,
    /// Its labels say that another agent may go on with it.
    pub is_adoptable: bool,
    /// There may be more that could not be read.
    pub is_unread: bool,
}

/// How a task stands, as a reaper judges it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Its owner lives.
    Running(Owner),
    /// A person holds it until then, seconds since 1970.
    Kept(u64),
    /// A successor may take it over until then, seconds since 1970.
    Adoptable(u64),
    /// It has no owner any more: a reaper removes it.
    Dead,
    /// It belongs to another machine, or cannot be understood: it is never touched.
    Foreign,
}

impl Evidence {
    /// Who holds the journal, as far as it is written down.
    fn holder(&self, here: &Owner) -> Owner {
        let written = self.journal.iter().chain(self.mark.iter().flatten()).map(Mark::owner);
        written.into_iter().find(|owner| !owner.is_dead(here)).unwrap_or(here).clone()
    }

    /// Judges; `now` is in seconds since 1970. Any sign of life spares the task; labels, which cannot change, count only
    /// where nothing newer exists.
    pub fn judge(&self, here: &Owner, now: u64) -> Condition {
        let foreign_mark = self.mark.as_ref().is_some_and(Option::is_none);
        let foreign = |owner: &Option<Owner>| owner.as_ref().is_none_or(|owner| owner.machine != here.machine);
        if self.is_unread || foreign_mark || self.labels.iter().any(foreign) {
            return Condition::Foreign;
        }
        let marks = || self.mark.iter().flatten().chain(&self.journal);
        let names = || self.names.iter().filter(|says| **says != NameSays::Nothing);
        if marks().any(|mark| mark.owner().machine != here.machine) {
            return Condition::Foreign;
        }
        let mut by_mark = marks().filter_map(|mark| if let Mark::Running(owner) = mark { Some(owner) } else { None });
        let by_label = self.labels.iter().flatten().filter(|_| marks().next().is_none() && names().next().is_none());
        // Marks are this user's own; labels may be anyone's.
        let lives = by_mark.find(|owner| !owner.is_dead(here));
        let lives = lives.or_else(|| by_label.into_iter().find(|owner| !owner.is_dead_of_anyone(here)));
        if let Some(owner) = lives {
            return Condition::Running(owner.clone());
        }
        let adoptable = marks().filter_map(|mark| if let Mark::Adoptable(t, _) = mark { Some(*t) } else { None }).max();
        let kept = marks()
            .filter_map(|mark| if let Mark::Kept(until, _) = mark { Some(*until) } else { None })
            .chain(names().filter_map(|says| if let NameSays::KeptUntil(until) = says { Some(*until) } else { None }))
            .max();
        // Whether a person is inside is seen in their own files alone; without one it ends by itself.
        let wait = if self.is_alive && marks().next().is_none() { STRANGERS_WAIT } else { 0 };
        match (adoptable, kept) {
            // A process is at work on it: it continues the task, or is just taking it over.
            _ if self.is_held => Condition::Running(self.holder(here)),
            (Some(until), _) if until > now => Condition::Adoptable(until),
            // No person is thrown out: a held task stays until the last person has left.
            (_, Some(until)) if until.saturating_add(wait) > now || self.is_visited => Condition::Kept(until),
            // Whether an agent goes on with it is seen in that user's files alone; without one it ends by itself.
            _ if self.is_adoptable && self.is_alive && marks().next().is_none() => {
                Condition::Adoptable(now.saturating_add(STRANGERS_WAIT))
            }
            _ => Condition::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Owner {
        Owner::this_process().unwrap()
    }

    fn dead() -> Owner {
        Owner { start_time: 0, ..here() }
    }

    fn task() -> TaskId {
        "0123456789abcdef".parse().unwrap()
    }

    #[test]
    fn marks_round_trip() {
        for mark in [Mark::Running(here()), Mark::Kept(7, here()), Mark::Adoptable(8, here())] {
            assert_eq!(Mark::from_text(&mark.to_text()), Some(mark));
        }
        assert_eq!(Mark::from_text("kept/soon/a/b/1/2/3"), None);
    }

    #[test]
    fn names_round_trip() {
        for says in [NameSays::Nothing, NameSays::KeptUntil(12)] {
            for role in ["primary", "service-0", "service-12"] {
                let name = says.name(&task(), role);
                assert_eq!(NameSays::parse(&task(), &name), Some((says.clone(), role)), "{name}");
            }
        }
        assert_eq!(NameSays::parse(&task(), "navvy-other-primary"), None);
        assert_eq!(NameSays::Nothing.name(&task(), "primary"), task().primary_name());
        assert_eq!(NameSays::Nothing.name(&task(), "service-3"), task().service_name(3));
    }

    #[test]
    fn only_what_is_certainly_nobodys_is_dead() {
        let labelled = |owner: Owner| Evidence { labels: vec![Some(owner)], ..Evidence::default() };
        let elsewhere = Owner { machine: "elsewhere".into(), ..dead() };
        let other_namespace = Owner { pid_namespace: 1, ..dead() };
        assert_eq!(labelled(dead()).judge(&here(), 0), Condition::Dead);
        assert_eq!(labelled(Owner { boot: "earlier".into(), ..here() }).judge(&here(), 0), Condition::Dead);
        assert_eq!(labelled(here()).judge(&here(), 0), Condition::Running(here()));
        assert_eq!(labelled(elsewhere.clone()).judge(&here(), 0), Condition::Foreign);
        assert_eq!(labelled(other_namespace.clone()).judge(&here(), 0), Condition::Running(other_namespace));
        let unreadable = Evidence { labels: vec![None], ..Evidence::default() };
        assert_eq!(unreadable.judge(&here(), 0), Condition::Foreign);
        let mixed = Evidence { mark: Some(Some(Mark::Running(dead()))), ..labelled(elsewhere) };
        assert_eq!(mixed.judge(&here(), 0), Condition::Foreign);
        let later_version = Evidence { mark: Some(None), ..labelled(dead()) };
        assert_eq!(later_version.judge(&here(), 0), Condition::Foreign);
        let unread = Evidence { is_unread: true, ..labelled(dead()) };
        assert_eq!(unread.judge(&here(), 0), Condition::Foreign);
    }

    #[test]
    fn what_is_kept_is_spared_until_its_time_whoever_says_so() {
        let label = vec![Some(dead())];
        let by_name = Evidence {
            names: vec![NameSays::Nothing, NameSays::KeptUntil(10)],
            labels: label.clone(),
            ..Evidence::default()
        };
        let by_mark =
            Evidence { mark: Some(Some(Mark::Kept(10, dead()))), labels: label.clone(), ..Evidence::default() };
        let by_journal = Evidence { journal: Some(Mark::Kept(10, dead())), labels: label, ..Evidence::default() };
        let strangers = Evidence { is_alive: true, ..by_name.clone() };
        assert_eq!(strangers.judge(&here(), 10 + STRANGERS_WAIT - 1), Condition::Kept(10));
        assert_eq!(strangers.judge(&here(), 10 + STRANGERS_WAIT), Condition::Dead);
        let ours = Evidence { is_alive: true, ..by_mark.clone() };
        for evidence in [by_name, by_mark, by_journal, ours] {
            assert_eq!(evidence.judge(&here(), 9), Condition::Kept(10));
            assert_eq!(evidence.judge(&here(), 10), Condition::Dead);
        }
        let adoptable = Evidence { mark: Some(Some(Mark::Adoptable(10, dead()))), ..Evidence::default() };
        assert_eq!(adoptable.judge(&here(), 9), Condition::Adoptable(10));
    }

    #[test]
    fn what_another_users_agent_may_go_on_with_is_spared_as_long_as_it_runs() {
        let labels = vec![Some(dead())];
        let strangers = Evidence { labels, is_alive: true, is_adoptable: true, ..Evidence::default() };
        assert!(matches!(strangers.judge(&here(), 9), Condition::Adoptable(until) if until > 9));
        let ended = Evidence { is_alive: false, ..strangers.clone() };
        let plain = Evidence { is_adoptable: false, ..strangers.clone() };
        let ours = Evidence { mark: Some(Some(Mark::Running(dead()))), ..strangers.clone() };
        let over = Evidence { mark: Some(Some(Mark::Adoptable(9, dead()))), ..strangers };
        for evidence in [ended, plain, ours, over] {
            assert_eq!(evidence.judge(&here(), 9), Condition::Dead);
        }
    }

    #[test]
    fn a_new_owner_counts_and_the_label_of_the_old_one_no_more() {
        let evidence = |mark: Mark, label: Owner| Evidence {
            mark: Some(Some(mark)),
            labels: vec![Some(label)],
            ..Evidence::default()
        };
        assert_eq!(evidence(Mark::Running(here()), dead()).judge(&here(), 0), Condition::Running(here()));
        assert_eq!(evidence(Mark::Running(dead()), here()).judge(&here(), 0), Condition::Dead);
        let visited = Evidence { is_visited: true, ..evidence(Mark::Kept(1, dead()), dead()) };
        assert_eq!(visited.judge(&here(), 5), Condition::Kept(1));
        let taken = Evidence { is_held: true, ..evidence(Mark::Kept(1, dead()), dead()) };
        assert_eq!(taken.judge(&here(), 5), Condition::Running(here()));
    }
}
