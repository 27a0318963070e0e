//! What sinks leave behind in the process: counters and gauges for `/metrics`, lines for the log.
//!
//! A [`Source`] is one sink or resolver. It outlives reopened sinks, so that neither counters nor quotas start anew
//! with every retry. What guests bring is bounded: names of metrics, number of series, lines a second, bytes a line.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sepal_database::TenantId;

use super::quota::{Quota, Rate};
use crate::{
    call::{HttpError, HttpResponse, Level},
    manifest::EffectiveLimits,
};

const MAX_NAME_BYTES: usize = 64;
const MAX_LINE_BYTES: usize = 4 << 10;
/// Looks for secrets: a few for each of as many batches as a destination takes, and far from what a loop would make.
const LOOKUPS_PER_SECOND: u32 = 10_000;
/// What counts as one when data is signed, however little it is.
pub(super) const HASHED_UNIT_BYTES: usize = 64 << 10;
/// 64 MiB a second: a core hashes several times that.
const HASHED_UNITS_PER_SECOND: u32 = 1024;

/// One number for `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSample {
    /// `plugin_…` where a plugin chose it.
    pub name: String,
    pub kind: MetricKind,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
}

/// Names a sink or resolver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceKey {
    pub tenant: TenantId,
    pub name: String,
    pub pipeline: String,
}

/// What is kept about one.
#[derive(Debug)]
pub(super) struct Source {
    pub key: SourceKey,
    pub limits: EffectiveLimits,
    pub quota: Quota,
    pub lookups: Rate,
    /// In units of [`HASHED_UNIT_BYTES`].
    pub hashed: Rate,
    lines: Rate,
    suppressed: AtomicU64,
    series: Mutex<BTreeMap<String, Series>>,
    /// Answers of 1xx to 5xx, requests that were refused here, requests that failed.
    requests: [AtomicU64; 7],
    used: Mutex<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Series {
    Counter(u64),
    Gauge(f64),
}

const REFUSED: usize = 5;
const FAILED: usize = 6;
const CLASSES: [&str; 7] = ["1xx", "2xx", "3xx", "4xx", "5xx", "refused", "failed"];

impl Source {
    pub fn new(key: SourceKey, limits: EffectiveLimits) -> Self {
        Self {
            key,
            limits,
            quota: Quota::new(limits.requests_per_second, limits.concurrent_requests),
            lookups: Rate::per_second(LOOKUPS_PER_SECOND),
            hashed: Rate::per_second(HASHED_UNITS_PER_SECOND),
            lines: Rate::per_second(limits.log_lines_per_second),
            suppressed: AtomicU64::new(0),
            series: Mutex::default(),
            requests: Default::default(),
            used: Mutex::new(Instant::now()),
        }
    }

    pub fn touch(&self) {
        *self.used.lock() = Instant::now();
    }

    pub fn unused_for(&self) -> Duration {
        self.used.lock().elapsed()
    }

    pub fn count(&self, result: &Result<HttpResponse, HttpError>) {
        let class = match result {
            Ok(response) => usize::from(response.status / 100).clamp(1, 5) - 1,
            Err(HttpError::Denied(_) | HttpError::Throttled(_)) => REFUSED,
            Err(_) => FAILED,
        };
        self.requests[class].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counter_add(&self, name: &str, value: u32) {
        self.series(name, |series| match series {
            Some(Series::Counter(total)) => Series::Counter(total.saturating_add(value.into())),
            // A name that was a gauge is a counter from now on.
            Some(Series::Gauge(_)) | None => Series::Counter(value.into()),
        });
    }

    pub fn gauge_set(&self, name: &str, value: f64) {
        if value.is_finite() {
            self.series(name, |_| Series::Gauge(value));
        }
    }

    /// Names that Prometheus would not take, and series beyond the limit, are left out.
    fn series(&self, name: &str, change: impl FnOnce(Option<Series>) -> Series) {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(valid) {
            return;
        }
        let mut all = self.series.lock();
        let limit = usize::try_from(self.limits.metric_series).unwrap_or(usize::MAX);
        if all.contains_key(name) || all.len() < limit {
            let changed = change(all.get(name).copied());
            all.insert(name.to_owned(), changed);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are f64: a counter beyond 2^53 loses its last digits"
    )]
    pub fn samples(&self, out: &mut Vec<MetricSample>) {
        let labels = vec![
            ("tenant", self.key.tenant.to_string()),
            ("pipeline", self.key.pipeline.clone()),
            ("name", self.key.name.clone()),
        ];
        for (class, count) in CLASSES.iter().zip(&self.requests) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let mut labels = labels.clone();
                labels.push(("class", (*class).to_owned()));
                let name = "sepal_plugin_http_requests_total".to_owned();
                out.push(MetricSample { name, kind: MetricKind::Counter, labels, value: count as f64 });
            }
        }
        for (name, series) in &*self.series.lock() {
            let (kind, value) = match series {
                Series::Counter(total) => (MetricKind::Counter, *total as f64),
                Series::Gauge(value) => (MetricKind::Gauge, *value),
            };
            out.push(MetricSample { name: format!("plugin_{name}"), kind, labels: labels.clone(), value });
        }
    }

    /// Writes a line of the guest's, already scrubbed.
    pub fn log(&self, level: Level, message: &str, fields: &[(String, String)]) {
        if self.lines.take(Instant::now(), Duration::ZERO).is_err() {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let SourceKey { tenant, name: sink, pipeline } = &self.key;
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        if suppressed > 0 {
            tracing::warn!(target: "sepal::plugin", %tenant, sink, pipeline, suppressed, "lines above the limit");
        }
        let line = line(message, fields);
        match level {
            Level::Trace => tracing::trace!(target: "sepal::plugin", %tenant, sink, pipeline, "{line}"),
            Level::Debug => tracing::debug!(target: "sepal::plugin", %tenant, sink, pipeline, "{line}"),
            Level::Info => tracing::info!(target: "sepal::plugin", %tenant, sink, pipeline, "{line}"),
            Level::Warn => tracing::warn!(target: "sepal::plugin", %tenant, sink, pipeline, "{line}"),
            Level::Error => tracing::error!(target: "sepal::plugin", %tenant, sink, pipeline, "{line}"),
        }
    }
}

/// One line, whatever the guest wrote: control characters escaped, cut at the limit.
pub(crate) fn line(message: &str, fields: &[(String, String)]) -> String {
    let fields = fields.iter().flat_map(|(key, value)| [" ", key.as_str(), "=", value.as_str()]);
    let mut line = String::new();
    for letter in std::iter::once(message).chain(fields).flat_map(str::chars) {
        if line.len() >= MAX_LINE_BYTES {
            line.push('…');
            break;
        }
        if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}') {
            line.extend(letter.escape_unicode());
        } else {
            line.push(letter);
        }
    }
    line
}
