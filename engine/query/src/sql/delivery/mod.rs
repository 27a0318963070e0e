//! Statements about what goes in and out: secrets, certificates, resolvers, plugins, sinks and pipelines.
//!
//! sqlparser knows none of them: `statement` recognises them by their first words and hands their tokens to the
//! parser here. `database::session::delivery` runs them. Nothing here looks anything up, and no `Debug` prints a
//! value that may be a secret.
//!
//! `SECRET[name]` and `CERT[name]` are nodes of their own, and only ever a whole value: no text is interpolated, and
//! there is no path on which a reference that cannot be resolved becomes a literal.

pub(in crate::sql) mod cursor;
mod options;
mod parse;
mod pipeline;
mod redact;
mod show;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use datafusion::sql::sqlparser::{
    ast,
    tokenizer::{Token, TokenWithSpan},
};
use sepal_types::Result;
use zeroize::Zeroizing;

use super::tokens;

pub use redact::redact;
pub(in crate::sql) use redact::{hides_secret, mask};

/// The second word of what these statements make, change and drop.
const KINDS: [&str; 5] = ["CERTIFICATE", "PIPELINE", "PLUGIN", "SECRET", "SINK"];

/// Whether a statement is of this family, by its first words in capitals.
pub(in crate::sql) fn is_one(words: &[String], tokens: &[TokenWithSpan]) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["CREATE", "OR", "REPLACE", kind, ..] | ["CREATE" | "ALTER" | "DROP", kind, ..] => {
            KINDS.contains(kind)
        }
        ["VALIDATE", "SINK", ..] => true,
        ["GRANT" | "REVOKE", "USAGE", "ON", kind, ..] => {
            matches!(*kind, "CERTIFICATE" | "PLUGIN" | "SECRET")
        }
        // `SHOW plugins.limit` is of a setting.
        ["SHOW", view @ ..] => {
            let significant = tokens.iter().filter(|token| tokens::is_significant(token));
            show::names_view(view) && significant.count() == words.len()
        }
        _ => false,
    }
}

/// Parses a statement of this family. `sql` is the whole query string, where the tokens have their places.
///
/// Errors: 42601 with the position, and without any literal of the statement.
pub(in crate::sql) fn parse(sql: &str, tokens: &[TokenWithSpan]) -> Result<Delivery> {
    parse::statement(&mut cursor::Cursor::new(sql, tokens))
}

/// Whether a token is this word, unquoted.
fn is_word(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
}

/// A statement of this family.
#[derive(Clone, Debug)]
pub enum Delivery {
    CreateSecret {
        name: String,
        if_not_exists: bool,
        source: SecretSource,
        /// `WITH (allowed_hosts = 'a.example.com, *.b.com', refresh = '5m', max_stale = '1h')`
        with: Options,
    },
    /// A new version of the value, or `SET (…)` of what `WITH` says.
    AlterSecret {
        name: String,
        source: Option<SecretSource>,
        with: Options,
    },
    /// `CREATE CERTIFICATE name AS pem KEY pem`
    CreateCertificate {
        name: String,
        certificate: Value,
        key: Value,
    },
    AlterCertificate {
        name: String,
        certificate: Value,
        key: Value,
    },
    CreateResolver {
        name: String,
        plugin: String,
        options: Options,
        allow_hosts: Vec<String>,
    },
    CreateTrustKey {
        name: String,
        key: Value,
    },
    CreatePlugin {
        name: String,
        or_replace: bool,
        component: Value,
        signature: Option<Value>,
    },
    /// `ALTER PLUGIN name UPDATE [TO 'version'] FROM component [SIGNATURE signature]`
    UpdatePlugin {
        name: String,
        version: Option<String>,
        component: Value,
        signature: Option<Value>,
    },
    CreateSink {
        name: String,
        connector: Connector,
        options: Options,
        allow_hosts: Vec<String>,
    },
    /// `ALTER SINK name [OPTIONS (…)] [ALLOW HOSTS (…)]`: what is named replaces what was there.
    AlterSink {
        name: String,
        options: Option<Options>,
        allow_hosts: Option<Vec<String>>,
    },
    ValidateSink {
        name: String,
    },
    CreatePipeline(Box<CreatePipeline>),
    AlterPipeline {
        name: String,
        change: PipelineChange,
    },
    Drop {
        kind: ObjectKind,
        name: String,
        if_exists: bool,
        cascade: bool,
    },
    /// `GRANT USAGE ON kind name TO grantee`
    Grant {
        kind: ObjectKind,
        name: String,
        to: Grantee,
    },
    Revoke {
        kind: ObjectKind,
        name: String,
        from: Grantee,
    },
    /// `SHOW SECRETS` and its like: a SELECT over the view of that name, planned as one.
    Show(Box<ast::Statement>),
}

impl Delivery {
    /// How many parameters it takes; each is text.
    pub fn parameters(&self) -> usize {
        let number = |value: &Value| match value {
            Value::Parameter(number) => Some(*number),
            Value::Literal(_) => None,
        };
        self.values().into_iter().filter_map(number).max().unwrap_or(0)
    }

    /// As messages name it: `CREATE SINK`.
    pub fn command(&self) -> String {
        let (verb, kind) = match self {
            Self::CreateSecret { .. } => ("CREATE", ObjectKind::Secret),
            Self::AlterSecret { .. } => ("ALTER", ObjectKind::Secret),
            Self::CreateCertificate { .. } => ("CREATE", ObjectKind::Certificate),
            Self::AlterCertificate { .. } => ("ALTER", ObjectKind::Certificate),
            Self::CreateResolver { .. } => ("CREATE", ObjectKind::Resolver),
            Self::CreateTrustKey { .. } => ("CREATE", ObjectKind::TrustKey),
            Self::CreatePlugin { .. } => ("CREATE", ObjectKind::Plugin),
            Self::UpdatePlugin { .. } => ("ALTER", ObjectKind::Plugin),
            Self::CreateSink { .. } => ("CREATE", ObjectKind::Sink),
            Self::AlterSink { .. } => ("ALTER", ObjectKind::Sink),
            Self::ValidateSink { .. } => ("VALIDATE", ObjectKind::Sink),
            Self::CreatePipeline(_) => ("CREATE", ObjectKind::Pipeline),
            Self::AlterPipeline { .. } => ("ALTER", ObjectKind::Pipeline),
            Self::Drop { kind, .. } => ("DROP", *kind),
            Self::Grant { .. } => return "GRANT".to_owned(),
            Self::Revoke { .. } => return "REVOKE".to_owned(),
            Self::Show(_) => return "SHOW".to_owned(),
        };
        format!("{verb} {}", kind.keyword())
    }

    /// What Bind may give.
    fn values(&self) -> Vec<&Value> {
        match self {
            Self::CreateSecret { source: SecretSource::Value(value), .. }
            | Self::AlterSecret { source: Some(SecretSource::Value(value)), .. }
            | Self::CreateTrustKey { key: value, .. } => vec![value],
            Self::CreateCertificate { certificate, key, .. }
            | Self::AlterCertificate { certificate, key, .. } => vec![certificate, key],
            Self::CreatePlugin { component, signature, .. }
            | Self::UpdatePlugin { component, signature, .. } => {
                std::iter::once(component).chain(signature).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What kind of thing a name names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Certificate,
    Pipeline,
    Plugin,
    Resolver,
    Secret,
    Sink,
    TrustKey,
}

impl ObjectKind {
    /// As in `DROP SECRET RESOLVER`.
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Certificate => "CERTIFICATE",
            Self::Pipeline => "PIPELINE",
            Self::Plugin => "PLUGIN",
            Self::Resolver => "SECRET RESOLVER",
            Self::Secret => "SECRET",
            Self::Sink => "SINK",
            Self::TrustKey => "PLUGIN TRUST KEY",
        }
    }

    /// As in an error message.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Pipeline => "pipeline",
            Self::Plugin => "plugin",
            Self::Resolver => "secret resolver",
            Self::Secret => "secret",
            Self::Sink => "sink",
            Self::TrustKey => "plugin trust key",
        }
    }
}

/// Who may use a thing: an API key's id, or every key of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grantee {
    Key(String),
    Public,
}

/// Where a secret's value comes from.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// `AS $1` or `AS 'literal'`
    Value(Value),
    /// `FROM resolver (path '…', field '…')`
    Resolver { resolver: String, request: Options },
}

/// What carries the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connector {
    /// `USING PLUGIN name [VERSION 'prefix']`
    Plugin { name: String, version: Option<String> },
    /// `USING postgres`, `file`, `object_store`
    Native(String),
}

/// A value of a statement: given with Bind, or written in the text.
#[derive(Clone)]
pub enum Value {
    /// `$n`, from 1.
    Parameter(usize),
    /// Overwritten when dropped: it may be a secret.
    Literal(Zeroizing<String>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter(number) => write!(f, "${number}"),
            Self::Literal(_) => f.write_str("'…'"),
        }
    }
}

/// `OPTIONS (name 'value', …)` or `WITH (name = value, …)`; names are folded to lower case.
pub type Options = BTreeMap<String, OptionValue>;

/// What an option is set to.
#[derive(Clone, PartialEq)]
pub enum OptionValue {
    Text(String),
    Number(f64),
    Flag(bool),
    /// `SECRET[name]`, `SECRET[name@version]`
    Secret(Reference),
    /// `CERT[name]`
    Certificate(Reference),
}

impl fmt::Debug for OptionValue {
    /// A text may be a password that is about to be refused.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("'…'"),
            Self::Number(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Secret(reference) => write!(f, "SECRET[{reference}]"),
            Self::Certificate(reference) => write!(f, "CERT[{reference}]"),
        }
    }
}

/// The name between the brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    pub name: String,
    /// `None`: the newest.
    pub version: Option<u64>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            None => f.write_str(&self.name),
            Some(version) => write!(f, "{}@{version}", self.name),
        }
    }
}

/// `CREATE PIPELINE name AS query INTO SINK sink [KEY (columns)] [FORMAT format] [ENVELOPE envelope] [WITH (…)]`
#[derive(Clone, Debug)]
pub struct CreatePipeline {
    pub name: String,
    pub if_not_exists: bool,
    /// A SELECT over one table.
    pub query: Box<ast::Query>,
    /// Its text as written, for `sepal_pipelines`.
    pub query_text: String,
    pub sink: String,
    /// Empty: the table's primary key.
    pub key: Vec<String>,
    pub format: Option<Format>,
    pub envelope: Option<Envelope>,
    pub with: Options,
}

/// `FORMAT NDJSON | ARROW`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Arrow,
    Ndjson,
}

/// `ENVELOPE APPEND | UPSERT | DEBEZIUM`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    Append,
    Debezium,
    Upsert,
}

/// What ALTER PIPELINE asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum PipelineChange {
    Pause,
    /// From where it stopped, or from a position that `sepal_pipeline_status` showed.
    Resume {
        from: Option<String>,
    },
    /// Forgets its position and begins anew, with a snapshot if it was made with one.
    Reset,
    Set(Options),
}
