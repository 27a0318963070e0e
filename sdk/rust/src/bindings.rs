//! What `wit-bindgen` makes of `wit/plugin.wit`. Called by the rest of this crate; plugins rarely need it.
//!
//! One set of bindings serves both worlds of sinks: imports that a component does not use are left out of it, so a sink
//! that never calls `reveal` does not import it.

/// The world `sink-plugin-reveal`.
pub mod sink {
    wit_bindgen::generate!({
        path: "wit",
        world: "sink-plugin-reveal",
        pub_export_macro: true,
        export_macro_name: "export_sink",
        default_bindings_module: "sepal_plugin::bindings::sink",
    });
}

/// The world `secret-resolver`.
pub mod resolver {
    wit_bindgen::generate!({
        path: "wit",
        world: "secret-resolver",
        pub_export_macro: true,
        export_macro_name: "export_resolver",
        default_bindings_module: "sepal_plugin::bindings::resolver",
    });
}
