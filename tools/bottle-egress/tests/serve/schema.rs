//! The published schema of `decisions.jsonl`, by a validator that knows nothing of bottle. Every line
//! that a test reads goes through it.

use std::cell::OnceCell;

use boon::{Compiler, SchemaIndex, Schemas};
use bottle::policy::DecisionLine;
use serde_json::{Value, json};

const TEXT: &str = include_str!("../../../../man/decisions.schema.json");

thread_local! {
    static SCHEMA: OnceCell<(Schemas, SchemaIndex)> = const { OnceCell::new() };
}

fn compiled() -> (Schemas, SchemaIndex) {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("decisions.json", serde_json::from_str(TEXT).unwrap()).unwrap();
    let at = compiler.compile("decisions.json", &mut schemas).unwrap();
    (schemas, at)
}

fn valid(line: &Value) -> Result<(), String> {
    SCHEMA.with(|schema| {
        let (schemas, at) = schema.get_or_init(compiled);
        schemas.validate(line, *at).map_err(|error| format!("{error:#}"))
    })
}

/// Asserts that a line is as published.
#[track_caller]
pub(crate) fn check(line: &str) {
    let value = serde_json::from_str(line).unwrap();
    valid(&value).unwrap_or_else(|why| panic!("{line}\n{why}"));
}

/// A line with all that one can have.
fn full() -> Value {
    json!({
        "time": "2026-11-24T09:00:00.123Z", "kind": "http", "client": "10.0.0.2",
        "scheme": "https", "method": "GET", "host": "a.example", "port": 443, "path": "/",
        "decision": "deny", "reason": "path", "nearest": 0, "address": "2001:db8::1",
        "status": 403, "found": ["jwt in body"], "sent": 1, "received": 2, "duration_us": 3, "generation": 1,
        "policy": "0".repeat(64), "dropped": 1,
    })
}

#[test]
fn schema_has_the_fields_and_words_of_the_lines_and_no_others() {
    let mut line = full();
    check(&line.to_string());
    serde_json::from_value::<DecisionLine<'_>>(line.clone()).unwrap();
    line["rule"] = json!(0);
    let schema: Value = serde_json::from_str(TEXT).unwrap();
    let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (mut published, mut ours) = (keys(&schema["properties"]), keys(&line));
    published.sort();
    ours.sort();
    assert_eq!(published, ours);
    for (field, kind) in
        [("kind", "http"), ("decision", "deny"), ("scheme", "http"), ("reason", "dns")]
    {
        let words = schema["properties"][field]["enum"].as_array().unwrap();
        assert!(words.contains(&json!(kind)));
        // serde names all that it knows.
        let mut odd = full();
        odd[field] = json!("odd");
        let error = serde_json::from_value::<DecisionLine<'_>>(odd).unwrap_err().to_string();
        let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(words, &known, "{field}");
    }
}

#[test]
fn schema_refuses_what_is_no_line() {
    for (field, value) in [
        ("time", json!("yesterday")),
        ("client", json!("somebody")),
        ("port", json!(65536)),
        ("sent", json!(-1)),
        ("duration_us", json!(1.5)),
        ("policy", json!("0")),
        ("decision", json!("allow")),
        ("kind", json!("dns")),
        ("query", json!("a=1")),
    ] {
        let mut line = full();
        line[field] = value;
        assert!(valid(&line).is_err(), "{field}");
    }
    for field in ["time", "host", "sent", "policy", "reason", "path"] {
        let mut line = full();
        line.as_object_mut().unwrap().remove(field);
        assert!(valid(&line).is_err(), "{field}");
    }
}
