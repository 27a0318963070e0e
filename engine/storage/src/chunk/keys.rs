//! From key to position: what makes PRIMARY KEY and UNIQUE cheap to check.
//!
//! One map per chunk and constraint, built when first asked for, kept as long as the chunk: each insert asks those of
//! all chunks, and could not wait for them to be built again. Those of segments count for the cache of decoded columns,
//! which make room for them.
//!
//! Keys of one column up to 8 bytes wide are compared as words; all others as arrow-row bytes. A key with a NULL is in
//! no map: NULLs are distinct, as in Postgres' default. Equality is Postgres': -0 equals 0, NaN equals NaN, a month is
//! 30 days.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    ops::RangeInclusive,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array},
    buffer::NullBuffer,
    compute::unary,
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    },
    row::{RowConverter, Rows, SortField},
};
use sepal_types::{ColumnDef, ColumnId, TableDef, TenantId};

use super::{ColumnCache, cache::Counted};
use crate::{StoreError, arrow_types::arrow_type};

/// Which map: the key's columns with their types, since a retyped column compares differently.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyColumns(Vec<(ColumnId, DataType)>);

impl KeyColumns {
    pub(crate) fn new(def: &TableDef, columns: &[ColumnId]) -> Result<Self, StoreError> {
        let typed = |id: &ColumnId| find(def, *id).map(|column| (*id, arrow_type(&column.ty)));
        Ok(Self(columns.iter().map(typed).collect::<Result<_, _>>()?))
    }

    pub(crate) fn columns<'a>(&self, def: &'a TableDef) -> Result<Vec<&'a ColumnDef>, StoreError> {
        self.0.iter().map(|(id, _)| find(def, *id)).collect()
    }
}

fn find(def: &TableDef, id: ColumnId) -> Result<&ColumnDef, StoreError> {
    let missing = || {
        StoreError::Bug(format!("a constraint of table \"{}\" names column {id}, which it lacks", def.name))
    };
    def.column_by_id(id).ok_or_else(missing)
}

/// Keys with their positions: an open-addressing table of positions, compared through the keys themselves.
pub(crate) struct KeyMap {
    keys: Keys,
    /// The least and the greatest of the words: numbers that count up are in no older chunk, and that is seen without a
    /// look at its slots.
    range: RangeInclusive<u64>,
    nulls: Option<NullBuffer>,
    /// Position + 1, 0 for empty. A power of two long, at most half full.
    slots: Vec<u32>,
    /// From a position to the earlier one with the same key. Empty for most chunks: only deleted rows, or a
    /// constraint not checked yet, leave two rows with one key.
    earlier: HashMap<u32, u32>,
    /// Of a segment: it counts for the cache of columns.
    _counted: Option<Counted>,
}

enum Keys {
    Words(Vec<u64>),
    Bytes(Rows),
}

impl KeyMap {
    /// `arrays`: one per key column, of equal length.
    pub(crate) fn build(arrays: &[ArrayRef]) -> Result<Self, StoreError> {
        let mut map = Self::without_slots(arrays)?;
        map.slots = vec![0; (map.len() * 2).next_power_of_two().max(4)];
        for row in 0..map.rows() {
            if map.is_present(row) {
                map.insert(row);
            }
        }
        Ok(map)
    }

    /// A hash of every key without NULLs. Equal keys have equal hashes for as long as the process lives.
    pub(crate) fn hashes(arrays: &[ArrayRef]) -> Result<Vec<u64>, StoreError> {
        let map = Self::without_slots(arrays)?;
        Ok(map.present().map(|row| map.hash(row) as u64).collect())
    }

    /// Keys to look for in another map; nothing is found in this one.
    pub(crate) fn without_slots(arrays: &[ArrayRef]) -> Result<Self, StoreError> {
        let length = arrays.first().map_or(0, |array| array.len());
        if u32::try_from(length).is_err() {
            return Err(StoreError::Bug(format!("{length} keys in one chunk: at most 4,294,967,295 fit")));
        }
        let nulls = NullBuffer::union_many(
            arrays.iter().map(|array| array.logical_nulls()).collect::<Vec<_>>().iter().map(Option::as_ref),
        );
        let keys = match arrays {
            [single] => match words(single) {
                Some(words) => Keys::Words(words),
                None => Keys::Bytes(bytes(arrays)?),
            },
            _ => Keys::Bytes(bytes(arrays)?),
        };
        let range = match &keys {
            Keys::Words(words) => {
                let ends =
                    |(least, greatest): (u64, u64), word: &u64| (least.min(*word), greatest.max(*word));
                let (least, greatest) = words.iter().fold((u64::MAX, 0), ends);
                least..=greatest
            }
            Keys::Bytes(_) => 0..=u64::MAX,
        };
        Ok(Self { keys, range, nulls, slots: Vec::new(), earlier: HashMap::new(), _counted: None })
    }

    /// Counts it, for as long as it lives, as what a tenant holds of a segment.
    pub(crate) fn counted(self, cache: &Arc<ColumnCache>, tenant: TenantId) -> Self {
        let bytes = self.memory_bytes();
        Self { _counted: Some(cache.count(tenant, bytes)), ..self }
    }

    fn memory_bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Words(words) => words.capacity() * size_of::<u64>(),
            Keys::Bytes(rows) => rows.size(),
        };
        let nulls = self.nulls.as_ref().map_or(0, |nulls| nulls.len().div_ceil(8));
        let slots = self.slots.capacity() * size_of::<u32>();
        size_of::<Self>() + keys + nulls + slots + self.earlier.capacity() * size_of::<(u32, u32)>()
    }

    /// Keys, NULL ones included.
    pub(crate) fn len(&self) -> usize {
        match &self.keys {
            Keys::Words(words) => words.len(),
            Keys::Bytes(rows) => rows.num_rows(),
        }
    }

    fn rows(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    /// The positions whose key has no NULL.
    pub(crate) fn present(&self) -> impl Iterator<Item = u32> {
        (0..self.rows()).filter(|row| self.is_present(*row))
    }

    /// A position whose key stands at another position too.
    pub(crate) fn duplicate(&self) -> Option<u32> {
        self.earlier.keys().copied().min()
    }

    /// The positions here that have the key at `position` of `other`, which was built from the same types.
    pub(crate) fn find<'a>(&'a self, other: &KeyMap, position: u32) -> impl Iterator<Item = u32> + 'a {
        let far =
            matches!(&other.keys, Keys::Words(words) if !self.range.contains(&words[position as usize]));
        let first = if far { None } else { self.slots[self.slot_of(other, position)].checked_sub(1) };
        std::iter::successors(first, |position| self.earlier.get(position).copied())
    }

    fn insert(&mut self, position: u32) {
        let slot = self.slot_of(self, position);
        if let Some(earlier) = self.slots[slot].checked_sub(1) {
            self.earlier.insert(position, earlier);
        }
        self.slots[slot] = position + 1;
    }

    /// The slot that holds the key, or the empty one where it would go.
    fn slot_of(&self, other: &KeyMap, position: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = other.hash(position) & mask;
        while let Some(held) = self.slots[slot].checked_sub(1) {
            if self.same(held, other, position) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn same(&self, own: u32, other: &KeyMap, position: u32) -> bool {
        match (&self.keys, &other.keys) {
            (Keys::Words(a), Keys::Words(b)) => a[own as usize] == b[position as usize],
            (Keys::Bytes(a), Keys::Bytes(b)) => a.row(own as usize).data() == b.row(position as usize).data(),
            _ => false,
        }
    }

    /// Seeded per process: a tenant cannot choose keys that all meet in one slot.
    #[expect(clippy::cast_possible_truncation, reason = "a slot takes the low bits; any of them are as good")]
    fn hash(&self, position: u32) -> usize {
        match &self.keys {
            Keys::Words(words) => mix(words[position as usize] ^ seed().1) as usize,
            Keys::Bytes(rows) => seed().0.hash_one(rows.row(position as usize).data()) as usize,
        }
    }

    fn is_present(&self, position: u32) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(position as usize))
    }
}

fn seed() -> &'static (RandomState, u64) {
    static SEED: OnceLock<(RandomState, u64)> = OnceLock::new();
    SEED.get_or_init(|| {
        let state = RandomState::new();
        let number = state.hash_one(0u64);
        (state, number)
    })
}

/// The finalizer of MurmurHash3: every input bit reaches every output bit.
const fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

/// Values up to 8 bytes wide as words that are equal exactly when the values are.
fn words(array: &ArrayRef) -> Option<Vec<u64>> {
    macro_rules! integers {
        ($kind:ty) => {
            array
                .as_primitive::<$kind>()
                .values()
                .iter()
                .map(|value| i64::from(*value).cast_unsigned())
                .collect()
        };
    }
    Some(match array.data_type() {
        DataType::Int16 => integers!(Int16Type),
        DataType::Int32 => integers!(Int32Type),
        DataType::Int64 => integers!(Int64Type),
        DataType::Date32 => integers!(Date32Type),
        DataType::Time64(TimeUnit::Microsecond) => integers!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => integers!(TimestampMicrosecondType),
        DataType::Boolean => (0..array.len()).map(|row| u64::from(array.as_boolean().value(row))).collect(),
        DataType::Float32 => array
            .as_primitive::<Float32Type>()
            .values()
            .iter()
            .map(|value| one_zero(f64::from(*value)).to_bits())
            .collect(),
        DataType::Float64 => array
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .map(|value| one_zero(*value).to_bits())
            .collect(),
        _ => return None,
    })
}

/// One zero and one NaN.
fn one_zero(value: f64) -> f64 {
    if value == 0.0 {
        0.0
    } else if value.is_nan() {
        f64::NAN
    } else {
        value
    }
}

/// The row format is injective per type, so equal bytes are equal values.
fn bytes(arrays: &[ArrayRef]) -> Result<Rows, StoreError> {
    let arrays: Vec<ArrayRef> = arrays.iter().map(canonical).collect();
    let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?.convert_columns(&arrays)?)
}

/// Floats with one zero and one NaN, intervals as Postgres compares them; everything else as it is.
fn canonical(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            #[expect(clippy::cast_possible_truncation, reason = "widened from f32 a moment before")]
            let narrow = |value: f32| one_zero(f64::from(value)) as f32;
            Arc::new(unary::<_, _, Float32Type>(array.as_primitive::<Float32Type>(), narrow))
        }
        DataType::Float64 => {
            Arc::new(unary::<_, _, Float64Type>(array.as_primitive::<Float64Type>(), one_zero))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            let microseconds: Decimal128Array = unary::<_, _, Decimal128Type>(intervals, |interval| {
                let days = i128::from(interval.months) * 30 + i128::from(interval.days);
                days * 86_400_000_000 + i128::from(interval.nanoseconds) / 1_000
            });
            Arc::new(microseconds)
        }
        _ => Arc::clone(array),
    }
}
