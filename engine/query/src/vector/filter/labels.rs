//! Which rows of a segment have which value of a column: sorted values, and for each the positions of its rows.
//!
//! Made of columns that users have indexed (`USING btree` or `hash`, PRIMARY KEY, UNIQUE), on use, and kept by
//! [`super::bitmaps`]: then `user_id = $1` is a binary search and as many bits as there are rows, whatever `$1` is.
//! NULLs are nowhere among them. Values lie in the order in which Arrow compares them, text by bytes. Segments do not
//! change, so nothing here ever does.

use std::{cmp::Ordering, collections::HashMap, ops::Bound, ops::Range};

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use sepal_index::Bits;
use sepal_types::Result;

use super::{
    Selected,
    conditions::{Condition, Span, Value, has_labels},
};
use crate::error::arrow;

/// The rows of one column's values.
#[derive(Debug)]
pub(super) struct Labels {
    values: Values,
    /// Where in `positions` each value's rows begin, and one more; empty when each value has one row.
    starts: Vec<u32>,
    positions: Vec<u32>,
    /// The rows that have a value; `None` when all have.
    valued: Option<Selected>,
    rows: usize,
}

/// Distinct, ascending.
#[derive(Debug)]
enum Values {
    Whole(Vec<i64>),
    Wide(Vec<u128>),
    /// One after the other, and where each ends.
    Text {
        text: String,
        ends: Vec<u32>,
    },
}

/// What a column's labels are searched by, where it has them.
pub(super) type LabelsOf<'a> = dyn Fn(usize) -> Option<&'a Labels> + 'a;

impl Labels {
    /// `None` for a column of a type that has none, and when they would take more than `most_bytes`.
    pub fn build(column: &ArrayRef, most_bytes: usize) -> Result<Option<Self>> {
        let rows = column.len();
        let widest = match column.data_type() {
            DataType::Utf8 => 0,
            DataType::FixedSizeBinary(_) => size_of::<u128>(),
            _ => size_of::<i64>(),
        };
        if !has_labels(column.data_type()) || rows * (widest + size_of::<u32>()) > most_bytes {
            return Ok(None);
        }
        let found = match column.data_type() {
            DataType::Utf8 => of_text(column, most_bytes),
            DataType::FixedSizeBinary(_) => {
                let values = column.as_fixed_size_binary().iter();
                let wide = |bytes: &[u8]| bytes.try_into().map(u128::from_be_bytes).ok();
                let pairs = (0_u32..)
                    .zip(values)
                    .filter_map(|(position, value)| Some((value.and_then(wide)?, position)));
                let (values, starts, positions) = grouped(pairs.collect());
                Some((Values::Wide(values), starts, positions))
            }
            _ => {
                let whole = cast(column, &DataType::Int64).map_err(arrow)?;
                let pairs = (0_u32..)
                    .zip(whole.as_primitive::<Int64Type>().iter())
                    .filter_map(|(position, value)| Some((value?, position)));
                let (values, starts, positions) = grouped(pairs.collect());
                Some((Values::Whole(values), starts, positions))
            }
        };
        let Some((values, starts, positions)) = found else {
            return Ok(None);
        };
        let labels = Self { values, starts, positions, valued: Selected::valued(column), rows };
        Ok((labels.bytes() <= most_bytes).then_some(labels))
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Whole(values) => size_of_val(values.as_slice()),
            Values::Wide(values) => size_of_val(values.as_slice()),
            Values::Text { text, ends } => text.len() + size_of_val(ends.as_slice()),
        };
        let valued = self.valued.as_ref().map_or(0, Selected::bytes);
        size_of::<Self>()
            + values
            + size_of_val(self.starts.as_slice())
            + size_of_val(self.positions.as_slice())
            + valued
    }

    /// How many rows have a value in one of the spans. `None` for values of another type.
    fn count(&self, spans: &[Span]) -> Option<usize> {
        Some(self.places(spans)?.iter().map(ExactSizeIterator::len).sum())
    }

    /// Those rows, and how many of them were touched one by one.
    fn rows(&self, spans: &[Span]) -> Option<(Selected, usize)> {
        let places = self.places(spans)?;
        let inside: usize = places.iter().map(ExactSizeIterator::len).sum();
        let outside = self.positions.len() - inside;
        // The fewer bits are turned.
        if inside <= outside {
            let mut bits = Bits::new(self.rows);
            places.into_iter().for_each(|place| bits.set_all(&self.positions[place], true));
            return Some((Selected::counted(bits, inside), inside));
        }
        let mut bits = match &self.valued {
            Some(valued) => valued.bits().clone(),
            None => Bits::full(self.rows),
        };
        let mut end = 0;
        for place in places {
            bits.set_all(&self.positions[end..place.start], false);
            end = place.end;
        }
        bits.set_all(&self.positions[end..], false);
        Some((Selected::counted(bits, inside), outside))
    }

    /// The spans' rows in `positions`: ascending, apart from each other.
    fn places(&self, spans: &[Span]) -> Option<Vec<Range<usize>>> {
        let mut places: Vec<Range<usize>> = Vec::with_capacity(spans.len());
        for span in spans {
            let from = match &span.from {
                Bound::Unbounded => 0,
                Bound::Included(value) => self.values.first(value, Ordering::is_ge)?,
                Bound::Excluded(value) => self.values.first(value, Ordering::is_gt)?,
            };
            let to = match &span.to {
                Bound::Unbounded => self.values.len(),
                Bound::Included(value) => self.values.first(value, Ordering::is_gt)?,
                Bound::Excluded(value) => self.values.first(value, Ordering::is_ge)?,
            };
            if from < to {
                places.push(self.start(from)..self.start(to));
            }
        }
        places.sort_unstable_by_key(|place| place.start);
        places.dedup_by(|next, before| {
            let meet = next.start <= before.end;
            if meet {
                before.end = before.end.max(next.end);
            }
            meet
        });
        Some(places)
    }

    /// Where the rows of the `number`-th value begin.
    fn start(&self, number: usize) -> usize {
        self.starts.get(number).map_or(number, |start| *start as usize)
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Whole(values) => values.len(),
            Self::Wide(values) => values.len(),
            Self::Text { ends, .. } => ends.len(),
        }
    }

    /// The number of the first value of which `is_past` says that it is; all after it are. `None` for another type.
    fn first(&self, wanted: &Value, is_past: fn(Ordering) -> bool) -> Option<usize> {
        Some(match (self, wanted) {
            (Self::Whole(values), Value::Whole(wanted)) => {
                values.partition_point(|value| !is_past(value.cmp(wanted)))
            }
            (Self::Wide(values), Value::Wide(wanted)) => {
                values.partition_point(|value| !is_past(value.cmp(wanted)))
            }
            (Self::Text { text, ends }, Value::Text(wanted)) => {
                let value = |number: usize| {
                    let start = number.checked_sub(1).map_or(0, |before| ends[before] as usize);
                    &text.as_bytes()[start..ends[number] as usize]
                };
                let (mut from, mut to) = (0, ends.len());
                while from < to {
                    let middle = from.midpoint(to);
                    match is_past(value(middle).cmp(wanted.as_bytes())) {
                        true => to = middle,
                        false => from = middle + 1,
                    }
                }
                from
            }
            _ => return None,
        })
    }
}

impl Condition {
    /// At most as many rows as this are right. `None` where a column has no labels.
    pub fn estimate(&self, labels: &LabelsOf<'_>) -> Option<usize> {
        match self {
            Self::Within { column, spans } => labels(*column)?.count(spans),
            Self::All(all) => all.iter().map(|one| one.estimate(labels)).min().flatten(),
            Self::Any(any) => any.iter().map(|one| one.estimate(labels)).sum(),
        }
    }

    /// The rows for which it is true, and how many rows were touched one by one to find them. `None` where a column
    /// has no labels.
    pub fn rows(&self, labels: &LabelsOf<'_>) -> Option<(Selected, usize)> {
        let conditions = match self {
            Self::Within { column, spans } => return labels(*column)?.rows(spans),
            Self::All(conditions) | Self::Any(conditions) => conditions,
        };
        let mut combined: Option<(Selected, usize)> = None;
        for condition in conditions {
            let (rows, touched) = condition.rows(labels)?;
            combined = Some(match combined {
                None => (rows, touched),
                Some((before, all)) => match self {
                    Self::Any(_) => (before.or(&rows), all + touched),
                    _ => (before.and(&rows), all + touched),
                },
            });
        }
        combined
    }
}

type Grouped<V> = (Vec<V>, Vec<u32>, Vec<u32>);

/// Values with positions: the distinct values, where each one's rows begin, and the rows.
fn grouped<V: Copy + Ord>(mut pairs: Vec<(V, u32)>) -> Grouped<V> {
    pairs.sort_unstable();
    let (mut values, mut starts) = (Vec::new(), Vec::new());
    for (at, (value, _)) in (0_u32..).zip(&pairs) {
        if values.last() != Some(value) {
            values.push(*value);
            starts.push(at);
        }
    }
    let positions: Vec<u32> = pairs.into_iter().map(|(_, position)| position).collect();
    let starts = ended(starts, positions.len());
    values.shrink_to_fit();
    (values, starts, positions)
}

/// The starts with the end; none when each value has one row.
fn ended(mut starts: Vec<u32>, rows: usize) -> Vec<u32> {
    if starts.len() == rows {
        return Vec::new();
    }
    starts.push(u32::try_from(rows).unwrap_or(u32::MAX));
    starts.shrink_to_fit();
    starts
}

/// Distinct texts are found by hash and sorted then: a segment has many rows, and mostly few of those.
fn of_text(column: &ArrayRef, most_bytes: usize) -> Option<(Values, Vec<u32>, Vec<u32>)> {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut texts: Vec<(&str, u32)> = Vec::new();
    let mut of_rows: Vec<(u32, u32)> = Vec::new();
    let mut bytes = 0;
    for (position, text) in (0_u32..).zip(column.as_string::<i32>()) {
        let Some(text) = text else { continue };
        let next = u32::try_from(texts.len()).ok()?;
        let number = *numbers.entry(text).or_insert(next);
        if number == next {
            bytes += text.len() + 2 * size_of::<u32>();
            if bytes > most_bytes {
                return None;
            }
            texts.push((text, next));
        }
        of_rows.push((number, position));
    }
    drop(numbers);
    texts.sort_unstable();
    let mut ranks = vec![0_u32; texts.len()];
    let (mut text, mut ends) = (String::with_capacity(bytes), Vec::with_capacity(texts.len()));
    for (rank, (value, number)) in (0_u32..).zip(&texts) {
        ranks[*number as usize] = rank;
        text.push_str(value);
        ends.push(u32::try_from(text.len()).ok()?);
    }
    text.shrink_to_fit();
    let (starts, positions) = by_rank(&of_rows, &ranks);
    Some((Values::Text { text, ends }, starts, positions))
}

/// Rows, each with the number of its value, in the order of the values' ranks.
fn by_rank(of_rows: &[(u32, u32)], ranks: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0_u32; ranks.len()];
    for (number, _) in of_rows {
        starts[ranks[*number as usize] as usize] += 1;
    }
    let mut before = 0;
    for start in &mut starts {
        before += std::mem::replace(start, before);
    }
    let mut next = starts.clone();
    let mut positions = vec![0_u32; of_rows.len()];
    for (number, position) in of_rows {
        let place = &mut next[ranks[*number as usize] as usize];
        positions[*place as usize] = *position;
        *place += 1;
    }
    (ended(starts, positions.len()), positions)
}
