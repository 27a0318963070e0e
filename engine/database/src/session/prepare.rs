//! Planning a statement: what kind it is, its parameters, its columns.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::RwLock;
use sepal_query::{
    FastLookup, PointRead, StatementContext, calls_advisory, catalog,
    ddl::CreateAs,
    dml::{Dml, DmlContext},
    locking::{LockingQuery, nested},
    output::OutputColumn,
    planner::{SingleRow, TemporaryTables},
    sql::{
        ParameterTypes, Statement, StatementKind,
        ast::{self, AnalyzeFormatKind},
        expand_wildcards, locate, prepare_query,
    },
    vector::FastKnn,
};
use sepal_types::{Error, RelationRef, Result, SqlState, SqlType, limits::FIRST_OBJECT_ID};

use super::{
    Open, Session,
    copy::plan_copy,
    locking::plan_locks,
    named::Execute,
    prepared::{Definitions, Plan, PlanKind, Prepared, Query},
    transaction::in_failed_transaction,
    utility::Utility,
};

/// A plan with what Describe tells about it.
pub(super) struct Planned {
    pub kind: PlanKind,
    pub parameters: Vec<SqlType>,
    pub columns: Option<Arc<[OutputColumn]>>,
}

impl Planned {
    pub(super) fn plain(kind: PlanKind) -> Self {
        Self { kind, parameters: Vec::new(), columns: None }
    }
}

impl Plan {
    fn new(planned: Planned, definitions: Definitions) -> Self {
        let locks = plan_locks(&planned.kind);
        Self { kind: planned.kind, columns: planned.columns, locks, definitions }
    }
}

impl Session {
    /// Plans a statement. `declared` are the parameter oids of the Parse message, 0 where not declared. As in Postgres
    /// its tables are locked by this already: what is described is what there is once they are.
    ///
    /// Errors carry the position of the name they complain about.
    pub async fn prepare(&mut self, statement: Statement, declared: &[u32]) -> Result<Arc<Prepared>> {
        let prepared = self.prepare_as(statement, declared, true).await?;
        self.remember(&prepared);
        Ok(prepared)
    }

    /// Plans a statement without parameters that is executed next, before anybody is told of its columns: should they
    /// have become others by then, the rows have those.
    pub async fn prepare_now(&mut self, statement: Statement) -> Result<Arc<Prepared>> {
        let prepared = self.prepare_as(statement, &[], false).await?;
        self.remember(&prepared);
        Ok(prepared)
    }

    pub(super) async fn prepare_as(
        &mut self,
        statement: Statement,
        declared: &[u32],
        told: bool,
    ) -> Result<Arc<Prepared>> {
        self.cancel.arm();
        self.tenant.check_open()?;
        let alone = self.open.is_none();
        if alone {
            self.start(false);
        }
        self.show_running(&statement.sql, true);
        let planned = match self.look_back(&statement, None).await {
            Ok(()) => self.plan_and_lock(&statement, declared).await,
            Err(error) => Err(error),
        };
        let moments = std::mem::take(&mut self.moments);
        if alone {
            self.roll_back();
        }
        let (planned, definitions) = planned.map_err(|error| locate(error, &statement))?;
        let (parameters, columns) = (planned.parameters.clone(), planned.columns.clone());
        let mut plan = Plan::new(planned, definitions);
        if !moments.is_empty() {
            plan.kind = PlanKind::Unplanned;
            plan.locks.clear();
        }
        Ok(Arc::new(Prepared {
            statement: Arc::new(statement),
            declared: declared.to_vec(),
            parameters,
            given: None,
            columns,
            told,
            plan: Arc::new(RwLock::new(Arc::new(plan))),
        }))
    }

    /// Plans a statement and locks its tables. Whoever altered one of them meanwhile is waited for, and then it is
    /// planned anew. The plan, and the definitions that it is made of.
    async fn plan_and_lock(
        &mut self,
        statement: &Statement,
        declared: &[u32],
    ) -> Result<(Planned, Definitions)> {
        loop {
            let definitions = self.definitions();
            let planned = self.plan(statement, declared);
            match &planned {
                Ok(planned) => self.lock_plan(&plan_locks(&planned.kind)).await?,
                Err(error) => self.await_definitions(statement, error).await?,
            }
            if definitions == self.definitions() {
                return planned.map(|planned| (planned, definitions));
            }
        }
    }

    /// What a plan made now depends on: a transaction that stays with its snapshot stays with that one's definitions.
    pub(super) fn definitions(&self) -> Definitions {
        let settings = self.settings.lock();
        let (path, zone) = (settings.path_edition(), settings.zone());
        drop(settings);
        match &self.open {
            Some(open) if open.stays() => {
                Definitions { committed: open.definitions, own: open.edition(), path, zone }
            }
            open => Definitions {
                committed: self.tenant.definitions.load(Ordering::Acquire),
                own: open.as_ref().map_or(0, Open::edition),
                path,
                zone,
            },
        }
    }

    /// The plan of a prepared statement, made anew when definitions changed or the catalogs are read.
    pub(super) fn current_plan(&mut self, prepared: &Prepared) -> Result<Arc<Plan>> {
        let plan = Arc::clone(&prepared.plan.read());
        self.check_not_failed(match &plan.kind {
            PlanKind::Utility(utility) => Some(utility),
            _ => None,
        })?;
        let definitions = self.definitions();
        self.adopt(definitions.zone);
        let stale = plan.definitions != definitions
            || !self.moments.is_empty()
            || matches!(&plan.kind, PlanKind::Query(query) if query.reads_catalog)
            || matches!(
                &plan.kind,
                PlanKind::CreateAs { .. }
                    | PlanKind::Declare { .. }
                    | PlanKind::Execute(_)
                    | PlanKind::ExplainExecute { .. }
                    | PlanKind::Fetch(_)
                    | PlanKind::Explain { .. }
                    | PlanKind::ExplainWrite { .. }
                    | PlanKind::Unplanned
            );
        if !stale {
            return Ok(plan);
        }
        let planned = self
            .plan_as_told(prepared, |session, declared| session.plan(&prepared.statement, declared))
            .map_err(|error| locate(error, &prepared.statement))?;
        let same = described(planned.columns.as_deref()) == described(prepared.columns.as_deref());
        if prepared.told && !same {
            return Err(Error::unsupported("cached plan must not change result type")
                .with_hint("The table was altered after the statement was prepared: prepare it again."));
        }
        let plan = Arc::new(Plan::new(planned, definitions));
        if self.moments.is_empty() {
            *prepared.plan.write() = Arc::clone(&plan);
        }
        Ok(plan)
    }

    /// Plans what was prepared before: with the types of parameters that were told then, where others are found now.
    fn plan_as_told(
        &mut self,
        prepared: &Prepared,
        plan: impl Fn(&mut Self, &[u32]) -> Result<Planned>,
    ) -> Result<Planned> {
        let planned = plan(self, &prepared.declared)?;
        match prepared.told_types(&planned.parameters) {
            Some(told) => plan(self, &told),
            None => Ok(planned),
        }
    }

    /// Errors: 25P02 in a failed transaction, 72000 where that is why, unless the statement ends it.
    pub(super) fn check_not_failed(&self, utility: Option<&Utility>) -> Result<()> {
        if !utility.is_some_and(Utility::ends_transaction) {
            self.check_snapshot_age()?;
        }
        let failed = self.open.as_ref().is_some_and(|open| open.explicit && open.failed);
        if failed && !utility.is_some_and(Utility::ends_transaction) {
            return Err(in_failed_transaction());
        }
        Ok(())
    }

    /// In the session's time zone: literals are read.
    fn plan(&mut self, statement: &Statement, declared: &[u32]) -> Result<Planned> {
        let zone = self.time_zone();
        self.adopt(zone);
        zone.within(|| self.plan_within(statement, declared))
    }

    fn plan_within(&mut self, statement: &Statement, declared: &[u32]) -> Result<Planned> {
        let utility = Utility::recognise(&statement.kind)?;
        self.check_not_failed(utility.as_ref())?;
        if let Some(utility) = utility {
            let columns = utility.columns().map(Into::into);
            return Ok(Planned { kind: PlanKind::Utility(utility), parameters: Vec::new(), columns });
        }
        let ast = match &statement.kind {
            StatementKind::Sql(ast) => ast,
            StatementKind::Delivery(delivery) => return self.plan_delivery(delivery, declared),
            StatementKind::History(_) => return Ok(Planned::plain(PlanKind::History)),
            StatementKind::Named(named) => return self.plan_named(named, declared),
            _ => return Ok(Planned::plain(PlanKind::Ddl)),
        };
        if let Some(create) = CreateAs::recognise(ast)? {
            let planned = self.plan_query(&ast::Statement::Query(create.query.clone()), declared)?;
            let kind = PlanKind::CreateAs { create, source: Box::new(planned.kind) };
            return Ok(Planned { kind, parameters: planned.parameters, columns: None });
        }
        if let Some(execute) = Execute::recognise(ast)? {
            return Ok(self.plan_execute(execute));
        }
        match ast.as_ref() {
            ast::Statement::Query(query) if matches!(*query.body, ast::SetExpr::Insert(_)) => {
                self.plan_dml(&insert_with_ctes(query)?, declared)
            }
            ast::Statement::Query(query) if changes_rows(query) => self.plan_dml(ast, declared),
            ast::Statement::Query(_) => self.plan_query(ast, declared),
            ast::Statement::Explain { .. } | ast::Statement::ExplainTable { .. } => {
                self.plan_explain(ast, declared)
            }
            ast::Statement::Copy { .. } => plan_copy(self, ast),
            ast::Statement::Insert(_)
            | ast::Statement::Update(_)
            | ast::Statement::Delete(_)
            | ast::Statement::Merge { .. } => self.plan_dml(ast, declared),
            _ => Ok(Planned::plain(PlanKind::Ddl)),
        }
    }

    pub(super) fn plan_query(&mut self, statement: &ast::Statement, declared: &[u32]) -> Result<Planned> {
        let mut context = self.statement_context()?;
        let catalog = context.catalog.get()?;
        let types = declared_types(declared);
        let may_be_catalog = self.moments.tables().is_empty() && reads_catalogs(statement);
        if let Some(query) = may_be_catalog.then(|| catalog::prepare(statement, &types, &catalog)).flatten() {
            let query = query?;
            let columns: Arc<[OutputColumn]> =
                query.schema().fields().iter().map(|field| OutputColumn::from_field(field)).collect();
            let parameters = query.parameters().to_vec();
            return Ok(Planned { kind: PlanKind::Catalog(query), parameters, columns: Some(columns) });
        }
        if !self.principal.scopes.read && ast::visit_relations(statement, names_one).is_break() {
            return Err(write_only_key());
        }
        let mut statement = statement.clone();
        let mut parameters = parameter_types(declared, &context);
        nested(&mut statement, &mut parameters, &self.engine, &mut context)?;
        let original = statement.to_string();
        catalog::rewrite(&mut statement, &catalog)?;
        let reads_catalog = statement.to_string() != original || calls_session_functions(&original);
        let ast::Statement::Query(mut query) = statement else {
            return Err(Error::bug("a query was rewritten into another statement"));
        };
        let advisory = calls_advisory(&original);
        if !query.locks.is_empty() {
            return self.plan_locking(&query, parameters, context, reads_catalog);
        }
        expand_wildcards(&mut query, &context.table_columns());
        let column_types = context.column_types(&query);
        prepare_query(&mut query, &mut parameters, &[], &column_types);
        let fast = FastKnn::compile(&query, &context, &parameters);
        if let Some(fast) = &fast {
            fast.type_parameters(&mut parameters);
        }
        let plan = self.engine.plan(&context, &TemporaryTables::default(), &query, &mut parameters)?;
        let fast = fast.and_then(|fast| fast.with_filter(&self.engine, &plan));
        let columns = self.described_columns(&plan, &context);
        let row = if reads_catalog { None } else { SingleRow::compile(&self.engine, &plan) };
        let lookup = FastLookup::compile(&query, &context, &parameters);
        let plain = lookup.is_none() && fast.is_none() && row.is_none() && !reads_catalog;
        let point = if plain { PointRead::compile(&self.engine, &plan) } else { None };
        let query = Query {
            plan,
            fast,
            lookup,
            point,
            row,
            locking: None,
            advisory,
            context,
            columns: Arc::clone(&columns),
            reads_catalog,
        };
        Ok(Planned {
            kind: PlanKind::Query(Box::new(query)),
            parameters: parameters.resolved(),
            columns: Some(columns),
        })
    }

    /// A query whose own rows are locked. It takes none of the ways around planning.
    fn plan_locking(
        &self,
        query: &ast::Query,
        mut parameters: ParameterTypes,
        context: StatementContext,
        reads_catalog: bool,
    ) -> Result<Planned> {
        let engine = &self.engine;
        let locking = LockingQuery::compile(query, &query.locks, &mut parameters, engine, &context)?;
        let columns: Arc<[OutputColumn]> = locking.columns().into();
        let query = Query {
            plan: locking.plan().clone(),
            fast: None,
            lookup: None,
            point: None,
            row: None,
            locking: Some(locking),
            advisory: false,
            context,
            columns: Arc::clone(&columns),
            reads_catalog,
        };
        Ok(Planned {
            kind: PlanKind::Query(Box::new(query)),
            parameters: parameters.resolved(),
            columns: Some(columns),
        })
    }

    /// The plan's output, with the table and number of plain columns, which JDBC and psql's `\gdesc` ask for.
    fn described_columns(
        &self,
        plan: &sepal_query::planner::LogicalPlan,
        context: &StatementContext,
    ) -> Arc<[OutputColumn]> {
        let snapshot = context.snapshot.get();
        plan.schema()
            .iter()
            .map(|(relation, field)| {
                let mut column = OutputColumn::from_field(field);
                let table = relation.and_then(|relation| {
                    let name = RelationRef { schema: relation.schema(), name: relation.table() };
                    snapshot.find(&self.environment, name)
                });
                if let Some(version) = table
                    && let Some(definition) = version.def.column(&column.name)
                {
                    column.table = version.def.id.0;
                    column.column = i16::try_from(definition.id.0).unwrap_or(0);
                }
                column
            })
            .collect()
    }

    fn plan_dml(&mut self, statement: &ast::Statement, declared: &[u32]) -> Result<Planned> {
        if !self.principal.scopes.write {
            return Err(read_only_key());
        }
        if !self.principal.scopes.read && reads_rows(statement) {
            return Err(write_only_key());
        }
        let mut context = self.statement_context()?;
        let mut parameters = parameter_types(declared, &context);
        let mut statement = statement.clone();
        nested(&mut statement, &mut parameters, &self.engine, &mut context)?;
        let dml_context = DmlContext { engine: &self.engine, statement: &context, store: &self.tenant.store };
        let Some(dml) = Dml::prepare(&statement, &mut parameters, &dml_context)? else {
            return Err(Error::bug("a write that is no INSERT, UPDATE or DELETE"));
        };
        let columns = dml.columns().map(Into::into);
        Ok(Planned { kind: PlanKind::Dml { dml, context }, parameters: parameters.resolved(), columns })
    }

    fn plan_explain(&mut self, statement: &ast::Statement, declared: &[u32]) -> Result<Planned> {
        let ast::Statement::Explain { statement, analyze, options, format, .. } = statement else {
            return Err(Error::unsupported("DESCRIBE is not supported").with_hint("In psql, use \\d name."));
        };
        let option =
            |name: &str| options.iter().flatten().find(|option| option.name.value.eq_ignore_ascii_case(name));
        let is_on = |option: &ast::UtilityOption| {
            option.arg.as_ref().is_none_or(|arg| {
                !matches!(arg.to_string().to_lowercase().as_str(), "off" | "false" | "0" | "'off'")
            })
        };
        let analyze = *analyze || option("analyze").is_some_and(is_on);
        let text_format = match (format, option("format").and_then(|option| option.arg.as_ref())) {
            (None, None) => true,
            (Some(AnalyzeFormatKind::Keyword(format) | AnalyzeFormatKind::Assignment(format)), _) => {
                matches!(format, ast::AnalyzeFormat::TEXT)
            }
            (None, Some(format)) => format.to_string().eq_ignore_ascii_case("text"),
        };
        if !text_format {
            return Err(Error::unsupported("EXPLAIN prints text only").with_hint("Leave FORMAT out."));
        }
        let execute = Execute::recognise(statement)?;
        let planned = match &execute {
            Some(execute) => self.plan_explained_target(execute)?,
            None => self.plan_explained(statement, declared)?,
        };
        let kind = match planned.kind {
            PlanKind::Query(query) => PlanKind::Explain { query, analyze },
            PlanKind::Dml { dml, context } => PlanKind::ExplainWrite { dml, context, analyze },
            _ => {
                return Err(Error::unsupported(
                    "EXPLAIN of a catalog query is not supported: it is answered from memory",
                ));
            }
        };
        let columns: Arc<[OutputColumn]> = Arc::from(vec![OutputColumn::new("QUERY PLAN", SqlType::Text)]);
        let (kind, parameters) = match execute {
            Some(execute) => (PlanKind::ExplainExecute { execute, explain: Box::new(kind) }, Vec::new()),
            None => (kind, planned.parameters),
        };
        Ok(Planned { kind, parameters, columns: Some(columns) })
    }

    /// The statement that the name after EXPLAIN EXECUTE stands for.
    fn plan_explained_target(&mut self, execute: &Execute) -> Result<Planned> {
        let target = self.explained_target(execute)?;
        match target.statement.kind.ast() {
            Some(statement) => {
                self.plan_as_told(&target, |session, declared| session.plan_explained(statement, declared))
            }
            None => Err(Error::bug("EXPLAIN EXECUTE of something that is not SQL")),
        }
    }

    /// The statement after EXPLAIN.
    fn plan_explained(&mut self, statement: &ast::Statement, declared: &[u32]) -> Result<Planned> {
        match statement {
            ast::Statement::Query(query) if matches!(*query.body, ast::SetExpr::Insert(_)) => {
                self.plan_dml(&insert_with_ctes(query)?, declared)
            }
            ast::Statement::Query(query) if changes_rows(query) => self.plan_dml(statement, declared),
            ast::Statement::Query(_) => self.plan_query(statement, declared),
            ast::Statement::Insert(_) | ast::Statement::Update(_) | ast::Statement::Delete(_) => {
                self.plan_dml(statement, declared)
            }
            _ => Err(Error::unsupported("EXPLAIN shows SELECT, INSERT, UPDATE and DELETE only")),
        }
    }
}

/// `WITH w AS (…) UPDATE …`, or DELETE.
fn changes_rows(query: &ast::Query) -> bool {
    matches!(*query.body, ast::SetExpr::Update(_) | ast::SetExpr::Delete(_))
}

/// `WITH w AS (…) INSERT … SELECT`: the CTEs belong to the rows that are inserted.
fn insert_with_ctes(query: &ast::Query) -> Result<ast::Statement> {
    let ast::SetExpr::Insert(statement) = query.body.as_ref() else {
        return Err(Error::bug("not an INSERT"));
    };
    let mut statement = statement.clone();
    if let ast::Statement::Insert(insert) = &mut statement
        && let Some(source) = &mut insert.source
        && source.with.is_none()
    {
        source.with.clone_from(&query.with);
        return Ok(statement);
    }
    Err(Error::unsupported("WITH before this INSERT is not supported")
        .with_hint("Put the WITH clause before its SELECT."))
}

pub(super) fn read_only_key() -> Error {
    Error::new(SqlState::InsufficientPrivilege, "permission denied: this API key may only read")
        .with_hint("Use a key with the write scope: sepal key create --scope read-write.")
}

pub(super) fn write_only_key() -> Error {
    Error::new(SqlState::InsufficientPrivilege, "permission denied: this API key may only write")
        .with_hint("Use a key with the read scope: sepal key create --scope read-write.")
}

fn names_one(_: &ast::ObjectName) -> ControlFlow<()> {
    ControlFlow::Break(())
}

/// Whether a write tells its client anything of the rows that are there: all but an INSERT of values does, if only
/// by how many rows it changed.
fn reads_rows(statement: &ast::Statement) -> bool {
    let ast::Statement::Insert(insert) = statement else { return true };
    let source = insert.source.as_deref();
    insert.returning.is_some()
        || insert.on.is_some()
        || source.is_some_and(|source| ast::visit_relations(source, names_one).is_break())
}

/// The types of a Parse message, enums among them.
fn parameter_types(declared: &[u32], context: &StatementContext) -> ParameterTypes {
    let mut parameters = ParameterTypes::declared(declared);
    let made = declared.iter().enumerate().filter(|(_, oid)| **oid >= FIRST_OBJECT_ID);
    for (place, oid) in made {
        let snapshot = context.snapshot.get();
        let found = snapshot.enums(&context.environment).find_map(|ty| {
            let element = || SqlType::Enum(ty.clone());
            match *oid {
                oid if oid == ty.id.0 => Some(element()),
                oid if oid == ty.array.0 => Some(SqlType::Array(Box::new(element()))),
                _ => None,
            }
        });
        if let Some(ty) = found {
            parameters.hint(place + 1, &ty);
        }
    }
    parameters
}

fn declared_types(declared: &[u32]) -> Vec<Option<SqlType>> {
    declared.iter().map(|oid| SqlType::from_oid(*oid).filter(|ty| *ty != SqlType::Unknown)).collect()
}

/// The catalog evaluator loops over its rows one by one and keeps them all: right for catalogs, wrong for a
/// query that only multiplies series.
fn reads_catalogs(statement: &ast::Statement) -> bool {
    let lower = statement.to_string().to_ascii_lowercase();
    !lower.contains("generate_series") || lower.contains("pg_") || lower.contains("information_schema")
}

/// Functions whose answer belongs to the session as it is when the statement runs, not when it is planned.
fn calls_session_functions(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    ["current_setting", "pg_", "to_reg", "format_type", "obj_description", "sepal_", "version("]
        .iter()
        .any(|name| lower.contains(name))
}

/// Names, oids and modifiers: an enum stays the same type when it gets another label.
type Description<'a> = Option<Vec<(&'a str, u32, i32)>>;

fn described(columns: Option<&[OutputColumn]>) -> Description<'_> {
    columns.map(|columns| {
        let columns = columns.iter();
        columns.map(|column| (column.name.as_str(), column.ty.oid(), column.ty.typmod())).collect()
    })
}
