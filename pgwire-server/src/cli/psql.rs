//! How a person or a driver logs in: the psql line that commands print and the file that `sepal dev` writes.

use std::fmt::Write;

use crate::admin::Endpoint;

/// Where [`Login::line_without_token`] looks for the token.
pub const TOKEN_VARIABLE: &str = "SEPAL_TOKEN";

/// One key's way in. The token is the password, so this is as secret as the token.
pub struct Login<'a> {
    pub endpoint: &'a Endpoint,
    /// The key's id, which SCRAM takes as the user.
    pub user: &'a str,
    pub token: &'a str,
    /// The environment.
    pub database: &'a str,
}

impl Login<'_> {
    /// A shell line that opens psql. The token travels in the environment: arguments are visible to everyone
    /// on the machine.
    pub fn line(&self) -> String {
        self.line_with(self.token)
    }

    /// The same without the token, which the shell takes from a variable.
    pub fn line_without_token(&self) -> String {
        self.line_with(&format!("\"${TOKEN_VARIABLE}\""))
    }

    fn line_with(&self, password: &str) -> String {
        let mut line = format!("PGPASSWORD={password} PGSSLMODE={}", self.ssl_mode());
        if let Some(authority) = self.authority() {
            let _ = write!(line, " PGSSLROOTCERT={}", quoted(&authority));
        }
        let _ = write!(
            line,
            " psql -h {} -p {} -U {} -d {}",
            self.endpoint.host,
            self.endpoint.port,
            self.user,
            quoted(self.database)
        );
        line
    }

    /// What a shell sources so that a bare `psql`, or any driver that reads libpq's variables, connects.
    pub fn exports(&self) -> String {
        let mut variables = vec![
            ("PGHOST", self.endpoint.host.clone()),
            ("PGPORT", self.endpoint.port.to_string()),
            ("PGUSER", self.user.to_owned()),
            ("PGPASSWORD", self.token.to_owned()),
            ("PGDATABASE", self.database.to_owned()),
            ("PGSSLMODE", self.ssl_mode().to_owned()),
        ];
        variables.extend(self.authority().map(|authority| ("PGSSLROOTCERT", authority)));
        variables.iter().fold(String::new(), |mut out, (name, value)| {
            let _ = writeln!(out, "export {name}={}", quoted(value));
            out
        })
    }

    /// An operator's own certificate is checked against the authorities that the client already trusts; libpq
    /// does that only when told where they are, so there the operator decides.
    fn ssl_mode(&self) -> &'static str {
        match (&self.endpoint.authority, self.endpoint.tls) {
            (Some(_), true) => "verify-full",
            (None, true) => "require",
            (_, false) => "disable",
        }
    }

    fn authority(&self) -> Option<String> {
        let path = self.endpoint.authority.as_ref().filter(|_| self.endpoint.tls)?;
        Some(path.display().to_string())
    }
}

/// Quotes a word for a POSIX shell where it needs it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
