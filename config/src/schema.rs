//! JSON Schema of `.circleci/config.yml`, for editors: derived from the tables that the compiler checks keys against.
//!
//! It refuses what the compiler refuses by shape alone, and nothing that compiles: unknown keys pass, as they are a
//! warning; anything single may be a template. Draft 7, which editors know best.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::keys::{Further, Key, Keys, Shape, tables};

/// The schema as text, with a line break at the end.
pub fn schema() -> String {
    // No map of it has keys that are not texts.
    serde_json::to_string_pretty(&value()).unwrap_or_default() + "\n"
}

fn value() -> Value {
    let mut definitions = Definitions::default();
    definitions.basic();
    let top = definitions.keys(&tables::TOP);
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "urn:navvy:config",
        "title": ".circleci/config.yml",
        "allOf": [top],
        "definitions": definitions.done,
    })
}

#[derive(Default)]
struct Definitions {
    done: BTreeMap<&'static str, Value>,
}

impl Definitions {
    fn basic(&mut self) {
        let texts = json!({
            "description": "A text, or a list of texts.",
            "anyOf": [reference("text"), {"type": "array", "items": reference("texts")}],
        });
        let yes = ["yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"];
        let no = ["no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"];
        self.done.insert("text", json!({"type": ["string", "number", "boolean"]}));
        let words = [yes, no].concat();
        self.done.insert("texts", texts);
        self.done.insert("template", json!({"type": "string", "pattern": "<<"}));
        self.done.insert(
            "truth",
            json!({
                "anyOf": [{"type": "boolean"}, {"enum": words}, reference("template")],
            }),
        );
    }

    /// A reference to a map's definition, which is added.
    fn keys(&mut self, keys: &'static Keys) -> Value {
        self.define(keys.id, |definitions| definitions.map(keys))
    }

    fn define(&mut self, id: &'static str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.done.contains_key(id) {
            // It may contain itself.
            self.done.insert(id, Value::Null);
            let made = make(self);
            self.done.insert(id, made);
        }
        reference(id)
    }

    fn map(&mut self, keys: &'static Keys) -> Value {
        let properties: Map<String, Value> =
            keys.keys.iter().map(|key| (key.name.to_owned(), self.property(key))).collect();
        let mut map = json!({"description": keys.about, "type": "object", "properties": properties});
        let required: Vec<&str> = keys.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
        if !required.is_empty() {
            map["required"] = json!(required);
        }
        if !keys.some_of.is_empty() {
            map["anyOf"] = keys.some_of.iter().map(|key| json!({"required": [key]})).collect();
        }
        if keys.single.is_some() {
            map["minProperties"] = json!(1);
            map["maxProperties"] = json!(1);
        }
        if let Some(rest) = keys.rest {
            map["additionalProperties"] = self.shape(rest);
        }
        match keys.single {
            // A schema does not see which key is the first.
            Some(Further::Ignored) => json!({"anyOf": [map, {"type": "object", "minProperties": 2}]}),
            _ => map,
        }
    }

    /// A key that is not required may be left empty.
    fn property(&mut self, key: &'static Key) -> Value {
        let mut alternatives = self.alternatives(&key.shape);
        if !key.required && !matches!(key.shape, Shape::Any) {
            alternatives.push(json!({"type": "null"}));
        }
        json!({"description": key.about, "anyOf": alternatives})
    }

    fn alternatives(&mut self, shape: &'static Shape) -> Vec<Value> {
        match shape {
            Shape::Either(shapes) => shapes.iter().flat_map(|shape| self.alternatives(shape)).collect(),
            shape => vec![self.shape(shape)],
        }
    }

    fn shape(&mut self, shape: &'static Shape) -> Value {
        match shape {
            Shape::Any => json!({}),
            Shape::Null => json!({"type": "null"}),
            Shape::Template => reference("template"),
            Shape::Text => reference("text"),
            Shape::Texts => reference("texts"),
            Shape::Truth => reference("truth"),
            Shape::Words(words) => json!({"anyOf": [{"enum": spellings(words)}, reference("template")]}),
            Shape::Integer { least, most } => integer(*least, *most),
            Shape::Map(keys) => self.keys(keys),
            Shape::List(item, least) => json!({"type": "array", "minItems": least, "items": self.shape(item)}),
            Shape::Named(inner) => json!({"type": "object", "additionalProperties": self.shape(inner)}),
            Shape::Either(_) => json!({"anyOf": self.alternatives(shape)}),
            Shape::Shared(shared) => self.define(
                shared.id,
                |definitions| json!({"description": shared.about, "anyOf": definitions.alternatives(&shared.shape)}),
            ),
        }
    }
}

fn reference(id: &str) -> Value {
    json!({"$ref": format!("#/definitions/{id}")})
}

/// Words that look like numbers may be written as such.
fn spellings(words: &[&str]) -> Vec<Value> {
    let number = |word: &&str| word.parse::<f64>().ok().map(|number| json!(number));
    let mut all: Vec<Value> = words.iter().map(|word| json!(word)).collect();
    for number in words.iter().filter_map(number) {
        if !all.contains(&number) {
            all.push(number);
        }
    }
    all
}

/// Also as text, as a template inside of more text leaves it.
fn integer(least: i64, most: Option<i64>) -> Value {
    let mut number = json!({"type": "integer", "minimum": least});
    if let Some(most) = most {
        number["maximum"] = json!(most);
    }
    json!({"anyOf": [number, {"type": "string", "pattern": "^\\s*[0-9]+\\s*$"}, reference("template")]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Report;
    use crate::syntax::{Content, Literal, Node, parse};
    use crate::testing::{committed, fixtures, valid};

    /// A config as the readers of editors have it.
    fn read(text: &str) -> Value {
        json_of(&parse(text, 0, &mut Report::default()).unwrap())
    }

    fn json_of(node: &Node) -> Value {
        match &node.content {
            Content::Map(map) => {
                Value::Object(map.entries.iter().map(|entry| (entry.key.to_string(), json_of(&entry.value))).collect())
            }
            Content::List(items) => items.iter().map(json_of).collect(),
            Content::Broken => Value::Null,
            Content::Scalar(scalar) => match scalar.literal() {
                Literal::Null => Value::Null,
                Literal::Bool(value) => json!(value),
                Literal::Int(value) => json!(value),
                Literal::Float(value) | Literal::Large(value) => json!(value),
                Literal::Text(text) => json!(text),
            },
        }
    }

    #[test]
    fn the_schema_in_docs_is_that_of_the_tables() {
        committed("docs/config.schema.json", &value());
    }

    #[test]
    fn what_compiles_fits_the_schema() {
        for (name, text) in fixtures() {
            assert_eq!(valid(&value(), &read(&text)), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn what_is_written_out_fits_the_schema() {
        for (name, text) in fixtures() {
            let inputs = crate::Inputs { allow_missing_orbs: true, ..Default::default() };
            let written = crate::process(&crate::Source { name: &name, text: &text }, &inputs, false).text.unwrap();
            assert_eq!(valid(&value(), &read(&written)), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        let job = |body: &str| format!("{{version: 2.1, jobs: {{a: {{docker: [{{image: i}}], {body}}}}}}}");
        for fine in [
            "steps: [checkout]",
            "steps: [checkout], nonsense: 1",
            "steps: [run: {command: x, timeout: 1}]",
            "steps: [{run: x, name: y, when: always}]",
            "steps: [when: {condition: true, steps: {run: x}}, unless: {condition: true, steps: null}]",
        ] {
            assert!(valid(&value(), &read(&job(fine))).is_empty(), "{fine}");
        }
        for fine in [
            "{version: 2.1, workflows: {w: {jobs: [{a: {}, b: {}}, {a: null, filters: [main]}]}}}",
            "{version: 2.1, commands: {c: o/x}, executors: {e: o/x}, jobs: {j: o/x}}",
            "{version: 2, orbs: null, commands: null, jobs: {}}",
        ] {
            assert!(valid(&value(), &read(fine)).is_empty(), "{fine}");
        }
        for wrong in [
            "stepz: [checkout]",
            "steps: checkout",
            "steps: [{runn: x}, {run: [x]}]",
            "steps: [{}]",
            "steps: [run: {name: y}]",
            "steps: [run: [x]]",
            "steps: [save_cache: {key: k}]",
            "steps: [restore_cache: {name: k}]",
            "steps: [when: {condition: true}]",
            "steps: [when: {condition: {nand: [a], or: [b]}, steps: []}]",
            "steps: [run: {command: x, when: sometimes}]",
            "steps: [run: {command: x, background: perhaps}]",
            "steps: [], docker: {image: i}",
            "steps: [], docker: [{name: x}]",
            "steps: [], docker: []",
            "steps: [], parallelism: many",
            "steps: [], parallelism: 0",
            "steps: [], type: bild",
            "steps: [], environment: {A: [b]}",
            "steps: [], executor: {tag: x}",
            "steps: [], parameters: {p: string}",
            "steps: [], parameters: {p: {type: strin}}",
        ] {
            assert!(!valid(&value(), &read(&job(wrong))).is_empty(), "{wrong}");
        }
        for wrong in [
            "{jobs: {}}",
            "{version: 3, jobs: {}}",
            "{version: 2.1, workflows: [a]}",
            "{version: 2.1, workflows: {w: {jobs: a}}}",
            "{version: 2.1, workflows: {w: {jobs: []}}}",
            "{version: 2.1, workflows: {w: {jobs: [{}]}}}",
            "{version: 2.1, workflows: {w: {jobs: [a: {type: approve}]}}}",
            "{version: 2.1, workflows: {w: {jobs: [a: {filters: [main]}]}}}",
            "{version: 2.1, workflows: {w: {jobs: [a], max_auto_reruns: 6}}}",
            "{version: 2.1, parameters: {p: {type: string}}}",
            "{version: 2.1, orbs: [a]}",
        ] {
            assert!(!valid(&value(), &read(wrong)).is_empty(), "{wrong}");
        }
    }
}
