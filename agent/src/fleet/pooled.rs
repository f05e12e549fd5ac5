//! Machines of the processor's pool, for one task: asked for in its name, by its token.

use std::time::Duration;

use async_trait::async_trait;
use navvy_protocol::processor::v1::machines_client::MachinesClient;
use navvy_protocol::processor::v1::take_machine_answer::Answer;
use navvy_protocol::processor::v1::{GiveBackMachineRequest, PooledMachine, TakeMachineRequest};
use navvy_protocol::processor::{CALL_DEADLINE, MAX_MESSAGE};
use navvy_vm::pool::host::this_host;
use navvy_vm::pool::source::{Asked, Given, NotGiven, Source};
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::connection::{Bearer, Session, within};

/// A machine is waited for so long at most, whatever the pool's own patience is.
const LIMIT: Duration = Duration::from_secs(3600);

/// The pool of the processor that a task is of.
#[derive(Debug, Clone)]
pub struct ProcessorPool {
    session: Session,
    /// The agent's state directory.
    state: String,
}

impl ProcessorPool {
    /// Asks in the name of the session's task. `state`: where this agent looks for machines of its host.
    pub fn new(session: Session, state: &std::path::Path) -> Self {
        Self { session, state: state.display().to_string() }
    }

    fn client(&self) -> MachinesClient<InterceptedService<Channel, Bearer>> {
        let Session { processor, bearer } = &self.session;
        MachinesClient::with_interceptor(processor.channel(), bearer.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

#[async_trait]
impl Source for ProcessorPool {
    async fn take(&self, asked: &Asked) -> Result<Given, NotGiven> {
        let no = |why: String| NotGiven::No { why };
        let host = this_host().map_err(|error| no(format!("this host does not say which one it is: {error}")))?;
        let (class, image) = (asked.kind.class.clone(), asked.kind.image.clone());
        let request =
            TakeMachineRequest { class, image, ticket: asked.ticket.clone(), host, state: self.state.clone() };
        match within(LIMIT, self.client().take(request)).await {
            Ok(answered) => read(answered.into_inner().answer),
            // It is of a version that has no pools.
            Err(status) if status.code() == Code::Unimplemented => Err(NotGiven::NoPool),
            Err(status) => {
                // Its answer may have been lost on the way. The job does not wait for this.
                let (pool, ticket) = (self.clone(), asked.ticket.clone());
                tokio::spawn(async move { pool.give_back(&ticket).await });
                Err(no(self.session.processor.explain(&status).to_string()))
            }
        }
    }

    async fn give_back(&self, ticket: &str) {
        let request = GiveBackMachineRequest { ticket: ticket.to_owned() };
        // A machine that cannot be given back goes when its task ends.
        if let Err(status) = within(CALL_DEADLINE, self.client().give_back(request)).await {
            tracing::debug!("A machine was not given back: {}.", self.session.processor.explain(&status));
        }
    }
}

/// What the processor answers is checked before any of it is used.
fn read(answer: Option<Answer>) -> Result<Given, NotGiven> {
    let nonsense = |why: String| NotGiven::No { why: format!("the processor's answer makes no sense: {why}") };
    match answer {
        Some(Answer::Machine(PooledMachine { id, found_by })) => {
            let id = id.parse().map_err(|error: navvy_vm::machine_id::InvalidMachineId| nonsense(error.to_string()))?;
            let way = serde_json::from_slice(&found_by).map_err(|error| nonsense(error.to_string()))?;
            Ok(Given { id, way })
        }
        Some(Answer::No(why)) => Err(NotGiven::No { why: why.chars().filter(|c| !c.is_control()).take(300).collect() }),
        Some(Answer::NoPool(_)) => Err(NotGiven::NoPool),
        None => Err(nonsense("it says neither which machine nor why none".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: &str, found_by: &str) -> Option<Answer> {
        Some(Answer::Machine(PooledMachine { id: id.to_owned(), found_by: found_by.as_bytes().to_vec() }))
    }

    #[test]
    fn an_answer_is_a_machine_or_says_why_there_is_none() {
        let id = "0123456789abcdef0123456789abcdef";
        let given = read(machine(id, r#"{"way": "here", "state": "/s"}"#)).unwrap();
        assert_eq!(given.id.as_str(), id);
        assert_eq!(read(Some(Answer::NoPool(true))).unwrap_err(), NotGiven::NoPool);
        let why = |answer| match read(answer) {
            Err(NotGiven::No { why }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(Some(Answer::No("full\n\u{1b}[31m".to_owned()))), "full[31m");
        for nonsense in [
            None,
            machine("../../etc", r#"{"way": "here", "state": "/s"}"#),
            machine(id, r#"{"way": "there"}"#),
            machine(id, "{"),
            machine("", ""),
        ] {
            assert!(why(nonsense.clone()).contains("makes no sense"), "{nonsense:?}");
        }
    }
}
