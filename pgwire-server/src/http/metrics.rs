//! The database's gauges, read anew at each scrape.

use prometheus::{Error, IntGauge, IntGaugeVec, Opts, Registry};
use sepal_database::DatabaseMetrics;

/// One gauge per figure of [`DatabaseMetrics`].
pub struct DatabaseGauges {
    open_tenants: IntGauge,
    unflushed_bytes: IntGauge,
    query_bytes: IntGauge,
    query_budget_bytes: IntGauge,
    spill_files: IntGauge,
    cache_used_bytes: IntGauge,
    cache_budget_bytes: IntGauge,
    index_bytes: IntGauge,
    damaged_indexes: IntGauge,
    rows_written: IntGaugeVec,
    column_cache_reads: IntGaugeVec,
    key_cache_lookups: IntGaugeVec,
    key_cache_evictions: IntGauge,
    key_cache_entries: IntGaugeVec,
}

impl DatabaseGauges {
    /// Creates the gauges in a registry that does not have them.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let labelled = |name: &str, help: &str, label: &str| -> Result<IntGaugeVec, Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            open_tenants: gauge("sepal_tenants_open", "Tenants whose store is open")?,
            unflushed_bytes: gauge(
                "sepal_unflushed_bytes",
                "Bytes of committed rows that are in memory and the log only",
            )?,
            query_bytes: gauge("sepal_query_memory_bytes", "Bytes held by sorts, joins and aggregates")?,
            query_budget_bytes: gauge("sepal_query_memory_budget_bytes", "Most bytes that they may hold")?,
            spill_files: gauge("sepal_spill_files", "Temporary files that queries have open")?,
            cache_used_bytes: gauge("sepal_column_cache_bytes", "Bytes of opened columns held in memory")?,
            cache_budget_bytes: gauge(
                "sepal_column_cache_budget_bytes",
                "Most bytes of opened columns held",
            )?,
            index_bytes: gauge(
                "sepal_index_bytes",
                "Bytes of opened vector indexes, and of what filters keep, held in memory",
            )?,
            damaged_indexes: gauge(
                "sepal_damaged_indexes",
                "Index files found damaged since the start; their segments are searched exactly until the indexes are \
                 built again",
            )?,
            rows_written: labelled(
                "sepal_rows_written_bytes",
                "Bytes of rows, uncompressed, since the start: that left memory (ingested), that flushes and compactions wrote \
                 (flushed, compacted)",
                "by",
            )?,
            column_cache_reads: labelled(
                "sepal_column_cache_reads",
                "Column reads since the start, by result (hit, miss)",
                "result",
            )?,
            key_cache_lookups: labelled(
                "sepal_key_cache_lookups",
                "API key checks since the start, by result (hit, refused, miss)",
                "result",
            )?,
            key_cache_evictions: gauge(
                "sepal_key_cache_evictions",
                "Valid API keys pushed out of the cache since the start",
            )?,
            key_cache_entries: labelled("sepal_key_cache_entries", "API keys remembered, by kind", "kind")?,
        })
    }

    /// Takes over the figures.
    pub fn set(&self, now: &DatabaseMetrics) {
        self.open_tenants.set(size(now.open_tenants));
        self.unflushed_bytes.set(count(now.unflushed_bytes));
        self.query_bytes.set(size(now.query_bytes));
        self.query_budget_bytes.set(size(now.query_budget_bytes));
        self.spill_files.set(size(now.spill_files));
        self.cache_used_bytes.set(size(now.cache_used_bytes));
        self.cache_budget_bytes.set(size(now.cache_budget_bytes));
        self.index_bytes.set(size(now.index_bytes));
        self.damaged_indexes.set(count(now.damaged_indexes));
        let keys = &now.key_cache;
        self.key_cache_evictions.set(count(keys.evictions));
        for (gauges, label, value) in [
            (&self.rows_written, "ingested", count(now.ingested_bytes)),
            (&self.rows_written, "flushed", count(now.flushed_bytes)),
            (&self.rows_written, "compacted", count(now.compacted_bytes)),
            (&self.column_cache_reads, "hit", count(now.column_cache_hits)),
            (&self.column_cache_reads, "miss", count(now.column_cache_misses)),
            (&self.key_cache_lookups, "hit", count(keys.hits)),
            (&self.key_cache_lookups, "refused", count(keys.refused_hits)),
            (&self.key_cache_lookups, "miss", count(keys.misses)),
            (&self.key_cache_entries, "valid", size(keys.size)),
            (&self.key_cache_entries, "refused", size(keys.refused_size)),
        ] {
            gauges.with_label_values(&[label]).set(value);
        }
    }
}

fn size(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_reach_the_text() {
        let registry = Registry::new();
        let gauges = DatabaseGauges::register(&registry).unwrap();
        gauges.set(&DatabaseMetrics { open_tenants: 3, column_cache_hits: 7, ..DatabaseMetrics::default() });
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("\nsepal_tenants_open 3\n"), "{text}");
        assert!(text.contains("sepal_column_cache_reads{result=\"hit\"} 7\n"), "{text}");
        assert!(DatabaseGauges::register(&registry).is_err(), "names are taken once");
    }
}
