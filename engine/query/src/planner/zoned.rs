//! Plans for a session whose time zone is not UTC.
//!
//! Everywhere else a plan takes an instant for what a clock in UTC shows, as DataFusion and Arrow do for the type that a
//! `timestamptz` has. Here the places where the two are different things in another zone are found, and each is
//! replaced by what answers in that zone: calls with an instant among their arguments or as their result, casts that
//! take a zone away or give one, comparisons of the two kinds, months and days added to an instant, and today's date. What
//! cannot be replaced is refused (0A000). [`Engine`](super::Engine)s of a zone call [`plan`] for every plan, and
//! [`InZone`] again for the casts that resolving its types adds; an engine in UTC does neither.

use std::sync::{Arc, Weak};

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::{
        DFSchema, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{
        BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, WindowFrameBound,
        WindowFrameUnits,
        expr::{AggregateFunction, ScalarFunction, WindowFunction},
        expr_rewriter::NamePreserver,
        utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};
use parking_lot::Mutex;
use sepal_types::{Error, SqlType};

use super::{Engine, Planning};
use crate::{
    error::carry,
    functions::{cast_function, plus_interval, within},
    output::natural_type,
    values::decode_text,
    zone::Zone,
};

/// Functions that take instants as they are: what they give is the same in every zone, or they only choose.
const ALIKE: &[&str] = &[
    "array_length",
    "arrow_typeof",
    "cardinality",
    "clock_timestamp",
    "coalesce",
    "date_bin",
    "greatest",
    "least",
    "make_array",
    "now",
    "nullif",
    "nvl",
    "nvl2",
    "pg_typeof",
    "statement_timestamp",
    "transaction_timestamp",
];
/// DataFusion's own that know of no zone but UTC, and not of PostgreSQL.
const REFUSED: &[&str] = &[
    "arrow_cast",
    "arrow_try_cast",
    "from_unixtime",
    "to_local_time",
    "to_time",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
];
/// Aggregates that write their arguments as text, and the function that writes one argument so.
const WRITTEN: &[(&str, &str)] = &[("json_agg", "to_json"), ("jsonb_agg", "to_jsonb")];
/// Those of which no part can be written beforehand.
const REFUSED_AGGREGATES: &[&str] = &["json_object_agg", "jsonb_object_agg", "string_agg"];

/// The functions of an engine, by their names.
pub(super) type Functions<'a> = dyn Fn(&str) -> Option<Arc<ScalarUDF>> + 'a;

impl Planning {
    /// The same for sessions in a zone, which share it.
    fn in_zone(&self, zone: Zone) -> Arc<Self> {
        let mut zoned = self.zoned.lock();
        if let Some(planning) = zoned.get(&zone).and_then(Weak::upgrade) {
            return planning;
        }
        let mut state = self.state.clone();
        state.add_analyzer_rule(Arc::new(InZone::new(zone, &|name| self.scalars.get(name).cloned())));
        let planning = Arc::new(Self {
            state,
            scalars: self.scalars.clone(),
            aggregates: self.aggregates.clone(),
            windows: self.windows.clone(),
            zone,
            zoned: Mutex::default(),
        });
        zoned.retain(|_, planning| planning.strong_count() > 0);
        zoned.insert(zone, Arc::downgrade(&planning));
        planning
    }
}

impl Engine {
    /// The same for a session in a time zone.
    pub fn in_zone(self: &Arc<Self>, zone: Zone) -> Arc<Self> {
        if zone == self.zone() {
            return Arc::clone(self);
        }
        let utc = Arc::clone(self.utc.as_ref().unwrap_or(self));
        if zone.is_utc() {
            return utc;
        }
        Arc::new(Self {
            planning: utc.planning.in_zone(zone),
            task: Arc::clone(&self.task),
            memory: Arc::clone(&self.memory),
            spill: Arc::clone(&self.spill),
            workers: self.workers.clone(),
            utc: Some(utc),
        })
    }

    pub fn zone(&self) -> Zone {
        self.planning.zone
    }

    /// The engine for what is stored, which is the same whoever asks: generated columns, CHECKs, and constants of
    /// DEFAULTs.
    pub fn in_utc(&self) -> &Self {
        self.utc.as_deref().unwrap_or(self)
    }

    pub(super) fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.planning.scalars.get(name).cloned()
    }
}

/// The plan as a session of the zone runs it. In UTC it is as it was.
///
/// Errors: 0A000 for what answers in UTC alone.
pub(super) fn plan(plan: LogicalPlan, zone: Zone, functions: &Functions<'_>) -> Result<LogicalPlan> {
    if zone.is_utc() {
        return Ok(plan);
    }
    // Whether a result may be NULL now that could not be one: then the plans above it have another schema.
    let mut reshaped = false;
    let zoned = plan.transform_up_with_subqueries(|node| {
        let mut schema = merge_schema(&node.inputs());
        if let LogicalPlan::TableScan(scan) = &node {
            let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
            schema.merge(&source);
        }
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let zoned = expression(expr, &schema, zone, functions)?;
            if !zoned.transformed {
                return Ok(zoned);
            }
            reshaped = true;
            Ok(zoned.update_data(|expr| name.restore(expr)))
        })?;
        if reshaped { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })?;
    Ok(zoned.data)
}

/// The same for a lone expression.
pub(super) fn expression(
    expr: Expr,
    schema: &DFSchema,
    zone: Zone,
    functions: &Functions<'_>,
) -> Result<Transformed<Expr>> {
    if zone.is_utc() {
        return Ok(Transformed::no(expr));
    }
    let pass = Pass { schema, zone, functions };
    expr.transform_up(|expr| pass.rewrite(expr))
}

/// Whether a plan has anything that depends on the session's zone: what PostgreSQL calls stable and not immutable.
pub(crate) fn depends(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= match expr {
                    // A text is read once, when it is planned.
                    Expr::ScalarFunction(call) => depends_on(call, &schema) && literal(call).is_none(),
                    Expr::BinaryExpr(binary) => instant_and_span(binary, &schema).is_some(),
                    Expr::Cast(Cast { expr, field }) => {
                        expr.get_type(&schema).is_ok_and(|from| crosses(&from, field.data_type()))
                    }
                    _ => false,
                };
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

/// [`plan`] after an analyzer has resolved the types.
#[derive(Debug)]
pub(super) struct InZone {
    zone: Zone,
    /// Those that the pass writes calls of.
    functions: Vec<(String, Arc<ScalarUDF>)>,
}

impl InZone {
    /// `functions`: of the engine.
    pub(super) fn new(zone: Zone, functions: &Functions<'_>) -> Self {
        let wanted = ["now", "to_json", "to_jsonb"].into_iter();
        let named = |name: &'static str| Some((name.to_owned(), functions(name)?));
        Self { zone, functions: wanted.filter_map(named).collect() }
    }
}

impl AnalyzerRule for InZone {
    fn analyze(&self, resolved: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let functions = |name: &str| {
            let found = self.functions.iter().find(|(known, _)| known == name);
            found.map(|(_, function)| Arc::clone(function))
        };
        plan(resolved, self.zone, &functions)
    }

    fn name(&self) -> &str {
        "in_zone"
    }
}

struct Pass<'a> {
    schema: &'a DFSchema,
    zone: Zone,
    functions: &'a Functions<'a>,
}

impl Pass<'_> {
    fn rewrite(&self, expr: Expr) -> Result<Transformed<Expr>> {
        match expr {
            Expr::ScalarFunction(call) => self.call(call),
            Expr::BinaryExpr(binary) => self.binary(binary),
            Expr::Between(mut between) => {
                let mut operands = [&mut *between.expr, &mut *between.low, &mut *between.high];
                let changed = self.alike(&mut operands);
                Ok(Transformed::new_transformed(Expr::Between(between), changed))
            }
            Expr::InList(mut list) => {
                let mut operands = vec![&mut *list.expr];
                operands.extend(list.list.iter_mut());
                let changed = self.alike(&mut operands);
                Ok(Transformed::new_transformed(Expr::InList(list), changed))
            }
            Expr::Cast(Cast { expr, field }) => {
                let from = expr.get_type(self.schema);
                if !from.is_ok_and(|from| crosses(&from, field.data_type())) {
                    return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
                }
                self.cast(*expr, field.data_type()).map(Transformed::yes)
            }
            Expr::TryCast(cast) => {
                let from = self.type_of(&cast.expr);
                if from.is_some_and(|from| crosses(&from, cast.field.data_type())) {
                    return Err(self.refuse("TRY_CAST"));
                }
                Ok(Transformed::no(Expr::TryCast(cast)))
            }
            Expr::AggregateFunction(call) => self.aggregate(call),
            Expr::WindowFunction(call) => self.window(call),
            other => Ok(Transformed::no(other)),
        }
    }

    fn type_of(&self, expr: &Expr) -> Option<DataType> {
        expr.get_type(self.schema).ok()
    }

    fn call(&self, call: ScalarFunction) -> Result<Transformed<Expr>> {
        let function = Arc::clone(&call.func);
        let name = function.name();
        if name == "current_date" {
            return self.today(name, SqlType::Date, &DataType::Date32);
        }
        if name == "current_time" {
            return self.today(name, SqlType::Time, &DataType::Time64(TimeUnit::Nanosecond));
        }
        let instants = depends_on(&call, self.schema) || reads_moment(&call, self.schema);
        // DataFusion's own, which go by other names too: `datetrunc`, `datepart`, `date_format`.
        let foreign = match name {
            "date_part" | "date_trunc" | "to_char" => !function.aliases().is_empty(),
            "generate_series" | "range" => true,
            _ => false,
        };
        if REFUSED.contains(&name) || (instants && foreign) {
            return Err(self.refuse(&format!("{name}()")));
        }
        if !instants || literal(&call).is_some_and(|text| self.is_same(text)) {
            return Ok(Transformed::no(Expr::ScalarFunction(call)));
        }
        let call = within(call, self.zone);
        let changed = !Arc::ptr_eq(&function, &call.func);
        Ok(Transformed::new_transformed(Expr::ScalarFunction(call), changed))
    }

    /// Whether a text is the same instant here and in UTC, as one is that names its offset.
    fn is_same(&self, text: &str) -> bool {
        let read = || decode_text(&SqlType::Timestamptz, Some(text.as_bytes())).ok();
        self.zone.within(read).is_some_and(|here| Zone::UTC.within(read).is_some_and(|there| here == there))
    }

    /// Of now, as the zone's clock shows it, in the place of a function.
    fn today(&self, name: &str, ty: SqlType, wanted: &DataType) -> Result<Transformed<Expr>> {
        let Some(now) = (self.functions)("now") else { return Err(self.refuse(name)) };
        let now = Expr::ScalarFunction(ScalarFunction::new_udf(now, Vec::new()));
        let shown = self.cast_to(now, ty);
        Ok(Transformed::yes(fit(shown, wanted, self.schema)))
    }

    fn binary(&self, binary: BinaryExpr) -> Result<Transformed<Expr>> {
        if let Some((swapped, ty)) = instant_and_span(&binary, self.schema) {
            let BinaryExpr { left, op, right } = binary;
            let (instant, span) = if swapped { (right, left) } else { (left, right) };
            let moved = plus_interval(*instant, *span, op == Operator::Minus, Some(self.zone));
            return Ok(Transformed::yes(fit(moved, &ty, self.schema)));
        }
        let mut binary = binary;
        // Of all that takes two of a kind: the other operators know no instants.
        let changed =
            binary.op.supports_propagation() && self.alike(&mut [&mut *binary.left, &mut *binary.right]);
        Ok(Transformed::new_transformed(Expr::BinaryExpr(binary), changed))
    }

    /// Operands that are compared: beside an instant a date and a timestamp are instants of the zone. Whether any was
    /// changed.
    fn alike(&self, operands: &mut [&mut Expr]) -> bool {
        let types: Vec<Option<DataType>> = operands.iter().map(|operand| self.type_of(operand)).collect();
        if !types.iter().flatten().any(is_instant) {
            return false;
        }
        let mut changed = false;
        for (operand, ty) in operands.iter_mut().zip(&types) {
            if matches!(ty, Some(DataType::Date32 | DataType::Timestamp(_, None))) {
                **operand = self.cast_to(std::mem::take(&mut **operand), SqlType::Timestamptz);
                changed = true;
            }
        }
        changed
    }

    /// An explicit cast, or one that resolving types has added.
    fn cast(&self, expr: Expr, wanted: &DataType) -> Result<Expr> {
        let ty = match wanted {
            DataType::Timestamp(_, Some(_)) => SqlType::Timestamptz,
            DataType::Timestamp(_, None) => SqlType::Timestamp,
            DataType::Date32 => SqlType::Date,
            DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::Text,
            DataType::List(_) => natural_type(wanted),
            other => return Err(self.refuse(&format!("a cast to {other}"))),
        };
        Ok(fit(self.cast_to(expr, ty), wanted, self.schema))
    }

    fn cast_to(&self, expr: Expr, ty: SqlType) -> Expr {
        let call = ScalarFunction::new_udf(Arc::new(cast_function(ty)), vec![expr]);
        Expr::ScalarFunction(within(call, self.zone))
    }

    fn aggregate(&self, call: AggregateFunction) -> Result<Transformed<Expr>> {
        let concerned =
            call.params.args.iter().any(|arg| self.type_of(arg).is_some_and(|ty| holds_instants(&ty)));
        if !concerned {
            return Ok(Transformed::no(Expr::AggregateFunction(call)));
        }
        let name = call.func.name();
        if REFUSED_AGGREGATES.contains(&name) {
            return Err(self.refuse(&format!("{name}() of timestamp with time zone")));
        }
        if call.params.distinct && WRITTEN.iter().any(|(aggregate, _)| *aggregate == name) {
            return Err(self.refuse(&format!("{name}(DISTINCT …) of timestamp with time zone")));
        }
        let Some(&(_, writer)) = WRITTEN.iter().find(|(aggregate, _)| *aggregate == name) else {
            return Ok(Transformed::no(Expr::AggregateFunction(call)));
        };
        let Some(writer) = (self.functions)(writer) else {
            return Err(self.refuse(&format!("{name}() of timestamp with time zone")));
        };
        let mut call = call;
        let written = |arg: Expr| {
            let call = ScalarFunction::new_udf(Arc::clone(&writer), vec![arg]);
            Expr::ScalarFunction(within(call, self.zone))
        };
        call.params.args = call.params.args.into_iter().map(written).collect();
        Ok(Transformed::yes(Expr::AggregateFunction(call)))
    }

    fn window(&self, call: Box<WindowFunction>) -> Result<Transformed<Expr>> {
        let params = &call.params;
        let frame = &params.window_frame;
        let whole = |bound: &WindowFrameBound| match bound {
            WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance) => {
                distance.is_null()
            }
            WindowFrameBound::CurrentRow => true,
        };
        let by_instants =
            params.order_by.iter().any(|key| self.type_of(&key.expr).is_some_and(|ty| is_instant(&ty)));
        let far =
            frame.units == WindowFrameUnits::Range && !(whole(&frame.start_bound) && whole(&frame.end_bound));
        if far && by_instants {
            return Err(self.refuse("RANGE with an offset over timestamp with time zone"));
        }
        let mut writes = WRITTEN.iter().map(|(name, _)| *name).chain(REFUSED_AGGREGATES.iter().copied());
        let instants = params.args.iter().any(|arg| self.type_of(arg).is_some_and(|ty| holds_instants(&ty)));
        if instants && writes.any(|name| name == call.fun.name()) {
            return Err(
                self.refuse(&format!("{}() of timestamp with time zone in a window", call.fun.name()))
            );
        }
        Ok(Transformed::no(Expr::WindowFunction(call)))
    }

    fn refuse(&self, what: &str) -> datafusion::error::DataFusionError {
        let message = format!("{what} is not supported with a TimeZone other than UTC");
        carry(Error::unsupported(message).with_hint("SET TIME ZONE 'UTC', or convert with AT TIME ZONE."))
    }
}

fn is_instant(ty: &DataType) -> bool {
    matches!(ty, DataType::Timestamp(_, Some(_)))
}

/// The same for arrays.
fn holds_instants(ty: &DataType) -> bool {
    match ty {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            holds_instants(item.data_type())
        }
        other => is_instant(other),
    }
}

/// Whether a call may give something else in another zone: it takes or gives instants. Days and texts are instants to
/// `timezone`, days to those that have no other form for them.
fn has_instants(call: &ScalarFunction, schema: &DFSchema) -> bool {
    let name = call.func.name();
    if ALIKE.contains(&name) {
        return false;
    }
    let by_days = matches!(name, "age" | "date_trunc" | "timezone" | "to_char");
    let is_one = |arg: &Expr| match arg.get_type(schema) {
        Ok(DataType::Date32) => by_days,
        Ok(ty) => holds_instants(&ty),
        Err(_) => false,
    };
    let reads_one = || {
        matches!(name, "timezone" | "sepal_dlq_replay")
            && call.args.get(1).is_some_and(|arg| is_text(arg, schema))
    };
    let gives_one = || {
        let result = Expr::ScalarFunction(call.clone()).get_type(schema);
        result.is_ok_and(|ty| holds_instants(&ty))
    };
    call.args.iter().any(is_one) || reads_one() || gives_one()
}

/// The same, but for a call that has all it needs from its arguments: its zone, or two instants that lie apart.
fn depends_on(call: &ScalarFunction, schema: &DFSchema) -> bool {
    let has_time = |arg: &Expr| matches!(arg.get_type(schema), Ok(DataType::Timestamp(..)));
    let told = match call.func.name() {
        "sepal_timestamp_difference" => {
            call.args.iter().all(|arg| arg.get_type(schema).is_ok_and(|ty| is_instant(&ty)))
        }
        "timezone" => call.args.get(1).is_some_and(has_time),
        _ => false,
    };
    !told && has_instants(call, schema)
}

/// The text that a call reads as an instant, where that is a literal.
fn literal(call: &ScalarFunction) -> Option<&str> {
    match (call.func.name(), call.args.first()) {
        ("sepal_cast_timestamptz", Some(Expr::Literal(ScalarValue::Utf8(Some(text)), _))) => Some(text),
        _ => None,
    }
}

/// Whether a call reads a text as a date or a time: `'today'` is another day elsewhere.
fn reads_moment(call: &ScalarFunction, schema: &DFSchema) -> bool {
    let result = || Expr::ScalarFunction(call.clone()).get_type(schema);
    call.func.name().starts_with("sepal_cast_")
        && call.args.first().is_some_and(|arg| is_text(arg, schema))
        && result().is_ok_and(|ty| match &ty {
            DataType::List(item) => item.data_type().is_temporal(),
            other => other.is_temporal(),
        })
}

fn is_text(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View))
}

/// `instant + interval`, `interval + instant`, `instant - interval`: whether the instant is the right operand, and its
/// type.
fn instant_and_span(binary: &BinaryExpr, schema: &DFSchema) -> Option<(bool, DataType)> {
    if !matches!(binary.op, Operator::Plus | Operator::Minus) {
        return None;
    }
    let (left, right) = (binary.left.get_type(schema).ok()?, binary.right.get_type(schema).ok()?);
    match (&left, &right) {
        (ty, DataType::Interval(_)) if is_instant(ty) => Some((false, left)),
        (DataType::Interval(_), ty) if is_instant(ty) && binary.op == Operator::Plus => Some((true, right)),
        _ => None,
    }
}

/// Whether a cast takes a zone away or gives one. Text names the zone that it is of.
fn crosses(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::List(from), DataType::List(to)) => crosses(from.data_type(), to.data_type()),
        (from, to) => !from.is_null() && !to.is_null() && holds_instants(from) != holds_instants(to),
    }
}

/// With the type that was promised, should that be of another unit.
fn fit(expr: Expr, wanted: &DataType, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(ty) if ty == *wanted => expr,
        _ => Expr::Cast(Cast::new(Box::new(expr), wanted.clone())),
    }
}

#[cfg(test)]
mod tests;
