//! The story of searching: load, index, search, and look for what nobody else should see.
//!
//! 1. [`load`] copies the bundled [`sample`] into the first tenant (`COPY`, binary).
//! 2. [`build`] makes an HNSW index while a second connection watches its progress.
//! 3. [`questions`] asks three, then measures latency and recall@10 against exact answers.
//! 4. [`tenancy`] looks for the table as the other tenant; [`disk`](super::disk) looks for plaintext in every file:
//!    CREATE INDEX has written sealed segments by then.

mod build;
mod questions;
mod tenancy;

use tokio_postgres::Client;

use crate::{
    admin::NewKey,
    cli::{failure::Failure, table},
};

use super::{
    Stage, client,
    disk::{Finder, Kind},
    load, megabytes, milliseconds, per_second,
    progress::thousands,
    sample::{self, Query, Synset},
    unreadable,
};

/// The least recall@10 that this sample must reach with the index's default settings.
const MIN_RECALL: f64 = 0.95;
/// Characters of a definition that a table shows.
const SHOWN_CHARACTERS: usize = 60;
/// What to try first in psql.
const TRY: [&str; 2] = [
    "SELECT word, definition FROM definitions ORDER BY embedding <=> \
     (SELECT embedding FROM definitions WHERE word = 'wine' LIMIT 1) LIMIT 5;",
    "SELECT pos, count(*) FROM definitions GROUP BY pos ORDER BY 2 DESC;",
];

/// Tells it, then stays unless `exit`.
pub async fn tell(stage: Stage<'_>, exit: bool) -> Result<(), Failure> {
    let story = Story { stage };
    let (synsets, queries) = (sample::synsets().map_err(unreadable)?, sample::queries().map_err(unreadable)?);
    let (acme, globex) = story.start().await?;
    let address = story.stage.running.pg;
    let client = client::connect(address, &acme).await?;
    let watcher = client::connect(address, &acme).await?;
    let other = client::connect(address, &globex).await?;
    story.load(&client, &synsets).await?;
    story.index(&client, &watcher, synsets.len() as u64).await?;
    story.search(&client, &queries).await?;
    story.measure(&client, &queries).await?;
    story.tenancy(&client, &other).await?;
    story.disk(synsets).await?;
    story.stage.invite(&acme, &TRY, exit).await;
    Ok(())
}

/// Tells each step as it happens.
struct Story<'a> {
    stage: Stage<'a>,
}

impl Story<'_> {
    async fn start(&self) -> Result<(NewKey, NewKey), Failure> {
        self.stage.heading("A server, and two tenants that do not know of each other");
        self.stage.introduce();
        Ok((self.stage.tenant("acme").await?, self.stage.tenant("globex").await?))
    }

    async fn load(&self, client: &Client, synsets: &[Synset]) -> Result<(), Failure> {
        self.stage.heading("acme loads WordNet definitions with their embeddings: COPY, binary, over TLS");
        self.stage.sql(load::CREATE_TABLE);
        load::create_table(client).await?;
        let loaded = load::load(client, synsets).await?;
        println!(
            "  {} rows, {:.1} MB in {:.2} s: {} rows/s, on disk and sealed",
            thousands(loaded.rows),
            megabytes(loaded.bytes),
            loaded.took.as_secs_f64(),
            thousands(per_second(loaded.rows, loaded.took))
        );
        Ok(())
    }

    async fn index(&self, client: &Client, watcher: &Client, rows: u64) -> Result<(), Failure> {
        self.stage.heading("An HNSW index; progress from pg_stat_progress_create_index");
        self.stage.sql(build::CREATE_INDEX);
        let took = build::create_index(client, watcher, rows).await?;
        println!("  built in {:.2} s", took.as_secs_f64());
        Ok(())
    }

    async fn search(&self, client: &Client, queries: &[Query]) -> Result<(), Failure> {
        for (search, query) in questions::SEARCHES.iter().zip(queries) {
            self.stage.heading(&format!("Search: {}", search.title));
            println!("  “{}”", query.text);
            self.stage.sql(search.sql);
            let answers = questions::search(client, search, query).await?;
            let rows: Vec<Vec<String>> = answers
                .into_iter()
                .map(|answer| {
                    vec![
                        answer.word,
                        answer.pos,
                        shortened(&answer.definition),
                        format!("{:.3}", answer.distance),
                    ]
                })
                .collect();
            println!("{}", table(&["word", "pos", "definition", "distance"], &rows, &[3]));
        }
        Ok(())
    }

    async fn measure(&self, client: &Client, queries: &[Query]) -> Result<(), Failure> {
        self.stage.heading("How fast, and how close to the exact answer");
        let quality = questions::measure(client, queries).await?;
        for (name, latency) in [("index", &quality.index), ("exact", &quality.exact)] {
            println!(
                "  {name}: p50 {:.2} ms, p99 {:.2} ms over {} searches (one client, TLS, prepared)",
                milliseconds(latency.p50),
                milliseconds(latency.p99),
                latency.runs
            );
        }
        println!(
            "  recall@{} {:.3} against the exact answer, {} queries, hnsw.ef_search {}",
            questions::K,
            quality.recall,
            quality.queries,
            quality.ef_search
        );
        if quality.recall < MIN_RECALL {
            return Err(Failure::failed(format!("recall {:.3} is below {MIN_RECALL}", quality.recall)));
        }
        Ok(())
    }

    async fn tenancy(&self, owner: &Client, other: &Client) -> Result<(), Failure> {
        self.stage.heading("globex, on the same server, sees nothing of it");
        for line in tenancy::sees_nothing(owner, other).await? {
            self.stage.holds(&line);
        }
        Ok(())
    }

    async fn disk(&self, synsets: Vec<Synset>) -> Result<(), Failure> {
        self.stage.heading("Neither does the disk: every file, searched for the plaintext");
        let data = self.stage.running.config.data.clone();
        let searched = tokio::task::spawn_blocking(move || {
            let finder = Finder::new(&synsets);
            let stream = load::stream(&synsets);
            let control = [Kind::Definition, Kind::BigEndianVector]
                .map(|kind| (finder.distinct(&stream, kind), finder.count(kind)));
            let vector_bytes = (synsets.len() * sample::DIMENSIONS * size_of::<f32>()) as u64;
            (control, finder.scan(&data), vector_bytes)
        });
        let (control, report, vector_bytes) =
            searched.await.map_err(|error| Failure::failed(error.to_string()))?;
        let report = report?;
        let [(texts, all_texts), (windows, all_windows)] = control;
        println!(
            "  control: in the unsealed COPY stream the search finds {} of {} texts, {} of {} vector windows",
            thousands(texts as u64),
            thousands(all_texts as u64),
            thousands(windows as u64),
            thousands(all_windows as u64)
        );
        if texts != all_texts || windows != all_windows {
            return Err(Failure::failed("the search for plaintext does not find it where it is"));
        }
        println!(
            "  {} {} files, {:.1} MB in the data directory: {} hits",
            self.stage.style.green(if report.hits.is_empty() { "✓" } else { "✗" }),
            thousands(report.files),
            megabytes(report.bytes),
            thousands(report.hits.len() as u64)
        );
        if report.bytes < vector_bytes {
            return Err(Failure::failed(format!(
                "the data directory holds {} bytes, fewer than the {vector_bytes} of the vectors alone: there is \
                 nothing to search",
                report.bytes
            )));
        }
        match report.hits.first() {
            None => Ok(()),
            Some((path, offset, kind)) => Err(Failure::failed(format!(
                "plaintext on the disk: {kind:?} in {} at byte {offset}",
                path.display()
            ))),
        }
    }
}

/// Cut to what a table shows, at a character.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = "é".repeat(70);
        assert_eq!(shortened(&long), format!("{}…", "é".repeat(60)));
    }
}
