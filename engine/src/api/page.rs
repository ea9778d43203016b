//! What describes the engine to people and to programs: the page at `/` and `/openapi.json`.

use std::sync::LazyLock;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::http::{Answer, Body};
use crate::routes::{Access, Handler, Route, routes};

static INDEX: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rows = String::new();
    for route in routes() {
        let (method, path, about) = (route.method(), route.pattern(), route.about());
        let path = if method == http::Method::GET && route.is_public() {
            format!("<a href=\"{path}\">{path}</a>")
        } else {
            path.to_owned()
        };
        rows.push_str(&format!("<tr><td>{method}</td><td>{path}</td><td>{about}</td></tr>\n"));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Floodmark</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         td{{padding:.1rem 1rem .1rem 0;vertical-align:top}}td:nth-child(2){{font-family:monospace}}</style></head>\n\
         <body><h1>Floodmark</h1><p>A telemetry engine, version {}. Send events, logs, traces and line protocol \
         here; what is answered with success is on stable storage. Every route but the linked ones wants a key \
         as <code>Authorization: Bearer</code>.</p>\n<table>\n{rows}</table></body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
    .into()
});

static OPENAPI: LazyLock<Bytes> = LazyLock::new(|| description().to_string().into());

fn fixed(content_type: &'static str, body: &Bytes) -> Answer {
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))];
    Answer { status: 200, headers, body: Body::Full(body.clone()) }
}

pub(super) fn index() -> Answer {
    fixed("text/html; charset=utf-8", &INDEX)
}

pub(super) fn openapi() -> Answer {
    fixed("application/json", &OPENAPI)
}

fn description() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let path = paths.entry(route.pattern()).or_insert_with(|| json!({}));
        path[route.method().as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Floodmark", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "basic": { "type": "http", "scheme": "basic" },
                "apiKey": { "type": "apiKey", "in": "header", "name": "X-API-Key" },
            },
            "schemas": { "Problem": {
                "type": "object",
                "required": ["type", "title", "status", "code", "detail", "retryable", "correlation_id"],
                "properties": {
                    "type": { "type": "string" },
                    "title": { "type": "string" },
                    "status": { "type": "integer" },
                    "code": { "type": "string" },
                    "detail": { "type": "string" },
                    "retryable": { "type": "boolean" },
                    "correlation_id": { "type": "string" },
                },
            } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut name = format!("{}{}", route.method().as_str().to_ascii_lowercase(), route.pattern());
    name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let problem = json!({
        "description": "refused",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let mut operation = json!({
        "operationId": name,
        "summary": route.about(),
        "tags": [match route.handler() {
            Handler::Ingest(_) => "ingest",
            Handler::Read(_) => "read",
            Handler::Api(_) => "operate",
        }],
        "responses": { "2XX": { "description": "done" }, "4XX": problem, "5XX": problem },
    });
    operation["security"] = match route.access() {
        Access::Public => json!([]),
        Access::Metrics => json!([{}, { "bearer": [] }]),
        Access::Roles(roles) => {
            let names: Vec<&str> = roles.iter().map(storage::Role::as_str).collect();
            operation["x-floodmark-roles"] = json!(names);
            json!([{ "bearer": [] }, { "basic": [] }, { "apiKey": [] }])
        }
    };
    if let Some((_, rest)) = route.pattern().split_once('{') {
        let name = rest.trim_end_matches('}');
        operation["parameters"] =
            json!([{ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }]);
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::description;
    use crate::routes::routes;

    /// The description is made of the table, so each route is in it, once.
    #[test]
    fn every_route_is_described() {
        let description = description();
        let mut count = 0;
        let mut names = std::collections::HashSet::new();
        for operations in description["paths"].as_object().expect("paths").values() {
            for operation in operations.as_object().expect("operations").values() {
                assert!(names.insert(operation["operationId"].to_string()));
                count += 1;
            }
        }
        assert_eq!(count, routes().len());
    }
}
