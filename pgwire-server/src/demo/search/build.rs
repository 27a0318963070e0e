//! Builds the index with one connection and watches it with another, as an operator would.

use std::{pin::pin, time::Duration};

use tokio_postgres::Client;

use crate::{cli::failure::Failure, demo::progress::Progress};

/// The statement, shown to the person as it is run.
pub const CREATE_INDEX: &str =
    "CREATE INDEX definitions_embedding_idx ON definitions USING hnsw (embedding vector_cosine_ops)";
const WATCH: &str = "SELECT phase, tuples_done, tuples_total FROM pg_stat_progress_create_index";
/// Time between looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Builds the index over `rows` rows; `watcher` is a second connection of the same tenant.
pub async fn create_index(builder: &Client, watcher: &Client, rows: u64) -> Result<Duration, Failure> {
    let watch = watcher.prepare(WATCH).await?;
    let mut progress = Progress::start("indexing", "rows", rows);
    let mut building = pin!(builder.batch_execute(CREATE_INDEX));
    loop {
        tokio::select! {
            built = &mut building => {
                built?;
                progress.set(rows);
                return Ok(progress.finish());
            }
            () = tokio::time::sleep(LOOK_EVERY) => {
                if let Some(row) = watcher.query_opt(&watch, &[]).await? {
                    let phase: String = row.try_get(0)?;
                    let (done, total) = (row.try_get(1)?, row.try_get(2)?);
                    show(&mut progress, &phase, done, total, rows);
                }
            }
        }
    }
}

/// A phase that counts is shown on the bar, another by its name.
fn show(progress: &mut Progress, phase: &str, done: i64, total: i64, rows: u64) {
    match (u64::try_from(done), u64::try_from(total)) {
        (Ok(done), Ok(total)) if total > 0 => progress.set(rows * done.min(total) / total),
        _ => progress.phase(phase),
    }
}
