//! Why a call ended without an answer, told from what wasmtime gives back.

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace, component::ResourceTableError};
use wasmtime_wasi::I32Exit;

use super::limits::Meter;
use crate::call::CallError;

const MAX_TEXT_BYTES: usize = 400;

/// What was going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    Instantiation,
    Call,
}

pub(super) fn call_error(meter: &Meter, error: &wasmtime::Error, during: During) -> CallError {
    // The guest may have seen the limit as a trap of its own; what was counted is what happened.
    if let Some(broken) = meter.broken().or_else(|| error.downcast_ref::<CallError>()) {
        return broken.clone();
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return CallError::Limit("it holds too many handles".to_owned());
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return CallError::Gone("all places for plugins are taken".to_owned());
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return CallError::Trap(format!("it exited with status {}", exit.0));
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return CallError::Trap(match place(error) {
            Some(function) => format!("{trap} in {function}"),
            None => trap.to_string(),
        });
    }
    let cause = clip(&error.root_cause().to_string());
    // wasmtime's type for it is its own.
    if cause.contains("fuel allocated for hostcalls") {
        return CallError::Limit("it hands the host more bytes in one call than it may".to_owned());
    }
    match during {
        During::Instantiation => CallError::Unfit(clip(&format!("{error:#}"))),
        During::Call => CallError::Trap(cause),
    }
}

/// The innermost function that has a name.
fn place(error: &wasmtime::Error) -> Option<String> {
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames();
    frames.iter().find_map(|frame| frame.func_name()).map(clip)
}

fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT_BYTES)].to_owned()
}
