//! A fake's execs: scripts that are played on threads of their own, whoever follows.

use std::time::Duration;

use navvy_protocol::frame::Stream;
use navvy_protocol::supervisor::{Acknowledged, Exec, ExecStatus, Exit, Exited, Failure, FailureKind, Reply};

use super::script::{Act, exits_by};
use super::{State, Way, World};

const TERM: i32 = 15;
const KILL: i32 = 9;

/// What an exec tells whoever follows it, in order.
#[derive(Debug, Clone)]
pub enum Told {
    Output { offset: u64, bytes: Vec<u8> },
    Exited(Exited),
    Ended { output: u64 },
}

pub const STREAM: Stream = Stream::Stdout;

/// An exec from its start on.
#[derive(Default)]
pub struct FakeExec {
    pub told: Vec<Told>,
    output: u64,
    /// What the supervisor has beside that.
    on_its_way: u64,
    /// With how much grace it was asked to end, each time.
    stops: Vec<Duration>,
    /// How often whoever follows it was cut off.
    pub cuts: usize,
    acknowledged: Option<Acknowledged>,
}

impl FakeExec {
    pub fn has_written(&self, text: &[u8]) -> bool {
        let pieces =
            self.told.iter().filter_map(|told| if let Told::Output { bytes, .. } = told { Some(bytes) } else { None });
        pieces.flatten().copied().collect::<Vec<u8>>().ends_with(text)
    }

    fn exited(&self) -> Option<&Exited> {
        self.told.iter().find_map(|told| if let Told::Exited(exited) = told { Some(exited) } else { None })
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.told.last(), Some(Told::Ended { .. }))
    }

    fn say(&mut self, bytes: Vec<u8>) {
        let offset = self.output;
        self.output += bytes.len() as u64;
        self.told.push(Told::Output { offset, bytes });
    }

    fn exit(&mut self, exited: Exited) {
        self.told.push(Told::Exited(Exited { output: self.output, ..exited }));
    }

    fn end(&mut self) {
        if self.exited().is_none() {
            self.exit(exits_by(Exit::Code(0)));
        }
        self.told.push(Told::Ended { output: self.output });
    }
}

impl World {
    /// Starts an exec and the thread that plays it, unless its script says that it is not started. `line` is told before it
    /// does anything.
    pub fn start(&self, exec: &Exec, line: String) -> Result<(), Failure> {
        let acts = self.change(|state| {
            state.asked.push(line);
            if state.execs.contains_key(&exec.id) {
                return Err(Failure::new(FailureKind::Duplicate, format!("exec {:?} was started before", exec.id)));
            }
            let acts = state.next_script(exec.argv.last().map_or("", String::as_str));
            match acts.first() {
                Some(Act::Refused(failure)) => return Err(failure.clone()),
                _ => state.execs.insert(exec.id.clone(), FakeExec::default()),
            };
            Ok(acts)
        })?;
        let (world, id) = (self.clone(), exec.id.clone());
        std::thread::spawn(move || world.play(&id, acts));
        Ok(())
    }

    /// `None`: nothing runs any more, and nobody is told.
    fn play(&self, id: &str, acts: Vec<Act>) -> Option<()> {
        for act in acts {
            match act {
                Act::Says(bytes) => self.with_exec(id, |exec| exec.say(bytes)),
                Act::SaysOf(text, more) => self.with_exec(id, |exec| {
                    exec.say(text.as_bytes().to_vec());
                    exec.on_its_way = more;
                }),
                Act::Ends(exited) => self.with_exec(id, |exec| exec.exit(exited)),
                Act::UntilStopped => self.run_until(id, TERM, |_| true)?,
                Act::UntilKilled => self.run_until(id, KILL, |grace| grace.is_zero())?,
                Act::Waits(word) => self.wait_for(|state| state.said.contains(&word).then_some(()))?,
                Act::Refused(_) => {}
                Act::HangsUp => self.with_exec(id, |exec| exec.cuts += 1),
                Act::BreaksTheWay => self.change(|state| {
                    state.way = Way::Broken;
                    state.cut();
                }),
                Act::Babbles => self.change(|state| {
                    state.way = Way::Babbles;
                    state.cut();
                }),
                Act::Dies(died) => self.die(died),
            }
        }
        let leaves_some = self.lock().execs[id].exited().is_some_and(|exited| exited.left_running > 0);
        if leaves_some {
            self.wait_for(|state| (!state.execs[id].stops.is_empty()).then_some(()))?;
        }
        self.with_exec(id, FakeExec::end);
        Some(())
    }

    fn run_until(&self, id: &str, signal: i32, ends_it: impl Fn(&Duration) -> bool) -> Option<()> {
        self.wait_for(|state| state.execs[id].stops.iter().any(&ends_it).then_some(()))?;
        self.with_exec(id, |exec| exec.exit(exits_by(Exit::Signal(signal))));
        Some(())
    }

    fn with_exec(&self, id: &str, change: impl FnOnce(&mut FakeExec)) {
        self.change(|state| state.execs.get_mut(id).map(change));
    }

    /// Whoever follows it has everything before `offset`.
    pub fn acknowledge(&self, id: &str, offset: u64, note: Option<String>) {
        self.with_exec(id, |exec| exec.acknowledged = Some(Acknowledged { offset, note }));
    }

    /// Returns once everything of it has ended.
    pub fn stop(&self, id: &str, grace: Duration) -> Result<Reply, Failure> {
        self.change(|state| {
            let exec = state.execs.get_mut(id).ok_or_else(|| no_such_exec(id))?;
            exec.stops.push(grace);
            Ok(())
        })?;
        self.wait_for(|state| state.execs[id].has_ended().then_some(()));
        Ok(Reply::Done)
    }

    pub fn list(&self) -> Reply {
        let execs = &self.lock().execs;
        let status = |(id, exec): (&String, &FakeExec)| {
            let (output, exited) = (exec.output + exec.on_its_way, exec.exited().cloned());
            let acknowledged = exec.acknowledged.clone();
            ExecStatus { id: id.clone(), pid: 1, output, exited, ended: exec.has_ended(), acknowledged }
        };
        Reply::Execs { execs: execs.iter().map(status).collect() }
    }
}

pub fn no_such_exec(id: &str) -> Failure {
    Failure::new(FailureKind::NoSuchExec, format!("there is no exec {id:?}"))
}

impl State {
    fn next_script(&mut self, command: &str) -> Vec<Act> {
        let Some(scripts) = self.scripts.get_mut(command) else { return Vec::new() };
        match scripts.len() {
            0 | 1 => scripts.front().cloned().unwrap_or_default(),
            _ => scripts.pop_front().unwrap_or_default(),
        }
    }
}
