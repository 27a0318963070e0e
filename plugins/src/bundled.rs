//! The plugins that come with the process, as `build.rs` compiled and packed them. `runtime` registers them; nothing
//! here runs.

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// The component of a bundled plugin, manifest included, by the name it has after `USING PLUGIN`.
pub fn component(name: &str) -> Option<&'static [u8]> {
    BUNDLED.iter().find(|(bundled, _)| *bundled == name).map(|(_, component)| *component)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest_section::{COMPONENT_HEADER, NAME};

    #[test]
    fn all_guests_are_there_with_their_manifests() {
        let names: Vec<&str> = BUNDLED.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["aws-secrets", "elasticsearch", "loki", "vault", "vector", "webhook"]);
        for (name, bytes) in BUNDLED {
            assert!(bytes.starts_with(&COMPONENT_HEADER), "{name}");
            let section =
                wasmparser::Parser::new(0).parse_all(bytes).find_map(|payload| match payload.unwrap() {
                    wasmparser::Payload::CustomSection(section) if section.name() == NAME => {
                        Some(section.data())
                    }
                    _ => None,
                });
            let manifest: serde_json::Value = serde_json::from_slice(section.unwrap()).unwrap();
            assert_eq!(manifest["plugin"]["name"], format!("sepal/{name}"));
            assert_eq!(manifest["config"]["schema"]["additionalProperties"], false, "{name}");
        }
        assert!(component("webhook").is_some() && component("none").is_none());
    }
}
