//! The resolver `vault`: secrets of HashiCorp Vault and OpenBao, from a KV version 2 engine or any other path.
//!
//! It authenticates with a token, by AppRole (role id and secret id, or the role id alone where the role has
//! `bind_secret_id=false`), or not at all (a Vault Agent or Proxy beside it does). Token and secret id stay with the
//! host, which puts them into the header and into the body of the login. The token that a login gives is this
//! instance's and ends with it.

mod path;

use sepal_plugin::{http::Request as HttpRequest, prelude::*};
use serde_json::{Map, Value, json};

use path::escape;

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Versioned: `mount/data/path`.
    Kv2,
    /// `path` as it is: KV version 1, database credentials and other engines with leases.
    Logical,
}

#[derive(Deserialize)]
struct Config {
    addr: String,
    mount: Option<String>,
    engine: Option<Kind>,
    namespace: Option<String>,
    token: Option<SecretSlot>,
    role_id: Option<String>,
    secret_id: Option<SecretSlot>,
    approle_mount: Option<String>,
}

#[derive(Deserialize)]
struct Options {
    path: String,
    /// Needed where there is more than one.
    field: Option<String>,
    /// Of KV version 2; else the newest.
    version: Option<String>,
}

/// How requests prove who sends them.
enum Login {
    Handle(Secret),
    /// A token that Vault gave to this instance; it ends with it.
    Session(String),
    None,
}

struct Vault {
    config: Config,
    login: Option<Login>,
}

#[derive(Deserialize)]
struct Answered {
    data: Option<Map<String, Value>>,
    lease_id: Option<String>,
    lease_duration: Option<u32>,
    auth: Option<Auth>,
    #[serde(default)]
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
}

impl Resolver for Vault {
    type Config = Config;
    type Options = Options;

    fn open(config: Config) -> Result<Self, Error> {
        if config.token.is_some() && config.role_id.is_some() {
            return Err(Error::misconfigured("give token or role_id, not both").code("vault.login"));
        }
        if config.secret_id.is_some() && config.role_id.is_none() {
            return Err(Error::misconfigured("a secret_id belongs to a role_id").code("vault.login"));
        }
        Ok(Self { config, login: None })
    }

    fn check(config: Config) -> Result<(), Error> {
        let mut vault = Self::open(config)?;
        let path = match vault.login()? {
            Login::Handle(_) | Login::Session(_) => "auth/token/lookup-self",
            Login::None => "sys/health?standbyok=true&perfstandbyok=true",
        };
        vault.send("GET", path, None)?.ok().map(drop)
    }

    fn resolve(&mut self, request: &Request<Options>) -> Result<Answer, Error> {
        let options = &request.options;
        let kv2 = self.config.engine != Some(Kind::Logical);
        let mut path = escape(&options.path)?;
        if kv2 {
            path = format!("{}/data/{path}", escape(self.config.mount.as_deref().unwrap_or("secret"))?);
            if let Some(version) = &options.version {
                let number: u32 = version.parse().map_err(|_| {
                    Error::misconfigured(format!("option version: {version} is not a number"))
                        .code("vault.version")
                })?;
                path.push_str(&format!("?version={number}"));
            }
        }
        let response = self.send("GET", &path, None)?;
        if response.status == 404 {
            return not_found(response);
        }
        let resolved = if kv2 {
            of_kv2(response.ok()?.json()?, options)
        } else {
            of_logical(response.ok()?.json()?, options)
        };
        Ok(resolved?.map_or(Answer::NotFound, |resolved| {
            Answer::unless_held(resolved, request.have_version.as_deref())
        }))
    }

    fn revoke(&mut self, lease_id: &str) -> Result<(), Error> {
        self.send("POST", "sys/leases/revoke", Some(&json!({ "lease_id": lease_id })))?.ok().map(drop)
    }
}

impl Vault {
    fn request<'a>(&self, method: &str, path: &str) -> HttpRequest<'a> {
        let url = format!("{}/v1/{path}", self.config.addr.trim_end_matches('/'));
        let request = HttpRequest::new(method, url).header("x-vault-request", "true");
        match &self.config.namespace {
            Some(namespace) => request.header("x-vault-namespace", namespace),
            None => request,
        }
    }

    fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<http::Response, Error> {
        self.login()?;
        let mut request = self.request(method, path);
        match &self.login {
            Some(Login::Handle(token)) => request = request.secret_header("x-vault-token", token),
            Some(Login::Session(token)) => request = request.header("x-vault-token", token),
            Some(Login::None) | None => {}
        }
        if let Some(body) = body {
            request = request.json(body)?;
        }
        request.send()
    }

    fn login(&mut self) -> Result<&Login, Error> {
        let login = match (self.login.take(), &self.config.token, &self.config.role_id) {
            (Some(login), _, _) => login,
            (None, Some(token), _) => Login::Handle(token.get()?),
            (None, None, Some(role_id)) => {
                let mount = escape(self.config.approle_mount.as_deref().unwrap_or("approle"))?;
                let path = format!("auth/{mount}/login");
                let mut body = json!({ "role_id": role_id });
                let secret_id = SecretSlot::optional(self.config.secret_id.as_ref())?;
                if let Some(secret_id) = &secret_id {
                    // A word; the host writes the value on the wire.
                    body["secret_id"] = Value::from(secret_id.header_token());
                }
                let response = self.request("POST", &path).json(&body)?.send()?;
                if response.status == 400 {
                    let message = match secret_id {
                        Some(_) => "Vault refused the role id or the secret id",
                        None => "Vault refused the role id alone (does the role have bind_secret_id=false?)",
                    };
                    return Err(Error::unauthorized(message).code("vault.approle"));
                }
                let answered: Answered = response.ok()?.json()?;
                let auth = answered
                    .auth
                    .ok_or_else(|| Error::unauthorized("the login gave no token").code("vault.approle"))?;
                Login::Session(auth.client_token)
            }
            (None, None, None) => Login::None,
        };
        Ok(self.login.insert(login))
    }
}

/// 404 with errors is a path that no engine serves; without, a secret that is not there or was deleted.
fn not_found(response: http::Response) -> Result<Answer, Error> {
    match response.json::<Answered>() {
        Ok(answered) if answered.errors.is_empty() => Ok(Answer::NotFound),
        _ => response.ok().map(|_| Answer::NotFound),
    }
}

fn of_kv2(answered: Answered, options: &Options) -> Result<Option<Resolved>, Error> {
    let Some(mut data) = answered.data else { return Ok(None) };
    let metadata = data.remove("metadata").unwrap_or_default();
    let Some(Value::Object(fields)) = data.remove("data") else { return Ok(None) };
    // After its metadata was deleted a secret begins at version 1 again.
    let version =
        format!("{}@{}", metadata["version"], metadata["created_time"].as_str().unwrap_or_default());
    Ok(Some(Resolved { value: field(fields, options)?, version: Some(version), ..Resolved::default() }))
}

fn of_logical(answered: Answered, options: &Options) -> Result<Option<Resolved>, Error> {
    let Some(fields) = answered.data else { return Ok(None) };
    Ok(Some(Resolved {
        value: field(fields, options)?,
        version: answered.lease_id.clone().filter(|lease| !lease.is_empty()),
        ttl_seconds: answered.lease_duration.filter(|seconds| *seconds > 0),
        lease_id: answered.lease_id.filter(|lease| !lease.is_empty()),
    }))
}

/// The field's text, or its JSON if it is none. Errors name fields, never values.
fn field(mut fields: Map<String, Value>, options: &Options) -> Result<Vec<u8>, Error> {
    let known = fields.keys().cloned().collect::<Vec<_>>().join(", ");
    let wrong = |why: String| Error::misconfigured(why).code("vault.field");
    let name = match &options.field {
        Some(name) => name.clone(),
        None if fields.len() == 1 => known.clone(),
        None => {
            return Err(wrong(format!("{} has the fields {known}: give one as option field", options.path)));
        }
    };
    match fields.remove(&name) {
        Some(Value::String(text)) => Ok(text.into_bytes()),
        Some(Value::Null) | None => Err(wrong(format!("{} has no field {name}, but {known}", options.path))),
        Some(other) => Ok(serde_json::to_vec(&other)?),
    }
}

sepal_plugin::resolver!(Vault);

#[cfg(test)]
mod tests;
