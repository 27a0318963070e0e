//! The transit engine of Vault and OpenBao, as far as `sepal` speaks with it: a server of the tests' own, after the
//! HTTP API that HashiCorp documents (developer.hashicorp.com/vault/api-docs/secret/transit).
//!
//! - `POST /v1/transit/encrypt/<key>` with `plaintext` and `associated_data` in base64 gives `data.ciphertext`,
//!   `vault:v1:…`.
//! - `POST /v1/transit/decrypt/<key>` gives `data.plaintext` back if all of it is as it was; 400 otherwise.
//! - Without a valid `X-Vault-Token`: 403 with `permission denied`. A sealed Vault: 503.
//!
//! It encrypts nothing: it hands out a number and remembers what for. What it checks is what was sent to it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};

use crate::http::{Answer, Destination, Request};

/// The token that the server's file holds.
pub const TOKEN: &str = "hvs.transit-canary-Vb6rT2pL9";

pub struct Transit {
    pub http: Destination,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Key, plaintext, associated data, by ciphertext.
    kept: HashMap<String, (String, Value, Value)>,
    sealed: bool,
    revoked: bool,
}

impl Transit {
    pub fn start() -> Transit {
        let state: Arc<Mutex<State>> = Arc::default();
        let serving = Arc::clone(&state);
        let http = Destination::start("127.0.0.1", move |request| {
            serving.lock().unwrap_or_else(PoisonError::into_inner).answer(request)
        });
        Transit { http, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sealed Vault answers 503.
    pub fn set_sealed(&self, sealed: bool) {
        self.state().sealed = sealed;
    }

    /// Takes the right of our token away.
    pub fn set_revoked(&self, revoked: bool) {
        self.state().revoked = revoked;
    }

    /// How many secrets were wrapped.
    pub fn wrapped(&self) -> usize {
        self.state().kept.len()
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        if self.sealed {
            return errors(503, "Vault is sealed");
        }
        if self.revoked || request.header("x-vault-token") != Some(TOKEN) {
            return errors(403, "permission denied");
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let path = request.path.strip_prefix("/v1/transit/").and_then(|rest| rest.split_once('/'));
        match (request.method.as_str(), path) {
            ("POST", Some(("encrypt", key))) if body["plaintext"].is_string() => {
                let ciphertext = format!("vault:v1:{:08}", self.kept.len());
                let kept = (key.to_owned(), body["plaintext"].clone(), body["associated_data"].clone());
                self.kept.insert(ciphertext.clone(), kept);
                Answer::json(200, &json!({ "data": { "ciphertext": ciphertext, "key_version": 1 } }))
            }
            ("POST", Some(("decrypt", key))) => {
                let found = body["ciphertext"].as_str().and_then(|ciphertext| self.kept.get(ciphertext));
                match found {
                    Some((known, plaintext, data)) if known == key && *data == body["associated_data"] => {
                        Answer::json(200, &json!({ "data": { "plaintext": plaintext } }))
                    }
                    _ => errors(400, "cipher: message authentication failed"),
                }
            }
            _ => errors(404, "no handler for route"),
        }
    }
}

fn errors(status: u16, error: &str) -> Answer {
    Answer::json(status, &json!({ "errors": [error] }))
}
