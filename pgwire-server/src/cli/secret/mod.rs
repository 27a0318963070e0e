//! `sepal secret set|list|rm|grant|lint|render`, answered by the running server. A value is read from stdin, never from
//! an argument: those are visible to everyone on the machine and stay in the shell's history. No command prints one.

mod render;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Read},
};

use clap::{Args, Subcommand};
use sepal_database::MAX_SECRET_BYTES;
use zeroize::Zeroizing;

use crate::admin::{
    Answer, Request, SecretAction, SecretBytes, SecretFacts, SecretLint, SecretSource, client,
};

use super::{
    failure::Failure,
    flags::{DataFlags, JsonFlag},
    key::{duration, now, unexpected},
    output,
};

/// Longest configuration that `render` reads, in bytes.
const MAX_CONFIGURATION_BYTES: usize = 16 << 20;

#[derive(Subcommand)]
pub enum Secret {
    /// Make a secret, or give it a new value: sepal secret set NAME --tenant T < FILE
    Set(Set),
    /// List the secrets of an environment; never their values
    List(List),
    /// Remove a secret with all its versions
    Rm(Remove),
    /// Let an API key use a secret that is not its own
    Grant(Grant),
    /// Find secrets that are one environment variable and certificates about to expire; exit 1 if there are any
    Lint(Lint),
    /// Put ${SEPAL_SECRET_NAME} for SECRET[name] in a YAML text: sepal secret render --tenant T < config.yaml
    Render(Render),
}

/// Whose secrets.
#[derive(Args)]
struct Place {
    /// Whose secrets
    #[arg(long, value_name = "TENANT")]
    tenant: String,
    /// In which environment
    #[arg(long = "env", value_name = "ENVIRONMENT", default_value = "default")]
    environment: String,
    #[command(flatten)]
    data: DataFlags,
}

#[derive(Args)]
pub struct Set {
    /// A letter or digit, then letters, digits, dashes and underscores; 63 at most
    name: String,
    /// Take the value from this variable of the server's environment, which secret_env_source must allow
    #[arg(long, value_name = "VARIABLE", conflicts_with = "from_file")]
    from_env: Option<String>,
    /// Take the value from this file of the server, relative to secret_file_root
    #[arg(long, value_name = "PATH")]
    from_file: Option<String>,
    /// Send it to this host only, or to *.DOMAIN; may be repeated [default: any host that a sink may reach]
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// Keep the line's end with which the value on stdin ends
    #[arg(long)]
    keep_newline: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Remove {
    /// The secret's name
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Grant {
    /// The secret's name
    name: String,
    /// The API key's id, or public for all of the tenant's
    #[arg(long, value_name = "KEY")]
    to: String,
    /// Take it back
    #[arg(long)]
    revoke: bool,
    /// NAME is a certificate
    #[arg(long)]
    certificate: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Lint {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Render {
    #[command(flatten)]
    place: Place,
}

impl Secret {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Set(set) => set.run(),
            Self::List(list) => list.run(),
            Self::Rm(remove) => remove.run(),
            Self::Grant(grant) => grant.run(),
            Self::Lint(lint) => lint.run(),
            Self::Render(render) => render.run(),
        }
    }
}

impl Place {
    fn ask(&self, action: SecretAction) -> Result<Answer, Failure> {
        let (tenant, environment) = (self.tenant.clone(), self.environment.clone());
        Ok(client::ask(&self.data.data()?, &Request::Secret { tenant, environment, action })?)
    }

    fn secrets(&self) -> Result<Vec<SecretFacts>, Failure> {
        match self.ask(SecretAction::List)? {
            Answer::Secrets(secrets) => Ok(secrets),
            _ => Err(unexpected()),
        }
    }
}

impl Set {
    fn run(self) -> Result<(), Failure> {
        let source = match (self.from_env, self.from_file) {
            (Some(variable), _) => SecretSource::Environment(variable),
            (None, Some(path)) => SecretSource::File(path),
            (None, None) => SecretSource::Value(SecretBytes(typed_value(&self.name, self.keep_newline)?)),
        };
        let allowed_hosts = (!self.allow_host.is_empty()).then_some(self.allow_host);
        let action = SecretAction::Set { name: self.name, source, allowed_hosts };
        let Answer::Secret(secret) = self.place.ask(action)? else { return Err(unexpected()) };
        if let Some(other) = &secret.collides_with {
            output::talk(&format!(
                "warning: {} and {other} are both {}: the last in alphabetical order counts",
                secret.name, secret.env_name
            ));
        }
        if self.json.json {
            return output::json(&secret);
        }
        output::data(&secret.name)?;
        output::talk(&format!("Set {}, version {}, {}.", secret.name, secret.version, secret.source));
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let secrets = self.place.secrets()?;
        if self.json.json {
            return output::json(&secrets);
        }
        let rows: Vec<Vec<String>> = secrets.iter().map(describe).collect();
        output::rows(
            &["secret", "version", "source", "variable", "hosts", "owner", "granted to"],
            &rows,
            "No secrets yet. Make one: sepal secret set NAME --tenant TENANT < FILE",
        )
    }
}

impl Remove {
    fn run(self) -> Result<(), Failure> {
        let action = SecretAction::Remove { name: self.name.clone() };
        let Answer::Done = self.place.ask(action)? else { return Err(unexpected()) };
        if self.json.json {
            return output::json(&serde_json::json!({ "removed": self.name }));
        }
        output::talk(&format!("Removed {}, all its versions and grants.", self.name));
        Ok(())
    }
}

impl Grant {
    fn run(self) -> Result<(), Failure> {
        let action = SecretAction::Grant {
            name: self.name.clone(),
            certificate: self.certificate,
            to: self.to.clone(),
            revoke: self.revoke,
        };
        let Answer::Done = self.place.ask(action)? else { return Err(unexpected()) };
        let done = if self.revoke { "revoked" } else { "granted" };
        if self.json.json {
            return output::json(&serde_json::json!({ "name": self.name, done: self.to }));
        }
        let who = if self.to == "public" { "every key of the tenant" } else { &self.to };
        output::talk(&format!("Use of {} is {done}: {who}.", self.name));
        Ok(())
    }
}

impl Lint {
    fn run(self) -> Result<(), Failure> {
        let Answer::SecretLint(found) = self.place.ask(SecretAction::Lint)? else { return Err(unexpected()) };
        let rows = findings(&found, now());
        if self.json.json {
            output::json(&found)?;
        } else {
            output::rows(&["problem", "name", "what"], &rows, "Nothing found.")?;
        }
        match rows.len() {
            0 => Ok(()),
            count => Err(Failure::failed(format!(
                "{count} found: {} colliding, {} expiring. Rename or remove the one, renew the other",
                found.collisions.len(),
                found.expiring.len()
            ))),
        }
    }
}

impl Render {
    fn run(self) -> Result<(), Failure> {
        let mut text = String::new();
        let limit = MAX_CONFIGURATION_BYTES;
        io::stdin().lock().take(limit as u64 + 1).read_to_string(&mut text)?;
        if text.len() > limit {
            return Err(Failure::failed(format!("the configuration on stdin has more than {limit} bytes")));
        }
        let secrets = self.place.secrets()?;
        let variables: BTreeMap<&str, &str> =
            secrets.iter().map(|secret| (secret.name.as_str(), secret.env_name.as_str())).collect();
        let rendered = render::render(&text, &|name| variables.get(name).map(|name| (*name).to_owned()))
            .map_err(Failure::failed)?;
        output::text(&rendered)
    }
}

/// The value on stdin.
fn typed_value(name: &str, keep_newline: bool) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage(format!(
            "the value is read from stdin, and a terminal would show it. Give it from a file (`sepal secret set {name} \
             … < FILE`), or type it unseen: read -rs V; printf %s \"$V\" | sepal secret set {name} …"
        )));
    }
    read_value(stdin.lock(), name, keep_newline)
}

/// One line's end behind the value is the editor's or `echo`'s, not the secret's.
fn read_value(from: impl Read, name: &str, keep_newline: bool) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // With room for all of it: a vector that grew would leave a copy behind.
    let most = MAX_SECRET_BYTES + 2;
    let mut value = Zeroizing::new(Vec::<u8>::with_capacity(most + 1));
    from.take(most as u64 + 1).read_to_end(&mut value)?;
    if !keep_newline && value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    match value.len() {
        0 => Err(Failure::usage(format!("stdin is empty: give the value of {name} there"))),
        length if length > MAX_SECRET_BYTES => Err(Failure::failed(format!(
            "the value of {name} on stdin is longer than {MAX_SECRET_BYTES} bytes, the most that a secret may have"
        ))),
        _ => Ok(value),
    }
}

fn describe(secret: &SecretFacts) -> Vec<String> {
    let hosts = secret.allowed_hosts.as_ref().map_or_else(|| "any".into(), |hosts| hosts.join(" "));
    vec![
        secret.name.clone(),
        secret.version.to_string(),
        secret.source.clone(),
        secret.env_name.clone(),
        hosts,
        secret.owner.clone(),
        secret.granted_to.join(" "),
    ]
}

fn findings(found: &SecretLint, now: i64) -> Vec<Vec<String>> {
    let collisions = found.collisions.iter().map(|collision| {
        let last = collision.names.last().map_or("", String::as_str);
        vec![
            "collision".into(),
            collision.names.join(" "),
            format!("all are {}; {last} counts", collision.variable),
        ]
    });
    let expiring = found.expiring.iter().map(|certificate| {
        let when = match certificate.not_after - now {
            left if left < 0 => "has expired".to_owned(),
            left => format!("expires in {}", duration(left)),
        };
        vec!["certificate".into(), certificate.name.clone(), format!("{} {when}", certificate.subject)]
    });
    collisions.chain(expiring).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Collision, Expiring};

    #[test]
    fn one_lines_end_is_not_the_secrets() {
        let read = |text: &[u8], keep| read_value(text, "x", keep).map(|value| value.to_vec());
        assert_eq!(read(b"hunter2\n", false).unwrap(), b"hunter2");
        assert_eq!(read(b"hunter2\r\n", false).unwrap(), b"hunter2");
        assert_eq!(read(b"hunter2\n\n", false).unwrap(), b"hunter2\n");
        assert_eq!(read(b"hunter2\n", true).unwrap(), b"hunter2\n");
        assert_eq!(read(b"\xff\0\r", false).unwrap(), b"\xff\0\r");
        let longest = vec![b'x'; MAX_SECRET_BYTES];
        assert_eq!(read(&[longest.as_slice(), b"\r\n"].concat(), false).unwrap(), longest);
        for text in
            [b"".as_slice(), b"\n", &vec![b'x'; MAX_SECRET_BYTES + 1], &vec![b'x'; 3 * MAX_SECRET_BYTES]]
        {
            assert!(read(text, false).is_err(), "{} bytes", text.len());
        }
    }

    #[test]
    fn findings_say_what_counts_and_when() {
        let found = SecretLint {
            collisions: vec![Collision {
                variable: "VF_SECRET_A_B".into(),
                names: vec!["a-b".into(), "a_b".into()],
            }],
            expiring: vec![
                Expiring { name: "old".into(), subject: "CN=old".into(), not_after: 99 },
                Expiring { name: "new".into(), subject: "CN=new".into(), not_after: 100 + 3 * 86_400 },
            ],
        };
        let rows = findings(&found, 100);
        assert_eq!(rows[0], ["collision", "a-b a_b", "all are VF_SECRET_A_B; a_b counts"]);
        assert_eq!(rows[1], ["certificate", "old", "CN=old has expired"]);
        assert_eq!(rows[2], ["certificate", "new", "CN=new expires in 3 days"]);
    }
}
