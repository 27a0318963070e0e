//! What a plugin says of itself: `plugin.toml` as its author writes it, the custom section that carries it, and what
//! of it the host grants.

use serde::{Deserialize, Serialize};

/// What a component exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum World {
    /// `sink-plugin`, or `sink-plugin-reveal` when the manifest asks for it.
    Sink {
        reveal: bool,
    },
    Resolver,
}

/// The smallest of what the manifest asks, what the tenant may and what the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveLimits {
    pub memory_bytes: u64,
    pub table_elements: u32,
    /// Core instances and memories of one component.
    pub instances: u32,
    pub cpu_per_call_ms: u32,
    pub wall_per_call_ms: u32,
    /// What the guest may hand to the host in one call.
    pub hostcall_bytes: u64,
    pub response_bytes: u32,
    pub requests_per_second: u32,
    pub concurrent_requests: u32,
    pub log_lines_per_second: u32,
    pub metric_series: u32,
    pub state_bytes: u32,
}
