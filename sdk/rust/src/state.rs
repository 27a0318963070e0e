//! A sink's small durable state. What is set here is committed by the host together with the acknowledgement of the
//! batch, and forgotten if the batch fails.

use crate::{
    Error,
    bindings::sink::sepal::plugin::state::{self, StateError},
};

fn failed(error: StateError) -> Error {
    match error {
        StateError::Quota => Error::misconfigured("the plugin's state is larger than its manifest asks for")
            .code("state.quota"),
        StateError::Unavailable => {
            Error::transient("the plugin's state is not available").code("state.unavailable")
        }
    }
}

pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    state::get(key).map_err(failed)
}

pub fn set(key: &str, value: &[u8]) -> Result<(), Error> {
    state::set(key, value).map_err(failed)
}

pub fn delete(key: &str) -> Result<(), Error> {
    state::delete(key).map_err(failed)
}
