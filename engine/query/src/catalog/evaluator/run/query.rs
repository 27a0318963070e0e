//! Queries: CTEs, set operations, select lists, ORDER BY, LIMIT.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use sepal_types::{Error, Result, SqlState};

use super::super::super::value::Value;
use super::super::plan::{Body, Cte, Distinct, Expr, Query, Select, SetKind, SetOperation, Sort, SortKey};
use super::{Frame, Row, Rows, Run};

/// Rows that a recursive query may make: catalogs have no hierarchy that is anywhere near as large.
const RECURSION_ROWS: usize = 100_000;

/// An output row and the values it is sorted by.
type Keyed = (Row, Row);

impl Run<'_> {
    pub(super) fn query(&self, query: &Query, outer: Option<&Frame<'_>>) -> Result<Rc<Rows>> {
        if !query.dependent
            && let Some(rows) = self.results.borrow().get(&query.id)
        {
            return Ok(Rc::clone(rows));
        }
        for cte in &query.ctes {
            let rows = self.cte(cte, outer)?;
            self.ctes.borrow_mut().insert(cte.id, rows);
        }
        let mut keyed = match &query.body {
            Body::Select(select) => self.select(select, &query.sort, outer)?,
            Body::Nested(inner) => keyed(Rc::unwrap_or_clone(self.query(inner, outer)?), &query.sort),
            Body::Set(operation) => keyed(self.set(operation, outer)?, &query.sort),
            Body::Values(values) => {
                let frame = Frame::new(&[], outer);
                let rows = values.iter().map(|row| self.all(row, &frame)).collect::<Result<Rows>>()?;
                keyed(rows, &query.sort)
            }
        };
        if !query.sort.is_empty() {
            keyed.sort_by(|left, right| compare_keys(&left.1, &right.1, &query.sort));
        }
        if let Body::Select(select) = &query.body {
            distinct(&mut keyed, select, query.sort.len());
        }
        let rows = keyed.into_iter().map(|(row, _)| row);
        let skip = self.count(query.offset.as_ref(), outer)?.unwrap_or(0);
        let take = self.count(query.limit.as_ref(), outer)?.unwrap_or(usize::MAX);
        let rows = Rc::new(rows.skip(skip).take(take).collect::<Rows>());
        if !query.dependent {
            self.results.borrow_mut().insert(query.id, Rc::clone(&rows));
        }
        Ok(rows)
    }

    /// LIMIT or OFFSET; NULL is none.
    fn count(&self, expr: Option<&Expr>, outer: Option<&Frame<'_>>) -> Result<Option<usize>> {
        let Some(expr) = expr else { return Ok(None) };
        match self.eval(expr, &Frame::new(&[], outer))?.as_int() {
            None => Ok(None),
            Some(count) => usize::try_from(count).map(Some).map_err(|_| {
                Error::new(SqlState::InvalidRowCountInLimitClause, "LIMIT and OFFSET must not be negative")
            }),
        }
    }

    fn cte(&self, cte: &Cte, outer: Option<&Frame<'_>>) -> Result<Rc<Rows>> {
        let base = self.query(&cte.query, outer)?;
        let Some(recursion) = &cte.recursion else { return Ok(base) };
        let mut seen: HashSet<Row> = HashSet::new();
        let mut fresh = |rows: &Rows| -> Rows {
            let new = rows.iter().filter(|row| recursion.all || seen.insert((*row).clone()));
            new.cloned().collect()
        };
        let mut working = fresh(&base);
        let mut all = working.clone();
        while !working.is_empty() {
            self.ctes.borrow_mut().insert(cte.id, Rc::new(std::mem::take(&mut working)));
            working = fresh(&*self.query(&recursion.step, outer)?);
            all.extend(working.iter().cloned());
            if all.len() > RECURSION_ROWS {
                let message = format!("recursive catalog query makes more than {RECURSION_ROWS} rows");
                let error = Error::new(SqlState::ProgramLimitExceeded, message);
                return Err(error.with_hint("Let the recursive part end, or use UNION instead of UNION ALL."));
            }
        }
        Ok(Rc::new(all))
    }

    fn set(&self, operation: &SetOperation, outer: Option<&Frame<'_>>) -> Result<Rows> {
        let left = self.side(&operation.left, operation, outer)?;
        let right = self.side(&operation.right, operation, outer)?;
        let mut rows = left;
        match operation.kind {
            SetKind::Union => rows.extend(right),
            SetKind::Except | SetKind::Intersect => {
                let mut counts: HashMap<Row, usize> = HashMap::new();
                for row in right {
                    *counts.entry(row).or_default() += 1;
                }
                let intersect = operation.kind == SetKind::Intersect;
                rows.retain(|row| match counts.get_mut(row) {
                    // ALL pairs each row with one of the other side; else presence is enough.
                    Some(count) if operation.all => {
                        let paired = *count > 0;
                        *count = count.saturating_sub(1);
                        paired == intersect
                    }
                    Some(_) => intersect,
                    None => !intersect,
                });
            }
        }
        if !operation.all {
            let mut seen: HashSet<Row> = HashSet::new();
            rows.retain(|row| seen.insert(row.clone()));
        }
        Ok(rows)
    }

    fn side(&self, query: &Query, operation: &SetOperation, outer: Option<&Frame<'_>>) -> Result<Rows> {
        let mut rows = Rc::unwrap_or_clone(self.query(query, outer)?);
        for (place, (column, to)) in query.columns.iter().zip(&operation.types).enumerate() {
            if column.ty.class() == to.class() && column.ty.reg() == to.reg() {
                continue;
            }
            for row in &mut rows {
                let value = std::mem::replace(&mut row[place], Value::Null);
                row[place] = self.cast(value, &column.ty, to)?;
            }
        }
        Ok(rows)
    }

    fn select(&self, select: &Select, sort: &[Sort], outer: Option<&Frame<'_>>) -> Result<Vec<Keyed>> {
        let mut rows = self.from(&select.from, outer)?;
        if !select.filter.is_empty() {
            let mut kept = Rows::new();
            for row in rows {
                if self.holds(&select.filter, &Frame::new(&row, outer))? {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        let mut out = Vec::new();
        match &select.group {
            Some(group) => {
                for (row, aggregates) in self.groups(select, group, &rows, outer)? {
                    let frame = Frame { aggregates: &aggregates, ..Frame::new(&row, outer) };
                    if let Some(having) = &select.having
                        && self.eval(having, &frame)?.as_bool() != Some(true)
                    {
                        continue;
                    }
                    self.project(select, sort, &frame, &mut out)?;
                }
            }
            None => {
                let windows = self.windows(select, &rows, outer)?;
                for (place, row) in rows.iter().enumerate() {
                    let windows = windows.get(place).map_or(&[][..], Vec::as_slice);
                    let frame = Frame { windows, ..Frame::new(row, outer) };
                    self.project(select, sort, &frame, &mut out)?;
                }
            }
        }
        Ok(out)
    }

    /// The output rows of one input row: several, or none, when the select list calls a function that
    /// returns rows.
    fn project(&self, select: &Select, sort: &[Sort], frame: &Frame<'_>, out: &mut Vec<Keyed>) -> Result<()> {
        if select.sets.is_empty() {
            return self.output(select, sort, frame, out);
        }
        let mut lists = Vec::new();
        for call in &select.sets {
            lists.push(self.set_rows(call, frame)?);
        }
        let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
        for place in 0..longest {
            let sets: Row =
                lists.iter().map(|list| list.get(place).cloned().unwrap_or(Value::Null)).collect();
            self.output(select, sort, &Frame { sets: &sets, ..*frame }, out)?;
        }
        Ok(())
    }

    fn output(&self, select: &Select, sort: &[Sort], frame: &Frame<'_>, out: &mut Vec<Keyed>) -> Result<()> {
        self.spend()?;
        let row = self.all(&select.output, frame)?;
        let mut keys = Row::new();
        for key in sort {
            keys.push(match &key.key {
                SortKey::Output(place) => row[*place].clone(),
                SortKey::Expr(expr) => self.eval(expr, frame)?,
            });
        }
        if let Distinct::On(distinct) = &select.distinct {
            keys.extend(self.all(distinct, frame)?);
        }
        out.push((row, keys));
        Ok(())
    }

    pub(super) fn all(&self, exprs: &[Expr], frame: &Frame<'_>) -> Result<Row> {
        exprs.iter().map(|expr| self.eval(expr, frame)).collect()
    }

    /// Whether all conditions are true.
    pub(super) fn holds(&self, conditions: &[Expr], frame: &Frame<'_>) -> Result<bool> {
        for condition in conditions {
            if self.eval(condition, frame)?.as_bool() != Some(true) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Rows with the keys of an ORDER BY that names outputs only.
fn keyed(rows: Rows, sort: &[Sort]) -> Vec<Keyed> {
    let key = |row: &Row, sort: &Sort| match &sort.key {
        SortKey::Output(place) => row[*place].clone(),
        SortKey::Expr(_) => Value::Null,
    };
    rows.into_iter().map(|row| (row.clone(), sort.iter().map(|sort| key(&row, sort)).collect())).collect()
}

fn compare_keys(left: &[Value], right: &[Value], sort: &[Sort]) -> Ordering {
    let pairs = left.iter().zip(right).zip(sort);
    pairs
        .map(|((left, right), sort)| compare(left, right, sort.descending, sort.nulls_first))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

pub(super) fn compare(left: &Value, right: &Value, descending: bool, nulls_first: bool) -> Ordering {
    match (left.is_null(), right.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => {
            if nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) if descending => right.order(left),
        (false, false) => left.order(right),
    }
}

/// Keeps the first of equal rows, or of rows with equal `DISTINCT ON` keys, which stand after the sort keys.
fn distinct(keyed: &mut Vec<Keyed>, select: &Select, sort_keys: usize) {
    let mut seen: HashSet<Row> = HashSet::new();
    match &select.distinct {
        Distinct::No => {}
        Distinct::Rows => keyed.retain(|(row, _)| seen.insert(row.clone())),
        Distinct::On(_) => keyed.retain(|(_, keys)| seen.insert(keys[sort_keys..].to_vec())),
    }
}
