//! Whose a machine of the pool is, and who has it no more: a task has its machines as long as its lease.

use std::collections::HashMap;

use navvy_job::chain::chain;
use navvy_vm::MachineId;
use navvy_vm::pool::keeper::Pool;
use navvy_vm::pool::record::Holder;
use sqlx::Row as _;

use super::Machines;
use super::takers::Whose;
use crate::auth::TaskAccess;
use crate::state::{State, int, uint};

/// Who has a machine that is asked for by this task: its record says so to whoever comes after this process. Whose a ticket is stands
/// before what the task calls it, so that no task can speak of another's.
pub(super) fn holder(access: &TaskAccess, named: &str) -> Holder {
    let ticket = format!("{}.{}.{named}", access.task, access.fence);
    // The agent's process may be killed, and another one go on with the task: its lease decides.
    Holder { ticket, task: access.task.clone(), owner: None }
}

/// Whose it is, where a lease decides about that.
pub(super) fn whose(holder: &Holder) -> Option<Whose> {
    let mut parts = holder.ticket.splitn(3, '.');
    let (task, fence, _named) = (parts.next()?, parts.next()?, parts.next()?);
    let fence = fence.parse().ok()?;
    (holder.owner.is_none() && task == holder.task).then(|| (task.to_owned(), fence))
}

/// Has the agent that got this task as the `fence`-th its lease?
pub(super) async fn has_lease(state: &State, (task, fence): &Whose) -> Result<bool, sqlx::Error> {
    let select = "SELECT 1 FROM tasks WHERE id = $1 AND handed = $2 AND state = 'claimed'";
    let row = sqlx::query(select).bind(task).bind(int(*fence)).fetch_optional(state.pool()).await?;
    Ok(row.is_some())
}

/// Tells the pool whose holders have lost their lease, as long as the pool is there.
pub(super) async fn look(machines: &Machines, pool: &Pool) {
    loop {
        tokio::time::sleep(machines.0.pace.look).await;
        // Before the leases are read: who is given a machine after this is not judged by them.
        let Some(given) = pool.given().await else { return };
        match leases(&machines.0.state).await {
            Ok(leases) => {
                for id in gone(&given, &leases) {
                    tracing::info!(machine = %id, "A machine's task has ended, or its lease is lost: the machine goes.");
                    pool.holder_gone(id).await;
                }
                let has_lease = |(task, fence): &Whose| leases.get(task) == Some(fence);
                let is_given = |id: &MachineId| given.iter().any(|(given, _)| given == id);
                machines.takers().forget(has_lease, is_given);
            }
            // While the database does not answer, nobody is gone.
            Err(error) => tracing::warn!("Whose machines are whose could not be looked at: {}.", chain(&error)),
        }
    }
}

/// All tasks that agents have, and as the how-manieth.
async fn leases(state: &State) -> Result<HashMap<String, u64>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, handed FROM tasks WHERE state = 'claimed'").fetch_all(state.pool()).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, uint(row.try_get(1)?)))).collect()
}

/// Machines whose holders have no lease.
fn gone(given: &[(MachineId, Holder)], leases: &HashMap<String, u64>) -> Vec<MachineId> {
    let is_gone = |holder: &Holder| whose(holder).is_some_and(|(task, fence)| leases.get(&task) != Some(&fence));
    given.iter().filter(|(_, holder)| is_gone(holder)).map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(ticket: &str, task: &str) -> Holder {
        Holder { ticket: ticket.to_owned(), task: task.to_owned(), owner: None }
    }

    #[test]
    fn a_machine_is_gone_with_its_task_or_with_the_agent_that_had_it() {
        let leases = HashMap::from([("a".to_owned(), 2)]);
        // Its process can be seen: the pool looks at that.
        let seen = serde_json::json!({"ticket": "a.1.steps", "task": "a", "owner": "m/b/1/2/3"});
        let seen: Holder = serde_json::from_value(seen).unwrap();
        let cases = [
            (held("a.2.steps", "a"), false),
            (held("a.2.with.dots", "a"), false),
            (held("a.1.steps", "a"), true),
            (held("b.1.steps", "b"), true),
            // Nobody here gave them: their records are another's to judge.
            (held("a.1.steps", "b"), false),
            (held("steps", "a"), false),
            (held("a.x.steps", "a"), false),
            (seen, false),
        ];
        for (holder, is_gone) in cases {
            let id = MachineId::random();
            assert_eq!(gone(&[(id.clone(), holder.clone())], &leases) == [id], is_gone, "{holder:?}");
        }
    }
}
