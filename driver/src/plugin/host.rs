//! The services by which go-plugin looks after a plugin's process.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::pending;
use tonic::{Request, Response, Status, Streaming};

use super::Plugin;
use crate::proto::grpc::health::v1 as health;
use crate::proto::plugin as go;

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Ends the process.
pub struct Controller(pub Arc<Plugin>);

#[tonic::async_trait]
impl go::grpc_controller_server::GrpcController for Controller {
    async fn shutdown(&self, _: Request<go::Empty>) -> Result<Response<go::Empty>, Status> {
        self.0.over.notify_one();
        Ok(Response::new(go::Empty {}))
    }
}

/// Would carry the plugin's output: it has none.
pub struct Stdio;

#[tonic::async_trait]
impl go::grpc_stdio_server::GrpcStdio for Stdio {
    type StreamStdioStream = Answers<go::StdioData>;

    async fn stream_stdio(&self, _: Request<()>) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(Box::pin(pending())))
    }
}

/// Would open further connections: there are none.
pub struct Broker;

#[tonic::async_trait]
impl go::grpc_broker_server::GrpcBroker for Broker {
    type StartStreamStream = Answers<go::ConnInfo>;

    async fn start_stream(
        &self,
        request: Request<Streaming<go::ConnInfo>>,
    ) -> Result<Response<Self::StartStreamStream>, Status> {
        let mut asked = request.into_inner();
        // What comes is read and dropped, until the host goes.
        tokio::spawn(async move { while let Ok(Some(_)) = asked.message().await {} });
        Ok(Response::new(Box::pin(pending())))
    }
}

/// gRPC's own health service: who answers is well.
pub struct Health;

#[tonic::async_trait]
impl health::health_server::Health for Health {
    async fn check(
        &self,
        _: Request<health::HealthCheckRequest>,
    ) -> Result<Response<health::HealthCheckResponse>, Status> {
        Ok(Response::new(serving()))
    }

    type WatchStream = Answers<health::HealthCheckResponse>;

    async fn watch(&self, _: Request<health::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        use futures_util::StreamExt as _;
        let first = futures_util::stream::once(async { Ok(serving()) });
        Ok(Response::new(Box::pin(first.chain(pending()))))
    }
}

fn serving() -> health::HealthCheckResponse {
    health::HealthCheckResponse { status: health::health_check_response::ServingStatus::Serving.into() }
}
