//! Time and chance, as pipelines meet them: handed in, so that a test decides both.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use sepal_types::{Clock, SystemClock};

/// What a pipeline knows of the world besides its tenant and its sink.
pub trait Surroundings: fmt::Debug + Send + Sync {
    /// Microseconds since 1970 UTC.
    fn now_us(&self) -> i64;

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Evenly from 0 to 1.
    fn chance(&self) -> f64;
}

/// The clock on the wall and the operating system's randomness.
#[derive(Debug)]
pub struct World;

impl World {
    pub fn shared() -> Arc<dyn Surroundings> {
        Arc::new(Self)
    }
}

impl Surroundings for World {
    fn now_us(&self) -> i64 {
        SystemClock.now_us()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn chance(&self) -> f64 {
        f64::from(u32::from_be_bytes(sepal_crypto::random_bytes())) / f64::from(u32::MAX)
    }
}
