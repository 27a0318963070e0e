//! What `sdk/wit/v0.1` is in Rust: generated, with asynchronous imports that may trap.
//!
//! Sinks with and without `reveal` export the same, so one set serves both; what is linked makes the difference. The
//! resolver's world shares the types of its imports with it.

pub(super) mod sink {
    //! The world `sink-plugin-reveal`, which has everything `sink-plugin` has.

    wasmtime::component::bindgen!({
        path: "../sdk/wit/v0.1",
        world: "sink-plugin-reveal",
        imports: { default: async | trappable },
        exports: { default: async },
        with: { "sepal:plugin/secrets.secret": crate::host::store::SecretHandle },
    });
}

pub(super) mod resolver {
    //! The world `secret-resolver`.

    wasmtime::component::bindgen!({
        path: "../sdk/wit/v0.1",
        world: "secret-resolver",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "sepal:plugin/types": super::sink::sepal::plugin::types,
            "sepal:plugin/secrets": super::sink::sepal::plugin::secrets,
            "sepal:plugin/http": super::sink::sepal::plugin::http,
            "sepal:plugin/telemetry": super::sink::sepal::plugin::telemetry,
        },
    });
}
