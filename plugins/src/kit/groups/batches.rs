//! Group 2: batches of every size and shape. Plain rows arrive; odd ones arrive or are refused, and nothing breaks.

use sepal_database::connector::{Delivered, Envelope, FaultKind};
use serde_json::Value;

use crate::{
    call::{Outcome, Reply},
    kit::{
        courier::deliver,
        destination::Weather,
        outside::Circumstances,
        report::{Checks, Group, Wrong},
        rows::{Form, Op, Sample},
        subject::{Attempt, Observed, Subject},
    },
};

const LONG_VECTOR: usize = 4096;
/// Right to left, beyond the basic plane, combining, and everything that JSON escapes.
const UNICODE: &str = "žluťoučký 漢字 🌱 \u{202e}abc e\u{301} \"'\\/\t\n\u{1} ";

pub(super) async fn run(subject: &Subject) -> Checks {
    let mut checks = Checks::of(Group::Batches);
    let sampler = subject.sampler();
    checks.judge("an empty batch", taken(subject, sampler.of(&[], |_| {})).await);
    checks.judge("one row", arrives(subject, sampler.plain(1)).await);
    let sink = subject.manifest.sink.as_ref();
    let batch = sink.map(|sink| sink.batch).unwrap_or_default();
    let rows = subject.case.rows.max.unwrap_or(batch.max_rows).min(batch.max_rows);
    let largest = sampler.largest(rows, batch.max_bytes.0);
    checks.judge(format!("{} rows, the largest batch", largest.len()), arrives(subject, largest).await);
    checks.judge("rows of a snapshot", arrives(subject, sampler.of(&[Op::Read; 2], |_| {})).await);
    for envelope in sink.map(|sink| sink.envelopes.clone()).unwrap_or_default() {
        let form = Form { envelope, ..subject.form() };
        let changed = subject.sampler_of(form).of(&[Op::Created, Op::Updated, Op::Deleted], |_| {});
        let check = format!("updates and deletions, envelope {}", name_of(envelope));
        checks.judge(check, taken(subject, changed).await);
    }
    for (check, sample) in odd(subject) {
        checks.judge(check, taken(subject, sample).await);
    }
    checks.judge("columns that change between two batches", schema_changes(subject).await);
    checks
}

const fn name_of(envelope: Envelope) -> &'static str {
    match envelope {
        Envelope::Append => "append",
        Envelope::Upsert => "upsert",
        Envelope::Debezium => "debezium",
    }
}

/// Rows with values that break what was written for plain ones.
fn odd(subject: &Subject) -> Vec<(&'static str, Sample)> {
    let form = subject.form();
    let sampler = subject.sampler();
    let key = &form.shape.key;
    let each = |change: &dyn Fn(&mut Value)| {
        sampler.of(&[Op::Created; 2], |row| {
            row.iter_mut().filter(|(name, _)| !key.contains(name)).for_each(|(_, value)| change(value));
        })
    };
    let nulls = each(&|value| *value = Value::Null);
    let unicode = each(&|value| {
        if value.is_string() {
            *value = Value::from(UNICODE);
        }
    });
    let not_a_number = each(&|value| {
        if value.is_f64() {
            *value = Value::from("NaN");
        }
    });
    let mut long = form.clone();
    let column = long.shape.columns.iter().find(|(_, value)| value.is_array());
    let column = column.map_or_else(|| "embedding".to_owned(), |(name, _)| name.clone());
    let numbers = (0..LONG_VECTOR).map(|number| Value::from(number as f64 / 4096.0 - 0.5)).collect();
    long.shape.columns.insert(column, Value::Array(numbers));
    let vectors = subject.sampler_of(long).plain(2);
    vec![
        ("nulls in every column but the key", nulls),
        ("text of every script", unicode),
        ("numbers that are NaN", not_a_number),
        ("vectors of 4,096 dimensions", vectors),
    ]
}

/// All rows are durable, and were in requests that went well.
async fn arrives(subject: &Subject, sample: Sample) -> Result<(), Wrong> {
    let attempt = subject.write(sample, Weather::Fair, Circumstances::default()).await;
    match attempt.observed() {
        Observed::Delivered => all_there(subject, &attempt, true),
        other => Err(Wrong::new("rows that are durable", other.to_string())),
    }
}

/// Durable, or refused row by row or as a whole; never a failure that would be tried again for ever.
async fn taken(subject: &Subject, sample: Sample) -> Result<(), Wrong> {
    let attempt = subject.write(sample, Weather::Fair, Circumstances::default()).await;
    match attempt.observed() {
        Observed::Delivered => all_there(subject, &attempt, false),
        Observed::Failed(fault) if fault.kind == FaultKind::Rejected => Ok(()),
        other => Err(Wrong::new("rows that are durable, or rejected", other.to_string())),
    }
}

fn all_there(subject: &Subject, attempt: &Attempt, all: bool) -> Result<(), Wrong> {
    let Some(sample) = &attempt.sample else { return Ok(()) };
    if let Ok(Reply { outcome: Outcome::Written(Delivered::Durable(bad)), .. }) = &attempt.result
        && all
        && let Some(row) = bad.first()
    {
        let observed = format!("row {} is bad: {}", row.index, row.message);
        return Err(Wrong::new("rows that are durable, as the destination takes everything", observed));
    }
    if !subject.case.rows.visible {
        return Ok(());
    }
    let arrivals = sample.arrivals(&attempt.destination.sent());
    match attempt.claimed().into_iter().find(|row| arrivals[*row] == 0) {
        None => Ok(()),
        Some(row) => {
            let advice = "if requests name rows in another form, set visible = false under [rows]";
            Err(Wrong::new(
                "every row that is durable in a request that was answered with 2xx",
                format!("row {row} of {} in none ({advice})", sample.len()),
            ))
        }
    }
}

/// A second batch with one more column, in the same session if there are sessions.
async fn schema_changes(subject: &Subject) -> Result<(), Wrong> {
    let before = subject.sampler().plain(2);
    let mut form = subject.form();
    form.shape.columns.insert("added_later".to_owned(), Value::from(1));
    let after = subject.sampler_of(form).plain(2);
    let destination = subject.destination(Weather::Fair);
    let samples = [before, after];
    deliver(subject, &samples, &destination, None).await.map(drop)?;
    let sent = destination.sent();
    let lost = |sample: &Sample| sample.arrivals(&sent).contains(&0);
    if subject.case.rows.visible && samples.iter().any(lost) {
        return Err(Wrong::new("the rows of both batches at the destination", "rows that are missing"));
    }
    Ok(())
}
