//! The files of new projects, embedded by `build.rs`: `SDK` (the crate `sepal-plugin`), `WIT` (the interface), and a
//! folder for each language and kind.

use super::{Kind, Language};

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// What a project is made of: folder within it, and files. The first is the template, whose placeholders are filled in.
pub fn of(language: Language, kind: Kind) -> Option<[(&'static str, Files); 2]> {
    Some(match (language, kind) {
        (Language::Rust, Kind::Sink) => [("", RUST_SINK), ("sepal-plugin", SDK)],
        (Language::Rust, Kind::Resolver) => [("", RUST_RESOLVER), ("sepal-plugin", SDK)],
        (Language::Python, Kind::Sink) => [("", PYTHON_SINK), ("wit", WIT)],
        (Language::JavaScript, Kind::Sink) => [("", JS_SINK), ("wit", WIT)],
        (Language::Python | Language::JavaScript, Kind::Resolver) => return None,
    })
}

/// The interface alone, for projects that have no copy.
pub fn wit() -> Files {
    WIT
}
