//! FROM: items one after the other, each joined to the rows so far.

use std::collections::HashMap;
use std::rc::Rc;

use sepal_types::{Error, Result, SqlState};

use super::super::super::names::RESERVED;
use super::super::super::shape::{DEAD_LETTERS, PG_CATALOG, shape};
use super::super::super::value::Value;
use super::super::plan::{From, Join, SetCall, SetFunction, Source, Step};
use super::{Frame, Row, Rows, Run};

/// The rows of an item that a row so far may be joined with.
enum Candidates {
    All,
    /// Places of the item's rows, by the values of the join's keys.
    ByKey(HashMap<Row, Vec<usize>>),
}

impl Run<'_> {
    pub(super) fn from(&self, from: &From, outer: Option<&Frame<'_>>) -> Result<Rows> {
        let mut rows: Rows = vec![vec![Value::Null; from.base]];
        for step in &from.steps {
            rows = self.join(rows, step, outer)?;
        }
        Ok(rows)
    }

    fn join(&self, left: Rows, step: &Step, outer: Option<&Frame<'_>>) -> Result<Rows> {
        if step.lateral {
            return self.join_lateral(left, step, outer);
        }
        let right = self.source(&step.source, None, outer)?;
        let right = self.own_rows(right, step, outer)?;
        let candidates = self.candidates(&right, step, outer)?;
        let mut matched = vec![false; right.len()];
        let mut out = Rows::new();
        for row in left {
            let frame = Frame::new(&row, outer);
            let mut any = false;
            let mut visit = |place: usize| -> Result<()> {
                self.spend()?;
                let joined: Row = row.iter().chain(&right[place]).cloned().collect();
                if self.holds(&step.on, &Frame::new(&joined, outer))? {
                    any = true;
                    matched[place] = true;
                    out.push(joined);
                }
                Ok(())
            };
            match &candidates {
                Candidates::All => (0..right.len()).try_for_each(&mut visit)?,
                Candidates::ByKey(places) => {
                    let key: Row =
                        step.keys.iter().map(|(left, _)| self.eval(left, &frame)).collect::<Result<_>>()?;
                    let places = places.get(&key).map_or(&[][..], Vec::as_slice);
                    places.iter().copied().try_for_each(&mut visit)?;
                }
            }
            if !any && matches!(step.kind, Join::Left | Join::Full) {
                out.push(padded(row, step.width));
            }
        }
        if matches!(step.kind, Join::Right | Join::Full) {
            let lonely = right.iter().zip(&matched).filter(|(_, matched)| !**matched);
            out.extend(lonely.map(|(row, _)| {
                let mut joined = vec![Value::Null; step.offset];
                joined.extend_from_slice(row);
                joined
            }));
        }
        self.filtered(out, step, outer)
    }

    fn join_lateral(&self, left: Rows, step: &Step, outer: Option<&Frame<'_>>) -> Result<Rows> {
        let mut out = Rows::new();
        for row in left {
            let frame = Frame::new(&row, outer);
            let mut any = false;
            for right in self.source(&step.source, Some(&frame), outer)?.iter() {
                self.spend()?;
                let joined: Row = row.iter().chain(right).cloned().collect();
                let frame = Frame::new(&joined, outer);
                if self.holds(&step.own, &frame)? && self.holds(&step.on, &frame)? {
                    any = true;
                    out.push(joined);
                }
            }
            if !any && matches!(step.kind, Join::Left | Join::Full) {
                out.push(padded(row, step.width));
            }
        }
        self.filtered(out, step, outer)
    }

    fn filtered(&self, rows: Rows, step: &Step, outer: Option<&Frame<'_>>) -> Result<Rows> {
        if step.filter.is_empty() {
            return Ok(rows);
        }
        let mut kept = Rows::new();
        for row in rows {
            if self.holds(&step.filter, &Frame::new(&row, outer))? {
                kept.push(row);
            }
        }
        Ok(kept)
    }

    /// The item's rows that its own conditions let through.
    fn own_rows(&self, rows: Rc<Rows>, step: &Step, outer: Option<&Frame<'_>>) -> Result<Rc<Rows>> {
        if step.own.is_empty() {
            return Ok(rows);
        }
        let mut kept = Rows::new();
        for row in rows.iter() {
            self.spend()?;
            if self.holds(&step.own, &Frame::new(&shifted(row, step.offset), outer))? {
                kept.push(row.clone());
            }
        }
        Ok(Rc::new(kept))
    }

    fn candidates(&self, rows: &Rows, step: &Step, outer: Option<&Frame<'_>>) -> Result<Candidates> {
        if step.keys.is_empty() {
            return Ok(Candidates::All);
        }
        let mut places: HashMap<Row, Vec<usize>> = HashMap::new();
        for (place, row) in rows.iter().enumerate() {
            self.spend()?;
            let row = shifted(row, step.offset);
            let frame = Frame::new(&row, outer);
            let key: Row = step.keys.iter().map(|(_, own)| self.eval(own, &frame)).collect::<Result<_>>()?;
            // NULL equals nothing.
            if !key.iter().any(Value::is_null) {
                places.entry(key).or_default().push(place);
            }
        }
        Ok(Candidates::ByKey(places))
    }

    /// An item's rows. `beside` is the row of the items before it, for lateral ones.
    fn source(
        &self,
        source: &Source,
        beside: Option<&Frame<'_>>,
        outer: Option<&Frame<'_>>,
    ) -> Result<Rc<Rows>> {
        match source {
            Source::Relation(shape) => {
                let key = (shape.relation.schema, shape.relation.name);
                if let Some(rows) = self.relations.borrow().get(&key) {
                    return Ok(Rc::clone(rows));
                }
                let mut rows = shape.rows(self.context)?;
                for row in &mut rows {
                    // tableoid, xmin, ctid
                    row.extend([shape.relation.oid.into(), Value::Int(1), Value::text("(0,1)")]);
                }
                let rows = Rc::new(rows);
                self.relations.borrow_mut().insert(key, Rc::clone(&rows));
                Ok(rows)
            }
            Source::Cte(id) => match self.ctes.borrow().get(id) {
                Some(rows) => Ok(Rc::clone(rows)),
                None => Err(Error::bug("a common table expression was read before it was made")),
            },
            // A lateral query sees the items before it as its enclosing query's row.
            Source::Query(query) => self.query(query, beside.or(outer)),
            Source::Join(from) => {
                let rows = match beside {
                    Some(frame) => {
                        let mut rows: Rows = vec![frame.row.to_vec()];
                        for step in &from.steps {
                            rows = self.join(rows, step, outer)?;
                        }
                        rows
                    }
                    None => self.from(from, outer)?,
                };
                Ok(Rc::new(rows.into_iter().map(|mut row| row.split_off(from.base)).collect()))
            }
            Source::Function { call, ordinality } => {
                let none = Frame::new(&[], outer);
                let values = self.set_rows(call, beside.unwrap_or(&none))?;
                let rows = (1_i64..).zip(values).map(|(number, value)| {
                    let mut row = match value {
                        Value::Record(fields) => fields.to_vec(),
                        value => vec![value],
                    };
                    if *ordinality {
                        row.push(Value::Int(number));
                    }
                    row
                });
                Ok(Rc::new(rows.collect()))
            }
        }
    }

    /// The values that a set-returning function gives.
    pub(super) fn set_rows(&self, call: &SetCall, frame: &Frame<'_>) -> Result<Vec<Value>> {
        let arguments = self.all(&call.arguments, frame)?;
        let list = || arguments.first().and_then(Value::as_list).unwrap_or_default();
        Ok(match call.function {
            SetFunction::One => arguments,
            SetFunction::Unnest => list().to_vec(),
            SetFunction::UnnestTogether => {
                let lists: Vec<&[Value]> =
                    arguments.iter().map(|value| value.as_list().unwrap_or_default()).collect();
                let longest = lists.iter().map(|list| list.len()).max().unwrap_or(0);
                let row = |place: usize| {
                    let fields = lists.iter().map(|list| list.get(place).cloned().unwrap_or(Value::Null));
                    Value::Record(fields.collect())
                };
                (0..longest).map(row).collect()
            }
            SetFunction::ExpandArray => (1_i64..)
                .zip(list())
                .map(|(number, value)| Value::Record([value.clone(), Value::Int(number)].into()))
                .collect(),
            SetFunction::GenerateSubscripts(lower) => {
                let first_dimension = arguments.get(1).and_then(Value::as_int) == Some(1);
                let numbers = (lower..).zip(list()).map(|(number, _)| Value::Int(number));
                if first_dimension { numbers.collect() } else { Vec::new() }
            }
            SetFunction::GenerateSeries => self.series(&arguments)?,
            SetFunction::Keywords => RESERVED.iter().map(|word| keyword(word)).collect(),
            SetFunction::OptionsToTable => {
                list().iter().map(|option| option_row(&option.to_text())).collect()
            }
            SetFunction::SinkErrors => self.sink_errors(arguments.first())?,
            // Access lists are all NULL: the owner's rights need no list.
            SetFunction::AclExplode => Vec::new(),
        })
    }

    /// The rows of a pipeline's dead letters; of no pipeline for NULL.
    fn sink_errors(&self, pipeline: Option<&Value>) -> Result<Vec<Value>> {
        let letters = shape(PG_CATALOG, DEAD_LETTERS);
        let (letters, place) = letters
            .and_then(|letters| Some((letters, letters.position("pipeline")?)))
            .ok_or_else(|| Error::bug(format!("{DEAD_LETTERS} has no column pipeline")))?;
        let Some(pipeline) = pipeline.filter(|pipeline| !pipeline.is_null()) else {
            return Ok(Vec::new());
        };
        let rows = letters.rows(self.context)?.into_iter().filter(|row| row[place] == *pipeline);
        Ok(rows.map(|row| Value::Record(row.into())).collect())
    }

    fn series(&self, arguments: &[Value]) -> Result<Vec<Value>> {
        let number = |place: usize| arguments.get(place).map(Value::as_int);
        let (Some(Some(start)), Some(Some(stop))) = (number(0), number(1)) else { return Ok(Vec::new()) };
        let step = match number(2) {
            None => 1,
            Some(None) => return Ok(Vec::new()),
            Some(Some(0)) => {
                return Err(Error::new(SqlState::InvalidParameterValue, "step size cannot equal zero"));
            }
            Some(Some(step)) => step,
        };
        let mut values = Vec::new();
        let mut at = Some(start);
        while let Some(value) = at.filter(|value| if step > 0 { *value <= stop } else { *value >= stop }) {
            self.spend()?;
            values.push(Value::Int(value));
            at = value.checked_add(step);
        }
        Ok(values)
    }
}

fn keyword(word: &str) -> Value {
    let fields = [word.into(), "R".into(), true.into(), "reserved".into(), Value::text("can be bare label")];
    Value::Record(fields.into())
}

fn option_row(option: &str) -> Value {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    Value::Record([Value::text(name), Value::text(value)].into())
}

/// The row with NULLs for an item that nothing matched.
fn padded(mut row: Row, width: usize) -> Row {
    row.resize(row.len() + width, Value::Null);
    row
}

/// An item's row at its place in the joined row, so that its expressions find it.
fn shifted(row: &[Value], offset: usize) -> Row {
    let mut shifted = vec![Value::Null; offset];
    shifted.extend_from_slice(row);
    shifted
}
