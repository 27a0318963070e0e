//! Prepared statements with names: PREPARE, EXECUTE and DEALLOCATE, and what Parse of the protocol has named.
//!
//! Both share their names, as in PostgreSQL: what one has made the other runs and forgets. The unnamed statement stays
//! with the server. How a statement is planned is `prepare`'s, how it runs `execute`'s.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, Weak},
};

use arrow::{
    array::{Array, ArrayRef},
    datatypes::DataType,
};
use bytes::BytesMut;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sepal_query::{
    catalog::named::PreparedRow,
    dml::parse_query,
    output::OutputColumn,
    sql::{
        Fetch, Named, Statement, StatementKind,
        ast::{self, Visit, Visitor},
    },
    values::{decode_text, encode_text},
};
use sepal_types::{Clock, Error, Result, SqlState, SqlType, SystemClock};

use super::{
    Outcome, Session,
    prepare::Planned,
    prepared::{PlanKind, Prepared},
};

/// A statement under a name, or the unnamed one.
pub struct NamedStatement {
    /// `None`: the empty query.
    pub prepared: Option<Arc<Prepared>>,
    /// Bytes of its SQL.
    pub bytes: usize,
}

/// The named statements of a session; clones are the same ones.
#[derive(Clone, Default)]
pub struct NamedStatements(Arc<Mutex<Known>>);

/// What is known by which name.
#[derive(Default)]
pub(super) struct Known {
    statements: HashMap<String, Entry>,
    /// Bytes of their SQL.
    bytes: usize,
    most: Option<Most>,
}

#[derive(Clone, Copy)]
struct Most {
    statements: usize,
    bytes: usize,
}

struct Entry {
    statement: Arc<NamedStatement>,
    prepared_us: i64,
    from_sql: bool,
}

impl NamedStatements {
    /// How many there may be, and how many bytes of SQL they may hold together with what the protocol holds.
    pub fn limit(&self, statements: usize, bytes: usize) {
        self.0.lock().most = Some(Most { statements, bytes });
    }

    /// Whether a statement of this name and size may be added. `beside`: bytes that the client holds otherwise.
    ///
    /// Errors: 42P05; 54000 where there are too many; those of [`Self::check_bytes`].
    pub fn check(&self, name: &str, bytes: usize, beside: usize) -> Result<()> {
        {
            let known = self.0.lock();
            if known.statements.contains_key(name) {
                return Err(Error::new(
                    SqlState::DuplicatePreparedStatement,
                    format!("prepared statement \"{name}\" already exists"),
                ));
            }
            if let Some(most) = known.most
                && known.statements.len() >= most.statements
            {
                return Err(Error::new(
                    SqlState::ProgramLimitExceeded,
                    format!("too many prepared statements: a connection may hold {}", most.statements),
                )
                .with_hint("Close statements that are no longer used."));
            }
        }
        self.check_bytes(bytes, beside)
    }

    /// Errors: 53000 where so many bytes more would be too many.
    pub fn check_bytes(&self, more: usize, beside: usize) -> Result<()> {
        let known = self.0.lock();
        let held = known.bytes.saturating_add(beside).saturating_add(more);
        match known.most {
            Some(most) if held > most.bytes => Err(Error::new(
                SqlState::InsufficientResources,
                format!(
                    "prepared statements and portals would hold {held} bytes; a connection may hold {}",
                    most.bytes
                ),
            )
            .with_hint("Close statements and portals that are no longer used.")),
            _ => Ok(()),
        }
    }

    /// Adds what was checked. `from_sql`: by PREPARE.
    pub fn add(&self, name: &str, statement: Arc<NamedStatement>, from_sql: bool) {
        let mut known = self.0.lock();
        known.bytes += statement.bytes;
        let entry = Entry { statement, prepared_us: SystemClock.now_us(), from_sql };
        if let Some(before) = known.statements.insert(name.to_owned(), entry) {
            known.bytes -= before.statement.bytes;
        }
    }

    /// Errors: 26000.
    pub fn get(&self, name: &str) -> Result<Arc<NamedStatement>> {
        let known = self.0.lock();
        let found = known.statements.get(name).map(|entry| Arc::clone(&entry.statement));
        found.ok_or_else(|| {
            let message = format!("prepared statement \"{name}\" does not exist");
            Error::new(SqlState::InvalidSqlStatementName, message)
        })
    }

    /// Forgets a statement. Errors: 26000.
    pub fn remove(&self, name: &str) -> Result<()> {
        let statement = self.get(name)?;
        let mut known = self.0.lock();
        if known.statements.remove(name).is_some() {
            known.bytes -= statement.bytes;
        }
        Ok(())
    }

    pub fn clear(&self) {
        let mut known = self.0.lock();
        known.statements.clear();
        known.bytes = 0;
    }

    pub(super) fn weak(&self) -> Weak<Mutex<Known>> {
        Arc::downgrade(&self.0)
    }
}

impl Known {
    /// As `pg_prepared_statements` shows them, by name.
    pub fn rows(&self) -> Vec<PreparedRow> {
        let row = |(name, entry): (&String, &Entry)| {
            let prepared = entry.statement.prepared.as_deref();
            let types = |columns: &[OutputColumn]| columns.iter().map(|column| column.ty.clone()).collect();
            PreparedRow {
                name: name.clone(),
                statement: prepared.map(|prepared| prepared.statement.sql.to_string()).unwrap_or_default(),
                prepared_us: entry.prepared_us,
                parameters: prepared.map(|prepared| prepared.parameters().to_vec()).unwrap_or_default(),
                results: prepared.and_then(Prepared::columns).map(types),
                from_sql: entry.from_sql,
            }
        };
        let mut rows: Vec<PreparedRow> = self.statements.iter().map(row).collect();
        rows.sort_by(|left, right| left.name.cmp(&right.name));
        rows
    }
}

/// `EXECUTE name [(arguments)]`
#[derive(Clone, Debug)]
pub(super) struct Execute {
    name: String,
    arguments: Vec<ast::Expr>,
}

impl Execute {
    /// `None` for another statement. Errors: 42601 for what other systems write after EXECUTE.
    pub fn recognise(statement: &ast::Statement) -> Result<Option<Self>> {
        let ast::Statement::Execute {
            name,
            parameters,
            has_parentheses,
            immediate,
            into,
            using,
            output,
            default,
        } = statement
        else {
            return Ok(None);
        };
        let name = match name.as_ref().map(|name| name.0.as_slice()) {
            Some([part]) => part.as_ident(),
            _ => None,
        };
        // Parentheses stand around arguments, and around nothing else.
        let plain = *has_parentheses != parameters.is_empty();
        let foreign = *immediate || *output || *default || !into.is_empty() || !using.is_empty();
        match name {
            Some(name) if plain && !foreign => {
                let arguments = parameters.clone();
                Ok(Some(Self { name: sepal_query::ddl::identifier(name), arguments }))
            }
            _ => Err(Error::new(SqlState::SyntaxError, "syntax error in EXECUTE")
                .with_hint("EXECUTE name, or EXECUTE name (argument, …).")),
        }
    }
}

/// Planning.
impl Session {
    pub(super) fn plan_named(&mut self, named: &Named, declared: &[u32]) -> Result<Planned> {
        match named {
            Named::Prepare { .. } => Ok(Planned::plain(PlanKind::Prepare)),
            Named::Declare(declare) => {
                let planned = self.plan_query(&declare.query, declared)?;
                let kind = PlanKind::Declare { declare: declare.clone(), source: Box::new(planned.kind) };
                Ok(Planned { kind, parameters: planned.parameters, columns: None })
            }
            Named::Fetch(fetch) => Ok(self.plan_fetch(fetch)),
        }
    }

    fn plan_fetch(&self, fetch: &Fetch) -> Planned {
        let columns = if fetch.moves { None } else { self.cursors.lock().columns(&fetch.name) };
        Planned { kind: PlanKind::Fetch(fetch.clone()), parameters: Vec::new(), columns }
    }

    /// A name that there is not is told when it is executed, as in PostgreSQL.
    pub(super) fn plan_execute(&self, execute: Execute) -> Planned {
        let target = self.named.get(&execute.name).ok().and_then(|target| target.prepared.clone());
        let columns = target.and_then(|target| target.columns.clone());
        Planned { kind: PlanKind::Execute(execute), parameters: Vec::new(), columns }
    }

    /// The statement that EXPLAIN EXECUTE explains, and what its parameters are declared as.
    ///
    /// Errors: 26000; 0A000 for a statement that cannot be executed so.
    pub(super) fn explained_target(&self, execute: &Execute) -> Result<Arc<Prepared>> {
        match self.named.get(&execute.name)?.prepared.clone() {
            Some(target) if can_be_executed(&target.statement) => Ok(target),
            _ => Err(cannot_be_executed(&execute.name)),
        }
    }
}

/// Running.
impl Session {
    pub(super) async fn run_prepare(&mut self, statement: &Statement) -> Result<Outcome> {
        let StatementKind::Named(named) = &statement.kind else { return Err(not_a_prepare()) };
        let (Named::Prepare { name, types, .. }, Some(inner)) = (named.as_ref(), statement.to_prepare())
        else {
            return Err(not_a_prepare());
        };
        let bytes = statement.sql.len();
        let prepared = self.prepare_as(inner, types, true).await?;
        self.named.check(name, bytes, 0)?;
        self.named.add(name, Arc::new(NamedStatement { prepared: Some(prepared), bytes }), true);
        Ok(Outcome::Done { tag: "PREPARE".to_owned() })
    }

    /// DEALLOCATE of one, or of all.
    pub(super) fn deallocate(&self, name: Option<&str>) -> Result<String> {
        match name {
            Some(name) => self.named.remove(name).map(|()| "DEALLOCATE".to_owned()),
            None => {
                self.named.clear();
                Ok("DEALLOCATE ALL".to_owned())
            }
        }
    }

    pub(super) async fn run_execute(&mut self, execute: &Execute) -> Result<Outcome> {
        let Some(target) = self.named.get(&execute.name)?.prepared.clone() else { return Ok(Outcome::Empty) };
        if !can_be_executed(&target.statement) {
            return Err(cannot_be_executed(&execute.name));
        }
        let parameters = self.arguments(execute, &target).await?;
        self.run_within(&target, parameters).await
    }

    /// EXPLAIN EXECUTE: `explain` is planned for what the name stands for.
    pub(super) async fn run_explain_execute(
        &mut self,
        execute: &Execute,
        explain: &PlanKind,
    ) -> Result<Outcome> {
        let target = self.explained_target(execute)?;
        let mut parameters = self.arguments(execute, &target).await?;
        parameters.extend(target.given.clone());
        match explain {
            PlanKind::Explain { query, analyze } => self.run_explain(query, *analyze, &parameters).await,
            PlanKind::ExplainWrite { dml, context, analyze } => {
                self.run_explain_write(dml, context, *analyze, &parameters).await
            }
            _ => Err(Error::bug("EXPLAIN EXECUTE of something that is not explained")),
        }
    }

    /// Runs a statement as part of another one.
    pub(super) async fn run_within(
        &mut self,
        prepared: &Arc<Prepared>,
        mut parameters: Vec<ArrayRef>,
    ) -> Result<Outcome> {
        parameters.extend(prepared.given.clone());
        self.look_back_again(prepared, &parameters).await?;
        self.run_boxed(prepared, &parameters).await
    }

    /// A statement that runs another one would be a future that holds itself.
    fn run_boxed<'a>(
        &'a mut self,
        prepared: &'a Arc<Prepared>,
        parameters: &'a [ArrayRef],
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.run_once(prepared, parameters))
    }

    /// The values of EXECUTE's arguments, each an array of one, of the types that the statement's parameters have.
    ///
    /// Errors: 42601 for too few or too many; 0A000 for a subquery; 42P02 for a parameter; those of the expressions.
    async fn arguments(&mut self, execute: &Execute, target: &Prepared) -> Result<Vec<ArrayRef>> {
        let (given, types) = (&execute.arguments, self.parameter_types(target)?);
        let types: &[SqlType] = &types;
        if given.len() != types.len() {
            let message = format!("wrong number of parameters for prepared statement \"{}\"", execute.name);
            return Err(Error::new(SqlState::SyntaxError, message).with_detail(format!(
                "Expected {} parameters but got {}.",
                types.len(),
                given.len()
            )));
        }
        if types.is_empty() {
            return Ok(Vec::new());
        }
        if given.iter().any(|argument| argument.visit(&mut Subqueries).is_break()) {
            return Err(Error::unsupported("cannot use subquery in EXECUTE parameter"));
        }
        let query = ast::Statement::Query(values_of(given, types)?);
        let planned = self.plan_query(&query, &[])?;
        if !planned.parameters.is_empty() {
            return Err(Error::new(SqlState::UndefinedParameter, "there is no parameter $1"));
        }
        let (columns, batches) = self.all_rows(&planned.kind, &[]).await?;
        let row = batches.iter().find(|batch| batch.num_rows() > 0);
        let row = row.ok_or_else(|| Error::bug("EXECUTE's arguments have no values"))?;
        let values = row.columns().iter().zip(columns.iter()).zip(types);
        let values = values.map(|((value, column), ty)| as_parameter(value, &column.ty, ty));
        self.engine.zone().within(|| values.collect())
    }
}

/// The first of some values as the protocol would bring it: by its text, so that a plan finds it in the one form that
/// it knows.
fn as_parameter(values: &ArrayRef, from: &SqlType, ty: &SqlType) -> Result<ArrayRef> {
    if values.is_null(0) || values.data_type() == &DataType::Null {
        return decode_text(ty, None);
    }
    let mut text = BytesMut::new();
    encode_text(values.as_ref(), 0, from, &mut text)?;
    decode_text(ty, Some(&text))
}

/// `SELECT CAST(argument AS type), …`
fn values_of(arguments: &[ast::Expr], types: &[SqlType]) -> Result<Box<ast::Query>> {
    let cast = |ty: &SqlType| {
        // The length of a column that it is compared with is no length of the parameter's, and a cast to `bit` is one
        // to a single bit: such a value goes by its text. So does an enum's, whose name may mean another type here.
        let name = match ty {
            SqlType::Bit(_) | SqlType::Enum(_) => SqlType::Text.display_name(),
            SqlType::Bpchar(Some(_)) => SqlType::Bpchar(None).display_name(),
            SqlType::Varchar(Some(_)) => SqlType::Varchar(None).display_name(),
            other => other.display_name(),
        };
        format!("CAST(NULL AS {name})")
    };
    let casts: Vec<String> = types.iter().map(cast).collect();
    let mut query = parse_query(&format!("SELECT {}", casts.join(", ")))?;
    let ast::SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::bug("EXECUTE's arguments are no SELECT"));
    };
    for (item, argument) in select.projection.iter_mut().zip(arguments) {
        let ast::SelectItem::UnnamedExpr(ast::Expr::Cast { expr, .. }) = item else {
            return Err(Error::bug("EXECUTE's argument is no cast"));
        };
        **expr = argument.clone();
    }
    Ok(query)
}

/// Looks for a query within an expression.
struct Subqueries;

impl Visitor for Subqueries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// What PREPARE takes. A statement that Parse has named may be any other.
pub(super) fn can_be_executed(statement: &Statement) -> bool {
    use ast::Statement as S;
    match &statement.kind {
        StatementKind::Sql(statement) => {
            matches!(statement.as_ref(), S::Query(_) | S::Insert(_) | S::Update(_) | S::Delete(_))
        }
        _ => false,
    }
}

fn cannot_be_executed(name: &str) -> Error {
    Error::unsupported(format!("EXECUTE of prepared statement \"{name}\" is not supported"))
        .with_hint("EXECUTE runs SELECT, INSERT, UPDATE, DELETE and VALUES. Execute others by the protocol.")
}

fn not_a_prepare() -> Error {
    Error::bug("not a PREPARE")
}
