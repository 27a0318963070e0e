//! Three semantic searches as tables, then how fast and how exact the index answers.
//!
//! Exact answers come from the same server with `enable_indexscan` off, which compares every row.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Row, Statement};

use crate::{
    cli::failure::Failure,
    demo::{client::Vector, sample::Query},
};

/// Rows of each table shown.
const SHOWN_ROWS: usize = 8;
/// Recall is measured at this k.
pub const K: usize = 10;
/// Searches timed.
const TIMED_RUNS: usize = 200;
/// A tie at the k-th place is no miss: float8 distances equal to this much are the same.
const TIE: f64 = 1e-9;

/// One search: what the person reads, and the SQL that answers it.
pub struct Search {
    pub title: &'static str,
    pub sql: &'static str,
}

/// In the order of the first queries of the sample.
pub const SEARCHES: [Search; 3] = [
    Search {
        title: "nearest to this sentence",
        sql: "SELECT word, pos, definition, embedding <=> $1 AS distance FROM definitions \
              ORDER BY embedding <=> $1 LIMIT 8",
    },
    Search {
        title: "nouns only",
        sql: "SELECT word, pos, definition, embedding <=> $1 AS distance FROM definitions \
              WHERE pos = 'noun' ORDER BY embedding <=> $1 LIMIT 8",
    },
    Search {
        title: "verbs only, through knn()",
        sql: "SELECT word, pos, definition, distance FROM \
              knn('definitions', 'embedding', $1, 8, filter => 'pos = ''verb''') ORDER BY distance",
    },
];

/// One line of an answer.
pub struct Answer {
    pub word: String,
    pub pos: String,
    pub definition: String,
    pub distance: f64,
}

/// Runs one of [`SEARCHES`]. Fails if it finds fewer rows than it asked for: enough of them qualify.
pub async fn search(client: &Client, search: &Search, query: &Query) -> Result<Vec<Answer>, Failure> {
    let rows = client.query(search.sql, &[&Vector(&query.embedding)]).await?;
    if rows.len() != SHOWN_ROWS {
        return Err(Failure::failed(format!(
            "\"{}\" found {} rows instead of {SHOWN_ROWS}",
            search.title,
            rows.len()
        )));
    }
    rows.iter().map(answer).collect()
}

fn answer(row: &Row) -> Result<Answer, Failure> {
    Ok(Answer {
        word: row.try_get(0)?,
        pos: row.try_get(1)?,
        definition: row.try_get(2)?,
        distance: row.try_get(3)?,
    })
}

/// What the index gives against the exact answer.
pub struct Quality {
    /// Share of the true nearest [`K`] that the index finds, 0 to 1, over `queries` queries.
    pub recall: f64,
    pub queries: usize,
    pub ef_search: String,
    /// Of [`TIMED_RUNS`] searches through the index, and of one exact search per query.
    pub index: Latency,
    pub exact: Latency,
}

/// Round trips over the wire, TLS included.
pub struct Latency {
    pub runs: usize,
    pub p50: Duration,
    pub p99: Duration,
}

/// Measures recall and latency with a prepared statement, one search at a time.
pub async fn measure(client: &Client, queries: &[Query]) -> Result<Quality, Failure> {
    let nearest = client
        .prepare(
            "SELECT id, embedding <=> $1 AS distance FROM definitions ORDER BY embedding <=> $1 LIMIT 10",
        )
        .await?;
    let ef_search: String = client.query_one("SHOW hnsw.ef_search", &[]).await?.try_get(0)?;
    let mut found = Vec::with_capacity(queries.len());
    for query in queries {
        found.push(distances(client, &nearest, query).await?);
    }
    let mut index = Vec::with_capacity(TIMED_RUNS);
    for query in queries.iter().cycle().take(TIMED_RUNS) {
        let started = Instant::now();
        distances(client, &nearest, query).await?;
        index.push(started.elapsed());
    }
    client.batch_execute("SET enable_indexscan = off").await?;
    let (mut exact, mut hits) = (Vec::with_capacity(queries.len()), 0);
    for (query, found) in queries.iter().zip(&found) {
        let started = Instant::now();
        let truth = distances(client, &nearest, query).await?;
        exact.push(started.elapsed());
        hits += agreement(found, &truth);
    }
    client.batch_execute("RESET enable_indexscan").await?;
    #[expect(clippy::cast_precision_loss, reason = "counts of at most a few thousand")]
    let recall = hits as f64 / (K * queries.len()).max(1) as f64;
    Ok(Quality { recall, queries: queries.len(), ef_search, index: latency(index), exact: latency(exact) })
}

async fn distances(client: &Client, nearest: &Statement, query: &Query) -> Result<Vec<f64>, Failure> {
    let rows = client.query(nearest, &[&Vector(&query.embedding)]).await?;
    if rows.len() != K {
        return Err(Failure::failed(format!("a search for {K} rows found {}", rows.len())));
    }
    rows.iter().map(|row| Ok(row.try_get(1)?)).collect()
}

/// How many of the found are among the true nearest, by distance, so that ties count.
fn agreement(found: &[f64], truth: &[f64]) -> usize {
    let Some(farthest) = truth.last() else { return 0 };
    found.iter().filter(|distance| **distance <= farthest + TIE).count()
}

fn latency(mut times: Vec<Duration>) -> Latency {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    Latency {
        runs: times.len(),
        p50: at(50).copied().unwrap_or_default(),
        p99: at(99).copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_counts_ties_and_misses() {
        assert_eq!(agreement(&[0.1, 0.2, 0.3], &[0.1, 0.2, 0.3]), 3);
        assert_eq!(agreement(&[0.1, 0.3, 0.4], &[0.1, 0.2, 0.3]), 2);
        assert_eq!(agreement(&[], &[0.1]), 0);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let latency = latency(times);
        assert_eq!((latency.p50, latency.p99), (Duration::from_millis(101), Duration::from_millis(199)));
    }
}
