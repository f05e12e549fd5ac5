//! The program: from its start by Nomad to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::handshake::{self, HandshakeError};
use crate::log::info;
use crate::plugin::{Base, Broker, Controller, Driver, Health, Plugin, Stdio};
use crate::proto::grpc::health::v1::health_server::HealthServer;
use crate::proto::hashicorp::nomad::plugins::base::proto::base_plugin_server::BasePluginServer;
use crate::proto::hashicorp::nomad::plugins::drivers::proto::driver_server::DriverServer;
use crate::proto::plugin::grpc_broker_server::GrpcBrokerServer;
use crate::proto::plugin::grpc_controller_server::GrpcControllerServer;
use crate::proto::plugin::grpc_stdio_server::GrpcStdioServer;

/// A task's environment may be large; tonic's own 4 MiB are too few.
const LONGEST_MESSAGE: usize = 64 << 20;
/// After Nomad has asked for the end, its answer gets so long.
const LAST_ANSWER: Duration = Duration::from_millis(100);
/// Between two looks whether anybody can still find this process.
const BETWEEN_LOOKS: Duration = Duration::from_secs(30);

/// Why the program ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Not begun.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Not served.
    #[error("the plugin cannot serve: {0}")]
    Serve(String),
}

/// Serves a Nomad agent until it, or a signal, asks for the end.
///
/// # Errors
/// No agent has started this, or nothing can be served.
pub fn run(variables: BTreeMap<String, String>) -> Result<(), ServeError> {
    handshake::check(&variables)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .map_err(|error| ServeError::Serve(error.to_string()))?;
    let bound = handshake::bind(&variables)?;
    let served = runtime.block_on(serve(&bound, variables));
    // Calls that wait for a task's end would keep it for hours.
    runtime.shutdown_background();
    served
}

async fn serve(bound: &handshake::Bound, variables: BTreeMap<String, String>) -> Result<(), ServeError> {
    let fault = |error: std::io::Error| ServeError::Serve(error.to_string());
    let listener = bound.listener.try_clone().and_then(UnixListener::from_std).map_err(fault)?;
    // Ctrl-C on a terminal is for the Nomad agent, which then asks for the end.
    let _swallowed = signal(SignalKind::interrupt()).map_err(fault)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(fault)?;
    let plugin = Plugin::new(variables.clone());
    let server = Server::builder()
        .add_service(GrpcControllerServer::new(Controller(plugin.clone())))
        .add_service(GrpcStdioServer::new(Stdio))
        .add_service(GrpcBrokerServer::new(Broker))
        .add_service(HealthServer::new(Health))
        .add_service(BasePluginServer::new(Base(plugin.clone())).max_decoding_message_size(LONGEST_MESSAGE))
        .add_service(
            DriverServer::new(Driver(plugin.clone()))
                .max_decoding_message_size(LONGEST_MESSAGE)
                .max_encoding_message_size(LONGEST_MESSAGE),
        )
        .serve_with_incoming(UnixListenerStream::new(listener));
    handshake::tell(bound, &variables)?;
    tokio::select! {
        served = server => served.map_err(|error| ServeError::Serve(error.to_string())),
        () = ended(&plugin) => Ok(()),
        _ = terminated.recv() => Ok(()),
        () = lost(bound.path()) => {
            info!("The plugin's socket is gone: no Nomad agent can find this process again.");
            Ok(())
        }
    }
}

async fn ended(plugin: &Arc<Plugin>) {
    plugin.over.notified().await;
    tokio::time::sleep(LAST_ANSWER).await;
}

/// Nomad starts another plugin where it does not find this one, and never ends this one.
async fn lost(socket: PathBuf) {
    loop {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        if !socket.exists() {
            return;
        }
    }
}
