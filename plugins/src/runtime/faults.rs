//! What a call that did not end well is called in a pipeline's status.

use sepal_database::connector::{Fault, FaultKind};

use crate::call::{CallError, Outcome};

pub(super) fn of_call(error: CallError) -> Fault {
    let (kind, code) = match &error {
        CallError::Trap(_) => (FaultKind::Internal, "plugin.trap"),
        CallError::Cpu { .. } => (FaultKind::Internal, "plugin.cpu"),
        CallError::Wall { .. } => (FaultKind::Internal, "plugin.wall"),
        CallError::Memory { .. } => (FaultKind::Internal, "plugin.memory"),
        CallError::Limit(_) => (FaultKind::Internal, "plugin.limit"),
        CallError::Gone(_) => (FaultKind::NotConnected, "plugin.gone"),
        CallError::Unfit(_) => (FaultKind::Misconfigured, "plugin.unfit"),
    };
    Fault::new(kind, error.to_string()).with_code(code)
}

/// A fault of the plugin against the interface.
pub(super) fn protocol(problem: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Internal, problem).with_code("plugin.protocol")
}

/// The host answered another question.
pub(super) fn unexpected(asked: &str, outcome: &Outcome) -> Fault {
    let got = match outcome {
        Outcome::Done => "nothing",
        Outcome::Opened(_) => "opened",
        Outcome::Written(_) => "written",
        Outcome::Flushed(_) => "flushed",
        Outcome::Resolved(_) => "resolved",
        Outcome::Failed(_) => "a failure",
    };
    protocol(format!("{asked} was answered with {got}"))
}
