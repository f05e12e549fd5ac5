//! The API's description for machines (OpenAPI), made from the table of routes and the types of `navvy_protocol::api`.

use std::sync::LazyLock;

use axum::http::{Method, header};
use axum::response::IntoResponse;
use navvy_protocol::api::Problem;
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, Info, OpenApi, OpenApiBuilder, Paths, Ref, RefOr, Required,
    ResponseBuilder, Schema,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::routes::{Body, Route, Who, routes};

/// Where it is served.
pub(super) const PATH: &str = "/api/v2/openapi.json";

static TEXT: LazyLock<String> = LazyLock::new(text);

/// `GET /api/v2/openapi.json`
pub async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// The document as it is served, and as docs/processor.openapi.json has it.
fn text() -> String {
    document().to_pretty_json().unwrap_or_default() + "\n"
}

fn document() -> OpenApi {
    let mut components = ComponentsBuilder::new()
        .security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .schema(Problem::name(), Problem::schema());
    let mut paths = Paths::new();
    for route in routes() {
        for body in route.takes.iter().chain([&route.gives]) {
            let own = body.name.clone().zip(body.schema.clone());
            components = components.schemas_from_iter(body.parts.iter().cloned().chain(own));
        }
        paths.add_path_operation(route.path, vec![http_method(&route.method)], operation(&route));
    }
    let mut info = Info::new("Navvy processor", "v2");
    info.description = Some(
        "What people and their programs say to a processor. Slugs stand percent-encoded in a path: gh%2Facme%2Fshop."
            .to_owned(),
    );
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

fn http_method(method: &Method) -> HttpMethod {
    match method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn operation(route: &Route) -> Operation {
    let mut operation = OperationBuilder::new().summary(Some(route.about));
    for name in names(route.path) {
        operation = operation.parameter(parameter(name, ParameterIn::Path, None));
    }
    for (name, about) in route.query {
        operation = operation.parameter(parameter(name, ParameterIn::Query, Some(about)));
    }
    if let Some(body) = &route.takes {
        let body = RequestBodyBuilder::new().content(body.media, content(body)).required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    let done = ResponseBuilder::new().description("Done.").content(route.gives.media, content(&route.gives));
    let problem = Content::new(Some(Ref::from_schema_name(Problem::name())));
    let refused =
        ResponseBuilder::new().description("What went wrong, and what to do.").content("application/json", problem);
    operation = operation.response("200", done.build()).response("default", refused.build());
    let needs = match route.who {
        Who::Anyone => return operation.securities(Some(Vec::new())).build(),
        Who::Viewer => "An admin's or a viewer's token is needed.",
        Who::Admin => "An admin's token is needed.",
    };
    let token = SecurityRequirement::new("token", Vec::<String>::new());
    operation.description(Some(needs)).security(token).build()
}

fn content(body: &Body) -> Content {
    match (&body.name, &body.schema) {
        (Some(name), Some(_)) => Content::new(Some(Ref::from_schema_name(name))),
        (None, Some(schema)) => Content::new(Some(schema.clone())),
        (_, None) => Content::new(None::<RefOr<Schema>>),
    }
}

fn parameter(name: &str, stands: ParameterIn, about: Option<&str>) -> Parameter {
    let required = if stands == ParameterIn::Path { Required::True } else { Required::False };
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    ParameterBuilder::new()
        .name(name)
        .parameter_in(stands)
        .required(required)
        .description(about)
        .schema(Some(text))
        .build()
}

/// The names in braces.
pub(super) fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it differs it is written anew, and this fails this once.
    #[test]
    fn the_document_in_docs_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/processor.openapi.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        if kept != text() {
            std::fs::write(path, text()).unwrap();
            panic!(
                "docs/processor.openapi.json was not what the code says, and was written anew: look at it, and commit it"
            );
        }
    }

    #[test]
    fn the_document_has_every_route_and_every_type_that_it_names() {
        let json: serde_json::Value = serde_json::from_str(&text()).unwrap();
        for route in routes() {
            let method = route.method.as_str().to_lowercase();
            assert!(json["paths"][route.path][&method].is_object(), "{method} {}", route.path);
        }
        let text = json.to_string();
        for (_, rest) in text.match_indices("#/components/schemas/").map(|(at, named)| text.split_at(at + named.len()))
        {
            let name = rest.split('"').next().unwrap();
            assert!(json["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
