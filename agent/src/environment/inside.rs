//! A command of the agent's own inside a machine, as uid 0.

use navvy_environment::supervisor::Client;
use navvy_job::chain::chain;
use navvy_protocol::supervisor::{Exec, Exit, Terminal};

/// Of what it says.
const CAP: usize = 16 << 10;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs it to its end, on this thread. Returns what it wrote, cut.
///
/// # Errors
/// It failed: what it wrote; or the supervisor is not to be reached.
pub fn run(client: &Client, id: &str, argv: &[&str]) -> Result<String, String> {
    let exec = Exec {
        id: id.to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![("PATH".to_owned(), PATH.to_owned())],
        cwd: "/".to_owned(),
        user: None,
        terminal: Terminal::Pipes,
        input: false,
        watch_memory: false,
    };
    let mut said = Vec::new();
    let session = client.session(exec).map_err(|error| chain(&error))?;
    let exited = session.run(|_, bytes| {
        let room = CAP.saturating_sub(said.len());
        said.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    });
    let exit = exited.map_err(|error| chain(&error))?.exit;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    match exit {
        Exit::Code(0) => Ok(said),
        Exit::Code(code) => Err(format!("{} ended with code {code}: {said}", argv[0])),
        Exit::Signal(signal) => Err(format!("{} was ended by signal {signal}: {said}", argv[0])),
    }
}
