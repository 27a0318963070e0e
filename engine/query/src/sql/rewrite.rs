//! The AST pass: what Postgres means, said in words that DataFusion understands.
//!
//! Runs once per prepared statement, before planning. Casts whose meaning differs become calls of our own
//! functions (`functions/cast.rs`), parameters are given the types their surroundings imply, output columns
//! get Postgres' names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TypedString, UnaryOperator,
    Value, VisitMut, VisitorMut,
};
use half::f16;
use sepal_types::{SqlType, VectorKind, parse_elements, parse_vector};

use super::{
    array_query,
    branches::Branches,
    exists,
    hints::{hint, type_literals},
    json_rows::{name_rows, spell_elements, unnest_rows},
    lateral_lists::{mark_lateral, name_series},
    literals::{self, fold_sign, quoted_number, spell_number},
    names::{given_names, output_names},
    order::keep_apart,
    params::{ParameterTypes, number},
    quantifiers,
    row_comparison::compare_rows,
    rows::{type_untyped, type_values},
    sequences::uncast_sequence,
    text_search, vectors,
    wildcard::qualify_wildcards,
};

/// Prepares a query. `targets` are the types of the columns it is inserted into, if it is.
pub fn prepare_query(
    query: &mut Query,
    parameters: &mut ParameterTypes,
    targets: &[SqlType],
    columns: &ColumnTypes,
) {
    hint_targets(query.body.as_ref(), parameters, targets);
    type_values(query.body.as_mut(), targets, parameters);
    keep_apart(query, columns);
    let given = given_names(query);
    let of_tables = |name: &str| if given.contains(name) { None } else { columns(name) };
    let inserted = !targets.is_empty();
    let _ = query.visit(&mut Pass { parameters, columns, of_tables: &of_tables, inserted });
}

/// Prepares a lone expression: a DEFAULT, a predicate, an assignment.
pub fn prepare_expression(expr: &mut Expr, parameters: &mut ParameterTypes, target: Option<&SqlType>) {
    if let (Some(position), Some(target)) = (placeholder(expr), target) {
        parameters.hint(position, target);
    }
    literals::type_integers(expr);
    let none = |_: &str| -> Option<SqlType> { None };
    let _ = expr.visit(&mut Pass { parameters, columns: &none, of_tables: &none, inserted: false });
}

/// The types of the columns that a statement's tables have, by name.
pub type ColumnTypes<'a> = dyn Fn(&str) -> Option<SqlType> + 'a;

struct Pass<'a> {
    parameters: &'a mut ParameterTypes,
    columns: &'a ColumnTypes<'a>,
    /// The same, but for names that the statement itself gives to something: that may be of another type.
    of_tables: &'a ColumnTypes<'a>,
    /// Whether the next query's rows are inserted.
    inserted: bool,
}

impl VisitorMut for Pass<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        fetch_to_limit(query);
        spell_elements(query, self.columns);
        self.hint_limit(query);
        name_outputs(query.body.as_mut());
        let inserted = std::mem::take(&mut self.inserted);
        Branches { parameters: self.parameters, columns: self.of_tables }.agree(&mut query.body, inserted);
        if let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(keys), .. }) = &mut query.order_by {
            literals::type_integers_beside_ordinals(keys.iter_mut().map(|key| &mut key.expr));
        }
        // `locking` has read them.
        query.locks.clear();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        name_series(factor);
        mark_lateral(factor);
        if let ast::TableFactor::UNNEST { array_exprs, .. } = factor {
            array_exprs.iter_mut().for_each(literals::type_integers);
        }
        text_search::select_query(factor);
        name_rows(factor, self.parameters);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        qualify_wildcards(select);
        for item in &mut select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    exists::count_rows(expr);
                    literals::type_integers(expr);
                }
                _ => {}
            }
        }
        // What must match an output expression is typed as those are.
        if let ast::GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            literals::type_integers_beside_ordinals(keys.iter_mut());
        }
        if let Some(ast::Distinct::On(keys)) = &mut select.distinct {
            literals::type_integers_beside_ordinals(keys.iter_mut());
        }
        if let Some(having) = &mut select.having {
            literals::type_integers(having);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        array_query::rewrite(expr);
        fold_sign(expr);
        uncast_sequence(expr);
        compare_rows(expr);
        text_search::spell(expr, self.parameters, self.columns);
        // Before the operands are rewritten, so that their casts and literals are still to be seen.
        hint(expr, self.parameters, self.of_tables);
        type_literals(expr, self.parameters, self.of_tables);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(position) = placeholder(expr) {
            self.parameters.mention(position);
        }
        self.rewrite_cast(expr);
        rewrite_bits(expr);
        rewrite_interval(expr);
        rewrite_operator(expr);
        quantifiers::rewrite(expr);
        rewrite_similar(expr);
        rewrite_substring(expr);
        rewrite_age(expr);
        rewrite_zone(expr);
        rewrite_modulo(expr);
        rewrite_ntile(expr);
        rewrite_minus(expr);
        unnest_rows(expr);
        spell_number(expr);
        ControlFlow::Continue(())
    }
}

impl Pass<'_> {
    fn hint_limit(&mut self, query: &mut Query) {
        let mut hint = |expr: Option<&mut Expr>| {
            let Some(expr) = expr else { return };
            if let Some(position) = placeholder(expr) {
                self.parameters.hint(position, &SqlType::Int8);
            }
            literals::read_count(expr);
        };
        if let Some(ast::LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            hint(limit.as_mut());
            hint(offset.as_mut().map(|offset| &mut offset.value));
        }
        hint(query.fetch.as_mut().and_then(|fetch| fetch.quantity.as_mut()));
    }

    /// A cast of a parameter types the parameter; a cast to or from a type with a text form of its own
    /// becomes `sepal_cast_<type>(operand[, modifier])`.
    fn rewrite_cast(&mut self, expr: &mut Expr) {
        let (operand, data_type) = match expr {
            Expr::Cast {
                expr: operand,
                data_type,
                kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
                ..
            } => (operand.as_ref().clone(), data_type.clone()),
            Expr::TypedString(TypedString { data_type, value, .. }) => {
                (Expr::Value(value.clone()), data_type.clone())
            }
            _ => return,
        };
        if data_type.to_string().eq_ignore_ascii_case("jsonpath") {
            if let Some(position) = placeholder(&operand) {
                self.parameters.hint(position, &SqlType::Text);
            }
            *expr = call("sepal_cast_jsonpath", operand, None);
            return;
        }
        // A configuration goes by its name.
        if names_configuration(&data_type) {
            if let Some(position) = placeholder(&operand) {
                self.parameters.hint(position, &SqlType::Text);
            }
            *expr = call("sepal_cast_regconfig", operand, None);
            return;
        }
        let Some(ty) = cast_target(&data_type) else {
            return;
        };
        if let Some(position) = placeholder(&operand) {
            // A cast cuts strings, fills them up and rounds; their type has no length before it.
            let hinted = match &ty {
                SqlType::Bit(_) => SqlType::Bit(None),
                SqlType::Bpchar(_) => SqlType::Bpchar(None),
                SqlType::Numeric(_) => SqlType::Numeric(None),
                SqlType::Varchar(_) => SqlType::Varchar(None),
                other => other.clone(),
            };
            self.parameters.hint(position, &hinted);
            // A parameter that already has this type (dimensions aside) needs no cast around it.
            if self.parameters.get(position) == Some(&ty) && !matches!(ty, SqlType::Varchar(Some(_))) {
                *expr = operand;
                return;
            }
        }
        if let Some(wrapper) = wrapper_name(&ty) {
            let modifier =
                (ty.typmod() >= 0).then(|| ty.typmod()).or_else(|| written_modifier(&ty, &operand));
            *expr = call(&wrapper, quoted_number(&operand, &ty).unwrap_or(operand), modifier);
        }
    }
}

/// `regconfig`
fn names_configuration(data_type: &DataType) -> bool {
    let name = data_type.to_string().to_ascii_lowercase();
    name.strip_prefix("pg_catalog.").unwrap_or(&name) == "regconfig"
}

/// `FETCH FIRST n ROWS ONLY` is LIMIT in other words.
fn fetch_to_limit(query: &mut Query) {
    let plain = query.fetch.as_ref().is_some_and(|fetch| !fetch.with_ties && !fetch.percent);
    if !plain {
        return;
    }
    let quantity = query.fetch.take().and_then(|fetch| fetch.quantity);
    let quantity = quantity.unwrap_or_else(|| Expr::Value(Value::Number("1".to_owned(), false).into()));
    match &mut query.limit_clause {
        Some(ast::LimitClause::LimitOffset { limit, .. }) => *limit = Some(quantity),
        other => {
            *other =
                Some(ast::LimitClause::LimitOffset { limit: Some(quantity), offset: None, limit_by: vec![] })
        }
    }
}

/// `B'101'` and `X'1F'` are bit strings.
fn rewrite_bits(expr: &mut Expr) {
    let Expr::Value(value) = &*expr else {
        return;
    };
    let (text, bits) = match &value.value {
        Value::SingleQuotedByteStringLiteral(digits) => (format!("b{digits}"), digits.len()),
        Value::HexStringLiteral(digits) => (format!("x{digits}"), digits.len() * 4),
        _ => return,
    };
    let length = i32::try_from(bits).ok().filter(|bits| *bits > 0);
    *expr = call("sepal_cast_bit", Expr::Value(Value::SingleQuotedString(text).into()), length);
}

/// `interval '1 day 04:05:06'` is read by the type's own parser.
fn rewrite_interval(expr: &mut Expr) {
    let Expr::Interval(interval) = &*expr else {
        return;
    };
    let Expr::Value(value) = interval.value.as_ref() else {
        return;
    };
    let Value::SingleQuotedString(text) = &value.value else {
        return;
    };
    let plain = interval.leading_precision.is_none()
        && interval.last_field.is_none()
        && interval.fractional_seconds_precision.is_none();
    let text = match &interval.leading_field {
        None => text.clone(),
        Some(unit) if text.trim().parse::<i32>().is_ok() => format!("{} {unit}", text.trim()),
        Some(_) => return,
    };
    if plain {
        *expr = call("sepal_cast_interval", literals::text(text), None);
    }
}

/// `a SIMILAR TO b` is `a ~ similar_to_escape(b)`, as in Postgres.
fn rewrite_similar(expr: &mut Expr) {
    let Expr::SimilarTo { negated, expr: operand, pattern, escape_char } = &*expr else {
        return;
    };
    let mut regex = call("similar_to_escape", pattern.as_ref().clone(), None);
    if let (Some(escape), Expr::Function(function)) = (escape_char, &mut regex)
        && let FunctionArguments::List(list) = &mut function.args
    {
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(escape.clone()))));
    }
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let matched = Expr::BinaryOp { left: operand.clone(), op, right: Box::new(regex) };
    *expr = Expr::Nested(Box::new(matched));
}

/// `substring(a from 'o(.)b')` is a search for a regular expression, where a number means a place.
fn rewrite_substring(expr: &mut Expr) {
    let Expr::Substring { expr: text, substring_from: Some(pattern), substring_for: None, .. } = &*expr
    else {
        return;
    };
    let is_text = match pattern.as_ref() {
        Expr::Value(value) => {
            matches!(value.value, Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_))
        }
        Expr::Function(function) => function.name.to_string() == "sepal_cast_text",
        _ => false,
    };
    if is_text {
        *expr = call_of("sepal_substring", vec![text.as_ref().clone(), pattern.as_ref().clone()]);
    }
}

/// `age(a)` is `age(current_date, a)`.
fn rewrite_age(expr: &mut Expr) {
    let Expr::Function(function) = expr else {
        return;
    };
    if let FunctionArguments::List(list) = &mut function.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(_))] = list.args.as_slice()
        && function.name.to_string().eq_ignore_ascii_case("age")
    {
        let mut today = call_of("current_date", Vec::new());
        if let Expr::Function(today) = &mut today {
            today.args = FunctionArguments::None;
        }
        list.args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(today)));
    }
}

/// `a AT TIME ZONE b` is `timezone(b, a)`.
fn rewrite_zone(expr: &mut Expr) {
    if let Expr::AtTimeZone { timestamp, time_zone } = &*expr {
        *expr = call_of("timezone", vec![time_zone.as_ref().clone(), timestamp.as_ref().clone()]);
    }
}

/// `mod(a, b)` is `a % b`.
fn rewrite_modulo(expr: &mut Expr) {
    let Expr::Function(function) = &*expr else {
        return;
    };
    let (true, FunctionArguments::List(list)) =
        (function.name.to_string().eq_ignore_ascii_case("mod"), &function.args)
    else {
        return;
    };
    let [
        FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
    ] = list.args.as_slice()
    else {
        return;
    };
    let nested = |operand: &Expr| Box::new(Expr::Nested(Box::new(operand.clone())));
    let remainder = Expr::BinaryOp { left: nested(left), op: BinaryOperator::Modulo, right: nested(right) };
    *expr = Expr::Nested(Box::new(remainder));
}

/// `ntile` is an `integer`, where DataFusion's is a `bigint`.
fn rewrite_ntile(expr: &mut Expr) {
    if let Expr::Function(function) = &*expr
        && function.over.is_some()
        && function.name.to_string().eq_ignore_ascii_case("ntile")
    {
        *expr = call("sepal_cast_int4", expr.clone(), None);
    }
}

/// A minus before anything but a literal is a function of ours, which knows `integer out of range`.
fn rewrite_minus(expr: &mut Expr) {
    if let Expr::UnaryOp { op: UnaryOperator::Minus, expr: operand } = &*expr
        && !matches!(operand.as_ref(), Expr::Interval(_))
    {
        *expr = call("sepal_negate", operand.as_ref().clone(), None);
    }
}

/// What a literal says of its type, where the cast does not.
pub(super) fn written_modifier(ty: &SqlType, operand: &Expr) -> Option<i32> {
    written_dimensions(ty, operand).or_else(|| written_scale(ty, operand))
}

fn written_scale(ty: &SqlType, operand: &Expr) -> Option<i32> {
    let (SqlType::Numeric(None), Expr::Value(value)) = (ty, operand) else {
        return None;
    };
    let (Value::SingleQuotedString(text) | Value::Number(text, _)) = &value.value else {
        return None;
    };
    written_numeric(text).map(|ty| ty.typmod())
}

/// A `numeric` literal has as many digits after the point as it is written with: `'2.50'::numeric` is 2.50.
pub(crate) fn written_numeric(text: &str) -> Option<SqlType> {
    let digits = text.trim().trim_start_matches(['-', '+']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    let length = whole.len() + fraction.len();
    let shape = (u8::try_from(length.max(1)).ok()?, i8::try_from(fraction.len()).ok()?);
    (plain(whole) && plain(fraction) && (1..=38).contains(&length)).then_some(SqlType::Numeric(Some(shape)))
}

/// A vector literal without declared dimensions has those it is written with. They become its modifier, so
/// that the type does not depend on whether the operand is a constant.
fn written_dimensions(ty: &SqlType, operand: &Expr) -> Option<i32> {
    let kind = ty.vector_kind().filter(|_| ty.dimensions().is_none())?;
    match operand {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => {
                let dimensions = match kind {
                    VectorKind::Half => parse_elements::<f16>(text).ok()?.len(),
                    VectorKind::Single => parse_vector(text).ok()?.len(),
                };
                i32::try_from(dimensions).ok()
            }
            _ => None,
        },
        _ => None,
    }
}

/// The position in `$3`.
pub(super) fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => number(name),
            _ => None,
        },
        Expr::Nested(inner) => placeholder(inner),
        _ => None,
    }
}

/// Placeholders that stand alone in VALUES or in the SELECT list of an INSERT have their column's type.
fn hint_targets(body: &SetExpr, parameters: &mut ParameterTypes, targets: &[SqlType]) {
    match body {
        SetExpr::Values(values) => {
            for row in &values.rows {
                for (expr, target) in row.iter().zip(targets) {
                    if let Some(position) = placeholder(expr) {
                        parameters.hint(position, target);
                    }
                }
            }
        }
        SetExpr::Select(select) => {
            for (item, target) in select.projection.iter().zip(targets) {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                    && let Some(position) = placeholder(expr)
                {
                    parameters.hint(position, target);
                }
            }
        }
        SetExpr::Query(query) => hint_targets(&query.body, parameters, targets),
        SetExpr::SetOperation { left, right, .. } => {
            hint_targets(left, parameters, targets);
            hint_targets(right, parameters, targets);
        }
        _ => {}
    }
}

/// Names every SELECT of a set operation alike from its own list; the left-most one names the result.
fn name_outputs(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => output_names(select),
        SetExpr::SetOperation { left, right, .. } => {
            name_outputs(left);
            name_outputs(right);
        }
        SetExpr::Query(query) => name_outputs(&mut query.body),
        SetExpr::Values(values) => {
            vectors::unify_columns(values);
            type_untyped(values);
            for expr in values.rows.iter_mut().flat_map(|row| row.iter_mut()) {
                literals::type_integers(expr);
            }
        }
        _ => {}
    }
}

pub(super) fn cast_target(data_type: &DataType) -> Option<SqlType> {
    match data_type {
        DataType::Bit(None) => Some(SqlType::Bit(Some(1))),
        other => SqlType::from_name(&other.to_string()),
    }
}

/// The types whose casts Arrow would do otherwise than Postgres, or not at all.
pub(super) fn wrapper_name(ty: &SqlType) -> Option<String> {
    match ty {
        SqlType::Bit(_)
        | SqlType::Bpchar(_)
        | SqlType::Vector(_)
        | SqlType::HalfVec(_)
        | SqlType::SparseVec(_)
        | SqlType::Uuid
        | SqlType::Bytea
        | SqlType::Json
        | SqlType::Jsonb
        | SqlType::Text
        | SqlType::Varchar(_)
        | SqlType::Name
        | SqlType::Bool
        | SqlType::Numeric(_)
        | SqlType::Int2
        | SqlType::Int4
        | SqlType::Int8
        | SqlType::Float4
        | SqlType::Float8
        | SqlType::Interval
        | SqlType::Oid
        | SqlType::Date
        | SqlType::Time
        | SqlType::Timestamp
        | SqlType::Timestamptz
        | SqlType::TsQuery
        | SqlType::TsVector
        | SqlType::Char => Some(format!("sepal_cast_{}", ty.internal_name())),
        SqlType::Array(element) => {
            wrapper_name(element).map(|_| format!("sepal_cast_{}", ty.internal_name()))
        }
        _ => None,
    }
}

/// A call of one of our own functions.
pub(super) fn call(name: &str, operand: Expr, modifier: Option<i32>) -> Expr {
    let modifier = modifier.map(|modifier| Expr::Value(Value::Number(modifier.to_string(), false).into()));
    call_of(name, std::iter::once(operand).chain(modifier).collect())
}

pub(super) fn call_of(name: &str, operands: Vec<Expr>) -> Expr {
    let argument = |expr: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: operands.into_iter().map(argument).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// `OPERATOR(public.<->)` and `~` spelled with a schema are the plain operators.
fn rewrite_operator(expr: &mut Expr) {
    if let Expr::BinaryOp { op, .. } = expr
        && let BinaryOperator::PGCustomBinaryOperator(parts) = op
        && let Some(name) = parts.last()
    {
        *op = match name.as_str() {
            "<->" => BinaryOperator::LtDashGt,
            "~" => BinaryOperator::PGRegexMatch,
            "~*" => BinaryOperator::PGRegexIMatch,
            "!~" => BinaryOperator::PGRegexNotMatch,
            "!~*" => BinaryOperator::PGRegexNotIMatch,
            "~~" => BinaryOperator::PGLikeMatch,
            "~~*" => BinaryOperator::PGILikeMatch,
            "!~~" => BinaryOperator::PGNotLikeMatch,
            "=" => BinaryOperator::Eq,
            "<>" => BinaryOperator::NotEq,
            "<" => BinaryOperator::Lt,
            ">" => BinaryOperator::Gt,
            "+" => BinaryOperator::Plus,
            "||" => BinaryOperator::StringConcat,
            other => BinaryOperator::Custom(other.to_owned()),
        };
    }
}
