//! Statements about the session and the transaction: BEGIN … ROLLBACK TO, SET, SHOW, RESET, DISCARD, and those
//! that Postgres users send and Sepal only has to accept.

use sepal_query::{
    catalog::quote_ident,
    ddl::{identifier, relation_name},
    output::OutputColumn,
    sql::{
        Maintenance, StatementKind,
        ast::{self, Expr, Set, TransactionMode, Value},
    },
};
use sepal_types::{Error, RelationName, Result, SqlState, SqlType};

use crate::locks::TableMode;

/// A recognised utility statement.
#[derive(Clone, Debug)]
pub enum Utility {
    /// No effect; the command tag.
    Accepted(&'static str),
    Begin {
        isolation: Option<String>,
        read_only: Option<bool>,
    },
    Commit {
        chain: bool,
    },
    /// `None`: of all.
    Deallocate {
        name: Option<String>,
    },
    DiscardAll,
    LockTables {
        names: Vec<RelationName>,
        mode: TableMode,
        nowait: bool,
    },
    /// VACUUM, ANALYZE, REINDEX, CHECKPOINT
    Maintenance(Box<Maintenance>),
    Release {
        name: String,
    },
    Reset {
        name: Option<String>,
    },
    Rollback {
        chain: bool,
    },
    RollbackTo {
        name: String,
    },
    Savepoint {
        name: String,
    },
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    SetTransaction {
        isolation: Option<String>,
        read_only: Option<bool>,
        session: bool,
    },
    Show {
        name: String,
    },
    /// CLOSE; `None`: of all.
    Close {
        name: Option<String>,
    },
    DiscardPlans,
    SetConstraints {
        names: Option<Vec<String>>,
        deferred: bool,
    },
}

impl Utility {
    /// `None` for a statement that is not one of these.
    pub fn recognise(kind: &StatementKind) -> Result<Option<Utility>> {
        match kind {
            StatementKind::Accepted(tag) => Ok(Some(Utility::Accepted(tag))),
            StatementKind::Refused(message) => Err(Error::unsupported(*message)),
            StatementKind::Maintenance(statement) => Ok(Some(Utility::Maintenance(statement.clone()))),
            StatementKind::DropIndexes { .. }
            | StatementKind::Delivery(_)
            | StatementKind::History(_)
            | StatementKind::Named(_)
            | StatementKind::Sequence(_)
            | StatementKind::Schema(_) => Ok(None),
            StatementKind::SetConstraints { names, deferred } => {
                Ok(Some(Utility::SetConstraints { names: names.clone(), deferred: *deferred }))
            }
            StatementKind::Sql(statement) => from_ast(statement),
        }
    }

    /// The columns of SHOW.
    pub fn columns(&self) -> Option<Vec<OutputColumn>> {
        match self {
            Utility::Show { name } if name == "all" => Some(
                ["name", "setting", "description"]
                    .map(|name| OutputColumn::new(name, SqlType::Text))
                    .to_vec(),
            ),
            Utility::Show { name } => Some(vec![OutputColumn::new(name.clone(), SqlType::Text)]),
            _ => None,
        }
    }

    /// Whether it may run in a failed transaction.
    pub fn ends_transaction(&self) -> bool {
        matches!(self, Utility::Commit { .. } | Utility::Rollback { .. } | Utility::RollbackTo { .. })
    }
}

fn from_ast(statement: &ast::Statement) -> Result<Option<Utility>> {
    use ast::Statement as S;
    Ok(Some(match statement {
        S::StartTransaction { modes, .. } => {
            let (isolation, read_only) = modes_of(modes);
            Utility::Begin { isolation, read_only }
        }
        S::Commit { chain, .. } => Utility::Commit { chain: *chain },
        S::Rollback { chain, savepoint: None } => Utility::Rollback { chain: *chain },
        S::Rollback { savepoint: Some(name), .. } => Utility::RollbackTo { name: fold(name) },
        S::Savepoint { name } => Utility::Savepoint { name: fold(name) },
        S::ReleaseSavepoint { name } => Utility::Release { name: fold(name) },
        S::Set(set) => set_statement(set)?,
        S::ShowVariable { variable } => Utility::Show { name: shown_name(variable) },
        S::ShowVariables { .. } => Utility::Show { name: "all".to_owned() },
        S::Reset(reset) => match &reset.reset {
            ast::Reset::ALL => Utility::Reset { name: None },
            ast::Reset::ConfigurationParameter(name) => match dotted(name) {
                role if role.eq_ignore_ascii_case("role") => Utility::Accepted("RESET"),
                name => Utility::Reset { name: Some(name) },
            },
        },
        S::Discard { object_type } => match object_type {
            ast::DiscardObject::ALL => Utility::DiscardAll,
            ast::DiscardObject::PLANS => Utility::DiscardPlans,
            ast::DiscardObject::SEQUENCES => Utility::Accepted("DISCARD SEQUENCES"),
            ast::DiscardObject::TEMP => Utility::Accepted("DISCARD TEMP"),
        },
        S::Deallocate { name, .. } => {
            let all = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all");
            Utility::Deallocate { name: (!all).then(|| identifier(name)) }
        }
        S::Close { cursor: ast::CloseCursor::All } => Utility::Close { name: None },
        S::Close { cursor: ast::CloseCursor::Specific { name } } => {
            Utility::Close { name: Some(identifier(name)) }
        }
        S::Lock(lock) => Utility::LockTables {
            names: lock.tables.iter().map(|table| relation_name(&table.name)).collect::<Result<_>>()?,
            mode: lock.lock_mode.as_ref().map_or(TableMode::AccessExclusive, table_mode),
            nowait: lock.nowait,
        },
        _ => return Ok(None),
    }))
}

/// A definition as messages name it, which is not by its first two words throughout.
pub(super) fn command(kind: &StatementKind) -> String {
    use ast::Statement as S;
    let statement = match kind {
        StatementKind::Sql(statement) => statement.as_ref(),
        StatementKind::Sequence(statement) => return statement.tag().to_owned(),
        StatementKind::Schema(statement) => return statement.tag().to_owned(),
        _ => return "DROP INDEX".to_owned(),
    };
    let named = match statement {
        S::CreateTable(_) => "CREATE TABLE",
        S::CreateIndex(_) => "CREATE INDEX",
        S::CreateView { .. } => "CREATE VIEW",
        S::CreateFunction { .. } => "CREATE FUNCTION",
        S::Truncate(_) => "TRUNCATE TABLE",
        S::Comment { .. } => "COMMENT",
        S::Grant { .. } => "GRANT",
        S::Revoke { .. } => "REVOKE",
        S::Drop { object_type, .. } => return format!("DROP {object_type}"),
        other => return other.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" "),
    };
    named.to_owned()
}

fn table_mode(mode: &ast::LockTableMode) -> TableMode {
    use ast::LockTableMode as M;
    match mode {
        M::AccessShare => TableMode::AccessShare,
        M::RowShare => TableMode::RowShare,
        M::RowExclusive => TableMode::RowExclusive,
        M::ShareUpdateExclusive => TableMode::ShareUpdateExclusive,
        M::Share => TableMode::Share,
        M::ShareRowExclusive => TableMode::ShareRowExclusive,
        M::Exclusive => TableMode::Exclusive,
        M::AccessExclusive => TableMode::AccessExclusive,
    }
}

fn fold(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn dotted(name: &ast::ObjectName) -> String {
    let parts: Vec<String> =
        name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.clone()).collect();
    parts.join(".")
}

fn modes_of(modes: &[TransactionMode]) -> (Option<String>, Option<bool>) {
    let (mut isolation, mut read_only) = (None, None);
    for mode in modes {
        match mode {
            TransactionMode::IsolationLevel(level) => isolation = Some(level.to_string().to_lowercase()),
            TransactionMode::AccessMode(mode) => {
                read_only = Some(*mode == ast::TransactionAccessMode::ReadOnly)
            }
        }
    }
    (isolation, read_only)
}

/// `SHOW TIME ZONE`, `SHOW transaction isolation level`, `SHOW hnsw.ef_search`.
fn shown_name(variable: &[ast::Ident]) -> String {
    let words: Vec<String> = variable.iter().map(|ident| ident.value.clone()).collect();
    let lower: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    match lower.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["time", "zone"] => "TimeZone".to_owned(),
        ["transaction", "isolation", "level"] => "transaction_isolation".to_owned(),
        ["session", "authorization"] => "session_authorization".to_owned(),
        ["all"] => "all".to_owned(),
        _ => words.join("."),
    }
}

fn set_statement(set: &Set) -> Result<Utility> {
    Ok(match set {
        Set::SingleAssignment { scope, variable, values, .. } => {
            let name = dotted(variable);
            let local = matches!(scope, Some(ast::ContextModifier::Local));
            if is_default(values) {
                return Ok(Utility::Set { name, value: None, local });
            }
            let text = if name.eq_ignore_ascii_case("search_path") { schema_text } else { value_text };
            let values: Vec<String> = values.iter().map(text).collect::<Result<_>>()?;
            Utility::Set { name, value: Some(values.join(", ")), local }
        }
        Set::SetTimeZone { local, value } => {
            let value = match value {
                Expr::Identifier(ident)
                    if ["default", "local"].iter().any(|word| ident.value.eq_ignore_ascii_case(word)) =>
                {
                    None
                }
                Expr::Interval(interval) => Some(interval_text(interval)?),
                other => Some(value_text(other)?),
            };
            Utility::Set { name: "TimeZone".to_owned(), value, local: *local }
        }
        Set::SetNames { charset_name, .. } => Utility::Set {
            name: "client_encoding".to_owned(),
            value: Some(charset_name.value.clone()),
            local: false,
        },
        Set::SetNamesDefault {} => Utility::Reset { name: Some("client_encoding".to_owned()) },
        Set::SetTransaction { modes, session, .. } => {
            let (isolation, read_only) = modes_of(modes);
            Utility::SetTransaction { isolation, read_only, session: *session }
        }
        Set::SetRole { .. } => Utility::Accepted("SET"),
        other => {
            return Err(Error::new(SqlState::SyntaxError, format!("{other} is not a setting Sepal knows")));
        }
    })
}

/// `INTERVAL '-8' HOUR` and `INTERVAL '-08:00' HOUR TO MINUTE` as `TimeZone` takes them.
fn interval_text(interval: &ast::Interval) -> Result<String> {
    let text = value_text(&interval.value)?;
    let unit = match &interval.leading_field {
        Some(unit) if text.trim().parse::<f64>().is_ok() => format!(" {unit}").to_ascii_lowercase(),
        _ => String::new(),
    };
    Ok(format!("interval '{}{unit}'", text.trim()))
}

fn is_default(values: &[Expr]) -> bool {
    matches!(values, [Expr::Identifier(ident)] if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// A schema in SET search_path, however it is written, as a list has it.
fn schema_text(expr: &Expr) -> Result<String> {
    match expr {
        Expr::Identifier(ident) => Ok(quote_ident(&fold(ident))),
        other => value_text(other).map(|text| quote_ident(&text)),
    }
}

/// A value in SET: a literal, a bare or double-quoted word, a signed number.
fn value_text(expr: &Expr) -> Result<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) | Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Ok(text.clone())
            }
            Value::Boolean(flag) => Ok(flag.to_string()),
            other => Ok(other.to_string()),
        },
        Expr::Identifier(ident) => Ok(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => {
            Ok(parts.iter().map(|ident| ident.value.as_str()).collect::<Vec<_>>().join("."))
        }
        Expr::UnaryOp { op, expr } => Ok(format!("{op}{}", value_text(expr)?)),
        other => Err(Error::new(SqlState::SyntaxError, format!("SET takes a constant, not {other}"))),
    }
}
