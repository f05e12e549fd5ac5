//! Navvy's nouns.
//!
//! Data and its invariants, nothing else: no clock, no file system, no log, no runtime.
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`] | task ids; every name of an object on a host derives from one |
//! | [`pipeline`] | what `config` compiles to: pipeline, workflow, its jobs |
//! | [`walk`] | a run of workflows: what starts, what is asked, how each job ends (pure) |
//! | [`selection`] | which workflows and jobs of a pipeline take part (pure) |
//! | [`compiled`] | one compiled job: executor, environment, steps |
//! | [`executor`] | the kinds of what jobs run in: what an agent has, and what a job needs |
//! | [`workflow`] | which jobs may start, given what ended (pure) |
//! | [`upstream`] | which jobs a job comes after: whose workspace layers it sees (pure) |
//! | [`state`] | task and step states with their tables of legal moves |
//! | [`outcome`] | how steps, tasks and jobs end |
//! | [`resource`] | resource classes: named sizes of a task |
//! | [`reservation`] | what a fleet's host keeps for coordination, and what it leaves for tasks (pure) |
//! | [`claim`] | the serialised value by which an agent gets work |
//! | [`scheduled`] | what an agent and the task driver that starts it tell each other |
//! | [`chain`] | an error with its causes, and what is wrong with a value, on one line |
//! | [`figures`] | times and sizes for people |
//! | [`event`] | what happens during a run, as values |
//! | [`exit_code`] | the exit codes of `navvy run`, a public promise |

#![warn(missing_docs)]

pub mod chain;
pub mod claim;
pub mod compiled;
pub mod event;
pub mod executor;
pub mod exit_code;
pub mod figures;
pub mod id;
#[cfg(test)]
mod made;
pub mod outcome;
pub mod pipeline;
pub mod reservation;
pub mod resource;
pub mod scheduled;
pub mod selection;
pub mod state;
pub mod upstream;
pub mod walk;
pub mod workflow;
