//! The schema of a plugin's options: what of JSON Schema 2020-12 the host takes, and options checked against it.
//!
//! The schema comes from a stranger and is run in the server: patterns use the linear-time engine, are few and small,
//! `$ref` reaches only into `$defs` and only once, nothing is fetched. Sensitive options (`"sensitive": true`,
//! `"writeOnly": true`) hold `{"$secret": "<slot>"}` and are never validated as text: no message can carry one's
//! value.

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::{PatternOptions, Validator};
use sepal_database::connector::{Fault, FaultKind, Setting};
use serde_json::{Map, Value, json};

use super::ManifestError;

const MAX_SCHEMA_BYTES: usize = 64 << 10;
const MAX_DEPTH: usize = 16;
const MAX_PROPERTIES: usize = 100;
const MAX_NAME_BYTES: usize = 63;
/// Compiled. A hundred of ASCII characters out of a class take about ten kilobytes.
const MAX_PATTERN_BYTES: usize = 32 << 10;
/// What a pattern in use may keep to be faster, in each direction. Without it the same engine takes longer.
const MAX_PATTERN_CACHE_BYTES: usize = 64 << 10;
const MAX_PATTERNS: usize = 64;
/// Values of the schema with every `$ref` written out: each becomes an object of the validator.
const MAX_NODES: usize = 10_000;
/// A pattern in memory: both directions of its automaton, their caches, and what finds its groups.
const PATTERN_WEIGHT_BYTES: u64 = 4 * (MAX_PATTERN_BYTES + MAX_PATTERN_CACHE_BYTES) as u64;
const NODE_WEIGHT_BYTES: u64 = 1 << 10;

/// A schema that was checked and compiled.
#[derive(Debug)]
pub struct ConfigSchema {
    properties: BTreeMap<String, Property>,
    required: BTreeSet<String>,
    validator: Validator,
    size: Size,
}

/// What a schema comes to when every `$ref` is written out.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: usize,
    patterns: usize,
}

#[derive(Debug)]
struct Property {
    sensitive: bool,
    /// The one `type` it names.
    kind: Option<String>,
    default: Option<Value>,
}

/// Options that fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Configured {
    /// An object: the options with defaults, sensitive ones as `{"$secret": "<slot>"}`.
    pub json: Map<String, Value>,
    /// By slot: the secret's name and, if pinned, version.
    pub slots: BTreeMap<String, (String, Option<u64>)>,
}

impl ConfigSchema {
    pub fn compile(schema: &Value) -> Result<Self, ManifestError> {
        let size = schema.to_string().len();
        if size > MAX_SCHEMA_BYTES {
            return Err(wrong("", format!("it has {size} bytes; {MAX_SCHEMA_BYTES} is the most")));
        }
        check_root(schema)?;
        check_references(schema)?;
        let size = Size::of(schema)?;
        let required = required(schema)?;
        let listed =
            schema["properties"].as_object().ok_or_else(|| wrong("", "\"properties\" is missing"))?;
        if listed.len() > MAX_PROPERTIES {
            return Err(wrong(
                "/properties",
                format!("{} options; {MAX_PROPERTIES} is the most", listed.len()),
            ));
        }
        let mut properties = BTreeMap::new();
        let mut runnable = schema.clone();
        for (name, described) in listed {
            let property = Property::read(schema, name, described)?;
            if property.sensitive {
                // What stands there at run time is a reference: it fits whatever the text has to look like.
                runnable["properties"][name] = Value::Bool(true);
            }
            properties.insert(name.clone(), property);
        }
        if let Some(name) = required.iter().find(|name| !properties.contains_key(*name)) {
            return Err(wrong("/required", format!("{name:?} is not among the properties")));
        }
        let patterns =
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_CACHE_BYTES);
        let validator = jsonschema::options()
            .offline()
            .with_draft(jsonschema::Draft::Draft202012)
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            .build(&runnable)
            .map_err(|error| wrong(&error.instance_path().to_string(), error.to_string()))?;
        Ok(Self { properties, required, validator, size })
    }

    /// About what it takes in memory, rather too much than too little.
    pub fn weight_bytes(&self) -> u64 {
        self.size.nodes as u64 * NODE_WEIGHT_BYTES + self.size.patterns as u64 * PATTERN_WEIGHT_BYTES
    }

    pub fn is_sensitive(&self, name: &str) -> bool {
        self.properties.get(name).is_some_and(|property| property.sensitive)
    }

    pub fn is_required(&self, name: &str) -> bool {
        self.required.contains(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.properties.contains_key(name)
    }

    /// The sensitive options, in order.
    pub fn sensitive(&self) -> impl Iterator<Item = &String> {
        self.properties.iter().filter(|(_, property)| property.sensitive).map(|(name, _)| name)
    }

    /// Options of a statement as the guest gets them.
    ///
    /// Errors: [`FaultKind::Misconfigured`], the message begins with a JSON pointer.
    pub fn configure(&self, options: &BTreeMap<String, Setting>) -> Result<Configured, Fault> {
        let mut json = Map::new();
        let mut slots = BTreeMap::new();
        for (name, setting) in options {
            let property = self.properties.get(name).ok_or_else(|| self.unknown(name))?;
            match (setting, property.sensitive) {
                (Setting::Secret(secret, version), true) => {
                    slots.insert(name.clone(), (secret.clone(), *version));
                    json.insert(name.clone(), json!({ "$secret": name }));
                }
                (_, true) => {
                    let problem = format!(
                        "a secret goes here, not its text: CREATE SECRET first, then write {name} SECRET[name]"
                    );
                    return Err(misfit(&format!("/{name}"), &problem));
                }
                (Setting::Secret(..), false) => {
                    let problem = "this option is no place for a secret: the plugin would see it as text";
                    return Err(misfit(&format!("/{name}"), problem));
                }
                (Setting::Certificate(_), false) => {
                    let problem = "plugins take no certificates; write the value, or use a native sink";
                    return Err(misfit(&format!("/{name}"), problem));
                }
                (setting, false) => {
                    json.insert(name.clone(), property.value(setting));
                }
            }
        }
        for (name, property) in &self.properties {
            if let Some(default) = property.default.as_ref().filter(|_| !json.contains_key(name)) {
                json.insert(name.clone(), default.clone());
            }
        }
        let whole = Value::Object(json);
        if let Some(error) = self.validator.iter_errors(&whole).next() {
            return Err(misfit(&error.instance_path().to_string(), &error.to_string()));
        }
        let Value::Object(json) = whole else { unreachable!("it was made as an object above") };
        Ok(Configured { json, slots })
    }

    fn unknown(&self, name: &str) -> Fault {
        let known: Vec<&str> = self.properties.keys().map(String::as_str).collect();
        let known =
            if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        misfit(&format!("/{name}"), &format!("the plugin has no such option; {known}"))
    }
}

impl Size {
    /// Of a schema whose references [`check_references`] has seen: what they lead to has none.
    fn of(schema: &Value) -> Result<Self, ManifestError> {
        let mut size = Self::default();
        size.add(schema, schema)?;
        if size.patterns > MAX_PATTERNS {
            let problem = format!("it has {} patterns; {MAX_PATTERNS} is the most", size.patterns);
            return Err(wrong("", problem));
        }
        Ok(size)
    }

    fn add(&mut self, schema: &Value, value: &Value) -> Result<(), ManifestError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let problem = format!("with every $ref written out it has more than {MAX_NODES} values");
            return Err(wrong("", problem));
        }
        match value {
            Value::Object(map) => map.iter().try_for_each(|(key, inner)| {
                match (key.as_str(), inner) {
                    ("pattern", Value::String(_)) => self.patterns += 1,
                    ("patternProperties", Value::Object(patterns)) => self.patterns += patterns.len(),
                    ("$ref", Value::String(path)) => {
                        if let Some(target) = referred(schema, path) {
                            self.add(schema, target)?;
                        }
                    }
                    _ => {}
                }
                self.add(schema, inner)
            }),
            Value::Array(items) => items.iter().try_for_each(|item| self.add(schema, item)),
            _ => Ok(()),
        }
    }
}

impl Property {
    fn read(schema: &Value, name: &str, described: &Value) -> Result<Self, ManifestError> {
        let at = format!("/properties/{name}");
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        if name.len() > MAX_NAME_BYTES || !starts || !name.bytes().all(plain) {
            return Err(wrong(&at, "an option's name is lower-case letters, digits and _, at most 63"));
        }
        let target = described.get("$ref").and_then(Value::as_str).and_then(|path| referred(schema, path));
        let forms = [Some(described), target];
        let says =
            |keyword: &str| forms.iter().flatten().any(|form| form.get(keyword) == Some(&Value::Bool(true)));
        let find = |keyword: &str| forms.iter().flatten().find_map(|form| form.get(keyword));
        let sensitive = says("sensitive") || says("writeOnly");
        let default = find("default").cloned();
        if sensitive && default.is_some() {
            return Err(wrong(
                &at,
                "a sensitive option has no default: it would be a secret in the manifest",
            ));
        }
        let inner = |form: &&Value| mentions_sensitive(form, 0);
        if forms.iter().flatten().any(inner) {
            return Err(wrong(&at, "only an option as a whole is sensitive, not a part of it"));
        }
        let kind = find("type").and_then(Value::as_str).map(ToOwned::to_owned);
        Ok(Self { sensitive, kind, default })
    }

    /// SQL's options are text as often as not: `'500'` for an integer is 500. What cannot be read stays text, and the
    /// schema says so.
    fn value(&self, setting: &Setting) -> Value {
        match setting {
            Setting::Flag(flag) => Value::Bool(*flag),
            Setting::Number(number) => number_value(*number),
            Setting::Text(text) => self.read_text(text).unwrap_or_else(|| Value::String(text.clone())),
            Setting::Secret(..) | Setting::Certificate(_) => Value::Null,
        }
    }

    fn read_text(&self, text: &str) -> Option<Value> {
        match self.kind.as_deref()? {
            "integer" => text.trim().parse::<i64>().ok().map(Value::from),
            "number" => text.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(number_value),
            "boolean" => match text.trim() {
                "true" | "on" => Some(Value::Bool(true)),
                "false" | "off" => Some(Value::Bool(false)),
                _ => None,
            },
            "array" | "object" => serde_json::from_str(text).ok(),
            _ => None,
        }
    }
}

/// 500.0 as 500: an integer's schema wants one.
fn number_value(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

fn check_root(schema: &Value) -> Result<(), ManifestError> {
    if schema.get("type") != Some(&json!("object")) {
        return Err(wrong("", "\"type\": \"object\" is missing: options are named"));
    }
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err(wrong(
            "",
            "\"additionalProperties\": false is missing: a misspelt option has to be an error",
        ));
    }
    if schema.get("patternProperties").is_some() {
        return Err(wrong("/patternProperties", "options are listed by name under \"properties\""));
    }
    let dialect = schema.get("$schema").map_or(Some(""), Value::as_str);
    if !matches!(dialect, Some("" | "https://json-schema.org/draft/2020-12/schema")) {
        return Err(wrong("/$schema", "it has to be https://json-schema.org/draft/2020-12/schema"));
    }
    Ok(())
}

fn required(schema: &Value) -> Result<BTreeSet<String>, ManifestError> {
    let Some(listed) = schema.get("required") else { return Ok(BTreeSet::new()) };
    let names = listed.as_array().into_iter().flatten().map(|name| name.as_str().map(ToOwned::to_owned));
    let names: Option<BTreeSet<String>> = names.collect();
    names.filter(|_| listed.is_array()).ok_or_else(|| wrong("/required", "it is a list of option names"))
}

/// `$ref` reaches into `$defs`, and what it reaches has no `$ref`: no loop, and no doubling at every step.
fn check_references(schema: &Value) -> Result<(), ManifestError> {
    let mut found = Vec::new();
    references(schema, 0, &mut found)?;
    for path in found {
        let target = referred(schema, path)
            .ok_or_else(|| wrong("", format!("$ref {path:?} has to be \"#/$defs/…\" and there")))?;
        let mut inner = Vec::new();
        references(target, 0, &mut inner)?;
        if !inner.is_empty() {
            return Err(wrong("", format!("what $ref {path:?} leads to has a $ref itself: write it out")));
        }
    }
    Ok(())
}

fn references<'a>(value: &'a Value, depth: usize, found: &mut Vec<&'a str>) -> Result<(), ManifestError> {
    if depth > MAX_DEPTH {
        return Err(wrong("", format!("it is nested more than {MAX_DEPTH} deep")));
    }
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match key.as_str() {
                    "$ref" => found.push(inner.as_str().ok_or_else(|| wrong("", "a $ref is text"))?),
                    "$dynamicRef" | "$recursiveRef" | "$dynamicAnchor" | "$id" | "$anchor"
                    | "$vocabulary" => {
                        return Err(wrong("", format!("{key} is not taken here; write it out or use $defs")));
                    }
                    _ => references(inner, depth + 1, found)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| references(item, depth + 1, found)),
        _ => Ok(()),
    }
}

fn referred<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let name = path.strip_prefix("#/$defs/").filter(|name| !name.contains(['/', '~', '%']))?;
    schema.get("$defs")?.get(name)
}

/// Whether a part of `form`, and not `form` as a whole, is marked as a secret.
fn mentions_sensitive(form: &Value, depth: usize) -> bool {
    match form {
        Value::Object(map) => map.iter().any(|(key, inner)| {
            let marks =
                depth > 0 && matches!(key.as_str(), "sensitive" | "writeOnly") && *inner == Value::Bool(true);
            marks || mentions_sensitive(inner, depth + 1)
        }),
        Value::Array(items) => items.iter().any(|item| mentions_sensitive(item, depth + 1)),
        _ => false,
    }
}

fn wrong(pointer: &str, problem: impl Into<String>) -> ManifestError {
    let at = if pointer.is_empty() { "config.schema".to_owned() } else { format!("config.schema {pointer}") };
    ManifestError::new(at, problem)
}

fn misfit(pointer: &str, problem: &str) -> Fault {
    let pointer = if pointer.is_empty() { "/" } else { pointer };
    Fault::new(FaultKind::Misconfigured, format!("{pointer}: {problem}")).with_code("config")
}
