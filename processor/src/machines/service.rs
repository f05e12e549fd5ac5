//! The service `Machines`: a task takes machines of the pool for itself alone, and gives them back.

use navvy_job::chain::chain;
use navvy_job::claim::Claim;
use navvy_protocol::processor::{MAX_MESSAGE, v1};
use navvy_vm::pool::core::Wish;
use navvy_vm::pool::keeper::{Handed, Pool};
use navvy_vm::pool::rules::Kind;
use serde_json::json;
use sqlx::Row as _;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use v1::take_machine_answer::Answer as Taken;

use super::takers::{Whose, class_of, image_of, most_of};
use super::{Here, Machines, Reach, holders};
use crate::audit::Entry;
use crate::auth::{self, TaskAccess};
use crate::conduct::from_json;
use crate::state::State;

/// Bytes of a name that an agent sends.
const NAME: usize = 200;
/// Bytes of a path.
const PATH: usize = 4096;

type Answer<T> = Result<Response<T>, Status>;

/// The service.
pub struct MachinesService {
    state: State,
    machines: Option<Machines>,
    stopped: watch::Receiver<bool>,
}

/// A call that waits; dropped, it does so no more.
struct Turn<'a> {
    machines: &'a Machines,
    whose: Whose,
    ticket: String,
}

/// Who has a task, and what its job is.
struct Row {
    claim: Claim,
    agent: String,
}

impl MachinesService {
    /// `machines`: the pool of this processor, if it has one. Calls that wait are ended once `stopped` says so.
    pub fn new(state: State, machines: Option<Machines>, stopped: watch::Receiver<bool>) -> Self {
        Self { state, machines, stopped }
    }

    /// For a server.
    pub fn into_server(self) -> v1::machines_server::MachinesServer<Self> {
        let server = v1::machines_server::MachinesServer::new(self);
        server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }
}

#[tonic::async_trait]
impl v1::machines_server::Machines for MachinesService {
    async fn take(&self, request: Request<v1::TakeMachineRequest>) -> Answer<v1::TakeMachineAnswer> {
        let access = auth::task(&self.state, request.metadata()).await?;
        let asked = request.into_inner();
        for (what, name) in [("class", &asked.class), ("image", &asked.image), ("ticket", &asked.ticket)] {
            check(what, name, NAME)?;
        }
        check("host", &asked.host, NAME)?;
        check("state", &asked.state, PATH)?;
        let taken = match &self.machines {
            Some(machines) => self.take_from(machines, &access, asked).await?,
            None => Taken::NoPool(true),
        };
        Ok(Response::new(v1::TakeMachineAnswer { answer: Some(taken) }))
    }

    async fn give_back(&self, request: Request<v1::GiveBackMachineRequest>) -> Answer<v1::Done> {
        let access = auth::task(&self.state, request.metadata()).await?;
        let asked = request.into_inner();
        check("ticket", &asked.ticket, NAME)?;
        let Some(machines) = &self.machines else { return Ok(Response::new(v1::Done {})) };
        let pool = machines.pool().map_err(away)?;
        pool.give_back(&holders::holder(&access, &asked.ticket).ticket).await;
        Ok(Response::new(v1::Done {}))
    }
}

impl MachinesService {
    async fn take_from(
        &self,
        machines: &Machines,
        access: &TaskAccess,
        asked: v1::TakeMachineRequest,
    ) -> Result<Taken, Status> {
        match &machines.0.parts.reach {
            Reach::Host(here) if asked.lent || here.host != asked.host => return Ok(Taken::NoPool(true)),
            Reach::Host(here) if here.state.as_os_str() != asked.state.as_str() => {
                return Ok(Taken::No(other_state(here)));
            }
            Reach::Lent(_) if !asked.lent => return Ok(Taken::NoPool(true)),
            Reach::Host(_) | Reach::Lent(_) => {}
        }
        let row = self.row(access).await?;
        let class = class_of(&row.claim);
        if asked.class != class {
            let asked = &asked.class;
            return Err(Status::invalid_argument(format!(
                "class: this task's machine is of class {class}, not {asked}"
            )));
        }
        let kind = Kind { class: asked.class.clone(), image: asked.image.clone() };
        let kind = match &machines.0.parts.reach {
            Reach::Host(_) => kind,
            Reach::Lent(rows) => match lent(rows, &row.claim, &kind)? {
                Ok(kind) => kind,
                Err(why) => return Ok(Taken::No(why)),
            },
        };
        let pool = match machines.pool() {
            Ok(pool) => pool,
            Err(why) => return Ok(Taken::No(format!("the processor's pool of machines is away: {why}"))),
        };
        let holder = holders::holder(access, &asked.ticket);
        let turn = Turn::enter(machines, access, &holder.ticket, &pool, most_of(&row.claim)).await?;
        let (whose, ticket) = (turn.whose.clone(), turn.ticket.clone());
        let handed = tokio::select! {
            handed = pool.take(Wish { kind: kind.clone(), holder }) => Some(handed),
            () = self.lost(machines, &whose) => None,
            () = ended(self.stopped.clone()) => return Err(ends()),
        };
        // A machine is for a task that has its lease now.
        let has_lease = holders::has_lease(&self.state, &whose).await.map_err(|error| auth::failed(&error.into()))?;
        match handed.filter(|_| has_lease) {
            Some(Ok(handed)) => self.given(machines, access, &row, kind, handed).await,
            Some(Err(why)) => Ok(Taken::No(why)),
            None => {
                pool.give_back(&ticket).await;
                Err(Status::failed_precondition("the task has ended, or its lease is lost: it gets no machine"))
            }
        }
    }

    /// A machine is told of once its line is in the audit log.
    async fn given(
        &self,
        machines: &Machines,
        access: &TaskAccess,
        row: &Row,
        kind: Kind,
        handed: Handed,
    ) -> Result<Taken, Status> {
        let Handed { id, machine } = handed;
        let is_noted = machines.takers().is_noted(&id);
        if !is_noted {
            let entry = Entry::new("machine.take", &row.agent, "machine", id.as_str()).by_agent();
            let entry = entry.in_project(&access.project);
            let entry = entry.with(json!({"task": access.task, "class": kind.class, "image": kind.image}));
            let written = async {
                let mut connection = self.state.pool().acquire().await?;
                entry.write(&mut connection).await
            };
            written.await.map_err(|error: sqlx::Error| auth::failed(&error.into()))?;
            machines.takers().note(id.clone());
            tracing::info!(task = access.task, machine = %id, "A machine of the pool ({kind}) is given.");
        }
        let found_by = serde_json::to_vec(&machine).map_err(|error| Status::internal(chain(&error)))?;
        Ok(Taken::Machine(v1::PooledMachine { id: id.to_string(), found_by }))
    }

    async fn row(&self, access: &TaskAccess) -> Result<Row, Status> {
        let read = async {
            let select = "SELECT claim, agent FROM tasks WHERE id = $1";
            let row = sqlx::query(select).bind(&access.task).fetch_one(self.state.pool()).await?;
            let agent = row.try_get::<Option<String>, _>(1)?.unwrap_or_default();
            Ok(Row { claim: from_json("a claim", &row.try_get::<String, _>(0)?)?, agent })
        };
        read.await.map_err(|error| auth::failed(&error))
    }

    /// Ends when the lease is lost. While the database does not answer, it is not.
    async fn lost(&self, machines: &Machines, whose: &Whose) {
        loop {
            tokio::time::sleep(machines.0.pace.look).await;
            if let Ok(false) = holders::has_lease(&self.state, whose).await {
                return;
            }
        }
    }
}

impl<'a> Turn<'a> {
    async fn enter(
        machines: &'a Machines,
        access: &TaskAccess,
        ticket: &str,
        pool: &Pool,
        most: usize,
    ) -> Result<Self, Status> {
        let whose = (access.task.clone(), access.fence);
        let refused = |error: super::takers::Refused| Status::invalid_argument(error.to_string());
        machines.takers().enter(&whose, ticket, most).map_err(refused)?;
        let turn = Self { machines, whose, ticket: ticket.to_owned() };
        let given = pool.given().await.ok_or_else(|| away("it has ended; its log says why".to_owned()))?;
        let own = given.into_iter().filter(|(_, holder)| holders::whose(holder).as_ref() == Some(&turn.whose));
        let own: Vec<String> = own.map(|(_, holder)| holder.ticket).collect();
        machines.takers().admit(&turn.whose, ticket, &own, most).map_err(refused)?;
        Ok(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.machines.takers().leave(&self.whose, &self.ticket);
    }
}

/// The kind of a machine that is lent, as the pool counts it; or why there is none of the kind.
fn lent(rows: &navvy_vm::Machines, claim: &Claim, asked: &Kind) -> Result<Result<Kind, String>, Status> {
    let Some(image) = image_of(claim) else {
        return Ok(Err("machines are lent to `machine` jobs, and not for setup_remote_docker".to_owned()));
    };
    if asked.image != image {
        let asked = &asked.image;
        return Err(Status::invalid_argument(format!("image: this task's machine is of image {image}, not {asked}")));
    }
    Ok(rows.counted(asked).map_err(|wrong| wrong.join("; ")))
}

/// The agent is on the same host, and does not find the machines all the same.
fn other_state(here: &Here) -> String {
    let state = here.state.display();
    format!("the machines of the processor's pool are in {state}, and this agent's state directory is another")
}

fn check(what: &str, name: &str, most: usize) -> Result<(), Status> {
    match !name.is_empty() && name.len() <= most && !name.contains(char::is_control) {
        true => Ok(()),
        false => Err(Status::invalid_argument(format!(
            "{what}: it has 1 to {most} bytes, and no character that is not printed"
        ))),
    }
}

fn away(why: String) -> Status {
    Status::unavailable(format!("the processor's pool of machines is away: {why}"))
}

fn ends() -> Status {
    Status::unavailable("the processor ends: the same ticket gets its machine from the next one")
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // Nobody will say so any more.
        std::future::pending::<()>().await;
    }
}
