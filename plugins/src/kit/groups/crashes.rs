//! Group 4: killed before and after each of its calls to the host, and begun again. Nothing is lost; what comes twice
//! can be told, or does not come twice, as the level has it.

use std::{collections::BTreeMap, sync::Arc};

use crate::kit::{
    KitOptions,
    courier::{Delivery, deliver},
    destination::{Destination, Sent, Weather},
    outside::Crash,
    report::{Checks, Group, Level, Wrong},
    rows::Sample,
    subject::Subject,
};

/// Calls to the host at which the plugin is killed, unless the run is thorough.
const MOST_CALLS: usize = 64;
const LOST: &str = "no row is lost";
const TWICE: &str = "what comes twice can be told";
const ONCE: &str = "nothing comes twice";

/// One run with one kill.
struct Story {
    /// `killed before call 2, http POST https://…`
    told: String,
    samples: Vec<Sample>,
    delivery: Delivery,
    sent: Vec<Sent>,
}

pub(super) async fn run(subject: &Subject, level: Level, options: &KitOptions) -> Checks {
    let mut checks = Checks::of(Group::Crashes);
    let (samples, destination) = scene(subject);
    let calls = match deliver(subject, &samples, &destination, None).await {
        Ok(delivery) => delivery.calls,
        Err(wrong) => {
            checks.fail("two batches in fair weather", wrong);
            return checks;
        }
    };
    if calls.is_empty() {
        checks.fail("two batches in fair weather", Wrong::new("requests", "no call to the host at all"));
        return checks;
    }
    let step = if options.thorough { 1 } else { calls.len().div_ceil(MOST_CALLS) };
    let mut stories = Vec::new();
    for call in (0..calls.len()).step_by(step) {
        for after in [false, true] {
            match story(subject, Crash { call, after }, &calls[call]).await {
                Ok(story) => stories.push(story),
                Err(wrong) => {
                    checks.fail(LOST, wrong);
                    return checks;
                }
            }
        }
    }
    judge(subject, level, &stories, &mut checks);
    checks
}

fn scene(subject: &Subject) -> (Vec<Sample>, Arc<Destination>) {
    let sampler = subject.sampler();
    (vec![sampler.plain(4), sampler.plain(3)], subject.destination(Weather::Fair))
}

async fn story(subject: &Subject, crash: Crash, call: &str) -> Result<Story, Wrong> {
    let when = if crash.after { "after" } else { "before" };
    let told = format!("killed {when} call {}, {call}", crash.call + 1);
    let (samples, destination) = scene(subject);
    let delivered = deliver(subject, &samples, &destination, Some(crash)).await;
    let delivery =
        delivered.map_err(|wrong| Wrong { observed: format!("{told}: {}", wrong.observed), ..wrong })?;
    Ok(Story { told, samples, delivery, sent: destination.sent() })
}

fn judge(subject: &Subject, level: Level, stories: &[Story], checks: &mut Checks) {
    if !subject.case.rows.visible {
        let why = "[rows] visible = false: batches were acknowledged in the end, rows cannot be followed";
        return checks.skip(LOST, why);
    }
    let first = |judge: &dyn Fn(&Story) -> Result<(), String>, expected: &str| {
        let wrong = stories.iter().find_map(|story| Some((story, judge(story).err()?)));
        match wrong {
            None => Ok(()),
            Some((story, observed)) => Err(Wrong::new(expected, format!("{}: {observed}", story.told))),
        }
    };
    let expected = "every row in a request that was answered with 2xx";
    match first(&lost, expected) {
        Ok(()) => checks.note(LOST, format!("{} kills", stories.len())),
        Err(wrong) => checks.fail(LOST, wrong),
    }
    if level == Level::L2 {
        let expected = "the batch's id or the row's key in every request that repeats a row";
        checks.judge(TWICE, first(&repeated_unknown, expected));
        let expected = "the same rows under the same idempotency-key";
        checks.judge("an idempotency-key stands for the same rows", first(&keys_differ, expected));
    }
    if level == Level::L3 {
        let expected = "rows that the destination has already to be left out, after open says how far it is";
        checks.judge(ONCE, first(&repeated, expected));
    }
}

fn lost(story: &Story) -> Result<(), String> {
    for (place, sample) in story.samples.iter().enumerate() {
        let arrivals = sample.arrivals(&story.sent);
        let lost = |row: &usize| arrivals[*row] == 0 && !story.delivery.bad[place].contains(row);
        if let Some(row) = (0..sample.len()).find(lost) {
            return Err(format!("row {row} of batch {} is lost", place + 1));
        }
    }
    Ok(())
}

/// Successful requests that hold the row.
fn holding<'a>(story: &'a Story, sample: &'a Sample, row: usize) -> impl Iterator<Item = &'a Sent> {
    story.sent.iter().filter(move |sent| sent.succeeded() && sample.rows_in(sent).contains(&row))
}

fn repeated_unknown(story: &Story) -> Result<(), String> {
    for sample in &story.samples {
        let arrivals = sample.arrivals(&story.sent);
        for row in (0..sample.len()).filter(|row| arrivals[*row] > 1) {
            if let Some(sent) = holding(story, sample, row).find(|sent| !sample.can_be_told(row, sent)) {
                return Err(format!("{} {} repeats row {row} with neither", sent.method, sent.url));
            }
        }
    }
    Ok(())
}

fn keys_differ(story: &Story) -> Result<(), String> {
    for sample in &story.samples {
        let mut rows_of = BTreeMap::new();
        for sent in story.sent.iter().filter(|sent| sent.succeeded()) {
            let Some(key) = sent.header("idempotency-key") else { continue };
            let rows = sample.rows_in(sent);
            let before = rows_of.entry(key).or_insert_with(|| rows.clone());
            if *before != rows {
                return Err(format!("{key} came with rows {before:?}, then with rows {rows:?}"));
            }
        }
    }
    Ok(())
}

fn repeated(story: &Story) -> Result<(), String> {
    for (place, sample) in story.samples.iter().enumerate() {
        let arrivals = sample.arrivals(&story.sent);
        if let Some(row) = (0..sample.len()).find(|row| arrivals[*row] > 1) {
            return Err(format!("row {row} of batch {} came {} times", place + 1, arrivals[row]));
        }
    }
    Ok(())
}
