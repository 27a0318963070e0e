//! Function calls: aggregates, window functions, set-returning and scalar functions.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    self, DuplicateTreatment, Expr as Ast, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, WindowType,
};
use sepal_types::{Error, SqlState, SqlType};

use super::super::super::functions::{function, in_order};
use super::super::super::shape::{DEAD_LETTERS, PG_CATALOG, shape};
use super::super::plan::{Aggregate, AggregateKind, Expr, SetCall, SetFunction, Window, WindowKind};
use super::super::ty::{Class, Ty};
use super::{Binder, Bound, Stop, Typed, name_parts};

impl Binder<'_> {
    pub(super) fn function(&mut self, ast: &Ast, call: &ast::Function) -> Bound<Typed> {
        let mut parts = name_parts(&call.name).ok_or(Stop::Decline)?;
        let name = parts.pop().ok_or(Stop::Decline)?;
        if let FunctionArguments::Subquery(query) = &call.args {
            return self.array_of_rows(&name, query);
        }
        if !call.within_group.is_empty() || call.null_treatment.is_some() {
            return Err(Stop::Decline);
        }
        if let Some(over) = &call.over {
            return self.window(&name, over);
        }
        let (arguments, distinct, clauses): (&[FunctionArg], bool, &[FunctionArgumentClause]) = match &call
            .args
        {
            FunctionArguments::List(list) => {
                (&list.args, list.duplicate_treatment == Some(DuplicateTreatment::Distinct), &list.clauses)
            }
            _ => (&[], false, &[]),
        };
        if let Some(kind) = aggregate_kind(&name, arguments) {
            return self.aggregate(kind, arguments, distinct, clauses, call.filter.as_deref());
        }
        if is_set_function(&name) {
            return self.set_call(ast, &name, arguments);
        }
        if distinct || !clauses.is_empty() || call.filter.is_some() {
            return Err(Stop::Decline);
        }
        let ordered = in_order(&name, arguments);
        let typed = self.arguments(ordered.as_deref().unwrap_or(arguments))?;
        self.scalar_function(&name, typed)
    }

    fn arguments(&mut self, arguments: &[FunctionArg]) -> Bound<Vec<Typed>> {
        let mut typed = Vec::new();
        for argument in arguments {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => typed.push(self.expr(expr)?),
                _ => return Err(Stop::Decline),
            }
        }
        Ok(typed)
    }

    /// `ARRAY(SELECT …)`
    fn array_of_rows(&mut self, name: &str, query: &ast::Query) -> Bound<Typed> {
        if name != "array" {
            return Err(Stop::Decline);
        }
        let query = self.query(query)?;
        let [column] = query.columns.as_slice() else {
            return Err(Error::new(SqlState::SyntaxError, "subquery must return only one column").into());
        };
        let ty = column.ty.array();
        Ok((Expr::ArrayOfRows(Box::new(query)), ty))
    }

    pub(super) fn scalar_function(&mut self, name: &str, arguments: Vec<Typed>) -> Bound<Typed> {
        match (name, arguments.len()) {
            ("coalesce", 1..) => {
                let (values, ty) = self.meet_all(arguments)?;
                return Ok((Expr::Coalesce(values), ty));
            }
            ("greatest" | "least", 1..) => {
                let (values, ty) = self.meet_all(arguments)?;
                return Ok((Expr::Extreme { values, largest: name == "greatest" }, ty));
            }
            ("nullif", 2) => return self.nullif(arguments),
            ("pg_typeof", 1) => {
                self.touched = true;
                let oid = arguments[0].1.outward().oid();
                return Ok((Expr::Constant(oid.into()), Ty::Sql(SqlType::Regtype)));
            }
            ("array_upper" | "array_lower", 2) if arguments[0].1.lower_bound() == 0 => {
                return Err(Stop::Decline);
            }
            _ => {}
        }
        let (function, of_catalog) = function(name).ok_or(Stop::Decline)?;
        if !function.takes(arguments.len()) {
            let types: Vec<String> = arguments.iter().map(|(_, ty)| ty.name()).collect();
            let message = format!("function {name}({}) does not exist", types.join(", "));
            return Err(Error::new(SqlState::UndefinedFunction, message).into());
        }
        self.touched |= of_catalog;
        let types: Vec<SqlType> = arguments.iter().map(|(_, ty)| ty.outward()).collect();
        let mut values = Vec::with_capacity(arguments.len());
        for (place, argument) in arguments.into_iter().enumerate() {
            values.push(self.argument(function.argument_type(place), argument)?);
        }
        Ok((Expr::Call(function, values), Ty::Sql(function.result_type(&types))))
    }

    /// An argument as the function takes it. An oid stays one also where a name is declared: functions read
    /// both.
    fn argument(&mut self, declared: Option<SqlType>, argument: Typed) -> Bound<Expr> {
        let Some(declared) = declared.map(Ty::Sql) else {
            return Ok(if argument.1.is_unknown() { self.coerce(argument, &Ty::TEXT)? } else { argument.0 });
        };
        if argument.1.is_unknown() {
            // A name given as a literal: the function looks it up and knows whether it may be missing.
            let wanted = if declared.reg().is_some() { Ty::TEXT } else { declared };
            return self.coerce(argument, &wanted);
        }
        let convert = matches!(
            (argument.1.class(), declared.class()),
            (Class::Int, Class::Float) | (Class::Bool, Class::Text) | (Class::Float, Class::Text)
        );
        // Regclass and its kin become their name where text is wanted: `format('%s', oid::regclass)`.
        let to_name = declared == Ty::TEXT && argument.1.reg().is_some();
        if convert || to_name { self.coerce(argument, &declared) } else { Ok(argument.0) }
    }

    fn nullif(&mut self, mut arguments: Vec<Typed>) -> Bound<Typed> {
        let (Some(right), Some(left)) = (arguments.pop(), arguments.pop()) else { return Err(Stop::Decline) };
        let (left, right, ty) = self.meet(left, right, "=")?;
        Ok((Expr::NullIf(Box::new(left), Box::new(right)), ty))
    }

    fn aggregate(
        &mut self,
        kind: AggregateKind,
        arguments: &[FunctionArg],
        distinct: bool,
        clauses: &[FunctionArgumentClause],
        filter: Option<&Ast>,
    ) -> Bound<Typed> {
        if std::mem::replace(&mut self.scope()?.in_aggregate, true) {
            return Err(
                Error::new(SqlState::GroupingError, "aggregate function calls cannot be nested").into()
            );
        }
        let typed = if kind == AggregateKind::CountRows { Vec::new() } else { self.arguments(arguments)? };
        let mut order = Vec::new();
        for clause in clauses {
            let FunctionArgumentClause::OrderBy(keys) = clause else { return Err(Stop::Decline) };
            order = self.order(keys)?;
        }
        let filter = match filter {
            Some(filter) => Some(self.condition(filter)?),
            None => None,
        };
        let first = typed.first().map_or(Ty::UNKNOWN, |(_, ty)| ty.clone());
        let mut values = Vec::new();
        for argument in typed {
            values.push(match kind {
                AggregateKind::StringAgg => self.coerce(argument, &Ty::TEXT)?,
                AggregateKind::BoolAnd | AggregateKind::BoolOr => self.coerce(argument, &Ty::BOOL)?,
                AggregateKind::Average => self.coerce(argument, &Ty::FLOAT)?,
                _ if argument.1.is_unknown() => self.coerce(argument, &Ty::TEXT)?,
                _ => argument.0,
            });
        }
        let ty = match kind {
            AggregateKind::Count | AggregateKind::CountRows => Ty::INT8,
            AggregateKind::StringAgg => Ty::TEXT,
            AggregateKind::JsonAgg => Ty::Sql(SqlType::Json),
            AggregateKind::BoolAnd | AggregateKind::BoolOr => Ty::BOOL,
            AggregateKind::Average => Ty::FLOAT,
            AggregateKind::Sum if first.class() == Class::Int => Ty::INT8,
            AggregateKind::ArrayAgg => first.array(),
            AggregateKind::Max | AggregateKind::Min | AggregateKind::Sum => first,
        };
        let scope = self.scope()?;
        scope.in_aggregate = false;
        scope.aggregates.push(Aggregate { kind, arguments: values, distinct, order, filter });
        Ok((Expr::Aggregate(scope.aggregates.len() - 1), ty))
    }

    fn order(&mut self, keys: &[ast::OrderByExpr]) -> Bound<Vec<(Expr, bool, bool)>> {
        let mut order = Vec::new();
        for key in keys {
            let descending = key.options.asc == Some(false);
            let value = self.expr(&key.expr)?.0;
            order.push((value, descending, key.options.nulls_first.unwrap_or(descending)));
        }
        Ok(order)
    }

    fn window(&mut self, name: &str, over: &WindowType) -> Bound<Typed> {
        let kind = match name {
            "row_number" => WindowKind::RowNumber,
            "rank" => WindowKind::Rank,
            "dense_rank" => WindowKind::DenseRank,
            _ => return Err(Stop::Decline),
        };
        let WindowType::WindowSpec(spec) = over else { return Err(Stop::Decline) };
        if spec.window_name.is_some() || spec.window_frame.is_some() {
            return Err(Stop::Decline);
        }
        let mut partition = Vec::new();
        for key in &spec.partition_by {
            partition.push(self.expr(key)?.0);
        }
        let order = self.order(&spec.order_by)?;
        let scope = self.scope()?;
        scope.windows.push(Window { kind, partition, order });
        Ok((Expr::Window(scope.windows.len() - 1), Ty::INT8))
    }

    /// A set-returning function in the select list.
    fn set_call(&mut self, ast: &Ast, name: &str, arguments: &[FunctionArg]) -> Bound<Typed> {
        if !self.scope()?.allows_sets {
            return Err(Stop::Decline);
        }
        let typed = self.arguments(arguments)?;
        let Ok((call, ty)) = self.set_function(name, typed)? else { return Err(Stop::Decline) };
        let scope = self.scope()?;
        let known = scope.seen_sets.iter().position(|seen| seen == ast);
        let place = known.unwrap_or_else(|| {
            scope.seen_sets.push(ast.clone());
            scope.sets.push(call);
            scope.sets.len() - 1
        });
        Ok((Expr::Set(place), ty))
    }

    /// A set-returning function with its row type; the arguments come back when it is not one.
    pub(super) fn set_function(
        &mut self,
        name: &str,
        arguments: Vec<Typed>,
    ) -> Bound<Result<(SetCall, Ty), Vec<Typed>>> {
        if !is_set_function(name) {
            return Ok(Err(arguments));
        }
        let first = arguments.first().map_or(Ty::UNKNOWN, |(_, ty)| ty.clone());
        let element = first.element();
        let (function, ty) = match (name, element) {
            ("unnest", Some(_)) if arguments.len() > 1 => {
                let mut fields = Vec::new();
                for (_, ty) in &arguments {
                    fields.push(("unnest".to_owned(), ty.element().ok_or(Stop::Decline)?));
                }
                (SetFunction::UnnestTogether, Ty::Record(fields.into()))
            }
            ("unnest", Some(element)) => (SetFunction::Unnest, element),
            ("_pg_expandarray", Some(element)) => {
                (SetFunction::ExpandArray, record(&[("x", element), ("n", Ty::INT4)]))
            }
            ("generate_subscripts", Some(_)) => {
                (SetFunction::GenerateSubscripts(first.lower_bound()), Ty::INT4)
            }
            ("generate_series", _) if (2..=3).contains(&arguments.len()) => {
                let wide = arguments.iter().any(|(_, ty)| *ty == Ty::INT8);
                (SetFunction::GenerateSeries, if wide { Ty::INT8 } else { Ty::INT4 })
            }
            _ => {
                let catalog = catalog_set(name, arguments.len()).ok_or(Stop::Decline)?;
                self.touched = true;
                catalog
            }
        };
        let mut values = Vec::new();
        for (value, value_ty) in arguments {
            let number = matches!(function, SetFunction::GenerateSeries);
            values.push(match (number, value_ty.is_unknown()) {
                (true, _) => self.coerce((value, value_ty), &Ty::INT8)?,
                (false, true) => self.coerce((value, value_ty), &Ty::TEXT)?,
                (false, false) => value,
            });
        }
        Ok(Ok((SetCall { function, arguments: values }, ty)))
    }
}

/// The functions that only a catalog has, and their rows.
fn catalog_set(name: &str, arguments: usize) -> Option<(SetFunction, Ty)> {
    Some(match name {
        "pg_get_keywords" => {
            let fields = [
                ("word", Ty::TEXT),
                ("catcode", Ty::Sql(SqlType::Char)),
                ("barelabel", Ty::BOOL),
                ("catdesc", Ty::TEXT),
                ("baredesc", Ty::TEXT),
            ];
            (SetFunction::Keywords, record(&fields))
        }
        "pg_options_to_table" => {
            let fields = [("option_name", Ty::TEXT), ("option_value", Ty::TEXT)];
            (SetFunction::OptionsToTable, record(&fields))
        }
        "sepal_sink_errors" if arguments == 1 => {
            let columns = &shape(PG_CATALOG, DEAD_LETTERS)?.columns;
            let fields: Vec<_> = columns.iter().map(|(name, ty)| (*name, Ty::Sql(ty.clone()))).collect();
            (SetFunction::SinkErrors, record(&fields))
        }
        "aclexplode" => {
            let oid = || Ty::Sql(SqlType::Oid);
            let fields = [
                ("grantor", oid()),
                ("grantee", oid()),
                ("privilege_type", Ty::TEXT),
                ("is_grantable", Ty::BOOL),
            ];
            (SetFunction::AclExplode, record(&fields))
        }
        _ => return None,
    })
}

fn record(fields: &[(&str, Ty)]) -> Ty {
    let fields: Arc<[(String, Ty)]> =
        fields.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
    Ty::Record(fields)
}

fn is_set_function(name: &str) -> bool {
    matches!(
        name,
        "_pg_expandarray"
            | "aclexplode"
            | "generate_series"
            | "generate_subscripts"
            | "pg_get_keywords"
            | "pg_options_to_table"
            | "sepal_sink_errors"
            | "unnest"
    )
}

fn aggregate_kind(name: &str, arguments: &[FunctionArg]) -> Option<AggregateKind> {
    Some(match name {
        "count" if matches!(arguments, [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]) => {
            AggregateKind::CountRows
        }
        "count" => AggregateKind::Count,
        "min" => AggregateKind::Min,
        "max" => AggregateKind::Max,
        "sum" => AggregateKind::Sum,
        "avg" => AggregateKind::Average,
        "bool_and" | "every" => AggregateKind::BoolAnd,
        "bool_or" => AggregateKind::BoolOr,
        "array_agg" => AggregateKind::ArrayAgg,
        "string_agg" => AggregateKind::StringAgg,
        "json_agg" | "jsonb_agg" => AggregateKind::JsonAgg,
        _ => return None,
    })
}
