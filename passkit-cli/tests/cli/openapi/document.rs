//! Reads `docs/openapi.yaml`, and compares answers with it.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value};

use crate::program::Answer;

/// Headers that any answer may have.
const USUAL: [&str; 3] = ["connection", "content-type", "date"];

pub(super) struct Document(pub(super) Value);

/// A path of the document, a method in lower case, and a status.
pub(super) type Documented = (String, String, u16);

impl Document {
    pub(super) fn open() -> Self {
        let text = include_str!("../../../../docs/openapi.yaml");
        Self(serde_norway::from_str(text).unwrap())
    }

    /// Returns all paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = &String> {
        self.0["paths"].as_object().unwrap().keys()
    }

    /// Returns the methods of a path, in lower case.
    pub(super) fn methods(&self, path: &str) -> impl Iterator<Item = &String> {
        let item = self.0["paths"][path].as_object().unwrap();
        item.keys()
            .filter(|key| !matches!(key.as_str(), "parameters" | "servers"))
    }

    /// Returns all statuses that the document lists.
    pub(super) fn statuses(&self) -> BTreeSet<Documented> {
        let mut all = BTreeSet::new();
        for path in self.paths() {
            for method in self.methods(path) {
                let responses = self.0["paths"][path][method]["responses"].as_object();
                for status in responses.unwrap().keys() {
                    all.insert((path.clone(), method.clone(), status.parse().unwrap()));
                }
            }
        }
        all
    }

    /// Returns the path of the document to which the path of a request belongs.
    pub(super) fn template(&self, path: &str) -> Option<&String> {
        let path = path.split('?').next().unwrap_or_default();
        let segments: Vec<_> = path.split('/').collect();
        self.paths().find(|template| {
            let own: Vec<_> = template.split('/').collect();
            let fits = |(own, segment): (&&str, &&str)| own.starts_with('{') || own == segment;
            own.len() == segments.len() && own.iter().zip(&segments).all(fits)
        })
    }

    /// Follows references.
    fn resolve<'a>(&'a self, mut value: &'a Value) -> &'a Value {
        while let Some(reference) = value.get("$ref") {
            let pointer = reference.as_str().unwrap().trim_start_matches('#');
            value = (self.0.pointer(pointer)).unwrap_or_else(|| panic!("{pointer} is missing"));
        }
        value
    }

    /// Returns the schema of the body of a request, if the body is JSON.
    fn body_schema(&self, path: &str, method: &str) -> Option<&Value> {
        let operation = &self.0["paths"][path][method];
        operation.pointer("/requestBody/content/application~1json/schema")
    }

    /// Returns everything in which a request and its answer differ from the document.
    pub(super) fn problems(
        &self,
        (path, method): (&str, &str),
        body: &[u8],
        answer: &Answer,
    ) -> Vec<String> {
        let operation = &self.0["paths"][path][method];
        let Some(response) = operation["responses"].get(answer.status.to_string()) else {
            return vec![format!("the status {} is not listed", answer.status)];
        };
        let response = self.resolve(response);
        let mut problems = self.header_problems(response, answer);
        problems.extend(self.content_problems(response, method, answer));
        if let Some(schema) = self.body_schema(path, method)
            && (200..300).contains(&answer.status)
        {
            match serde_json::from_slice(body) {
                Ok(body) => self.check(schema, &body, "the request", &mut problems),
                // Any body of a log is fine.
                Err(_) if *schema == Value::Bool(true) => {}
                Err(error) => problems.push(format!("the request: {error}")),
            }
        }
        problems
    }

    fn header_problems(&self, response: &Value, answer: &Answer) -> Vec<String> {
        let none = Map::new();
        let headers = response.get("headers").and_then(Value::as_object);
        let headers = headers.unwrap_or(&none);
        let mut problems = Vec::new();
        for (name, header) in headers {
            let header = self.resolve(header);
            match answer.header(name) {
                Some(value) => {
                    let value = Value::String(value.to_owned());
                    self.check(&header["schema"], &value, name, &mut problems);
                }
                None if header["required"] == true => problems.push(format!("no {name}")),
                None => {}
            }
        }
        for line in answer.head.lines().skip(1) {
            let name = line.split(':').next().unwrap_or_default();
            let is_listed = headers.keys().any(|own| own.eq_ignore_ascii_case(name));
            if !is_listed && !USUAL.contains(&&*name.to_ascii_lowercase()) {
                problems.push(format!("the header {name} is not listed"));
            }
        }
        problems
    }

    fn content_problems(&self, response: &Value, method: &str, answer: &Answer) -> Vec<String> {
        let mut problems = Vec::new();
        let media_type = answer.header("content-type");
        let media_type = media_type.map(|value| value.split(';').next().unwrap_or_default());
        let Some(content) = response.get("content") else {
            if !answer.body.is_empty() || media_type.is_some() {
                problems.push("a body that is not listed".to_owned());
            }
            return problems;
        };
        let Some(listed) = media_type.and_then(|media_type| content.get(media_type)) else {
            return vec![format!("the media type {media_type:?} is not listed")];
        };
        if method == "head" {
            if !answer.body.is_empty() {
                problems.push("HEAD has a body".to_owned());
            }
            return problems;
        }
        if answer.body.is_empty() {
            problems.push("the body is empty".to_owned());
        }
        let Some(schema) = listed.get("schema") else {
            return problems;
        };
        let body = if media_type == Some("application/json") {
            answer.json()
        } else {
            Value::String(String::from_utf8_lossy(&answer.body).into_owned())
        };
        self.check(schema, &body, "the body", &mut problems);
        problems
    }

    /// Compares a value with a schema. Reports keywords that this function does not know, so that the document has no rule
    /// that is never checked.
    pub(super) fn check(
        &self,
        schema: &Value,
        value: &Value,
        at: &str,
        problems: &mut Vec<String>,
    ) {
        let rules = match self.resolve(schema) {
            Value::Bool(true) => return,
            Value::Object(rules) => rules,
            other => panic!("{other} is no schema"),
        };
        for (keyword, rule) in rules {
            let is_met = match keyword.as_str() {
                "description" | "example" => true,
                "type" => is_type(rule, value),
                "const" => rule == value,
                "enum" => rule.as_array().unwrap().contains(value),
                "required" => value.as_object().is_none_or(|object| {
                    let names = rule.as_array().unwrap().iter();
                    names
                        .map(|name| name.as_str().unwrap())
                        .all(|name| object.contains_key(name))
                }),
                "properties" => {
                    for (name, of) in rule.as_object().unwrap() {
                        if let Some(property) = value.get(name) {
                            self.check(of, property, &format!("{at}.{name}"), problems);
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    for (name, property) in value.as_object().into_iter().flatten() {
                        let is_known = rules
                            .get("properties")
                            .is_some_and(|of| of.get(name).is_some());
                        match rule {
                            _ if is_known => {}
                            Value::Bool(false) => {
                                problems.push(format!("{at}.{name} is not listed"))
                            }
                            of => self.check(of, property, &format!("{at}.{name}"), problems),
                        }
                    }
                    true
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{at}[{index}]"), problems);
                    }
                    true
                }
                "minItems" => value
                    .as_array()
                    .is_none_or(|items| items.len() as u64 >= number(rule)),
                "maxItems" => value
                    .as_array()
                    .is_none_or(|items| items.len() as u64 <= number(rule)),
                "minLength" => value
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 >= number(rule)),
                "maxLength" => value
                    .as_str()
                    .is_none_or(|text| text.chars().count() as u64 <= number(rule)),
                "minimum" => value
                    .as_f64()
                    .is_none_or(|value| value >= rule.as_f64().unwrap()),
                "pattern" => {
                    let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                    value.as_str().is_none_or(|text| pattern.is_match(text))
                }
                "oneOf" => {
                    let fitting = rule.as_array().unwrap().iter().filter(|of| {
                        let mut problems = Vec::new();
                        self.check(of, value, at, &mut problems);
                        problems.is_empty()
                    });
                    fitting.count() == 1
                }
                other => panic!("{at}: the tests don't know the keyword {other}"),
            };
            if !is_met {
                problems.push(format!("{at} does not fit {keyword}: {rule}: {value}"));
            }
        }
    }

    /// Returns the examples that don't fit their schemas.
    pub(super) fn wrong_examples(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.check_examples(&self.0, &mut problems);
        problems
    }

    fn check_examples(&self, value: &Value, problems: &mut Vec<String>) {
        if let Some(schema) = value.get("schema") {
            let more = value.get("examples").and_then(Value::as_object);
            let more = more
                .into_iter()
                .flatten()
                .map(|(_, example)| &example["value"]);
            for example in value.get("example").into_iter().chain(more) {
                self.check(schema, example, &example.to_string(), problems);
            }
        }
        let inside: Vec<&Value> = match value {
            Value::Object(object) => object.values().collect(),
            Value::Array(items) => items.iter().collect(),
            _ => Vec::new(),
        };
        for value in inside {
            self.check_examples(value, problems);
        }
    }
}

fn number(rule: &Value) -> u64 {
    rule.as_u64().unwrap()
}

fn is_type(rule: &Value, value: &Value) -> bool {
    if let Value::Array(rules) = rule {
        return rules.iter().any(|rule| is_type(rule, value));
    }
    match rule.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    }
}
