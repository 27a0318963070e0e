//! `sepal demo`: the whole product in one minute, over the wire, with real data and checks that can fail.
//!
//! 1. A server with TLS starts on an empty data directory; two tenants get a key each.
//! 2. [`load`] copies the bundled [`sample`] into the first tenant (`COPY`, binary).
//! 3. [`build`] makes an HNSW index while a second connection watches its progress.
//! 4. [`search`] asks three questions, then measures latency and recall@10 against exact answers.
//! 5. [`tenancy`] looks for the table as the other tenant; [`disk`] looks for plaintext in every file.
//! 6. A psql line is printed and the server goes on until Ctrl-C, unless it was asked to exit.
//!
//! Called by `cli::demo`. Everything about data goes over the wire, as any client's would; tenants and keys are
//! made as the admin socket makes them. CREATE INDEX has written sealed segments when the disk is searched.

mod build;
mod client;
mod disk;
mod load;
mod progress;
mod sample;
mod search;
mod tenancy;

use std::time::Duration;

use tokio_postgres::Client;

use crate::{
    admin::{Answer, NewKey, Request},
    cli::{
        Login, Style,
        failure::Failure,
        process::{self, Running},
        table,
    },
    config::Config,
};

use self::{
    disk::{Finder, Kind},
    progress::thousands,
    sample::{Query, Synset},
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

/// Runs the story on a data directory that has just been made; then serves until Ctrl-C, unless `exit`.
pub async fn run(config: Config, exit: bool) -> Result<(), Failure> {
    let running = Running::start(config).await?;
    let told = tokio::select! {
        told = tell(&running, exit) => told,
        interrupted = process::interrupted() => interrupted.map_err(Failure::from),
    };
    running.stop().await;
    told
}

async fn tell(running: &Running, exit: bool) -> Result<(), Failure> {
    let story = Story { running, style: Style::of_stdout() };
    let (synsets, queries) = read_sample()?;
    let (acme, globex) = story.start().await?;
    let client = client::connect(running.pg, &acme).await?;
    let watcher = client::connect(running.pg, &acme).await?;
    let other = client::connect(running.pg, &globex).await?;
    story.load(&client, &synsets).await?;
    story.index(&client, &watcher, synsets.len() as u64).await?;
    story.search(&client, &queries).await?;
    story.measure(&client, &queries).await?;
    story.tenancy(&client, &other).await?;
    story.disk(synsets).await?;
    story.invite(&acme, exit);
    if !exit {
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn read_sample() -> Result<(Vec<Synset>, Vec<Query>), Failure> {
    let failed = |error: sample::SampleError| Failure::failed(error.to_string());
    Ok((sample::synsets().map_err(failed)?, sample::queries().map_err(failed)?))
}

/// Tells each step as it happens.
struct Story<'a> {
    running: &'a Running,
    style: Style,
}

impl Story<'_> {
    async fn start(&self) -> Result<(NewKey, NewKey), Failure> {
        self.heading("A server, and two tenants that do not know of each other");
        println!("  data in {}; what tenants store there is sealed", self.running.config.data.display());
        println!(
            "  Postgres with TLS on {}, metrics on http://{}/metrics",
            self.running.pg, self.running.http
        );
        let acme = self.tenant("acme").await?;
        let globex = self.tenant("globex").await?;
        Ok((acme, globex))
    }

    async fn tenant(&self, name: &str) -> Result<NewKey, Failure> {
        self.running.ask(Request::TenantCreate { name: name.into() }).await?;
        let request = Request::KeyCreate {
            tenant: name.into(),
            environment: None,
            write: true,
            label: "sepal demo".into(),
            expires_at: None,
        };
        let Answer::Key(new) = self.running.ask(request).await? else {
            return Err(Failure::failed("the server did not answer with a key"));
        };
        println!("  tenant {name}: its own encryption key, API key {}", new.key.id);
        Ok(new)
    }

    async fn load(&self, client: &Client, synsets: &[Synset]) -> Result<(), Failure> {
        self.heading("acme loads WordNet definitions with their embeddings: COPY, binary, over TLS");
        self.sql("CREATE TABLE definitions (id bigint PRIMARY KEY, word text, pos text, definition text, embedding vector(384))");
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
        self.heading("An HNSW index; progress from pg_stat_progress_create_index");
        self.sql(build::CREATE_INDEX);
        let took = build::create_index(client, watcher, rows).await?;
        println!("  built in {:.2} s", took.as_secs_f64());
        Ok(())
    }

    async fn search(&self, client: &Client, queries: &[Query]) -> Result<(), Failure> {
        for (search, query) in search::SEARCHES.iter().zip(queries) {
            self.heading(&format!("Search: {}", search.title));
            println!("  “{}”", query.text);
            self.sql(search.sql);
            let answers = search::search(client, search, query).await?;
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
        self.heading("How fast, and how close to the exact answer");
        let quality = search::measure(client, queries).await?;
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
            search::K,
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
        self.heading("globex, on the same server, sees nothing of it");
        for line in tenancy::sees_nothing(owner, other).await? {
            println!("  {} {line}", self.style.green("✓"));
        }
        Ok(())
    }

    async fn disk(&self, synsets: Vec<Synset>) -> Result<(), Failure> {
        self.heading("Neither does the disk: every file, searched for the plaintext");
        let data = self.running.config.data.clone();
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
            self.style.green(if report.hits.is_empty() { "✓" } else { "✗" }),
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

    fn invite(&self, acme: &NewKey, exit: bool) {
        if exit {
            println!("\n{}", self.style.bold("Done. Without --exit the server stays for you to try."));
            return;
        }
        self.heading("Your turn");
        let login =
            Login { endpoint: &acme.endpoint, user: &acme.key.id, token: &acme.token, database: "default" };
        println!("{}", login.line());
        println!("  try:");
        for sql in TRY {
            self.sql(sql);
        }
        println!("  {}", self.style.dim("Serving until Ctrl-C."));
    }

    fn heading(&self, text: &str) {
        println!("\n{}", self.style.bold(text));
    }

    fn sql(&self, sql: &str) {
        println!("  {}", self.style.dim(sql));
    }
}

/// Cut to what a table shows, at a character.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn per_second(count: u64, time: Duration) -> u64 {
    let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000_000) / microseconds
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
