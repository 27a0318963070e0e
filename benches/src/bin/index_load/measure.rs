//! Searches at rising effort: how much of the truth they find, and how fast.

use std::{
    collections::HashSet,
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use sepal_benches::Failure;
use sepal_index::{Effort, Part, Query, SearchParams, VectorIndex, Work, search_parts};
use sepal_types::Metric;
use serde_json::{Value, json};

pub struct Workload {
    metric: Metric,
    /// n × dim, row-major.
    queries: Vec<f32>,
    /// The positions of the `k` nearest rows, per query.
    truth: Vec<HashSet<i64>>,
    dim: usize,
    k: usize,
    /// Of each measurement.
    duration: Duration,
}

impl Workload {
    pub fn new(
        metric: Metric,
        queries: Vec<f32>,
        truth: &str,
        dim: usize,
        k: usize,
        seconds: f64,
    ) -> Result<Workload, Failure> {
        let bytes = fs::read(truth).map_err(|error| format!("{truth}: {error}"))?;
        let ids: Vec<i64> = bytes
            .chunks_exact(8)
            .map(|chunk| Ok(i64::from_le_bytes(chunk.try_into()?)))
            .collect::<Result<_, Failure>>()?;
        let count = queries.len() / dim;
        let each = ids.len() / count;
        if k == 0 || each < k || each * count != ids.len() {
            return Err(format!("{truth} holds {} ids, not {count} × at least {k}", ids.len()).into());
        }
        let truth = ids.chunks_exact(each).map(|row| row[..k].iter().copied().collect()).collect();
        let duration = Duration::try_from_secs_f64(seconds)?;
        Ok(Workload { metric, queries, truth, dim, k, duration })
    }

    /// A report per effort, until `until` of the truth is found.
    pub fn sweep(
        &self,
        index: &dyn VectorIndex,
        vectors: &[f32],
        efforts: &[usize],
        until: f64,
    ) -> Result<Vec<Value>, Failure> {
        let mut out = Vec::with_capacity(efforts.len());
        for &effort in efforts {
            let params = SearchParams { k: self.k, ef_search: effort, probes: 1, allowed: None };
            // It is the warm-up, too.
            let (recall, work) = self.recall(index, vectors, &params);
            out.push(self.report(index, vectors, &params, recall, work)?);
            if recall >= until {
                break;
            }
        }
        Ok(out)
    }

    /// How much of the truth is found, and the work of all queries together.
    fn recall(&self, index: &dyn VectorIndex, vectors: &[f32], params: &SearchParams) -> (f64, Work) {
        let mut found = 0;
        let mut work = Work::default();
        let effort = Effort { ef_search: params.ef_search, probes: params.probes };
        let part = Part { index: Some((index, effort)), vectors: vectors.into(), allowed: None, rows: None };
        for (query, truth) in self.queries.chunks_exact(self.dim).zip(&self.truth) {
            let query = Query { metric: self.metric, vector: query, k: self.k };
            let nearest = search_parts(&query, &[part], &mut work);
            found += nearest.iter().filter(|row| truth.contains(&i64::from(row.neighbor.position))).count();
        }
        (found as f64 / (self.k * self.truth.len()) as f64, work)
    }

    /// One query after the other for the time of a measurement.
    fn report(
        &self,
        index: &dyn VectorIndex,
        vectors: &[f32],
        params: &SearchParams,
        recall: f64,
        work: Work,
    ) -> Result<Value, Failure> {
        let mut times = Vec::with_capacity(1 << 16);
        let begun = Instant::now();
        let mut now = begun;
        for query in self.queries.chunks_exact(self.dim).cycle() {
            black_box(index.search(vectors.into(), query, params));
            let done = Instant::now();
            times.push(done - now);
            now = done;
            if now - begun >= self.duration {
                break;
            }
        }
        times.sort_unstable();
        let quantile = |share: f64| {
            let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
            times.get(at).map(|time| time.as_secs_f64() * 1e6).ok_or("there are no queries")
        };
        Ok(json!({
            "effort": params.ef_search,
            "recall": recall,
            "codes": work.codes as f64 / self.truth.len() as f64,
            "distances": work.distances as f64 / self.truth.len() as f64,
            "per_second": times.len() as f64 / (now - begun).as_secs_f64(),
            "p50_us": quantile(0.50)?,
            "p99_us": quantile(0.99)?,
        }))
    }
}
