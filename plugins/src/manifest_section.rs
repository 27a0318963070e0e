//! The custom section `sepal:manifest` as bytes, for the guests that come with this crate. `build.rs` and the crate
//! both compile this file, so it names nothing of the crate; tenants' plugins are packed by `package`.
//!
//! ```text
//! section := 0x00 | size LEB128 | length of name LEB128 | "sepal:manifest" | plugin.toml as JSON
//! ```
//! The JSON is `plugin.toml` with the schema's object in place of its file's name; keys are sorted.

use serde_json::{Map, Value};

/// The section's name.
pub const NAME: &str = "sepal:manifest";

/// What a component begins with: magic number, version, and the layer that tells it from a core module.
pub const COMPONENT_HEADER: [u8; 8] = [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];

/// The manifest's JSON. `schema` gives the text of the file that `config.schema` names.
pub fn manifest_json(
    plugin_toml: &str,
    schema: impl FnOnce(&str) -> Result<String, String>,
) -> Result<Vec<u8>, String> {
    let parsed: toml::Table = plugin_toml.parse().map_err(|error| format!("plugin.toml: {error}"))?;
    let mut manifest = serde_json::to_value(parsed).map_err(|error| format!("plugin.toml: {error}"))?;
    if let Some(place) = manifest.pointer_mut("/config/schema")
        && let Some(path) = place.as_str()
    {
        *place = serde_json::from_str(&schema(path)?).map_err(|error| format!("{path}: {error}"))?;
    }
    serde_json::to_vec(&sorted(manifest)).map_err(|error| error.to_string())
}

/// `component` with the manifest behind it.
pub fn with_manifest(component: &[u8], manifest_json: &[u8]) -> Result<Vec<u8>, String> {
    if !component.starts_with(&COMPONENT_HEADER) {
        return Err("this is not a WASM component: build for wasm32-wasip2".to_owned());
    }
    let mut content = Vec::with_capacity(manifest_json.len() + NAME.len() + 5);
    push_leb128(&mut content, NAME.len());
    content.extend_from_slice(NAME.as_bytes());
    content.extend_from_slice(manifest_json);
    let mut out = Vec::with_capacity(component.len() + content.len() + 6);
    out.extend_from_slice(component);
    out.push(0);
    push_leb128(&mut out, content.len());
    out.extend_from_slice(&content);
    Ok(out)
}

fn push_leb128(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Sorted keys, whatever map `serde_json` was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> =
                map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(entries))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_takes_the_place_of_its_file() {
        let toml = "[plugin]\nname = 'a/b'\n[config]\nschema = 's.json'\n[capabilities]\nhttp = ['x']\n";
        let json = manifest_json(toml, |path| Ok(format!(r#"{{"z":1,"a":"{path}"}}"#))).unwrap();
        let expected = concat!(
            r#"{"capabilities":{"http":["x"]},"config":{"schema":{"a":"s.json","z":1}},"#,
            r#""plugin":{"name":"a/b"}}"#
        );
        assert_eq!(String::from_utf8(json).unwrap(), expected);
        assert!(manifest_json("[plugin", |_| Ok(String::new())).unwrap_err().starts_with("plugin.toml: "));
        assert!(manifest_json(toml, |_| Ok("{".to_owned())).unwrap_err().starts_with("s.json: "));
        assert_eq!(manifest_json(toml, |path| Err(format!("no {path}"))).unwrap_err(), "no s.json");
    }

    #[test]
    fn a_reader_of_wasm_finds_the_section() {
        let json = vec![b' '; 300];
        let packed = with_manifest(&COMPONENT_HEADER, &json).unwrap();
        let found =
            wasmparser::Parser::new(0).parse_all(&packed).find_map(|payload| match payload.unwrap() {
                wasmparser::Payload::CustomSection(section) if section.name() == NAME => {
                    Some(section.data().to_vec())
                }
                _ => None,
            });
        assert_eq!(found, Some(json));
        assert!(with_manifest(b"\0asm\x01\0\0\0", b"{}").is_err());
    }
}
