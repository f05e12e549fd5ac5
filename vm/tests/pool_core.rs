//! The pool's mind in random orders, killed at random moments between and within its effects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use navvy_vm::MachineId;
use navvy_vm::pool::core::{Core, Effect, Event, Wish};
use navvy_vm::pool::record::{Holder, Record, Stage, Why};
use navvy_vm::pool::rules::{Kind, Prescaled, Rules};

fn kind(nth: u8) -> Kind {
    Kind { class: "medium".to_owned(), image: format!("image-{nth}") }
}

fn holder(ticket: u32) -> Holder {
    Holder { ticket: ticket.to_string(), task: format!("task-{ticket}"), owner: None }
}

fn wish(of: u8, ticket: u32) -> Event {
    Event::Take(Wish { kind: kind(of), holder: holder(ticket) })
}

/// A disk, a provider that may fail, and takers: what outlives a pool's process.
#[derive(Default)]
struct World {
    disk: BTreeMap<MachineId, Record>,
    there: BTreeSet<MachineId>,
    /// Asked for by a process that may be dead by now; a provider may still carry it out.
    on_the_way: Vec<Effect>,
    handed: BTreeMap<MachineId, BTreeSet<String>>,
    born: u128,
    now_s: u64,
}

impl World {
    fn say(&mut self, core: &mut Core, event: Event, effects_until_kill: usize) -> bool {
        let mut born = self.born;
        let effects = core.handle(event, self.now_s, &mut || {
            born += 1;
            format!("{born:032x}").parse().unwrap()
        });
        self.born = born;
        let is_killed = effects_until_kill < effects.len();
        effects.into_iter().take(effects_until_kill).for_each(|effect| self.carry_out(effect));
        is_killed
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Write(record) => {
                if let Some(before) = self.disk.insert(record.id.clone(), record.clone()) {
                    assert!(before.may_become(&record.stage), "{before:?} became {record:?}");
                }
            }
            Effect::Erase { id } => {
                assert!(!self.there.contains(&id), "the record of {id} went before the machine");
                self.disk.remove(&id);
            }
            Effect::Hand { ticket, id, .. } => {
                let Stage::Given { to, .. } = &self.disk[&id].stage else { panic!("{id} was handed and not written") };
                assert_eq!(to.ticket, ticket);
                let takers = self.handed.entry(id.clone()).or_default();
                takers.insert(ticket);
                assert_eq!(takers.len(), 1, "{id} was given twice");
            }
            Effect::Make { id, .. } => {
                assert!(self.disk.contains_key(&id), "{id} is made and not written");
                self.on_the_way.push(Effect::Make { id, kind: kind(0) });
            }
            remove @ Effect::Remove { .. } => self.on_the_way.push(remove),
            Effect::Refuse { .. } => {}
        }
    }

    /// The provider carries out one thing; what it answers.
    fn provide(&mut self, nth: usize, fails: bool) -> Option<Event> {
        if self.on_the_way.is_empty() {
            return None;
        }
        let nth = nth % self.on_the_way.len();
        match self.on_the_way.remove(nth) {
            Effect::Make { id, .. } if fails => {
                // Half of what fails has left something behind.
                if id.as_str().ends_with(['1', '3', '5', '7', '9']) {
                    self.there.insert(id.clone());
                }
                Some(Event::NotMade { id, why: "no capacity".to_owned(), is_final: false, wait_s: None })
            }
            Effect::Make { id, .. } => {
                self.there.insert(id.clone());
                Some(Event::Made { id })
            }
            Effect::Remove { id, .. } if fails => Some(Event::NotRemoved { id }),
            Effect::Remove { id, .. } => {
                self.there.remove(&id);
                Some(Event::Removed { id })
            }
            _ => None,
        }
    }

    fn restart(&mut self, rules: &Rules) -> Core {
        // What a dead process has asked for is carried out or lost; nobody waits for the answer.
        for effect in std::mem::take(&mut self.on_the_way) {
            if let Effect::Make { id, .. } = effect
                && id.as_str().ends_with(['0', '2', '5', '8', 'b', 'd'])
            {
                self.there.insert(id);
            }
        }
        Core::restore(rules.clone(), self.disk.values().cloned())
    }

    fn survey(&self, core: &Core) -> Event {
        Event::Survey { asked: core.mark(), present: self.there.clone() }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Take(u8, u32),
    Left(u32),
    GiveBack(u32),
    Provide(usize, bool),
    Survey,
    Pass(u64),
    Die(usize),
    Stranger(u32),
    NotHanded(usize),
}

fn acts() -> impl Strategy<Value = Vec<(Act, Option<usize>)>> {
    let act = prop_oneof![
        4 => (0..3u8, 0..40u32).prop_map(|(kind, ticket)| Act::Take(kind, ticket)),
        1 => (0..40u32).prop_map(Act::Left),
        3 => (0..40u32).prop_map(Act::GiveBack),
        8 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(nth, fails)| Act::Provide(nth, fails)),
        2 => Just(Act::Survey),
        3 => (1..2000u64).prop_map(Act::Pass),
        1 => any::<usize>().prop_map(Act::Die),
        1 => (0..100u32).prop_map(Act::Stranger),
        1 => any::<usize>().prop_map(Act::NotHanded),
    ];
    // One in eight is cut short by a SIGKILL, after so many of its effects.
    prop::collection::vec((act, prop::option::weighted(0.12, 0..5usize)), 1..120)
}

fn rules() -> Rules {
    Rules {
        prescaled: vec![Prescaled { kind: kind(0), schedule: None, count: 2 }],
        quota: 6,
        quotas: [(kind(1), 2)].into(),
        at_once: 3,
        ..Rules::default()
    }
}

fn event_of(world: &mut World, core: &Core, act: &Act) -> Option<Event> {
    Some(match act {
        Act::Take(of, ticket) => wish(*of, *ticket),
        Act::Left(ticket) => Event::Left { ticket: ticket.to_string() },
        Act::GiveBack(ticket) => Event::GivenBack { ticket: ticket.to_string() },
        Act::Provide(nth, fails) => return world.provide(*nth, *fails),
        Act::Survey => world.survey(core),
        Act::Pass(seconds) => {
            world.now_s += seconds;
            Event::Tick
        }
        Act::Die(nth) => {
            let count = world.there.len();
            let id = world.there.iter().nth(nth.checked_rem(count)?).cloned()?;
            world.there.remove(&id);
            return None;
        }
        Act::NotHanded(nth) => {
            let count = world.handed.len();
            Event::NotHanded { id: world.handed.keys().nth(nth.checked_rem(count)?).cloned()? }
        }
        Act::Stranger(nth) => {
            world.there.insert(format!("f{nth:031x}").parse().unwrap());
            return None;
        }
    })
}

/// Everybody goes home: what is left in the end?
fn wind_up(world: &mut World, core: &mut Core) {
    let tickets: Vec<_> = (0..40).map(|ticket: u32| Event::GivenBack { ticket: ticket.to_string() }).collect();
    world.say(core, Event::Empty, usize::MAX);
    for event in tickets {
        world.say(core, event, usize::MAX);
    }
    for _ in 0..40 {
        world.now_s += 400;
        let survey = world.survey(core);
        world.say(core, survey, usize::MAX);
        while let Some(event) = world.provide(0, false) {
            world.say(core, event, usize::MAX);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_machine_is_given_twice_and_none_is_lost(acts in acts()) {
        let rules = rules();
        let mut world = World { now_s: 1_000_000, ..World::default() };
        let mut core = world.restart(&rules);
        for (act, kill) in &acts {
            let Some(event) = event_of(&mut world, &core, act) else { continue };
            if world.say(&mut core, event, kill.unwrap_or(usize::MAX)) || kill.is_some() {
                core = world.restart(&rules);
            }
            let strangers = |record: &&Record| record.kind.image.is_empty();
            let own = core.records().filter(|record| !strangers(record)).count();
            prop_assert!(own <= 6, "{own} machines, and the quota is 6");
            for id in world.there.iter().filter(|id| !id.as_str().starts_with('f')) {
                let by_a_dead_one = world.on_the_way.iter().any(|effect| matches!(effect, Effect::Make { id: of, .. } if of == id));
                prop_assert!(world.disk.contains_key(id) || by_a_dead_one, "{id} is there, and no record says so");
            }
        }
        wind_up(&mut world, &mut core);
        prop_assert!(world.there.is_empty() && world.disk.is_empty(), "left: {:?} {:?}", world.there, world.disk);
        prop_assert!(core.is_empty());
    }
}

struct Bench {
    world: World,
    core: Core,
}

impl Bench {
    fn new(rules: &Rules) -> Self {
        let mut world = World { now_s: 1_000_000, ..World::default() };
        let core = world.restart(rules);
        let mut bench = Self { world, core };
        bench.survey();
        bench
    }

    fn say(&mut self, event: Event) {
        self.world.say(&mut self.core, event, usize::MAX);
    }

    fn survey(&mut self) {
        let survey = self.world.survey(&self.core);
        self.say(survey);
    }

    fn settle(&mut self) {
        while let Some(event) = self.world.provide(0, false) {
            self.say(event);
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.world.now_s += seconds;
        self.say(Event::Tick);
        self.settle();
    }

    fn warm(&self, of: u8) -> u32 {
        self.core.counts(self.world.now_s).get(&kind(of)).map_or(0, |counts| counts.warm)
    }
}

#[test]
fn one_wish_makes_two_machines_and_the_surplus_goes_after_a_while() {
    let mut bench = Bench::new(&Rules::default());
    bench.say(wish(1, 1));
    bench.settle();
    assert_eq!((bench.world.handed.len(), bench.warm(1)), (1, 1));
    bench.pass(300);
    bench.pass(299);
    assert_eq!(bench.warm(1), 1);
    bench.pass(400);
    assert_eq!(bench.warm(1), 0);
}

#[test]
fn whoever_asks_again_by_the_same_ticket_gets_the_same_machine() {
    let mut bench = Bench::new(&Rules::default());
    bench.say(wish(1, 1));
    bench.settle();
    bench.core = bench.world.restart(&Rules::default());
    bench.say(wish(1, 1));
    assert_eq!(bench.world.handed.len(), 1);
    bench.survey();
    bench.say(wish(1, 2));
    bench.settle();
    assert_eq!(bench.world.handed.len(), 2);
}

#[test]
fn nothing_is_handed_out_after_a_restart_before_it_was_seen() {
    let mut bench = Bench::new(&rules());
    bench.settle();
    assert_eq!(bench.warm(0), 2);
    bench.core = bench.world.restart(&rules());
    // One of the two has died meanwhile.
    let gone = bench.world.there.pop_first().unwrap();
    bench.say(wish(0, 7));
    assert!(bench.world.handed.is_empty());
    bench.survey();
    assert!(!bench.world.handed.contains_key(&gone) && bench.world.handed.len() == 1);
}

#[test]
fn machines_are_recycled_one_by_one_and_none_grows_older_than_it_may() {
    let day = Rules::default().recycle_after.as_secs();
    let mut bench = Bench::new(&rules());
    bench.settle();
    let before = bench.world.there.clone();
    bench.world.now_s += day;
    bench.say(Event::Tick);
    assert_eq!(bench.warm(0), 1, "one goes, the other one stays until a new one is there");
    bench.settle();
    bench.pass(1);
    assert!(bench.world.there.is_disjoint(&before) && bench.warm(0) == 2);
    bench.say(wish(0, 1));
    bench.settle();
    let given = bench.world.handed.keys().next().unwrap().clone();
    bench.pass(Rules::default().oldest.as_secs());
    assert!(!bench.world.there.contains(&given));
}

#[test]
fn who_waits_is_told_why_there_is_none() {
    let rules = Rules { quota: 1, patience: Duration::from_secs(60), ..Rules::default() };
    let mut bench = Bench::new(&rules);
    let say = |bench: &mut Bench, event| {
        let (core, now) = (&mut bench.core, bench.world.now_s);
        let effects = core.handle(event, now, &mut MachineId::random);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Refuse { why, .. } => Some(why),
            _ => None,
        })
    };
    bench.say(wish(1, 1));
    bench.settle();
    assert_eq!(say(&mut bench, wish(1, 2)), None);
    bench.world.now_s += 60;
    let why = say(&mut bench, Event::Tick).unwrap();
    assert!(why.contains("within 60 s") && why.contains("quota"), "{why}");
    bench.say(Event::GivenBack { ticket: "1".to_owned() });
    bench.settle();
    bench.say(wish(1, 3));
    let Some(Effect::Make { id, .. }) = bench.world.on_the_way.first().cloned() else { panic!("nothing is made") };
    let failed = Event::NotMade { id, why: "no such image".to_owned(), is_final: true, wait_s: None };
    assert_eq!(say(&mut bench, failed).unwrap(), "no such image");
}

#[test]
fn a_kind_that_nobody_waits_for_makes_room_for_one_that_is_waited_for() {
    let prescaled = vec![Prescaled { kind: kind(0), schedule: None, count: 2 }];
    let mut bench = Bench::new(&Rules { quota: 2, prescaled, ..Rules::default() });
    bench.settle();
    bench.say(wish(1, 1));
    bench.settle();
    assert_eq!(bench.world.handed.len(), 1);
}

#[test]
fn a_taker_that_died_leaves_nothing() {
    let mut bench = Bench::new(&Rules::default());
    bench.say(wish(1, 1));
    bench.settle();
    let id = bench.world.handed.keys().next().unwrap().clone();
    bench.say(Event::HolderGone { id: id.clone() });
    let removal = Effect::Remove { id: id.clone(), why: Why::HolderGone };
    assert!(bench.world.on_the_way.contains(&removal));
    bench.settle();
    assert!(!bench.world.disk.contains_key(&id));
}
