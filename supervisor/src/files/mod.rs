//! File activities, each in a child with the job user's ids, so that the kernel checks what they may.
//!
//! ```text
//! connection thread ──fork──▶ child: ids, work, Data frames straight from or to the socket
//!        │  ▲                   │
//!        │  └─── result pipe ───┘   a Reply; end of file without one: the child was killed
//!        └─ caller hung up, or too late: KILL
//! ```

mod checksum;
mod child;
pub mod data;
mod directory;
mod extract;
mod glob;
mod go_glob;
mod pack;
mod read;
mod unpack;
mod unread;
mod write;

use std::time::Duration;

use navvy_protocol::supervisor::{ArchiveLimits, Failure, Reply, Trees};

use crate::control::connection::Connection;
use crate::users::{self, User};
use child::Child;
pub use glob::{Found, find, shown};

/// A directory is made at once or on a file system that hangs.
const DIRECTORY_LIMIT: Duration = Duration::from_secs(20);

/// Makes a directory and its parents, owned by the user, where they are missing.
pub fn make_directory_now(path: &str, user: &User) -> Result<(), Failure> {
    let child = Child { user: None, connection: None, limit: Some(DIRECTORY_LIMIT) };
    child.run(|| directory::make(path, user).map(|()| Reply::Done)).map(drop)
}

pub fn read(connection: Connection, path: &str, user: Option<&str>) {
    carry_out(connection, user, |user, connection| {
        let path = user.resolve(path);
        let work = || read::send(&path, &mut data::Sender::new(connection));
        Child::streaming(user, connection).run(work).inspect(|_| connection.push_bytes(&data::END))
    });
}

pub fn glob(connection: Connection, root: &str, patterns: &[String], user: Option<&str>) {
    carry_out(connection, user, |user, connection| {
        let root = user.resolve(root);
        let work = || glob::send(&root, patterns, &mut data::Sender::new(connection));
        Child::streaming(user, connection).run(work).inspect(|_| connection.push_bytes(&data::END))
    });
}

pub fn write(connection: Connection, path: &str, user: Option<&str>, mode: u32) {
    carry_out(connection, user, |user, connection| {
        let early = connection.take_received();
        let path = user.resolve(path);
        let work = || write::receive(&path, mode, &mut data::Receiver::new(&early, connection.stream()));
        Child::streaming(user, connection).run(work)
    });
}

pub fn unpack(connection: Connection, root: &str, user: Option<&str>) {
    carry_out(connection, user, |user, connection| {
        let early = connection.take_received();
        let root = user.resolve(root);
        make_directory_now(&root, user)?;
        let work = || unpack::receive(&root, data::Receiver::new(&early, connection.stream()));
        Child::streaming(user, connection).run(work)
    });
}

pub fn pack(connection: Connection, trees: &Trees, user: Option<&str>) {
    carry_out(connection, user, |user, connection| {
        let work = || pack::send(trees, user, &mut data::Sender::new(connection));
        Child::streaming(user, connection).run(work).inspect(|_| connection.push_bytes(&data::END))
    });
}

pub fn extract(connection: Connection, trees: &Trees, user: Option<&str>, limits: ArchiveLimits, passed_over: u64) {
    carry_out(connection, user, |user, connection| {
        let early = connection.take_received();
        if let Trees::Below { root, .. } = trees {
            make_directory_now(&user.resolve(root), user)?;
        }
        let receiver = || data::Receiver::new(&early, connection.stream());
        Child::streaming(user, connection).run(|| extract::receive(trees, user, limits, passed_over, receiver()))
    });
}

pub fn checksum(connection: Connection, paths: &[String], user: Option<&str>) {
    carry_out(connection, user, |user, connection| {
        let paths: Vec<String> = paths.iter().map(|path| user.resolve(path)).collect();
        Child::streaming(user, connection).run(|| checksum::of(&paths))
    });
}

/// Looks the user up, lets `work` go, and answers with what came of it.
fn carry_out(
    mut connection: Connection,
    user: Option<&str>,
    work: impl FnOnce(&User, &mut Connection) -> Result<Reply, Failure>,
) {
    // The greeting goes first: a child writes to the socket itself.
    if connection.flush().is_err() {
        return;
    }
    let reply = users::look_up(user).and_then(|user| work(&user, &mut connection));
    match reply {
        Ok(reply) => connection.answer(&reply),
        Err(failure) => connection.answer_and_listen(&Reply::Failed(failure)),
    }
}
