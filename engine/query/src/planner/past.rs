//! Tables with a clause AS OF: planned over the snapshot of their moment, and what their moments are.
//!
//! [`ask`] is the session's, before it plans: it evaluates the moments, and storage gives their snapshots. [`plan`] is
//! `relation`'s. A table that has been dropped or altered since is there as it was then.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray},
        datatypes::TimestampMicrosecondType,
    },
    common::TableReference,
    datasource::provider_as_source,
    error::Result as PlanResult,
    logical_expr::{LogicalPlanBuilder, planner::PlannedRelation},
    scalar::ScalarValue,
    sql::sqlparser::ast::{self, Expr, Ident, ObjectName, SelectItem, SetExpr, TableAlias, Value},
};
use sepal_types::{Error, Result, SqlState, SqlType};

use super::{Engine, TemporaryTables, has_parameters, undefined_table};
use crate::{
    catalog,
    context::StatementContext,
    ddl::relation_name,
    dml::parse_query,
    error::carry,
    sql::{Moment, ParameterTypes, prepare_query},
    table::UserTable,
};

/// A moment, evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Microseconds since 1970-01-01 00:00 UTC.
    Time(i64),
    /// A snapshot's name.
    Snapshot(String),
}

/// Evaluates moments, all at one time. `given` are the types and values of the statement's parameters; without them
/// a moment with a parameter is `None`.
///
/// Errors: those of the expressions; 22023 for NULL.
pub async fn ask(
    engine: &Engine,
    context: &StatementContext,
    moments: &[Moment],
    given: Option<(&[SqlType], &[ScalarValue])>,
) -> Result<Vec<Option<Asked>>> {
    let known = |moment: &Moment| given.is_some() || !has_parameters(moment.expr());
    let times: Vec<&Expr> = moments
        .iter()
        .filter(|&moment| known(moment))
        .filter_map(|moment| match moment {
            Moment::Time(expr) => Some(expr),
            Moment::Snapshot(_) => None,
        })
        .collect();
    let mut times = evaluate(engine, context, &times, given).await?.into_iter();
    let mut asked = Vec::with_capacity(moments.len());
    for moment in moments {
        asked.push(match moment {
            _ if !known(moment) => None,
            Moment::Time(_) => times.next().map(Asked::Time),
            Moment::Snapshot(expr) => {
                let values = given.map_or(&[][..], |(_, values)| values);
                Some(Asked::Snapshot(snapshot_name(expr, values)?))
            }
        });
    }
    Ok(asked)
}

/// The values of expressions as `timestamptz`.
async fn evaluate(
    engine: &Engine,
    context: &StatementContext,
    exprs: &[&Expr],
    given: Option<(&[SqlType], &[ScalarValue])>,
) -> Result<Vec<i64>> {
    if exprs.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = parse_query("SELECT CAST(NULL AS timestamptz)")?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::bug("a SELECT is none"));
    };
    let Some(SelectItem::UnnamedExpr(Expr::Cast { data_type, .. })) = select.projection.first() else {
        return Err(Error::bug("a cast is none"));
    };
    let data_type = data_type.clone();
    select.projection = exprs.iter().map(|expr| SelectItem::UnnamedExpr(cast(expr, &data_type))).collect();
    let mut parameters = ParameterTypes::default();
    let (types, values) = given.unwrap_or_default();
    for (position, ty) in types.iter().enumerate() {
        parameters.hint(position + 1, ty);
    }
    let columns = context.column_types(&query);
    prepare_query(&mut query, &mut parameters, &[], &columns);
    let plan = engine.plan(context, &TemporaryTables::default(), &query, &mut parameters)?;
    let batches = engine.collect(&plan, values.to_vec()).await?;
    let Some(row) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Err(Error::bug("the moments of AS OF gave no row"));
    };
    let microseconds = |column: &dyn Array| -> Result<i64> {
        let times = column.as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.ok_or_else(|| Error::bug("a timestamptz has another form"))?;
        if times.is_null(0) {
            let message = "the moment after AS OF must not be NULL";
            return Err(Error::new(SqlState::InvalidParameterValue, message));
        }
        Ok(times.value(0))
    };
    row.columns().iter().map(|column| microseconds(column.as_ref())).collect()
}

fn cast(expr: &Expr, data_type: &ast::DataType) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(expr.clone()),
        data_type: data_type.clone(),
        array: false,
        format: None,
    }
}

fn snapshot_name(expr: &Expr, values: &[ScalarValue]) -> Result<String> {
    let no_name = || {
        let message = "AS OF SNAPSHOT takes the name of a snapshot: a text, or a parameter that is one";
        Error::new(SqlState::InvalidParameterValue, message)
    };
    let Expr::Value(value) = expr else { return Err(no_name()) };
    match &value.value {
        Value::SingleQuotedString(name) => Ok(name.clone()),
        Value::Placeholder(number) => {
            let position = number.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
            let value = position.and_then(|position| values.get(position.checked_sub(1)?));
            match value.and_then(ScalarValue::try_as_str).flatten() {
                Some(name) => Ok(name.to_owned()),
                None => Err(no_name()),
            }
        }
        _ => Err(no_name()),
    }
}

/// A table at the moment that the context sees. `number` is its clause's; `known` tells whether the moment is.
pub(super) fn plan(
    name: &ObjectName,
    alias: Option<TableAlias>,
    (number, known): (usize, bool),
    context: &StatementContext,
) -> PlanResult<PlannedRelation> {
    let parts: Vec<_> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    if let [schema, relation] = parts.as_slice()
        && catalog::relation(&schema.value.to_lowercase(), &relation.value.to_lowercase()).is_some()
    {
        return Err(carry(
            Error::unsupported("the catalogs have no past")
                .with_hint("SET sepal.as_of shows the definitions of a moment, too."),
        ));
    }
    let table = relation_name(name).map_err(carry)?;
    let snapshot = context.snapshot.get();
    let Some(version) = snapshot.find(&context.environment, &table) else {
        let damage = snapshot.unreadable(&context.environment, &table);
        return Err(carry(
            damage.map_or_else(|| missing(&table.to_string(), known), |damage| damage.clone().into()),
        ));
    };
    let provider = UserTable::new(Arc::clone(&version.def), context);
    // Under a name of its own: DataFusion takes scans of one name for scans of one table.
    let scanned = TableReference::bare(format!("{table}@{number}"));
    let source = provider_as_source(Arc::new(provider));
    let plan = LogicalPlanBuilder::scan(scanned, source, None)?.build()?;
    let own = || TableAlias {
        explicit: true,
        name: Ident::with_quote('"', &table.name),
        columns: Vec::new(),
        at: None,
    };
    Ok(PlannedRelation::new(plan, Some(alias.unwrap_or_else(own))))
}

fn missing(table: &str, known: bool) -> Error {
    let error = undefined_table(table);
    if known {
        return error.with_detail("There was no such table at the moment that AS OF names.");
    }
    error
        .with_detail(
            "The moment after AS OF is a parameter, so the statement is described by the table of today.",
        )
        .with_hint("Write the moment as a literal: then the table is described as it was.")
}
