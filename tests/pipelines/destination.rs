//! Where a pipeline delivers: an HTTP server of the test's own ([`crate::http`]), and what came of the batches there.

use std::{
    ops::Deref,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::http::{self, Answer, PATIENCE, Request, Taken};

/// A server on 127.0.0.1, gone when dropped.
pub struct Destination(http::Destination);

impl Deref for Destination {
    type Target = http::Destination;

    fn deref(&self) -> &http::Destination {
        &self.0
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Destination {
    /// Takes everything.
    pub fn start() -> Destination {
        Self::with(|_| Answer::status(200))
    }

    pub fn with(script: impl FnMut(&Request) -> Answer + Send + 'static) -> Destination {
        Destination(http::Destination::start("127.0.0.1", script))
    }

    /// Where `webhook` posts.
    pub fn url(&self) -> String {
        self.0.url("/in")
    }

    /// The posts that have a body, whatever was answered: checks of CREATE SINK have none.
    pub fn posts(&self) -> Vec<Taken> {
        let is_post = |taken: &Taken| taken.request.method == "POST" && !taken.request.body.is_empty();
        self.taken().into_iter().filter(is_post).collect()
    }

    /// How many requests came, whatever they were.
    pub fn count(&self) -> usize {
        self.taken().len()
    }

    /// The posts that it took.
    pub fn accepted(&self) -> Vec<Request> {
        let good = |taken: &Taken| taken.status.is_some_and(|status| (200..300).contains(&status));
        self.posts().into_iter().filter(good).map(|taken| taken.request).collect()
    }

    /// The lines of the posts that it took.
    pub fn lines(&self) -> Vec<Value> {
        self.accepted().iter().flat_map(Request::lines).collect()
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Destination) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(self) {
            assert!(Instant::now() < deadline, "not {what} after {PATIENCE:?}; {}", self.summary());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for so many lines in all.
    pub async fn until_lines(&self, count: usize) -> Vec<Value> {
        self.until(&format!("{count} lines"), |destination| destination.lines().len() >= count).await;
        self.lines()
    }

    fn summary(&self) -> String {
        let taken = self.taken();
        let statuses: Vec<Option<u16>> = taken.iter().map(|taken| taken.status).collect();
        let last = taken.last().map(|taken| String::from_utf8_lossy(&taken.request.body).into_owned());
        let most = statuses.len().saturating_sub(20);
        format!("{} requests, the last ones {:?}, the last of all {last:?}", taken.len(), &statuses[most..])
    }
}
