//! One machine on its way from nothing to a supervisor that answers, or to its end.
//!
//! ```text
//! pass: look at where it stands ─▶ do one thing ─▶ write it down ─▶ Immediate │ Sleep │ Ready
//!
//! Planned ──provision─▶ Provisioned ──launch─▶ Launched ──it is there─▶ Booting ──it answers─▶ Ready
//!    └───────────────────────┴───────────────────┴──────────────────────┴──▶ a fault: destroyed by its record alone
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
    limits: Limits,
    begun: Instant,
    /// Since when it is there.
    up: Option<Instant>,
}

impl Machine {
    pub fn new(record: Record, instance: Instance, limits: Limits) -> Self {
        Self { record, instance, limits, begun: Instant::now(), up: None }
    }

    /// Reconciles until its supervisor answers.
    pub async fn start(&mut self) -> Result<Contact, Fault> {
        let whole = self.begun + self.limits.start;
        loop {
            let limit = match self.up {
                Some(up) if up + self.limits.answer < whole => up + self.limits.answer,
                _ => whole,
            };
            let pass = tokio::time::timeout_at(limit, self.pass()).await;
            match pass.unwrap_or_else(|_| Err(self.too_late(limit == whole)))? {
                Pass::Immediate => {}
                Pass::Sleep(pause) => tokio::time::sleep_until((Instant::now() + pause).min(limit)).await,
                Pass::Ready(contact) => return Ok(contact),
            }
            if Instant::now() >= limit && self.record.state() != State::Ready {
                return Err(self.too_late(limit == whole));
            }
        }
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
