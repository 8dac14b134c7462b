//! Manifests by a builder, so that a test says only what it is about.

use serde_json::{Map, Value, json};

/// A manifest with one bottle, `dev`, and one agent, `implementer`.
#[derive(Debug, Clone)]
pub(crate) struct Manifest(Value);

impl Manifest {
    /// The smallest valid one.
    pub(crate) fn new() -> Self {
        Self(json!({
            "version": 1,
            "bottles": { "dev": { "image": "bottle-probe" } },
            "agents": { "implementer": { "bottle": "dev" } },
        }))
    }

    /// Sets a field by its path, `bottles.dev.resources.pids`; what lies between is made.
    #[must_use]
    pub(crate) fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.0;
        for name in path.split('.') {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[name];
        }
        *at = value.into();
        self
    }

    /// Removes a field by its path.
    #[must_use]
    pub(crate) fn without(mut self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let pointer: String = parent
            .split('.')
            .filter(|p| !p.is_empty())
            .fold(String::new(), |pointer, part| pointer + "/" + part);
        if let Some(Value::Object(parent)) = self.0.pointer_mut(&pointer) {
            parent.remove(name);
        }
        self
    }

    /// Sets the bottle's image.
    #[must_use]
    pub(crate) fn image(self, image: &str) -> Self {
        self.set("bottles.dev.image", image)
    }

    /// Adds a route, as the manifest writes it: `json!({"host": "api.example.com"})`.
    #[must_use]
    pub(crate) fn route(mut self, route: Value) -> Self {
        let routes = &mut self.0["bottles"]["dev"]["egress"]["routes"];
        match routes {
            Value::Array(routes) => routes.push(route),
            _ => *routes = json!([route]),
        }
        self
    }

    /// Its text: JSON, which is YAML.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string_pretty(&self.0).unwrap() + "\n"
    }
}
