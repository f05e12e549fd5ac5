//! From a request to the code that carries it out.

use std::sync::Arc;
use std::time::Duration;

use navvy_protocol::supervisor::{Failure, Probe, Reply, Request};

use super::connection::Connection;
use crate::exec::{self, launch};
use crate::init::Init;
use crate::{continuation, failure, files, forward, hold, relay, sys, users};

pub fn carry_out(init: &Arc<Init>, request: Request, connection: Connection) {
    match request {
        Request::Exec(exec) => exec::run(init, &exec, connection),
        Request::Attach { exec, offset, note } => exec::attach(init, &exec, exec::Attach { connection, offset, note }),
        Request::Shutdown { grace_ms } => shut_down(init, grace_ms, connection),
        Request::Keep { for_ms } => hold::keep(&init.hold, connection, for_ms),
        Request::Remember => hold::remember(&init.hold, connection),
        Request::OfferContinuation { key } => answer(connection, continuation::offer(&init.continuation, &key)),
        Request::Continuation => continuation::tell(&init.continuation, connection),
        Request::Relay { path, user } => relay::listen(&init.relays, connection, &path, user.as_deref()),
        Request::RelayTcp { port } => relay::listen_tcp(&init.relays, connection, port),
        Request::Forward { to } => forward::forward(connection, &to),
        Request::Take { caller } => relay::take(&init.relays, connection, caller),
        Request::Recall => hold::recall(&init.hold, connection),
        Request::Read { path, user } => files::read(connection, &path, user.as_deref()),
        Request::Write { path, user, mode } => files::write(connection, &path, user.as_deref(), mode),
        Request::Unpack { root, user } => files::unpack(connection, &root, user.as_deref()),
        Request::Pack { trees, user } => files::pack(connection, &trees, user.as_deref()),
        Request::Extract { trees, user, limits, passed_over } => {
            files::extract(connection, &trees, user.as_deref(), limits, passed_over);
        }
        Request::Glob { root, patterns, user } => files::glob(connection, &root, &patterns, user.as_deref()),
        Request::Checksum { paths, user } => files::checksum(connection, &paths, user.as_deref()),
        Request::MakeDirectory { path, user } => answer(connection, make_directory(&path, user.as_deref())),
        Request::List => answer(connection, Ok(init.execs.list())),
        Request::Signal { exec, signal } => answer(connection, send_signal(init, &exec, signal)),
        Request::Stop { exec, grace_ms } => answer(connection, stop(init, &exec, grace_ms)),
        Request::Sample => answer(connection, Ok(Reply::Sample(init.memory.sample()))),
        Request::Probe { user, programs } => answer(connection, probe(user.as_deref(), &programs)),
    }
}

fn answer(connection: Connection, result: Result<Reply, Failure>) {
    connection.answer(&result.unwrap_or_else(Reply::Failed));
}

fn make_directory(path: &str, user: Option<&str>) -> Result<Reply, Failure> {
    let user = users::look_up(user)?;
    files::make_directory_now(&user.resolve(path), &user).map(|()| Reply::Done)
}

fn stop(init: &Init, id: &str, grace_ms: u64) -> Result<Reply, Failure> {
    exec::stop(&init.execs.get(id)?, Duration::from_millis(grace_ms));
    Ok(Reply::Done)
}

fn send_signal(init: &Init, id: &str, signal: i32) -> Result<Reply, Failure> {
    if !(1..=64).contains(&signal) {
        return Err(failure::invalid(format!("{signal} is not a signal")));
    }
    exec::signal(&init.execs.get(id)?, signal)
        .map_err(|error| failure::of(&error, format_args!("send signal {signal}")))?;
    Ok(Reply::Done)
}

fn probe(user: Option<&str>, programs: &[String]) -> Result<Reply, Failure> {
    let user = users::look_up(user)?;
    let path = std::env::var("PATH").unwrap_or_else(|_| launch::DEFAULT_PATH.to_owned());
    Ok(Reply::Probe(Probe {
        name: user.name,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        home: user.home,
        programs: programs.iter().map(|program| launch::find_program(program, &path)).collect(),
        architecture: sys::architecture(),
    }))
}

fn shut_down(init: &Init, grace_ms: u64, connection: Connection) {
    exec::stop_all(init, Duration::from_millis(grace_ms));
    connection.answer(&Reply::Done);
    init.quit(0);
}
