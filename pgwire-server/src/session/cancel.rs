//! Cancel requests: they come on a connection of their own and name a session by process id and secret.
//!
//! A session registers when it starts and is forgotten when its [`Registration`] drops. As in Postgres, a request is
//! never answered, so it cannot be used to find out which sessions exist.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sepal_database::CancelToken;

/// The sessions that can be cancelled.
#[derive(Debug, Default)]
pub struct CancelRegistry {
    entries: Mutex<HashMap<i32, Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: i32,
    token: CancelToken,
}

/// A session's entry, for as long as it lives.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<CancelRegistry>,
    /// What BackendKeyData tells the client.
    pub process: i32,
    pub secret: i32,
}

impl CancelRegistry {
    /// `process` is the session's backend pid, unique in this server.
    pub fn register(self: &Arc<Self>, process: i32, token: CancelToken) -> Registration {
        let secret = rand::random();
        self.entries.lock().insert(process, Entry { secret, token });
        Registration { registry: self.clone(), process, secret }
    }

    /// Cancels what the session runs; false when process and secret do not belong together.
    pub fn cancel(&self, process: i32, secret: i32) -> bool {
        let entries = self.entries.lock();
        let Some(entry) = entries.get(&process).filter(|entry| entry.secret == secret) else {
            return false;
        };
        entry.token.cancel();
        true
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.entries.lock().remove(&self.process);
    }
}
