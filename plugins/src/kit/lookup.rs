//! Names as the kit has them where nothing may be reached: every name has an address that is not public.

use std::{
    io,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;

use crate::egress::Resolve;

/// One answer each: private, loopback, a cloud's metadata, carried in IPv6, and hidden behind a public one.
pub(super) const ANSWERS: [&[&str]; 6] = [
    &["10.0.0.1"],
    &["127.0.0.1"],
    &["169.254.169.254"],
    &["::1"],
    &["::ffff:10.0.0.1"],
    &["8.8.8.8", "10.0.0.1"],
];

/// Gives one of [`ANSWERS`] to every question.
#[derive(Debug, Default)]
pub(super) struct Unreachable(AtomicUsize);

impl Unreachable {
    pub fn answer_with(&self, place: usize) {
        self.0.store(place, Ordering::Relaxed);
    }
}

#[async_trait]
impl Resolve for Unreachable {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        let answer = ANSWERS[self.0.load(Ordering::Relaxed) % ANSWERS.len()];
        answer.iter().map(|address| address.parse::<IpAddr>().map_err(io::Error::other)).collect()
    }
}
