//! Machines of the processor's pool, for one task: asked for in its name, by its token.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// The pool of this host, if there is one: it is asked where the processor's is of no use here.
    otherwise: Option<Arc<dyn Source>>,
    is_of_no_use: Arc<AtomicBool>,
}

impl ProcessorPool {
    /// Asks in the name of the session's task. `state`: where this agent looks for machines of its host; `otherwise`: the pool that
    /// is asked where the processor's machines are on another host.
    pub fn new(session: Session, state: &Path, otherwise: Option<Arc<dyn Source>>) -> Self {
        Self { session, state: state.display().to_string(), otherwise, is_of_no_use: Arc::default() }
    }

    /// What is asked in place of the processor, once that has said that its pool is of no use here.
    fn other(&self) -> Option<&Arc<dyn Source>> {
        self.otherwise.as_ref().filter(|_| self.is_of_no_use.load(Ordering::Relaxed))
    }

    async fn ask_processor(&self, asked: &Asked) -> Result<Given, NotGiven> {
        let no = |why: String| NotGiven::No { why };
        let host = this_host().map_err(|error| no(format!("this host does not say which one it is: {error}")))?;
        let (class, image) = (asked.kind.class.clone(), asked.kind.image.clone());
        let (ticket, state) = (asked.ticket.clone(), self.state.clone());
        let request = TakeMachineRequest { class, image, ticket, host, state, lent: asked.is_lent };
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
        if let Some(other) = self.other() {
            return other.take(asked).await;
        }
        let answer = self.ask_processor(asked).await;
        if !matches!(answer, Err(NotGiven::NoPool)) {
            return answer;
        }
        self.is_of_no_use.store(true, Ordering::Relaxed);
        match self.other() {
            Some(other) => other.take(asked).await,
            None => Err(NotGiven::NoPool),
        }
    }

    fn is_there(&self) -> bool {
        match self.is_of_no_use.load(Ordering::Relaxed) {
            true => self.otherwise.as_ref().is_some_and(|other| other.is_there()),
            false => true,
        }
    }

    async fn give_back(&self, ticket: &str) {
        if let Some(other) = self.other() {
            return other.give_back(ticket).await;
        }
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
    use std::sync::Mutex;

    use navvy_protocol::processor::v1::machines_server::{Machines, MachinesServer};
    use navvy_protocol::processor::v1::{Done, TakeMachineAnswer};
    use navvy_vm::pool::rules::Kind;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;
    use crate::fleet::connection::{Address, Processor};

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn machine(id: &str, found_by: &str) -> Option<Answer> {
        Some(Answer::Machine(PooledMachine { id: id.to_owned(), found_by: found_by.as_bytes().to_vec() }))
    }

    /// A processor that answers as it is told, and keeps what it heard.
    #[derive(Debug, Default)]
    struct Told {
        answer: Mutex<Option<Result<Option<Answer>, Status>>>,
        heard: Mutex<Vec<String>>,
    }

    #[tonic::async_trait]
    impl Machines for Told {
        async fn take(&self, request: Request<TakeMachineRequest>) -> Result<Response<TakeMachineAnswer>, Status> {
            assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer hunter2");
            let asked = request.into_inner();
            let TakeMachineRequest { class, image, ticket, host, state, lent: _ } = asked;
            assert_eq!(host, this_host().unwrap());
            self.heard.lock().unwrap().push(format!("take {class} {image} {ticket} {state}"));
            let answer = self.answer.lock().unwrap().clone().unwrap()?;
            Ok(Response::new(TakeMachineAnswer { answer }))
        }

        async fn give_back(&self, request: Request<GiveBackMachineRequest>) -> Result<Response<Done>, Status> {
            self.heard.lock().unwrap().push(format!("give back {}", request.into_inner().ticket));
            Ok(Response::new(Done {}))
        }
    }

    /// The pool of this host: it has nothing, and keeps what it heard.
    #[async_trait]
    impl Source for Told {
        async fn take(&self, asked: &Asked) -> Result<Given, NotGiven> {
            self.heard.lock().unwrap().push(format!("take {}", asked.ticket));
            Err(NotGiven::No { why: "this host's has none".to_owned() })
        }

        async fn give_back(&self, ticket: &str) {
            self.heard.lock().unwrap().push(format!("give back {ticket}"));
        }
    }

    async fn pool(otherwise: Option<Arc<dyn Source>>) -> (ProcessorPool, Arc<Told>) {
        let (told, listener) = (Arc::new(Told::default()), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(MachinesServer::from_arc(Arc::clone(&told)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let processor = Processor::new(&Address { url, ..Address::default() }).unwrap();
        let session = Session { processor, bearer: Bearer::new("hunter2").unwrap() };
        (ProcessorPool::new(session, Path::new("/s"), otherwise), told)
    }

    fn asked(ticket: &str) -> Asked {
        let kind = Kind { class: "medium".to_owned(), image: "i".to_owned() };
        Asked { kind, ticket: ticket.to_owned(), task: "0123456789abcdef".parse().unwrap(), is_lent: false }
    }

    #[tokio::test]
    async fn the_processor_is_asked_by_the_task_s_token_and_a_lost_answer_is_given_back() {
        let (pool, told) = pool(None).await;
        let answers = |answer| *told.answer.lock().unwrap() = Some(answer);
        answers(Ok(machine(ID, r#"{"way": "here", "state": "/s"}"#)));
        assert_eq!(pool.take(&asked("one")).await.unwrap().id.as_str(), ID);
        answers(Err(Status::unavailable("it ends")));
        let error = pool.take(&asked("two")).await.unwrap_err();
        assert!(matches!(&error, NotGiven::No { why } if why.contains("it ends")), "{error}");
        let given_back = async {
            while told.heard.lock().unwrap().len() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), given_back).await.unwrap();
        let expected = ["take medium i one /s", "take medium i two /s", "give back two"];
        assert_eq!(*told.heard.lock().unwrap(), expected);
        // A version that has no pools.
        answers(Err(Status::unimplemented("")));
        assert_eq!(pool.take(&asked("three")).await.unwrap_err(), NotGiven::NoPool);
        assert!(!pool.is_there());
    }

    #[tokio::test]
    async fn where_the_processor_s_pool_is_of_no_use_this_host_s_is_asked_from_then_on() {
        let own = Arc::new(Told::default());
        let (pool, told) = pool(Some(Arc::clone(&own) as Arc<dyn Source>)).await;
        *told.answer.lock().unwrap() = Some(Ok(Some(Answer::NoPool(true))));
        for ticket in ["one", "two"] {
            let error = pool.take(&asked(ticket)).await.unwrap_err();
            assert!(error.to_string().contains("this host's has none"), "{error}");
            pool.give_back(ticket).await;
        }
        assert_eq!(*told.heard.lock().unwrap(), ["take medium i one /s"]);
        assert_eq!(*own.heard.lock().unwrap(), ["take one", "give back one", "take two", "give back two"]);
        assert!(pool.is_there());
    }

    #[test]
    fn an_answer_is_a_machine_or_says_why_there_is_none() {
        let given = read(machine(ID, r#"{"way": "here", "state": "/s"}"#)).unwrap();
        assert_eq!(given.id.as_str(), ID);
        assert_eq!(read(Some(Answer::NoPool(true))).unwrap_err(), NotGiven::NoPool);
        let why = |answer| match read(answer) {
            Err(NotGiven::No { why }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(Some(Answer::No("full\n\u{1b}[31m".to_owned()))), "full[31m");
        for nonsense in [
            None,
            machine("../../etc", r#"{"way": "here", "state": "/s"}"#),
            machine(ID, r#"{"way": "there"}"#),
            machine(ID, "{"),
            machine("", ""),
        ] {
            assert!(why(nonsense.clone()).contains("makes no sense"), "{nonsense:?}");
        }
    }
}
