//! The story of pipelines: every change of a table at somebody's webhook, with secrets that nothing keeps on the way.
//!
//! 1. A [`receiver`] starts beside the server, and refuses what is not signed.
//! 2. acme makes two secrets, bound, and a sink that names them; a secret in clear is refused.
//! 3. Rows that are there already arrive, as they were written; then an INSERT, an UPDATE and a DELETE.
//! 4. The receiver goes away for a moment, then refuses a row: it is sent again with the same id and bytes, the row
//!    becomes a dead letter, and is replayed.
//! 5. [`traces`] looks for the secrets in answers, files and worker processes.
//!
//! Everything is said and asked over the wire, as any client would.

mod receiver;
mod traces;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use tokio::time::sleep;
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use crate::cli::{failure::Failure, table};

use super::{
    Stage, client,
    disk::{Finder, Kind},
    load, megabytes, milliseconds, per_second,
    progress::thousands,
    sample::{self, Synset},
    unreadable,
};

use receiver::{Agreed, Change, Delivery, Line, Mood, Receiver};

/// Rows that are there when the pipeline is made.
const ROWS: usize = 4_000;
const CREATE_TOKEN: &str = "CREATE SECRET hook_token AS $1 WITH (allowed_hosts = '127.0.0.1')";
const CREATE_KEY: &str = "CREATE SECRET hook_key AS $1";
const CREATE_PIPELINE: &str = "CREATE PIPELINE definitions_out AS SELECT id, word, pos, definition FROM definitions \
                               INTO SINK hook KEY (id) FORMAT NDJSON ENVELOPE UPSERT \
                               WITH (snapshot = true, linger = '20ms')";
/// What happens to one row; the sample's ids end far below.
const CHANGES: [(&str, &str); 3] = [
    (
        "c",
        "INSERT INTO definitions (id, word, pos, definition) \
         VALUES (200001, 'sepal', 'noun', 'a leaf that encloses a bud')",
    ),
    (
        "u",
        "UPDATE definitions SET definition = 'a leaf that encloses a bud until it opens' WHERE id = 200001",
    ),
    ("d", "DELETE FROM definitions WHERE id = 200001"),
];
const CHANGED_ROW: i64 = 200_001;
const INSERT_WHILE_DOWN: &str = "INSERT INTO definitions (id, word, pos, definition) \
                                 VALUES (200002, 'calyx', 'noun', 'all the sepals of a flower')";
const ROW_WHILE_DOWN: i64 = 200_002;
/// Eight rows in one commit, hence in one batch; the receiver will not have one of them.
const INSERT_WITH_WEED: &str = "INSERT INTO definitions (id, word, pos, definition) \
                                SELECT 200010 + n, CASE WHEN n = 5 THEN 'weed' ELSE 'petal' END, 'noun', 'a part' \
                                FROM generate_series(1, 8) AS s(n)";
const REFUSED_WORD: &str = "weed";
const REFUSED_ROW: i64 = 200_015;
const ROWS_WITH_WEED: usize = 8;
const STATUS: &str = "SELECT pipeline, state, phase, lag_rows, rows_delivered, batches_delivered, rows_dead, \
                      attempts, last_error FROM sepal_pipeline_status";
const LETTERS: &str =
    "SELECT code, op, key, message FROM sepal_sink_errors('definitions_out') ORDER BY at DESC";
const COUNT_LETTERS: &str = "SELECT count(*) FROM sepal_sink_errors('definitions_out')";
const REPLAY: &str = "SELECT sepal_dlq_replay('definitions_out')";
/// What to try first in psql.
const TRY: [&str; 3] = [
    "INSERT INTO definitions (id, word, pos, definition) VALUES (300001, 'bud', 'noun', 'not yet a flower');",
    "UPDATE definitions SET definition = upper(definition) WHERE id < 200;",
    "SELECT * FROM sepal_pipeline_status;",
];
/// How long an answer may take to become what it has to be, and the time between looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tells it, then stays unless `exit`.
pub async fn tell(stage: Stage<'_>, exit: bool) -> Result<(), Failure> {
    let mut synsets = sample::synsets().map_err(unreadable)?;
    synsets.truncate(ROWS);
    stage.heading("A server, a tenant, and somebody's webhook");
    stage.introduce();
    let acme = stage.tenant("acme").await?;
    let receiver = Receiver::start(Agreed::anew()).await?;
    let client = client::connect(stage.running.pg, &acme).await?;
    let story = Story { stage, client, receiver };
    story.forged().await?;
    story.sink().await?;
    story.snapshot(&synsets).await?;
    story.changes().await?;
    story.down().await?;
    story.refused().await?;
    story.replay().await?;
    story.status(synsets.len()).await?;
    story.traces().await?;
    story.receiver.print();
    story.stage.invite(&acme, &TRY, exit).await;
    Ok(())
}

/// Tells each step as it happens.
struct Story<'a> {
    stage: Stage<'a>,
    client: Client,
    receiver: Receiver,
}

impl Story<'_> {
    async fn forged(&self) -> Result<(), Failure> {
        println!(
            "  http://{}/in is no part of the server: it wants a token, and every body signed (Standard Webhooks)",
            self.receiver.address
        );
        let answer = self.receiver.forge().await?;
        if !answer.contains(" 401 ") {
            return Err(Failure::failed(format!("the receiver answers \"{answer}\" to a forged signature")));
        }
        self.stage.holds(&format!("posted with the token and a forged signature: {answer}"));
        Ok(())
    }

    async fn sink(&self) -> Result<(), Failure> {
        self.stage
            .heading("Two secrets, bound and never written; a sink that names them and may reach one host");
        let Agreed { token, key } = self.receiver.agreed();
        for (sql, value) in [(CREATE_TOKEN, token), (CREATE_KEY, key)] {
            self.stage.sql(sql);
            self.client.execute(sql, &[value]).await?;
        }
        let origin = format!("http://{}", self.receiver.address);
        let sink = |name: &str, token: &str| {
            format!(
                "CREATE SINK {name} USING PLUGIN webhook OPTIONS (url '{origin}/in', token {token}, \
                 signing_key SECRET[hook_key]) ALLOW HOSTS ('{origin}')"
            )
        };
        let in_clear = self.client.batch_execute(&sink("leaky", "'not-so-secret'")).await;
        let Some(refusal) = in_clear.as_ref().err().and_then(tokio_postgres::Error::as_db_error) else {
            return Err(Failure::failed("a secret in clear was not refused"));
        };
        self.stage.holds(&format!("… token 'in clear' …  →  ERROR: {}", refusal.message()));
        let sql = sink("hook", "SECRET[hook_token]");
        self.stage.sql(&sql);
        self.client.batch_execute(&sql).await?;
        if !self.receiver.was_asked() {
            return Err(Failure::failed("CREATE SINK did not ask the receiver whether it is there"));
        }
        self.stage.holds("CREATE SINK asked the receiver first, with the token");
        self.show("SELECT name, version, source, env_name, allowed_hosts FROM sepal_secrets ORDER BY name")
            .await
    }

    async fn snapshot(&self, synsets: &[Synset]) -> Result<(), Failure> {
        self.stage.heading("A pipeline: first the rows that are there");
        load::create_table(&self.client).await?;
        load::load(&self.client, synsets).await?;
        self.stage.sql(CREATE_PIPELINE);
        let begun = Instant::now();
        self.client.batch_execute(CREATE_PIPELINE).await?;
        let whole = |log: &[Delivery]| {
            let ids: HashSet<i64> = taken(log).map(|line| line.change.key.id).collect();
            (ids.len() >= synsets.len()).then(|| {
                let lines = taken(log).count();
                let wrong = differences(taken(log).map(|line| &line.change), synsets);
                (lines, wrong, log.len(), log.last().map_or(begun, |last| last.at))
            })
        };
        let (lines, wrong, batches, last) = self.receiver.wait("the rows of the snapshot", 0, whole).await?;
        let took = last.duration_since(begun);
        println!(
            "  {} rows in {} signed batches, {:.2} s from CREATE PIPELINE to the last: {} rows/s",
            thousands(lines as u64),
            batches,
            took.as_secs_f64(),
            thousands(per_second(lines as u64, took))
        );
        if wrong > 0 || lines != synsets.len() {
            return Err(Failure::failed(format!(
                "of {} rows the receiver got {lines}, {wrong} of them not as they were written",
                synsets.len()
            )));
        }
        self.stage.holds("each row once, and as it was written");
        Ok(())
    }

    async fn changes(&self) -> Result<(), Failure> {
        self.stage.heading("Then every change, once it is committed");
        for (op, sql) in CHANGES {
            self.stage.sql(sql);
            let (from, begun) = (self.receiver.count(), Instant::now());
            self.client.batch_execute(sql).await?;
            let acknowledged = begun.elapsed();
            let (text, _, at) = self.arrival(from, op, CHANGED_ROW).await?;
            println!("  ← {text}");
            println!(
                "  committed after {:.1} ms, at the receiver after {:.1} ms (20 ms of them waiting for more rows)",
                milliseconds(acknowledged),
                milliseconds(at.duration_since(begun))
            );
        }
        Ok(())
    }

    async fn down(&self) -> Result<(), Failure> {
        self.stage.heading("The receiver goes away for a moment");
        self.receiver.set(Mood::Down);
        let from = self.receiver.count();
        self.stage.sql(INSERT_WHILE_DOWN);
        self.client.batch_execute(INSERT_WHILE_DOWN).await?;
        let twice = |log: &[Delivery]| (log.len() >= 2).then_some(());
        self.receiver.wait("a second attempt", from, twice).await?;
        let retrying = |row: &Row| row.try_get::<_, String>(1).is_ok_and(|state| state == "retrying");
        self.until(STATUS, "the pipeline to be retrying", retrying).await?;
        self.show(STATUS).await?;
        self.receiver.set(Mood::Open);
        let (_, id, _) = self.arrival(from, "c", ROW_WHILE_DOWN).await?;
        let same = |log: &[Delivery]| {
            let same = log.iter().all(|attempt| attempt.id == id && attempt.body == log[0].body);
            Some((same, log.iter().map(|attempt| attempt.status).collect::<Vec<StatusCode>>()))
        };
        let (same, answers) = self.receiver.wait("the batch", from, same).await?;
        for answer in &answers {
            println!("  {}  webhook-id {}", answer.as_u16(), shortened(&id));
        }
        if !same || answers.len() < 3 {
            return Err(Failure::failed("the batch did not come again as it was"));
        }
        self.stage
            .holds("the same id and the same bytes each time: a receiver can tell that it has them already");
        Ok(())
    }

    async fn refused(&self) -> Result<(), Failure> {
        self.stage.heading("The receiver refuses one row of eight");
        self.receiver.set(Mood::Refusing(REFUSED_WORD));
        let from = self.receiver.count();
        self.stage.sql(INSERT_WITH_WEED);
        self.client.batch_execute(INSERT_WITH_WEED).await?;
        let others = |log: &[Delivery]| (taken(log).count() >= ROWS_WITH_WEED - 1).then_some(());
        self.receiver.wait("the seven other rows", from, others).await?;
        self.until(COUNT_LETTERS, "one dead letter", |row| row.try_get::<_, i64>(0).is_ok_and(|n| n == 1))
            .await?;
        let requests = self.receiver.count() - from;
        println!(
            "  answered 400, and halved until it is found: {requests} requests, 7 rows taken, 1 dead letter"
        );
        self.stage.sql(LETTERS);
        self.show(LETTERS).await?;
        let letter = self.client.query_one(LETTERS, &[]).await?;
        let message: String = letter.try_get(3)?;
        if !message.contains("<redacted>") || message.contains(&self.receiver.agreed().token) {
            return Err(Failure::failed(format!("the dead letter says \"{message}\"")));
        }
        self.stage.holds("the receiver said our token back in its answer: it is gone from the message");
        Ok(())
    }

    async fn replay(&self) -> Result<(), Failure> {
        self.stage.heading("The receiver is mended, and gets the row");
        self.receiver.set(Mood::Open);
        let from = self.receiver.count();
        self.stage.sql(REPLAY);
        let marked: i64 = self.client.query_one(REPLAY, &[]).await?.try_get(0)?;
        if marked != 1 {
            return Err(Failure::failed(format!("{marked} dead letters were marked instead of 1")));
        }
        let (text, _, _) = self.arrival(from, "c", REFUSED_ROW).await?;
        println!("  ← {text}");
        self.until(COUNT_LETTERS, "no dead letter", |row| row.try_get::<_, i64>(0).is_ok_and(|n| n == 0))
            .await?;
        self.stage.holds("no dead letter is left");
        Ok(())
    }

    async fn status(&self, snapshot: usize) -> Result<(), Failure> {
        self.stage.heading("What the pipeline says of itself");
        let changes = CHANGES.len() + 1 + ROWS_WITH_WEED;
        let expected = i64::try_from(snapshot + changes).unwrap_or(i64::MAX);
        let all = |row: &Row| row.try_get::<_, i64>(4).is_ok_and(|delivered| delivered == expected);
        self.until(STATUS, &format!("{expected} rows to be delivered"), all).await?;
        self.show(STATUS).await
    }

    async fn traces(&self) -> Result<(), Failure> {
        self.stage.heading("And the secrets? Searched for as they are, in hex and in base64");
        let Agreed { token, key } = self.receiver.agreed();
        let finder = Finder::of_secrets(&[token, key]);
        let sent = format!("authorization: Bearer {token}");
        if finder.distinct(sent.as_bytes(), Kind::Secret) == 0 {
            return Err(Failure::failed("the search does not find a secret where it is"));
        }
        println!(
            "  control: it finds the token in the header that the receiver got {} times",
            self.receiver.count()
        );
        let (answers, hit) = traces::in_answers(&self.client, &finder).await?;
        if let Some(question) = hit {
            return Err(Failure::failed(format!("the answer to {question} has a secret in it")));
        }
        self.stage.holds(&format!("{answers} views and SHOWs, pg_stat_activity among them: 0 hits"));
        let data = self.stage.running.config.data.clone();
        let searched = tokio::task::spawn_blocking(move || {
            let report = finder.scan(&data)?;
            Ok::<_, std::io::Error>((report, traces::in_workers(&finder)?))
        });
        let (report, workers) = searched.await.map_err(|error| Failure::failed(error.to_string()))??;
        if let Some((path, offset, _)) = report.hits.first() {
            let path = path.display();
            return Err(Failure::failed(format!("a secret is on the disk: in {path} at byte {offset}")));
        }
        let (files, bytes) = (thousands(report.files), megabytes(report.bytes));
        self.stage.holds(&format!("{files} files, {bytes:.1} MB in the data directory: 0 hits"));
        for worker in &workers {
            let environment = match worker.environment_bytes {
                Some(bytes) => format!("command line and environment ({bytes} bytes)"),
                None => "command line; its environment is closed even to its own user".to_owned(),
            };
            if worker.hits > 0 {
                return Err(Failure::failed(format!(
                    "worker process {} was started with a secret",
                    worker.id
                )));
            }
            self.stage.holds(&format!("process {}, which runs the plugin: {environment}: 0 hits", worker.id));
        }
        if workers.is_empty() {
            return Err(Failure::failed("no process runs plugins: leave out plugin_isolation"));
        }
        self.show("SELECT name, version, used_by, purpose FROM sepal_secret_usage ORDER BY at, name").await?;
        println!("  every use of a secret is on record");
        Ok(())
    }

    /// The first row of this kind that was taken since: its line, its batch's id and when it came.
    async fn arrival(&self, from: usize, op: &str, id: i64) -> Result<(String, String, Instant), Failure> {
        let what = format!("row {id}");
        let look = |log: &[Delivery]| {
            let deliveries = log.iter().filter(|delivery| delivery.status == StatusCode::OK);
            deliveries.flat_map(|delivery| delivery.lines.iter().map(move |line| (delivery, line))).find_map(
                |(delivery, line)| {
                    let is_it = line.change.op == op && line.change.key.id == id;
                    is_it.then(|| (line.text.clone(), delivery.id.clone(), delivery.at))
                },
            )
        };
        self.receiver.wait(&what, from, look).await
    }

    /// Asks until the one row of the answer is as wanted.
    async fn until(&self, sql: &str, what: &str, wanted: impl Fn(&Row) -> bool) -> Result<(), Failure> {
        let begun = Instant::now();
        while !wanted(&self.client.query_one(sql, &[]).await?) {
            if begun.elapsed() > PATIENCE {
                self.show(STATUS).await?;
                return Err(Failure::failed(format!("waited {} s for {what}", PATIENCE.as_secs())));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Prints an answer as a table.
    async fn show(&self, sql: &str) -> Result<(), Failure> {
        let (mut header, mut rows): (Vec<String>, Vec<Vec<String>>) = (Vec::new(), Vec::new());
        for message in self.client.simple_query(sql).await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            header = row.columns().iter().map(|column| column.name().to_owned()).collect();
            let cell = |place: usize| -> Result<String, Failure> {
                Ok(row.try_get(place)?.unwrap_or_default().to_owned())
            };
            rows.push((0..row.len()).map(cell).collect::<Result<_, _>>()?);
        }
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        println!("{}", table(&header, &rows, &[]));
        Ok(())
    }
}

/// The lines of batches that were taken.
fn taken(log: &[Delivery]) -> impl Iterator<Item = &Line> {
    log.iter().filter(|delivery| delivery.status == StatusCode::OK).flat_map(|delivery| &delivery.lines)
}

/// How many rows of the snapshot are not what was written.
fn differences<'a>(changes: impl Iterator<Item = &'a Change>, synsets: &[Synset]) -> usize {
    let written: HashMap<i64, &Synset> = synsets.iter().map(|synset| (synset.id, synset)).collect();
    let is_same = |change: &Change| {
        let (Some(after), Some(synset)) = (&change.after, written.get(&change.key.id)) else { return false };
        change.op == "r"
            && after.id == synset.id
            && (&after.word, &after.pos, &after.definition) == (&synset.word, &synset.pos, &synset.definition)
    };
    changes.filter(|change| !is_same(change)).count()
}

/// The beginning of a batch's id.
fn shortened(id: &str) -> String {
    format!("{}…", id.chars().take(16).collect::<String>())
}
