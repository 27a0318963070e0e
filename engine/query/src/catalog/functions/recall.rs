//! `sepal_recall(index [, k [, sample]])`: how much of the truth an index finds at the session's settings.

use std::ops::RangeInclusive;

use sepal_storage::TableVersion;
use sepal_types::{Error, IndexDef, Measure, Result, SqlState};

use super::super::CatalogContext;
use super::super::names::{Reg, require_oid};
use super::super::objects::{Index, Object};
use super::super::value::Value;
use super::{Function, int_argument, text_argument};
use crate::vector::Measurement;

pub(super) const FUNCTIONS: &[Function] =
    &[Function::acting("sepal_recall", "text, integer?, integer?", "double precision", recall)];

const DEFAULT_K: usize = 10;
const DEFAULT_SAMPLE: usize = 100;
/// Neighbours: past that a search scans.
const MOST_NEIGHBOURS: i64 = 1_000;
const MOST_QUESTIONS: i64 = 10_000;

fn recall(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    if arguments.iter().any(Value::is_null) {
        return Ok(Value::Null);
    }
    let k = count(arguments, 1, "k", 1..=MOST_NEIGHBOURS)?.unwrap_or(DEFAULT_K);
    let sample = count(arguments, 2, "sample", 1..=MOST_QUESTIONS)?.unwrap_or(DEFAULT_SAMPLE);
    let Some(searches) = &context.searches else {
        return Err(Error::unsupported("sepal_recall() measures for a session, and there is none here"));
    };
    if !searches.may_read {
        let message = "permission denied: this API key may only write";
        return Err(Error::new(SqlState::InsufficientPrivilege, message)
            .with_hint("Use a key with the read scope: sepal key create --scope read-write."));
    }
    let (version, index, measure) = vector_index(context, &text_argument(arguments, 0))?;
    let (metric, as_halves) = match measure {
        Measure::Vectors(metric) => (metric, false),
        Measure::Halves(metric) => (metric, true),
        // All bit strings are compared.
        Measure::Bits(_) | Measure::Signs(_) => return Ok(Value::Float(1.0)),
    };
    let column = index.columns.first().and_then(|column| version.def.column_by_id(*column));
    let measurement = Measurement {
        version,
        index: index.id,
        column: column.ok_or_else(|| Error::bug("an index without its column"))?,
        metric,
        as_halves,
        k,
        sample,
        settings: *searches.settings,
        indexes: &searches.indexes,
        interrupted: &*context.interrupted,
    };
    Ok(measurement.run()?.map_or(Value::Null, Value::Float))
}

/// An argument that counts something; `None` where it was left out.
fn count(arguments: &[Value], place: usize, name: &str, range: RangeInclusive<i64>) -> Result<Option<usize>> {
    if arguments.len() <= place {
        return Ok(None);
    }
    let value = int_argument(arguments, place)?;
    if !range.contains(&value) {
        let (least, most) = range.into_inner();
        let message = format!("{name} of sepal_recall() is {value}; it must be between {least} and {most}");
        return Err(Error::new(SqlState::InvalidParameterValue, message));
    }
    Ok(usize::try_from(value).ok())
}

/// Errors: 42P01 for an unknown name, 42809 for what is no vector index, 55000 for one that is being built.
fn vector_index<'a>(
    context: &'a CatalogContext,
    name: &str,
) -> Result<(&'a TableVersion, &'a IndexDef, Measure)> {
    let wrong = |message: String| {
        Error::new(SqlState::WrongObjectType, message)
            .with_hint("Name an index USING hnsw, graph, ivfflat, flat or faiss: pg_indexes lists them.")
    };
    let object = context.object(require_oid(context, Reg::Class, name)?);
    let Some(Object::Index(version, index)) = object else {
        return Err(wrong(format!("\"{name}\" is not an index")));
    };
    let Index::Secondary(index) = index else {
        return Err(wrong(format!("\"{name}\" is not a vector index")));
    };
    let Some(measure) = index.measure() else {
        return Err(wrong(format!("\"{name}\" is not a vector index")));
    };
    if !index.valid {
        let message = format!("index \"{name}\" is not valid");
        return Err(Error::new(SqlState::ObjectNotInPrerequisiteState, message)
            .with_hint("Wait for its build, which pg_stat_progress_create_index shows, or REINDEX INDEX."));
    }
    Ok((version, index, measure))
}
