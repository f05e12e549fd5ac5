//! Who the plugin is, and its configuration.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Plugin;
use crate::config::PluginConfig;
use crate::node::Node;
use crate::proto::hashicorp::nomad::plugins::base::proto as base;
use crate::schema;

/// The driver's name in a job.
pub const NAME: &str = "navvy";
/// The one version of the plugin interface that any Nomad has.
const API: &str = "v0.1.0";

/// `BasePlugin`.
pub struct Base(pub Arc<Plugin>);

#[tonic::async_trait]
impl base::base_plugin_server::BasePlugin for Base {
    async fn plugin_info(
        &self,
        _: Request<base::PluginInfoRequest>,
    ) -> Result<Response<base::PluginInfoResponse>, Status> {
        Ok(Response::new(base::PluginInfoResponse {
            r#type: base::PluginType::Driver.into(),
            plugin_api_versions: vec![API.to_owned()],
            plugin_version: env!("CARGO_PKG_VERSION").to_owned(),
            name: NAME.to_owned(),
        }))
    }

    async fn config_schema(
        &self,
        _: Request<base::ConfigSchemaRequest>,
    ) -> Result<Response<base::ConfigSchemaResponse>, Status> {
        Ok(Response::new(base::ConfigSchemaResponse { spec: Some(schema::plugin()) }))
    }

    /// Without Nomad's own part it is a question whether the values are good; an error as the answer would end the Nomad agent, so what
    /// is wrong is shown at the node instead.
    async fn set_config(
        &self,
        request: Request<base::SetConfigRequest>,
    ) -> Result<Response<base::SetConfigResponse>, Status> {
        let request = request.into_inner();
        let config = PluginConfig::read(&request.msgpack_config).map_err(|errors| errors.to_string());
        if let Err(why) = &config {
            crate::log::failure!("The plugin's configuration is wrong: {why}");
        }
        if let Some(nomad) = request.nomad_config {
            let node = nomad.driver.and_then(|driver| driver.topology).as_ref().and_then(Node::of);
            self.0.configure(config, node);
        }
        Ok(Response::new(base::SetConfigResponse {}))
    }
}
