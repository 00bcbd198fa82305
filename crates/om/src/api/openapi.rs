//! Owns the OpenAPI document: the routes' table with the shapes of the bodies. Shapes are read off samples of the wire
//! types, so the document cannot say something else than what is sent.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::{self, routes};
use routes::Route;

/// The document, version 3.0.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for row in routes::TABLE {
        let path = format!("/{}{}", api::VERSION, row.path.replace("{object}", "{namespace}/{kind}/{name}"));
        let mut parameters: Vec<Value> = Vec::new();
        if row.path.contains("{object}") {
            for name in ["namespace", "kind", "name"] {
                let schema = json!({"type": "string"});
                parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
            }
        }
        for name in row.query {
            parameters.push(json!({"name": name, "in": "query", "schema": {"type": "string"}}));
        }
        let (request, response) = bodies(row.route);
        let mut operation = json!({
            "operationId": format!("{:?}", row.route),
            "summary": row.about,
            "parameters": parameters,
            "responses": {
                "200": {"description": "Done.", "content": response},
                "default": {
                    "description": "Not done.",
                    "content": {"application/json": {"schema": schema(&failure())}},
                },
            },
        });
        if let Some(request) = request {
            operation["requestBody"] = json!({"required": true, "content": request});
        }
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[row.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "om",
            "version": api::VERSION,
            "description": "The node daemon's API, on a Unix socket that only root may use.",
        },
        "servers": [{"url": "http://om", "description": "Unix socket /var/lib/om/api.sock"}],
        "paths": paths,
    })
}

/// The contents of a request, if it has one, and of its answer.
fn bodies(route: Route) -> (Option<Value>, Value) {
    let of = |value: Value| json!({"application/json": {"schema": value}});
    let lines = |value: Value| json!({"application/x-ndjson": {"schema": value}});
    let bytes = || json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}});
    let replace = || of(schema(&api::Replace { generation: Some(1), ..api::Replace::default() }));
    let patch = || of(schema(&patch()));
    let config = || of(schema(&api::Config::default()));
    let changed = || of(schema(&api::Changed { diagnostics: vec![diagnostic()], ..api::Changed::default() }));
    let done = || of(schema(&api::Done {}));
    let checked = || of(schema(&api::Checked { diagnostics: vec![diagnostic()] }));
    match route {
        Route::Daemon => (None, of(schema(&daemon()))),
        Route::DaemonAct => (Some(of(schema(&api::DaemonAct::default()))), done()),
        Route::OpenApi => (None, of(json!({"type": "object"}))),
        Route::Status => (None, of(schema(&snapshot()))),
        Route::Objects => (None, of(schema(&api::Objects { paths: words() }))),
        Route::Create => (Some(of(schema(&create()))), of(schema(&created()))),
        Route::Config | Route::NodeConfig => (None, config()),
        Route::ConfigReplace | Route::NodeConfigReplace => (Some(replace()), changed()),
        Route::ConfigPatch | Route::NodeConfigPatch => (Some(patch()), changed()),
        Route::ConfigEval => {
            let section = json!({"type": "object", "additionalProperties": {}});
            (None, of(json!({"type": "object", "additionalProperties": section})))
        }
        Route::ConfigCheck => (None, checked()),
        Route::ConfigCheckText => (Some(replace()), checked()),
        Route::Keys => (None, of(schema(&api::Keys { keys: vec![api::KeyInfo::default()] }))),
        Route::Value | Route::Backup => (None, bytes()),
        Route::ValuePut => (Some(bytes()), of(schema(&api::KeyChanged::default()))),
        Route::ValueDelete => (None, of(schema(&api::KeyChanged::default()))),
        Route::Enter | Route::Output => (None, of(schema(&api::Enter { command: words() }))),
        Route::Act => (Some(of(schema(&act()))), of(schema(&acted()))),
        Route::Events => (None, lines(json!({"oneOf": events().iter().map(schema).collect::<Vec<_>>()}))),
        Route::Logs => {
            let line = api::LogLine { rid: Some(String::new()), ..api::LogLine::default() };
            (None, lines(schema(&line)))
        }
        Route::Node => {
            let node = api::Node { status: node_status(), facts: map(String::new()), ..api::Node::default() };
            (None, of(schema(&node)))
        }
        Route::NodeAct => (Some(of(schema(&api::NodeAct::default()))), done()),
        Route::Pools => (None, of(schema(&api::Pools { pools: vec![pool()] }))),
        Route::Networks => {
            let network = api::Network { addresses: vec![api::Address::default()], ..api::Network::default() };
            (None, of(schema(&api::Networks { networks: vec![network] })))
        }
        Route::Dns => {
            let dns = api::Dns {
                listen: words(),
                problems: words(),
                upstream: words(),
                records: vec![api::DnsRecord::default()],
                ..api::Dns::default()
            };
            (None, of(schema(&dns)))
        }
        Route::DnsSetup => {
            let made = api::DnsSetupDone { changes: words(), ..api::DnsSetupDone::default() };
            (Some(of(schema(&api::DnsSetup::default()))), of(schema(&made)))
        }
    }
}

/// The schema of a sample. Maps of the wire types have the sample key `*`, and every list one element.
fn schema(sample: &impl Serialize) -> Value {
    // Wire types are written without fail; a test writes each.
    shape(&serde_json::to_value(sample).unwrap_or_default())
}

fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!({"nullable": true}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(number) if number.is_f64() => json!({"type": "number"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(items) => json!({"type": "array", "items": items.first().map_or_else(|| json!({}), shape)}),
        Value::Object(fields) => match fields.get("*") {
            Some(value) => json!({"type": "object", "additionalProperties": shape(value)}),
            None => {
                let properties: Map<String, Value> =
                    fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect();
                json!({"type": "object", "properties": properties})
            }
        },
    }
}

fn map<T>(value: T) -> BTreeMap<String, T> {
    BTreeMap::from([("*".to_owned(), value)])
}

fn words() -> Vec<String> {
    vec![String::new()]
}

fn diagnostic() -> api::Diagnostic {
    api::Diagnostic { hint: Some(String::new()), ..api::Diagnostic::default() }
}

fn failure() -> api::Failure {
    api::Failure { hint: Some(String::new()), diagnostics: vec![diagnostic()], ..api::Failure::default() }
}

fn daemon() -> api::Daemon {
    api::Daemon { parts: map(String::new()), ..api::Daemon::default() }
}

fn patch() -> api::Patch {
    api::Patch { set: words(), unset: words(), sections: words(), dry_run: false }
}

fn create() -> api::Create {
    api::Create { keywords: words(), env: words(), ..api::Create::default() }
}

fn created() -> api::Created {
    api::Created {
        request: Some(String::new()),
        plan: vec![api::Step::default()],
        diagnostics: vec![diagnostic()],
        ..api::Created::default()
    }
}

fn act() -> api::Act {
    api::Act { rids: words(), tags: words(), subsets: words(), to: words(), ..api::Act::default() }
}

fn acted() -> api::Acted {
    let result = api::ActResult {
        request: Some(String::new()),
        target: Some(String::new()),
        refused: Some(failure()),
        plan: vec![api::Step::default()],
        ..api::ActResult::default()
    };
    api::Acted { results: vec![result] }
}

fn pool() -> api::Pool {
    let volume = api::PoolVolume { children: words(), ..api::PoolVolume::default() };
    api::Pool { capabilities: words(), problem: Some(String::new()), volumes: vec![volume], ..api::Pool::default() }
}

fn node_status() -> api::NodeStatus {
    api::NodeStatus { frozen: Some(0.5), load_15m: 0.5, labels: map(String::new()), ..api::NodeStatus::default() }
}

fn object() -> api::ObjectStatus {
    let line = api::StatusLine { severity: String::new(), text: String::new() };
    let resource = api::ResourceStatus {
        log: vec![line],
        info: map(String::new()),
        tags: words(),
        subset: Some(String::new()),
        running: true,
        monitor: true,
        disable: true,
        optional: true,
        encap: true,
        standby: true,
        restart: 1,
        ..api::ResourceStatus::default()
    };
    let instance = api::InstanceStatus {
        frozen: Some(0.5),
        local_expect: Some(String::new()),
        global_expect: Some(String::new()),
        progress: Some(String::new()),
        error: Some(failure()),
        updated: 0.5,
        resources: map(resource),
        ..api::InstanceStatus::default()
    };
    api::ObjectStatus { problems: vec![diagnostic()], instances: map(instance), ..api::ObjectStatus::default() }
}

fn snapshot() -> api::Snapshot {
    api::Snapshot { nodes: map(node_status()), objects: map(object()), ..api::Snapshot::default() }
}

fn events() -> Vec<api::Event> {
    let text = String::new;
    vec![
        api::Event::Instance { path: text(), node: text(), object: Box::new(object()) },
        api::Event::Gone { path: text() },
        api::Event::Node { node: text(), status: Box::new(node_status()) },
        api::Event::Progress { path: text(), node: text(), rid: Some(text()), text: text(), request: Some(text()) },
        api::Event::Ended { path: text(), request: text(), failure: Some(failure()) },
        api::Event::Alive,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every list of a sample has an element, so that its items have a shape.
    fn complete(value: &Value, at: &str) {
        match value {
            Value::Object(fields) => {
                if fields.get("type") == Some(&json!("array")) {
                    assert!(fields["items"] != json!({}), "{at} has items of no shape");
                }
                for (name, value) in fields {
                    complete(value, &format!("{at}.{name}"));
                }
            }
            Value::Array(items) => items.iter().for_each(|item| complete(item, at)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_every_route_with_its_shapes() {
        let document = document();
        for row in routes::TABLE {
            let path = format!("/v1{}", row.path.replace("{object}", "{namespace}/{kind}/{name}"));
            let operation = &document["paths"][&path][row.method.to_ascii_lowercase()];
            assert_eq!(operation["operationId"], format!("{:?}", row.route), "{path}");
            assert_eq!(
                operation.get("requestBody").is_some(),
                matches!(row.method, "POST" | "PUT" | "PATCH"),
                "{path}"
            );
        }
        complete(&document["paths"], "");
        let status = &document["paths"]["/v1/status"]["get"]["responses"]["200"]["content"]["application/json"];
        let instance = &status["schema"]["properties"]["objects"]["additionalProperties"]["properties"]["instances"];
        let resource = &instance["additionalProperties"]["properties"]["resources"]["additionalProperties"];
        assert_eq!(resource["properties"]["type"], json!({"type": "string"}));
        assert_eq!(resource["properties"]["restart"], json!({"type": "integer"}));
    }
}
