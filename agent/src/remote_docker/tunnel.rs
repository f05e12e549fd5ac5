//! One connection of a job's: TLS ends here, and what was said in it goes on to the machine's engine.
//!
//! ```text
//! caller ⇄ socket pair ⇄ TLS (certificate of this job, or it ends) ⇄ socket pair ⇄ forwarded
//! ```
//!
//! Nothing reaches the machine before the caller has shown its certificate. Each way closes by itself: `docker run -i` ends its input and
//! reads on.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::ServerConfig;
use tokio::io::copy_bidirectional_with_sizes;
use tokio_rustls::TlsAcceptor;

/// A caller that has not shown its certificate by then is none.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// Copied at once: layers are large.
const CHUNK: usize = 64 << 10;

/// Carries one connection until both ways have ended. `dial` opens the way to the engine, once the caller is known.
///
/// # Errors
/// The caller is not this job, the engine cannot be reached, or one of them has gone.
pub fn carry(
    caller: UnixStream,
    server: Arc<ServerConfig>,
    dial: impl FnOnce() -> io::Result<UnixStream>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // For when it ends badly: the other end must not wait for what never comes.
    let hang_up = caller.try_clone()?;
    let carried = runtime.block_on(async move {
        caller.set_nonblocking(true)?;
        let caller = tokio::net::UnixStream::from_std(caller)?;
        let accepting = TlsAcceptor::from(server).accept(caller);
        let Ok(accepted) = tokio::time::timeout(HANDSHAKE_LIMIT, accepting).await else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let mut caller = accepted?;
        let engine = dial()?;
        engine.set_nonblocking(true)?;
        let mut engine = tokio::net::UnixStream::from_std(engine)?;
        copy_bidirectional_with_sizes(&mut caller, &mut engine, CHUNK, CHUNK).await.map(drop)
    });
    if carried.is_err() {
        // It may have hung up itself.
        hang_up.shutdown(Shutdown::Both).ok();
    }
    carried
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

    use super::super::authority::{Issued, issue};
    use super::*;

    const JOB: Duration = Duration::from_secs(3600);

    /// Trusts `server`'s authority, and shows the certificate of `own`, if it has any.
    fn client(server: &Issued, own: Option<&Issued>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(server.authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let Some(own) = own else { return config.with_no_client_auth() };
        let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
        config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap()).unwrap()
    }

    /// What a caller that says `ping` reads, and whether the engine was reached. The engine answers with what it has read,
    /// once it has read all.
    fn call(config: ClientConfig, server: &Issued, name: &'static str) -> (io::Result<String>, bool) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (engine, engine_end) = UnixStream::pair().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut engine, mut said) = (engine, String::new());
            engine.read_to_string(&mut said).unwrap();
            engine.write_all(format!("engine: {said}").as_bytes()).ok();
            !said.is_empty()
        });
        let config_of_server = Arc::clone(&server.server);
        let carrying = std::thread::spawn(move || carry(theirs, config_of_server, move || Ok(engine_end)));
        let name = ServerName::try_from(name).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut said = String::new();
        let spoken = (|| {
            Stream::new(&mut connection, &mut ours).write_all(b"ping")?;
            // The end of this way alone.
            connection.send_close_notify();
            while connection.wants_write() {
                connection.write_tls(&mut ours)?;
            }
            Stream::new(&mut connection, &mut ours).read_to_string(&mut said)?;
            Ok(said)
        })();
        drop(ours);
        carrying.join().unwrap().ok();
        (spoken, answering.join().unwrap())
    }

    #[test]
    fn the_job_with_its_certificate_reaches_the_engine_and_each_way_ends_by_itself() {
        let issued = issue(JOB).unwrap();
        for name in ["localhost", "127.0.0.1", "remote-docker"] {
            let (said, reached) = call(client(&issued, Some(&issued)), &issued, name);
            assert_eq!((said.unwrap().as_str(), reached), ("engine: ping", true), "{name}");
        }
    }

    #[test]
    fn without_this_job_s_certificate_nothing_reaches_the_engine() {
        let (issued, another) = (issue(JOB).unwrap(), issue(JOB).unwrap());
        for own in [None, Some(&another)] {
            let (said, reached) = call(client(&issued, own), &issued, "localhost");
            assert!(said.is_err() && !reached, "{said:?}");
        }
    }

    #[test]
    fn a_job_that_trusts_its_own_authority_alone_takes_no_other_engine() {
        let (issued, another) = (issue(JOB).unwrap(), issue(JOB).unwrap());
        let (said, reached) = call(client(&another, Some(&issued)), &issued, "localhost");
        assert!(said.is_err() && !reached, "{said:?}");
        let (said, reached) = call(client(&issued, Some(&issued)), &issued, "elsewhere");
        assert!(said.is_err() && !reached, "{said:?}");
    }

    #[test]
    fn no_key_is_told() {
        let issued = issue(JOB).unwrap();
        let told = format!("{issued:?}");
        assert!(issued.key.contains("PRIVATE KEY") && !told.contains("PRIVATE KEY"), "{told}");
    }
}
