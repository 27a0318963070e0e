//! GROUP BY, aggregates and window numbering.

use std::collections::{HashMap, HashSet};

use sepal_types::Result;

use super::super::super::functions::render;
use super::super::super::value::Value;
use super::super::plan::{Aggregate, AggregateKind, Expr, Select, WindowKind};
use super::query::compare;
use super::{Frame, Row, Rows, Run};

impl Run<'_> {
    /// For each group a row of it, which stands for what the group has in common, and its aggregates.
    pub(super) fn groups(
        &self,
        select: &Select,
        keys: &[Expr],
        rows: &Rows,
        outer: Option<&Frame<'_>>,
    ) -> Result<Vec<(Row, Vec<Value>)>> {
        let mut places: HashMap<Row, usize> = HashMap::new();
        let mut groups: Vec<Vec<&Row>> = Vec::new();
        for row in rows {
            self.spend()?;
            let key = self.all(keys, &Frame::new(row, outer))?;
            let place = *places.entry(key).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[place].push(row);
        }
        if groups.is_empty() && keys.is_empty() {
            groups.push(Vec::new());
        }
        let mut out = Vec::with_capacity(groups.len());
        for group in groups {
            let mut values = Vec::with_capacity(select.aggregates.len());
            for aggregate in &select.aggregates {
                values.push(self.aggregate(aggregate, &group, outer)?);
            }
            out.push((group.first().map_or_else(Row::new, |row| (*row).clone()), values));
        }
        Ok(out)
    }

    fn aggregate(&self, aggregate: &Aggregate, group: &[&Row], outer: Option<&Frame<'_>>) -> Result<Value> {
        let mut inputs: Vec<(Row, Row)> = Vec::new();
        let mut seen: HashSet<Row> = HashSet::new();
        for row in group {
            let frame = Frame::new(row, outer);
            if let Some(filter) = &aggregate.filter
                && self.eval(filter, &frame)?.as_bool() != Some(true)
            {
                continue;
            }
            let arguments = self.all(&aggregate.arguments, &frame)?;
            if aggregate.distinct && !seen.insert(arguments.clone()) {
                continue;
            }
            let keys = aggregate.order.iter().map(|(key, ..)| self.eval(key, &frame));
            inputs.push((arguments, keys.collect::<Result<_>>()?));
        }
        inputs.sort_by(|left, right| {
            let pairs = left.1.iter().zip(&right.1).zip(&aggregate.order);
            let mut orders = pairs.map(|((left, right), (_, descending, nulls_first))| {
                compare(left, right, *descending, *nulls_first)
            });
            orders.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
        });
        Ok(folded(aggregate.kind, inputs.into_iter().map(|(arguments, _)| arguments).collect()))
    }

    /// For each row the value of each window function.
    pub(super) fn windows(
        &self,
        select: &Select,
        rows: &Rows,
        outer: Option<&Frame<'_>>,
    ) -> Result<Vec<Vec<Value>>> {
        if select.windows.is_empty() {
            return Ok(Vec::new());
        }
        let mut out: Vec<Vec<Value>> = vec![Vec::new(); rows.len()];
        for window in &select.windows {
            let mut keyed: Vec<(usize, Row, Row)> = Vec::new();
            for (place, row) in rows.iter().enumerate() {
                let frame = Frame::new(row, outer);
                let order: Row =
                    window.order.iter().map(|(key, ..)| self.eval(key, &frame)).collect::<Result<_>>()?;
                keyed.push((place, self.all(&window.partition, &frame)?, order));
            }
            keyed.sort_by(|left, right| {
                let partition = left.1.iter().zip(&right.1).map(|(left, right)| left.order_with_nulls(right));
                let order = left.2.iter().zip(&right.2).zip(&window.order).map(
                    |((left, right), (_, descending, nulls_first))| {
                        compare(left, right, *descending, *nulls_first)
                    },
                );
                partition.chain(order).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
            });
            number(window.kind, &keyed, &mut out);
        }
        Ok(out)
    }
}

/// Numbers sorted rows within their partitions.
fn number(kind: WindowKind, keyed: &[(usize, Row, Row)], out: &mut [Vec<Value>]) {
    let (mut row, mut rank, mut dense) = (0_i64, 0_i64, 0_i64);
    for (at, (place, partition, order)) in keyed.iter().enumerate() {
        let previous = at.checked_sub(1).map(|before| &keyed[before]);
        if previous.is_none_or(|(_, before, _)| before != partition) {
            (row, rank, dense) = (0, 0, 0);
        }
        row += 1;
        let peer = row > 1 && previous.is_some_and(|(_, _, before)| before == order);
        if !peer {
            (rank, dense) = (row, dense + 1);
        }
        out[*place].push(Value::Int(match kind {
            WindowKind::DenseRank => dense,
            WindowKind::Rank => rank,
            WindowKind::RowNumber => row,
        }));
    }
}

/// The aggregate over its inputs, which are in order and distinct if they have to be.
fn folded(kind: AggregateKind, inputs: Vec<Row>) -> Value {
    if kind == AggregateKind::CountRows {
        return inputs.len().into();
    }
    let separator = inputs.first().and_then(|row| row.get(1)).map(Value::to_text).unwrap_or_default();
    let all: Vec<Value> = inputs.into_iter().filter_map(|row| row.into_iter().next()).collect();
    // These keep NULLs, and are NULL over no rows.
    match kind {
        AggregateKind::ArrayAgg if all.is_empty() => return Value::Null,
        AggregateKind::ArrayAgg => return Value::List(all.into()),
        AggregateKind::JsonAgg if all.is_empty() => return Value::Null,
        AggregateKind::JsonAgg => {
            let items: Vec<String> = all.iter().map(render).collect();
            return Value::text(format!("[{}]", items.join(", ")));
        }
        _ => {}
    }
    let values: Vec<Value> = all.into_iter().filter(|value| !value.is_null()).collect();
    if kind == AggregateKind::Count {
        return values.len().into();
    }
    if values.is_empty() {
        return Value::Null;
    }
    match kind {
        AggregateKind::Max => values.into_iter().max_by(Value::order).into(),
        AggregateKind::Min => values.into_iter().min_by(Value::order).into(),
        AggregateKind::BoolAnd => values.iter().all(|value| value.as_bool() == Some(true)).into(),
        AggregateKind::BoolOr => values.iter().any(|value| value.as_bool() == Some(true)).into(),
        AggregateKind::StringAgg => {
            let texts: Vec<String> = values.iter().map(Value::to_text).collect();
            texts.join(&separator).into()
        }
        AggregateKind::Sum if values.iter().all(|value| matches!(value, Value::Int(_))) => {
            values.iter().filter_map(Value::as_int).fold(0_i64, i64::saturating_add).into()
        }
        AggregateKind::Sum => values.iter().filter_map(Value::as_float).sum::<f64>().into(),
        AggregateKind::Average => mean(&values).into(),
        AggregateKind::ArrayAgg
        | AggregateKind::Count
        | AggregateKind::CountRows
        | AggregateKind::JsonAgg => Value::Null,
    }
}

fn mean(values: &[Value]) -> f64 {
    values.iter().filter_map(Value::as_float).sum::<f64>() / values.len() as f64
}
