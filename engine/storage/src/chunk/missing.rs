//! What rows have in a column that was added after them: `missing`, or NULL.
//!
//! Called by [`super::Chunk::column`], and where a column is added; plans ask what it costs to write it into every row.
//! Reads the text forms that Postgres prints, which is what the planner stores in [`ColumnDef::missing`]; a value that
//! does not read is a bug, not a user's error.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, AsArray, BinaryArray, Date32Array, FixedSizeBinaryArray, FixedSizeListArray, Int32Array,
        ListArray, PrimitiveArray, StringArray, TimestampMicrosecondArray, UInt8Array, UInt32Array,
        new_null_array,
    },
    buffer::OffsetBuffer,
    compute::{self, CastOptions},
    datatypes::{
        ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, TimeUnit, TimestampMicrosecondType,
    },
};
use sepal_crypto::unhex;
use sepal_types::{
    BitString, ColumnDef, SparseVector, SqlType, VectorElement, days_from_civil, days_in_month,
    parse_elements,
};

use crate::{
    StoreError,
    arrow_types::arrow_type,
    row_bytes::{varies, varying_bytes},
};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Whether the value of rows that are older than the column reads, and a chunk of so many can have it in each: what no
/// offset reaches nobody could read.
///
/// Errors: [`StoreError::Bug`]; [`StoreError::DefaultTooLarge`].
pub(crate) fn check_missing(column: &ColumnDef, rows: u32) -> Result<(), StoreError> {
    let single = constant(column, 1)?;
    let bytes = varying_bytes(single.as_ref()) as u64 * u64::from(rows);
    if i32::try_from(bytes).is_ok() {
        return Ok(());
    }
    Err(StoreError::DefaultTooLarge { column: column.name.clone(), rows })
}

/// Bytes a row that [`constant`] gives, about, for those of the columns whose values vary in length.
pub(crate) fn default_bytes<'a>(columns: impl IntoIterator<Item = &'a ColumnDef>) -> u64 {
    let columns = columns.into_iter().filter_map(|column| Some((column, column.missing.as_ref()?)));
    let varying = columns.filter(|(column, _)| varies(&arrow_type(&column.ty)));
    // An element of a vector has four bytes, and in the text of one two characters at least.
    varying.map(|(_, text)| 2 * text.len() as u64).sum()
}

/// The column for `rows` rows that do not have it.
pub(super) fn constant(column: &ColumnDef, rows: usize) -> Result<ArrayRef, StoreError> {
    let Some(text) = &column.missing else {
        return Ok(new_null_array(&arrow_type(&column.ty), rows));
    };
    let single = parse(&column.ty, &[Some(text.clone())]).map_err(|why| {
        StoreError::Bug(format!("column \"{}\" has the missing value '{text}': {why}", column.name))
    })?;
    let zeros = UInt32Array::from_value(0, rows);
    Ok(compute::take(&single, &zeros, None)?)
}

fn parse(ty: &SqlType, texts: &[Option<String>]) -> Result<ArrayRef, String> {
    match ty {
        SqlType::Uuid => {
            let values = each(texts, |text| {
                bytes(&text.replace(['-', '{', '}'], "")).filter(|bytes| bytes.len() == 16)
            })?;
            let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16);
            Ok(Arc::new(array.map_err(|error| error.to_string())?))
        }
        SqlType::Bytea => {
            let values = each(texts, |text| text.strip_prefix("\\x").and_then(bytes))?;
            Ok(Arc::new(BinaryArray::from_iter(values)))
        }
        SqlType::Bit(Some(length)) => bits(ty, *length, texts),
        SqlType::HalfVec(_) => vectors::<Float16Type>(ty, texts),
        SqlType::Vector(_) => vectors::<Float32Type>(ty, texts),
        SqlType::SparseVec(_) => sparse_vectors(ty, texts),
        SqlType::Enum(of) => {
            let places = each(texts, |text| of.place(text).ok().map(u64::to_be_bytes))?;
            let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(places.into_iter(), 8);
            Ok(Arc::new(array.map_err(|error| error.to_string())?))
        }
        SqlType::Array(element) => lists(element, texts),
        SqlType::Timestamptz => {
            // Arrow parses offsets but not zone names; the instant is the same.
            let zone = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
            let instants = match cast(texts, &zone) {
                Ok(parsed) => parsed.as_primitive::<TimestampMicrosecondType>().clone(),
                Err(_) => TimestampMicrosecondArray::from(each(texts, instant)?),
            };
            Ok(Arc::new(instants.with_timezone("UTC")))
        }
        SqlType::Timestamp => cast(texts, &arrow_type(ty))
            .or_else(|_| Ok(Arc::new(TimestampMicrosecondArray::from(each(texts, instant)?)) as ArrayRef)),
        SqlType::Date => cast(texts, &arrow_type(ty))
            .or_else(|_| Ok(Arc::new(Date32Array::from(each(texts, date)?)) as ArrayRef)),
        other => cast(texts, &arrow_type(other)),
    }
}

fn cast(texts: &[Option<String>], to: &DataType) -> Result<ArrayRef, String> {
    let strings: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    compute::cast_with_options(&strings, to, &options).map_err(|error| error.to_string())
}

fn vectors<E>(ty: &SqlType, texts: &[Option<String>]) -> Result<ArrayRef, String>
where
    E: ArrowPrimitiveType<Native: VectorElement>,
{
    let parsed = each(texts, |text| parse_elements::<E::Native>(text).ok())?;
    let nulls = parsed.iter().map(Option::is_some).collect::<Vec<_>>().into();
    let array: Result<ArrayRef, _> = match arrow_type(ty) {
        DataType::FixedSizeList(item, dimensions) => {
            let width = usize::try_from(dimensions).unwrap_or(0);
            let rows = parsed.into_iter().map(|row| row.unwrap_or_else(|| vec![E::Native::default(); width]));
            let values = Arc::new(PrimitiveArray::<E>::from_iter_values(rows.flatten()));
            FixedSizeListArray::try_new(item, dimensions, values, Some(nulls))
                .map(|array| Arc::new(array) as _)
        }
        DataType::List(item) => {
            let rows: Vec<Vec<E::Native>> = parsed.into_iter().map(Option::unwrap_or_default).collect();
            let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
            let values = Arc::new(PrimitiveArray::<E>::from_iter_values(rows.into_iter().flatten()));
            ListArray::try_new(item, offsets, values, Some(nulls)).map(|array| Arc::new(array) as _)
        }
        other => return Err(format!("vectors are stored as lists, not as {other}")),
    };
    array.map_err(|error| error.to_string())
}

fn bits(ty: &SqlType, length: u32, texts: &[Option<String>]) -> Result<ArrayRef, String> {
    let DataType::FixedSizeList(item, size) = arrow_type(ty) else {
        return Err(format!("{} has no fixed length", ty.display_name()));
    };
    let parsed = each(texts, |text| BitString::parse(text).ok())?;
    let nulls = parsed.iter().map(Option::is_some).collect::<Vec<_>>().into();
    let rows = parsed.into_iter().map(|row| BitString::resized(&row.unwrap_or_default().bytes, length));
    let values = Arc::new(UInt8Array::from_iter_values(rows.flatten()));
    let array =
        FixedSizeListArray::try_new(item, size, values, Some(nulls)).map_err(|error| error.to_string())?;
    Ok(Arc::new(array))
}

fn sparse_vectors(ty: &SqlType, texts: &[Option<String>]) -> Result<ArrayRef, String> {
    let DataType::List(item) = arrow_type(ty) else {
        return Err(format!("{} is no list", ty.display_name()));
    };
    let parsed = each(texts, |text| SparseVector::parse(text, None).ok())?;
    let nulls = parsed.iter().map(Option::is_some).collect::<Vec<_>>().into();
    let rows: Vec<Vec<i32>> = parsed
        .iter()
        .map(|row| {
            let mut words = Vec::new();
            row.iter().for_each(|vector| vector.append_words(&mut words));
            words
        })
        .collect();
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    let values = Arc::new(Int32Array::from_iter_values(rows.into_iter().flatten()));
    let array = ListArray::try_new(item, offsets, values, Some(nulls)).map_err(|error| error.to_string())?;
    Ok(Arc::new(array))
}

fn lists(element: &SqlType, texts: &[Option<String>]) -> Result<ArrayRef, String> {
    let parsed = each(texts, elements)?;
    let nulls = parsed.iter().map(Option::is_some).collect::<Vec<_>>().into();
    let rows: Vec<Vec<Option<String>>> = parsed.into_iter().map(Option::unwrap_or_default).collect();
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    let values = parse(element, &rows.into_iter().flatten().collect::<Vec<_>>())?;
    let item = Arc::new(Field::new("item", arrow_type(element), true));
    let array = ListArray::try_new(item, offsets, values, Some(nulls)).map_err(|error| error.to_string())?;
    Ok(Arc::new(array))
}

/// The elements of a one-dimensional array in Postgres' text form: `{1,NULL,"a,b"}`.
fn elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut found = Vec::new();
    let mut characters = inner.chars().peekable();
    while characters.peek().is_some() {
        let mut value = String::new();
        let mut quoted = false;
        let mut inside = false;
        while let Some(character) = characters.next() {
            match character {
                '\\' => value.push(characters.next()?),
                '"' => {
                    quoted = true;
                    inside = !inside;
                }
                ',' if !inside => break,
                other => value.push(other),
            }
        }
        let null = !quoted && value.eq_ignore_ascii_case("null");
        found.push((!null).then_some(value));
    }
    Some(found)
}

fn each<T>(texts: &[Option<String>], read: impl Fn(&str) -> Option<T>) -> Result<Vec<Option<T>>, String> {
    let read_one =
        |text: &String| read(text).ok_or_else(|| format!("'{text}' is not in the type's text form"));
    texts.iter().map(|text| text.as_ref().map(read_one).transpose()).collect()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    unhex(digits.as_bytes()).map(|bytes| bytes.to_vec())
}

/// Days since 1970, also of what Arrow does not read: infinities, years before Christ and after 9999.
fn date(text: &str) -> Option<i32> {
    match text {
        "infinity" => Some(i32::MAX),
        "-infinity" => Some(i32::MIN),
        _ => i32::try_from(days(era(text))?).ok(),
    }
}

/// Microseconds since 1970 of a timestamp, with or without an offset: `0044-03-15 12:00:00.5+00:53:28 BC`.
fn instant(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, before_christ) = era(text);
    let (day, clock) = text.split_once(' ').unwrap_or((text, "0"));
    let (clock, east) = match clock.find(['+', '-']) {
        Some(place) => {
            let (clock, offset) = clock.split_at(place);
            let (sign, offset) = offset.split_at(1);
            (clock, if sign == "-" { -seconds(offset)? } else { seconds(offset)? })
        }
        None => (clock, 0),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let micros = format!("{fraction:0<6}").get(..6)?.parse::<u32>().ok()?;
    let time = (seconds(clock)? - east) * MICROS_PER_SECOND + i64::from(micros);
    days((day, before_christ))?.checked_mul(MICROS_PER_DAY)?.checked_add(time)
}

/// The text without its era, and whether it is the one before Christ.
fn era(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC").map_or((text, false), |text| (text, true))
}

/// `2024-02-29` as days since 1970.
fn days((text, before_christ): (&str, bool)) -> Option<i64> {
    let mut parts = text.split('-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (i64::from(parts.next()??), parts.next()??, parts.next()??);
    let year = if before_christ { 1 - year } else { year };
    let known = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    (known && parts.next().is_none()).then(|| days_from_civil(year, month, day))
}

/// `12`, `12:30`, `12:30:15`: hours, minutes and seconds.
fn seconds(text: &str) -> Option<i64> {
    let mut total = 0;
    for (part, unit) in text.split(':').zip([3600, 60, 1]) {
        total += i64::from(part.parse::<u32>().ok()?) * unit;
    }
    Some(total)
}
