//! Modes that end badly: without end, too large, in a trap, or with answers that make no sense.

use std::{hint::black_box, thread, time::Duration};

use sepal_plugin::{http::Request, prelude::*};

use crate::Config;

pub fn run(mode: &str, config: &Config, batch: &Batch) -> Result<Outcome, Error> {
    match mode {
        "loop" => spin(),
        "host-calls" => loop {
            black_box(state::get("nothing")?);
        },
        "sleep" => {
            thread::sleep(Duration::from_secs(3600));
            Ok(Outcome::delivered())
        }
        "memory" => eat(),
        "stack" => Err(Error::rejected(deep(batch.payload().len() as u64).to_string())),
        "panic" => panic!("the plugin gives up"),
        "unreachable" => trap(),
        "exit" => std::process::exit(1),
        "handles" => hold_handles(config),
        "large-body" => send(config, vec![b'x'; 40 << 20]),
        "large-message" => Err(Error::misconfigured("m".repeat(1 << 20)).code("hostile")),
        "log" => log(),
        "many-requests" => many_requests(config),
        "lie" => Ok(Outcome::delivered()),
        _ => answer(mode, batch.row_count),
    }
}

/// Answers that no sink should give.
fn answer(mode: &str, rows: u32) -> Result<Outcome, Error> {
    let bad = |index| BadRow { index, code: None, message: "bad".to_owned() };
    match mode {
        "row-beyond" => Ok(Outcome::Durable(vec![bad(rows)])),
        "row-twice" => Ok(Outcome::Durable(vec![bad(0), bad(0)])),
        "bad-flood" => Ok(Outcome::Durable((0..200_000).map(|_| bad(0)).collect())),
        "retry-beyond" => Ok(Outcome::RetryRows(vec![rows + 7])),
        "retry-for-ever" => Ok(Outcome::RetryRows((0..rows).collect())),
        "buffered" => Ok(Outcome::Buffered),
        other => Err(Error::misconfigured(format!("no mode {other}"))),
    }
}

pub fn spin() -> ! {
    let mut number = 0_u64;
    loop {
        number = black_box(number.wrapping_mul(31).wrapping_add(1));
    }
}

fn eat() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[inline(never)]
fn deep(number: u64) -> u64 {
    let here = black_box([number; 64]);
    if here[1] == u64::MAX {
        return 0;
    }
    deep(black_box(number + 1)) + here[2]
}

#[cfg(target_arch = "wasm32")]
fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() -> ! {
    std::process::abort()
}

fn hold_handles(config: &Config) -> Result<Outcome, Error> {
    let slot = config.token.as_ref().ok_or_else(|| Error::misconfigured("this mode needs a token"))?;
    let held = (0..100_000).map(|_| slot.get()).collect::<Result<Vec<_>, _>>()?;
    Err(Error::misconfigured(format!("it holds {} handles", held.len())))
}

fn log() -> Result<Outcome, Error> {
    let line = "a line that nobody asked for; ".repeat(20);
    for number in 0..100_000 {
        log!(Error, &line; number = number);
    }
    Ok(Outcome::delivered())
}

fn send(config: &Config, body: Vec<u8>) -> Result<Outcome, Error> {
    Request::new("POST", &config.url).body(body).send()?.ok()?;
    Ok(Outcome::delivered())
}

/// Says how many were let through.
fn many_requests(config: &Config) -> Result<Outcome, Error> {
    let mut sent = 0;
    let mut refused = 0;
    for _ in 0..400 {
        match Request::new("POST", &config.url).send() {
            Ok(_) => sent += 1,
            Err(error) if error.code.as_deref() == Some("http.throttled") => refused += 1,
            Err(error) => return Err(error),
        }
    }
    Err(Error::misconfigured(format!("sent {sent} of 400, throttled {refused}")).code("hostile"))
}
