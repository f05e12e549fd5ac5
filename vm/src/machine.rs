//! One machine on its way from nothing to a supervisor that answers, or to its end.
//!
//! ```text
//! pass: look at where it stands ─▶ do one thing ─▶ write it down ─▶ Immediate │ Sleep │ Ready
//!
//! Planned ──provision─▶ Provisioned ──launch─▶ Launched ──it is there─▶ Booting ──it answers─▶ Ready
//!    └───────────────────────┴───────────────────┴──────────────────────┴──▶ a fault: destroyed by its record alone
//!                                                                        │
//!                                              a pool's waits here, and its taker goes on to Ready
//! ```
//!
//! A state is written down before the side effects that it means. A machine starts once: what a process has left between two
//! states is not continued, it is removed, since its secrets were in that process's memory.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Fault;
use crate::provider::{Contact, Instance, Look};
use crate::record::Record;
use crate::state::State;
use crate::taking::Ticket;

/// Between two looks at what is not there yet.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// What comes after one pass.
pub(crate) enum Pass {
    /// The next one, at once.
    Immediate,
    /// The next one, after a while.
    Sleep(Duration),
    /// None: its supervisor answers.
    Ready(Contact),
}

/// Limits of a start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the beginning on.
    pub start: Duration,
    /// From a machine that is there on.
    pub answer: Duration,
}

/// A machine that is being started.
pub(crate) struct Machine {
    pub record: Record,
    pub instance: Instance,
    /// By which it was taken from a pool.
    pub ticket: Option<Ticket>,
    limits: Limits,
    begun: Instant,
    /// Since when it is there.
    up: Option<Instant>,
}

impl Machine {
    pub fn new(record: Record, instance: Instance, limits: Limits) -> Self {
        Self { record, instance, ticket: None, limits, begun: Instant::now(), up: None }
    }

    /// Reconciles until its supervisor answers.
    pub async fn start(&mut self) -> Result<Contact, Fault> {
        loop {
            if let Some(contact) = self.step().await? {
                return Ok(contact);
            }
        }
    }

    /// Reconciles until its guest waits for a seed, which it is not given: for a pool.
    pub async fn start_for_pool(&mut self) -> Result<(), Fault> {
        while self.record.state() < State::Booting {
            self.step().await?;
        }
        let (limit, is_whole) = self.limit();
        let waits = tokio::time::timeout_at(limit, self.instance.wait()).await;
        waits.unwrap_or_else(|_| Err(self.too_late(is_whole)))
    }

    /// When it has to be further than now, and whether that is the limit of the whole start.
    fn limit(&self) -> (Instant, bool) {
        let whole = self.begun + self.limits.start;
        match self.up {
            Some(up) if up + self.limits.answer < whole => (up + self.limits.answer, false),
            _ => (whole, true),
        }
    }

    /// One pass, within its limit.
    async fn step(&mut self) -> Result<Option<Contact>, Fault> {
        let (limit, is_whole) = self.limit();
        let pass = tokio::time::timeout_at(limit, self.pass()).await;
        match pass.unwrap_or_else(|_| Err(self.too_late(is_whole)))? {
            Pass::Immediate => {}
            Pass::Sleep(pause) => tokio::time::sleep_until((Instant::now() + pause).min(limit)).await,
            Pass::Ready(contact) => return Ok(Some(contact)),
        }
        if Instant::now() >= limit { Err(self.too_late(is_whole)) } else { Ok(None) }
    }

    fn too_late(&self, is_whole: bool) -> Fault {
        match is_whole {
            true => Fault::Start { limit: self.limits.start },
            false => Fault::NoAnswer { limit: self.limits.answer, doing: "waiting for its first word" },
        }
    }

    async fn pass(&mut self) -> Result<Pass, Fault> {
        match self.record.state() {
            State::Planned => self.planned().await,
            State::Provisioned => self.provisioned().await,
            State::Launched => self.launched().await,
            State::Booting => self.booting().await,
            State::Ready | State::Stopping | State::Destroying | State::Destroyed => {
                Err(Fault::Unsupported("a machine that was started once is not started again".to_owned()))
            }
        }
    }

    async fn planned(&mut self) -> Result<Pass, Fault> {
        self.record.enter(State::Provisioned).await?;
        self.instance.provision().await?;
        Ok(Pass::Immediate)
    }

    async fn provisioned(&mut self) -> Result<Pass, Fault> {
        self.record.enter(State::Launched).await?;
        self.instance.launch().await?;
        Ok(Pass::Immediate)
    }

    async fn launched(&mut self) -> Result<Pass, Fault> {
        match self.instance.look().await? {
            Look::Up => {
                self.up = Some(Instant::now());
                self.record.enter(State::Booting).await?;
                Ok(Pass::Immediate)
            }
            Look::Absent => Ok(Pass::Sleep(BETWEEN_LOOKS)),
            Look::Ended(fault) => Err(fault),
        }
    }

    async fn booting(&mut self) -> Result<Pass, Fault> {
        match self.instance.connect().await? {
            Some(contact) => {
                self.record.enter(State::Ready).await?;
                Ok(Pass::Ready(contact))
            }
            None => Ok(Pass::Sleep(BETWEEN_LOOKS)),
        }
    }
}
