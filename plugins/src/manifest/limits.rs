//! How much a guest may use: what its manifest asks, what it gets unasked, and what nobody gets.
//!
//! Effective is the smallest of the manifest's ask and the operator's cap, and never beyond [`EffectiveLimits::MOST`].

use serde::{Deserialize, Serialize};

use super::{ByteSize, Manifest, ManifestError, Milliseconds};

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

/// `[limits]`: what is not asked for is as in [`EffectiveLimits::UNASKED`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitAsks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_per_call: Option<Milliseconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_per_call: Option<Milliseconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ByteSize>,
}

/// Beside the batch: headers, log lines, state.
const HOSTCALL_SLACK_BYTES: u64 = 1 << 20;

impl EffectiveLimits {
    /// A plugin that asks for nothing.
    ///
    /// 64 instances: a component of one Rust crate has four (itself and adapters), one of Python near forty, as every
    /// shared library is one.
    pub const UNASKED: Self = Self {
        memory_bytes: 64 << 20,
        table_elements: 100_000,
        instances: 64,
        cpu_per_call_ms: 2_000,
        wall_per_call_ms: 30_000,
        hostcall_bytes: (2 << 20) + HOSTCALL_SLACK_BYTES,
        response_bytes: 1 << 20,
        requests_per_second: 50,
        concurrent_requests: 8,
        log_lines_per_second: 100,
        metric_series: 32,
        state_bytes: 0,
    };

    /// What no manifest may ask and no operator may raise: the host's pool and the worker's size follow from it.
    /// Python and JavaScript need the 192 MiB.
    pub const MOST: Self = Self {
        memory_bytes: 192 << 20,
        table_elements: 100_000,
        instances: 64,
        cpu_per_call_ms: 10_000,
        wall_per_call_ms: 120_000,
        hostcall_bytes: 64 << 20,
        response_bytes: 8 << 20,
        requests_per_second: 1_000,
        concurrent_requests: 32,
        log_lines_per_second: 100,
        metric_series: 32,
        state_bytes: 1 << 20,
    };

    /// What `manifest` asks, capped by the operator.
    #[must_use]
    pub fn effective(manifest: &Manifest, cap: &Self) -> Self {
        let asks = &manifest.limits;
        let small = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let unasked = Self::UNASKED;
        Self {
            memory_bytes: asks.memory.map_or(unasked.memory_bytes, |asked| asked.0),
            cpu_per_call_ms: asks.cpu_per_call.map_or(unasked.cpu_per_call_ms, |asked| asked.0),
            wall_per_call_ms: asks.wall_per_call.map_or(unasked.wall_per_call_ms, |asked| asked.0),
            response_bytes: asks.response.map_or(unasked.response_bytes, |asked| small(asked.0)),
            requests_per_second: asks.requests_per_second.unwrap_or(unasked.requests_per_second),
            concurrent_requests: asks.concurrent_requests.unwrap_or(unasked.concurrent_requests),
            state_bytes: small(manifest.capabilities.state.0),
            ..unasked
        }
        .least(cap)
        .least(&Self::MOST)
    }

    /// The same with room for a batch of `payload_bytes`, twice, in one call to the host.
    #[must_use]
    pub fn with_room_for(mut self, payload_bytes: usize) -> Self {
        let wanted = (payload_bytes as u64).saturating_mul(2).saturating_add(HOSTCALL_SLACK_BYTES);
        self.hostcall_bytes = self.hostcall_bytes.max(wanted).min(Self::MOST.hostcall_bytes);
        self
    }

    fn least(self, other: &Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            table_elements: self.table_elements.min(other.table_elements),
            instances: self.instances.min(other.instances),
            cpu_per_call_ms: self.cpu_per_call_ms.min(other.cpu_per_call_ms),
            wall_per_call_ms: self.wall_per_call_ms.min(other.wall_per_call_ms),
            hostcall_bytes: self.hostcall_bytes.min(other.hostcall_bytes),
            response_bytes: self.response_bytes.min(other.response_bytes),
            requests_per_second: self.requests_per_second.min(other.requests_per_second),
            concurrent_requests: self.concurrent_requests.min(other.concurrent_requests),
            log_lines_per_second: self.log_lines_per_second.min(other.log_lines_per_second),
            metric_series: self.metric_series.min(other.metric_series),
            state_bytes: self.state_bytes.min(other.state_bytes),
        }
    }
}

impl LimitAsks {
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        let most = &EffectiveLimits::MOST;
        let asks = [
            ("limits.memory", self.memory.map(|ask| ask.0), 1 << 20, most.memory_bytes),
            (
                "limits.cpu_per_call",
                self.cpu_per_call.map(|ask| ask.0.into()),
                1,
                most.cpu_per_call_ms.into(),
            ),
            (
                "limits.wall_per_call",
                self.wall_per_call.map(|ask| ask.0.into()),
                1,
                most.wall_per_call_ms.into(),
            ),
            (
                "limits.requests_per_second",
                self.requests_per_second.map(u64::from),
                1,
                most.requests_per_second.into(),
            ),
            (
                "limits.concurrent_requests",
                self.concurrent_requests.map(u64::from),
                1,
                most.concurrent_requests.into(),
            ),
            ("limits.response", self.response.map(|ask| ask.0), 1024, most.response_bytes.into()),
        ];
        for (at, ask, least, most) in asks {
            if let Some(ask) = ask.filter(|ask| !(least..=most).contains(ask)) {
                return Err(ManifestError::new(at, format!("{ask} is not between {least} and {most}")));
            }
        }
        Ok(())
    }
}
