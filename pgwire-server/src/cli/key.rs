//! `sepal key create|list|revoke`, answered by the running server. The token is printed on stdout alone, unless
//! stdout and stderr are both the person's terminal: what is redirected to a log must not hold it.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};

use crate::admin::{Answer, Key as KeyFacts, NewKey, Request, client};

use super::{
    failure::Failure,
    flags::{DataFlags, JsonFlag},
    output,
    psql::{Login, TOKEN_VARIABLE},
};

#[derive(Subcommand)]
pub enum Key {
    /// Make a key; its token is shown this once
    Create(Create),
    /// List the keys of a tenant
    List(List),
    /// Revoke a key; open connections that use it end within a second
    Revoke(Revoke),
}

/// What a key may do.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    Read,
    ReadWrite,
}

#[derive(Args)]
pub struct Create {
    /// Whose key it is
    #[arg(long, value_name = "TENANT")]
    tenant: String,
    /// Limit the key to one environment, which is made if need be [default: all of the tenant's]
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,
    /// Whether it may change anything
    #[arg(long, value_enum, default_value = "read-write")]
    scope: Scope,
    /// What the key is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// How long it is valid: 30m, 12h, 90d, or never
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    expires: Lifetime,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct List {
    /// Whose keys
    #[arg(long, value_name = "TENANT")]
    tenant: String,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Revoke {
    /// The key's id, as `sepal key list` prints it
    key: String,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

/// How long a key lives, in seconds; `None`: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(pub Option<i64>);

impl Key {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(),
            Self::List(list) => list.run(),
            Self::Revoke(revoke) => revoke.run(),
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let request = Request::KeyCreate {
            tenant: self.tenant,
            environment: self.environment,
            write: self.scope == Scope::ReadWrite,
            label: self.label,
            expires_at: self.expires.0.map(|seconds| now().saturating_add(seconds)),
        };
        let Answer::Key(new) = client::ask(&self.data.data()?, &request)? else { return Err(unexpected()) };
        let login = login(&new);
        if self.json.json {
            return output::json(&serde_json::json!({
                "key": new.key, "token": new.token.as_str(), "endpoint": new.endpoint, "psql": login.line(),
            }));
        }
        output::data(&new.token)?;
        if new.environment_made {
            output::talk(&format!(
                "Made environment {} too.",
                new.key.environment.as_deref().unwrap_or("default")
            ));
        }
        output::talk(&format!(
            "This token is shown once: it is not stored. Key id {}, {}.\n{}",
            new.key.id,
            match new.key.expires_at {
                Some(at) => format!("expires in {}", duration(at - now())),
                None => "never expires".into(),
            },
            invitation(&login, output::is_for_a_person())
        ));
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let Answer::Keys(keys) = client::ask(&self.data.data()?, &Request::KeyList { tenant: self.tenant })?
        else {
            return Err(unexpected());
        };
        if self.json.json {
            return output::json(&keys);
        }
        let rows: Vec<Vec<String>> = keys.iter().map(describe).collect();
        output::rows(
            &["key", "environment", "scope", "state", "label"],
            &rows,
            "No keys yet. Make one: sepal key create --tenant NAME",
        )
    }
}

impl Revoke {
    fn run(self) -> Result<(), Failure> {
        let Answer::Done = client::ask(&self.data.data()?, &Request::KeyRevoke { key: self.key.clone() })?
        else {
            return Err(unexpected());
        };
        if self.json.json {
            return output::json(&serde_json::json!({ "revoked": self.key }));
        }
        output::talk(&format!("Revoked {}.", self.key));
        Ok(())
    }
}

fn login(new: &NewKey) -> Login<'_> {
    let database = new.key.environment.as_deref().unwrap_or("default");
    Login { endpoint: &new.endpoint, user: &new.key.id, token: &new.token, database }
}

/// How to connect, in words for stderr; with the token where only the person sees it.
fn invitation(login: &Login<'_>, for_a_person: bool) -> String {
    if for_a_person {
        return format!("Connect with:\n  {}", login.line());
    }
    format!("With the token in {TOKEN_VARIABLE}, connect with:\n  {}", login.line_without_token())
}

fn describe(key: &KeyFacts) -> Vec<String> {
    let scope = match (key.read, key.write) {
        (true, true) => "read-write",
        (true, false) => "read",
        (false, true) => "write",
        (false, false) => "none",
    };
    let state = match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked".into(),
        (None, Some(at)) if at <= now() => "expired".into(),
        (None, Some(at)) => format!("expires in {}", duration(at - now())),
        (None, None) => "never expires".into(),
    };
    let environment = key.environment.clone().unwrap_or_else(|| "all".into());
    vec![key.id.clone(), environment, scope.into(), state, key.label.clone()]
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Whole days, hours or minutes, for people.
pub fn duration(seconds: i64) -> String {
    let (count, unit) = match seconds {
        172_800.. => ((seconds + 43_200) / 86_400, "days"),
        7_200.. => ((seconds + 1_800) / 3_600, "hours"),
        61.. => ((seconds + 59) / 60, "minutes"),
        _ => (1, "minute"),
    };
    format!("{count} {unit}")
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let wrong = || format!("\"{text}\" is no time: write 30m, 12h, 90d or never");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match count.checked_mul(seconds) {
        Some(total) if count > 0 => Ok(Lifetime(Some(total))),
        _ => Err(wrong()),
    }
}

/// The server answered something else: another version.
pub fn unexpected() -> Failure {
    Failure::failed("the server's answer does not fit the question: use the `sepal` of the server's version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_exactly() {
        assert_eq!(lifetime("90d"), Ok(Lifetime(Some(7_776_000))));
        assert_eq!(lifetime("never"), Ok(Lifetime(None)));
        for text in ["", "d", "0d", "-1d", "1w", "9223372036854775807d", "1.5h", "½"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_token_is_told_to_nobody_but_the_person() {
        let endpoint =
            crate::admin::Endpoint { host: "localhost".into(), port: 5433, tls: false, authority: None };
        let login =
            Login { endpoint: &endpoint, user: "id", token: "sepal_live_secret", database: "default" };
        assert!(invitation(&login, true).contains("PGPASSWORD=sepal_live_secret "));
        let logged = invitation(&login, false);
        assert!(!logged.contains("sepal_live_secret"), "{logged}");
        assert!(
            logged.contains("PGPASSWORD=\"$SEPAL_TOKEN\" PGSSLMODE=disable psql -h localhost"),
            "{logged}"
        );
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(7_776_000 - 1), "90 days");
        assert_eq!(duration(7_200), "2 hours");
        assert_eq!(duration(61), "2 minutes");
        assert_eq!(duration(0), "1 minute");
    }
}
