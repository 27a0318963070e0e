//! Vault, as far as the resolver `vault` speaks with it: a server of the tests' own, after the HTTP API that HashiCorp
//! documents (developer.hashicorp.com/vault/api-docs).
//!
//! - `auth/approle/login`: role id and secret id in a JSON body, a token in `auth.client_token`; 400 for wrong ones.
//! - Every other path wants a valid `X-Vault-Token`, else 403 with `permission denied`.
//! - `X-Vault-Namespace`: a path of another namespace is one that nothing serves, 404.
//! - KV version 2 under `secret/`: `data/<path>[?version=n]` with `data.data` and `data.metadata`; 404 without errors
//!   for what is not there.
//! - `database/creds/<role>`: new credentials and a lease at every read.
//! - `auth/token/lookup-self`, `sys/leases/revoke`.
//!
//! It seals nothing, stores nothing, and is no Vault: what it checks is what was sent to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value, json};

use crate::http::{Answer, Destination, Request};

/// The token that `CREATE SECRET RESOLVER` is given.
pub const TOKEN: &str = "hvs.boot-canary-Qm3vW7eT5";

pub struct Vault {
    pub http: Destination,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By path below `secret/`, oldest version first.
    kv: BTreeMap<String, Vec<Map<String, Value>>>,
    /// Role id and secret id.
    role: Option<(String, String)>,
    namespace: Option<String>,
    /// Tokens that logins gave.
    sessions: BTreeSet<String>,
    leases: u32,
    revoked: Vec<String>,
    down: bool,
}

impl Vault {
    pub fn start() -> Vault {
        let state: Arc<Mutex<State>> = Arc::default();
        let serving = Arc::clone(&state);
        let http = Destination::start("127.0.0.1", move |request| {
            serving.lock().unwrap_or_else(PoisonError::into_inner).answer(request)
        });
        Vault { http, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new version of a secret with these fields.
    pub fn put(&self, path: &str, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        self.state().kv.entry(path.to_owned()).or_default().push(fields);
    }

    pub fn set_role(&self, role_id: &str, secret_id: &str) {
        self.state().role = Some((role_id.to_owned(), secret_id.to_owned()));
    }

    pub fn set_namespace(&self, namespace: &str) {
        self.state().namespace = Some(namespace.to_owned());
    }

    /// A server that is down answers nobody.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Leases that were given back.
    pub fn revoked(&self) -> Vec<String> {
        self.state().revoked.clone()
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        if self.down {
            return Answer::hang_up();
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let Some(path) = path.strip_prefix("/v1/") else { return errors(404, &[]) };
        if request.header("x-vault-namespace") != self.namespace.as_deref() {
            return errors(404, &[&format!("no handler for route \"{path}\". route entry not found.")]);
        }
        if path == "auth/approle/login" {
            return self.login(request);
        }
        let token = request.header("x-vault-token").unwrap_or_default();
        if token != TOKEN && !self.sessions.contains(token) {
            return errors(403, &["permission denied"]);
        }
        match (request.method.as_str(), path) {
            ("GET", "auth/token/lookup-self") => {
                Answer::json(200, &json!({ "data": { "path": "auth/token/create", "ttl": 0 } }))
            }
            ("GET", path) if path.starts_with("secret/data/") => {
                self.read(&path["secret/data/".len()..], query)
            }
            ("GET", path) if path.starts_with("database/creds/") => self.lease(path),
            ("POST" | "PUT", "sys/leases/revoke") => {
                let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                self.revoked.extend(body["lease_id"].as_str().map(ToOwned::to_owned));
                Answer::status(204)
            }
            _ => errors(404, &[&format!("no handler for route \"{path}\". route entry not found.")]),
        }
    }

    fn login(&mut self, request: &Request) -> Answer {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let given = (body["role_id"].as_str(), body["secret_id"].as_str());
        let known = self.role.as_ref().map(|(role, secret)| (Some(role.as_str()), Some(secret.as_str())));
        if request.method != "POST" || known != Some(given) {
            return errors(400, &["invalid role or secret ID"]);
        }
        let token = format!("hvs.session-{}", self.sessions.len());
        self.sessions.insert(token.clone());
        Answer::json(
            200,
            &json!({ "auth": { "client_token": token, "lease_duration": 3600, "renewable": true } }),
        )
    }

    fn read(&self, path: &str, query: &str) -> Answer {
        let Some(versions) = self.kv.get(path) else { return errors(404, &[]) };
        let asked = query.strip_prefix("version=").and_then(|version| version.parse().ok());
        let number = asked.unwrap_or(versions.len());
        let Some(fields) = number.checked_sub(1).and_then(|at| versions.get(at)) else {
            return errors(404, &[]);
        };
        let metadata = json!({
            "version": number, "created_time": format!("2026-01-01T00:00:{number:02}.0Z"), "deletion_time": "",
            "destroyed": false,
        });
        let data = json!({ "data": fields, "metadata": metadata });
        Answer::json(200, &json!({ "lease_id": "", "lease_duration": 0, "renewable": false, "data": data }))
    }

    fn lease(&mut self, path: &str) -> Answer {
        self.leases += 1;
        let number = self.leases;
        let credentials =
            json!({ "username": format!("v-{number}"), "password": format!("leased-password-{number}") });
        Answer::json(
            200,
            &json!({
                "lease_id": format!("{path}/lease-{number}"), "lease_duration": 3600, "renewable": true,
                "data": credentials,
            }),
        )
    }
}

fn errors(status: u16, errors: &[&str]) -> Answer {
    Answer::json(status, &json!({ "errors": errors }))
}
