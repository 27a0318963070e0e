//! What DataFusion's SQL planner may see: the tables of one environment in one snapshot, and our functions.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use datafusion::{
    arrow::datatypes::{DataType, SchemaRef},
    catalog::{TableProvider, cte_worktable::CteWorkTable},
    common::TableReference,
    config::ConfigOptions,
    datasource::provider_as_source,
    error::Result,
    logical_expr::{
        AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF,
        planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner},
    },
};
use sepal_storage::Snapshot;
use sepal_types::{Error, RelationName, RelationRef, SqlState, TableDef, TableId};

use super::{Engine, operators::Operators, relation::Relations, types::Types};
use crate::{
    catalog,
    context::StatementContext,
    error::{carry, undefined_function},
    functions,
    table::{CatalogTable, SequenceTable, UserTable},
};

/// Tables that exist for one statement: the rows just written (RETURNING), the rows proposed (`excluded`).
#[derive(Clone, Default)]
pub struct TemporaryTables(HashMap<String, Temporary>);

#[derive(Clone)]
struct Temporary {
    provider: Arc<dyn TableProvider>,
    /// The table in whose place it stands, with its schema.
    instead: Option<(TableId, String)>,
}

impl TemporaryTables {
    /// One that has a name of its own.
    #[must_use]
    pub fn with(mut self, name: &str, provider: Arc<dyn TableProvider>) -> Self {
        self.0.insert(name.to_owned(), Temporary { provider, instead: None });
        self
    }

    /// One in the place of a table, wherever that is named.
    #[must_use]
    pub fn instead_of(mut self, def: &TableDef, provider: Arc<dyn TableProvider>) -> Self {
        let instead = Some((def.id, def.schema.clone()));
        self.0.insert(def.name.clone(), Temporary { provider, instead });
        self
    }

    fn find(&self, name: &TableReference, context: &StatementContext) -> Option<&Arc<dyn TableProvider>> {
        let found = self.0.get(name.table())?;
        let is_it = match (&found.instead, name.schema()) {
            (None, schema) => schema.is_none(),
            (Some((_, own)), Some(schema)) => own == schema,
            (Some((id, _)), None) => {
                let snapshot = context.snapshot.get();
                snapshot.find(&context.environment, name.table()).is_some_and(|table| table.def.id == *id)
            }
        };
        is_it.then_some(&found.provider)
    }
}

pub(super) struct Provider<'a> {
    engine: &'a Engine,
    context: &'a StatementContext,
    temporary: &'a TemporaryTables,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    /// Built on first use: most statements call none of them.
    session_functions: OnceLock<HashMap<String, Arc<ScalarUDF>>>,
}

impl<'a> Provider<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        context: &'a StatementContext,
        temporary: &'a TemporaryTables,
    ) -> Self {
        let mut expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(Operators)];
        expr_planners.extend(engine.planning.state.expr_planners().iter().cloned());
        Self {
            engine,
            context,
            temporary,
            expr_planners,
            relation_planners: vec![Arc::new(Relations { context: context.clone() })],
            session_functions: OnceLock::new(),
        }
    }

    fn session_function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let all = self.session_functions.get_or_init(|| {
            let catalog = catalog::functions(&self.context.catalog.keep()).into_iter().map(Arc::new);
            let sequences = functions::sequence_functions(&self.context.sequences);
            let session = functions::session_functions(&self.context.settings);
            let advisory = functions::advisory_functions(&self.context.settings);
            catalog
                .chain(sequences)
                .chain(session)
                .chain(advisory)
                .flat_map(|function| {
                    let names =
                        std::iter::once(function.name().to_owned()).chain(function.aliases().iter().cloned());
                    names.map(|name| (name, Arc::clone(&function))).collect::<Vec<_>>()
                })
                .collect()
        });
        all.get(name).cloned()
    }

    fn sequence(&self, snapshot: &Snapshot, name: RelationRef<'_>) -> Option<Arc<dyn TableProvider>> {
        let (version, _) = snapshot.sequence_named(&self.context.environment, name)?;
        let sequence =
            format!("{}.{}", catalog::quote_ident(&version.def.schema), catalog::quote_ident(name.name));
        Some(Arc::new(SequenceTable::new(sequence, Arc::clone(&self.context.sequences))))
    }

    fn catalog_table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        let shape: SchemaRef = catalog::relation(schema, name)?;
        Some(Arc::new(CatalogTable::new(schema, name, shape, self.context.catalog.keep())))
    }
}

/// Why a snapshot has no table of this name: it was never there, or it is of the past and damaged. `shown`: as the
/// statement writes it.
pub fn no_table(snapshot: &Snapshot, environment: &str, name: &RelationName, shown: &str) -> Error {
    match snapshot.unreadable(environment, name) {
        Some(damage) => damage.clone().into(),
        None => undefined_table(shown),
    }
}

/// 42P01 with Postgres' wording.
pub fn undefined_table(name: &str) -> Error {
    Error::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"))
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let table = name.table();
        let undefined = || {
            let shown = match name.schema() {
                Some(schema) => format!("{schema}.{table}"),
                None => table.to_owned(),
            };
            carry(undefined_table(&shown))
        };
        if name.catalog().is_some_and(|catalog| catalog != &*self.context.environment) {
            let message = format!("cross-database references are not implemented: \"{name}\"");
            return Err(carry(Error::unsupported(message)));
        }
        if let Some(provider) = self.temporary.find(&name, self.context) {
            return Ok(provider_as_source(Arc::clone(provider)));
        }
        if name.schema().is_none()
            && let Some(nested) = self.context.nested.iter().find(|nested| nested.name == table)
        {
            return Ok(provider_as_source(Arc::new(nested.rows.clone())));
        }
        match name.schema() {
            Some(schema @ ("pg_catalog" | "information_schema")) => {
                self.catalog_table(schema, table).map(provider_as_source).ok_or_else(undefined)
            }
            schema => {
                let relation = RelationRef { schema, name: table };
                let snapshot = self.context.snapshot.get();
                if let Some(version) = snapshot.find(&self.context.environment, relation) {
                    self.context.reads.note(version.def.id);
                    let provider = UserTable::new(Arc::clone(&version.def), self.context);
                    return Ok(provider_as_source(Arc::new(provider)));
                }
                if let Some(damage) = snapshot.unreadable(&self.context.environment, relation) {
                    return Err(carry(damage.clone().into()));
                }
                let catalog = schema.is_none().then(|| self.catalog_table("pg_catalog", table)).flatten();
                let catalog = catalog.or_else(|| self.sequence(&snapshot, relation));
                catalog.map(provider_as_source).ok_or_else(undefined)
            }
        }
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<datafusion::logical_expr::Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        let function = self
            .engine
            .planning
            .state
            .table_functions()
            .get(name)
            .cloned()
            .ok_or_else(|| carry(undefined_function(name)))?;
        let args = args.into_iter().map(super::relation::constant).collect::<Result<Vec<_>>>()?;
        let arguments = datafusion::catalog::TableFunctionArgs::new(&args, &self.engine.planning.state);
        Ok(provider_as_source(function.create_table_provider_with_args(arguments)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types { context: self.context.clone() }))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.session_function_first(name)
            .or_else(|| self.is_undefined(name).then(|| functions::undefined(name)))
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.engine.planning.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.engine.planning.aggregates.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.engine.planning.windows.get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.engine.planning.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.engine.planning.scalars.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.engine.planning.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.engine.planning.aggregates.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.engine.planning.windows.keys().cloned().collect()
    }
}

/// Words that sqlparser reads as calls and that may also be a column's name.
const BARE_WORDS: [&str; 5] = ["current_catalog", "current_schema", "current_user", "session_user", "user"];

impl Provider<'_> {
    /// No function of any kind, nor a form that DataFusion plans by name.
    fn is_undefined(&self, name: &str) -> bool {
        !self.engine.planning.aggregates.contains_key(name)
            && !self.engine.planning.windows.contains_key(name)
            && !self.engine.planning.state.higher_order_functions().contains_key(name)
            && !matches!(name, "unnest" | "unnest_outer")
            && !BARE_WORDS.contains(&name)
    }

    /// DataFusion has its own `version()` and `current_database()`-like functions; ours win. Names that only
    /// DataFusion has are looked up without building the session's functions.
    fn session_function_first(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let overridden =
            matches!(name, "version" | "array_upper" | "array_lower" | "pg_typeof" | "arrow_typeof");
        match self.engine.planning.scalars.get(name) {
            Some(function) if !overridden => Some(Arc::clone(function)),
            Some(function) => Some(self.session_function(name).unwrap_or_else(|| Arc::clone(function))),
            None => self.session_function(name),
        }
    }
}
