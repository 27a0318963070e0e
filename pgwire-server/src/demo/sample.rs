//! The bundled sample: WordNet definitions and example sentences with their embeddings, read from the binary.
//!
//! Two Parquet files (see `pgwire-server/demo/README.md`); an embedding is 768 bytes, 384 little-endian float16,
//! widened here to float32 as every reader of the original data does.

use std::fmt;

use arrow::{
    array::{Array, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray},
    datatypes::Int64Type,
};
use bytes::Bytes;
use half::f16;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const SYNSETS: &[u8] = include_bytes!("../../demo/wordnet-sample.parquet");
const QUERIES: &[u8] = include_bytes!("../../demo/wordnet-sample-queries.parquet");
/// Dimensions of every embedding.
pub const DIMENSIONS: usize = 384;

/// A definition.
pub struct Synset {
    pub id: i64,
    pub word: String,
    /// noun, verb, adj or adv.
    pub pos: String,
    pub definition: String,
    pub embedding: Vec<f32>,
}

/// A sentence to search with. The first three are those that the demo shows.
pub struct Query {
    pub text: String,
    pub embedding: Vec<f32>,
}

/// The sample inside this binary is not what this code reads: a bug of the build.
#[derive(Debug)]
pub struct SampleError(String);

impl fmt::Display for SampleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bundled sample cannot be read: {}", self.0)
    }
}

impl std::error::Error for SampleError {}

/// All definitions, in the order of their ids.
pub fn synsets() -> Result<Vec<Synset>, SampleError> {
    let mut synsets = Vec::new();
    for batch in batches(SYNSETS)? {
        let ids = column(&batch, "id")?.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong_type("id"))?;
        let (word, pos) = (text(&batch, "word")?, text(&batch, "pos")?);
        let (definition, embedding) = (text(&batch, "definition")?, embeddings(&batch)?);
        for row in 0..batch.num_rows() {
            synsets.push(Synset {
                id: ids.value(row),
                word: word.value(row).to_owned(),
                pos: pos.value(row).to_owned(),
                definition: definition.value(row).to_owned(),
                embedding: widen(embedding.value(row)),
            });
        }
    }
    Ok(synsets)
}

/// All query sentences.
pub fn queries() -> Result<Vec<Query>, SampleError> {
    let mut queries = Vec::new();
    for batch in batches(QUERIES)? {
        let (sentence, embedding) = (text(&batch, "text")?, embeddings(&batch)?);
        for row in 0..batch.num_rows() {
            queries
                .push(Query { text: sentence.value(row).to_owned(), embedding: widen(embedding.value(row)) });
        }
    }
    Ok(queries)
}

fn batches(file: &'static [u8]) -> Result<Vec<RecordBatch>, SampleError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from_static(file))
        .and_then(|builder| builder.with_batch_size(2_048).build())
        .map_err(|error| SampleError(error.to_string()))?;
    reader.collect::<Result<_, _>>().map_err(|error| SampleError(error.to_string()))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array, SampleError> {
    let column = batch.column_by_name(name).ok_or_else(|| SampleError(format!("no column {name}")))?;
    if column.null_count() > 0 {
        return Err(SampleError(format!("NULL in column {name}")));
    }
    Ok(column.as_ref())
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, SampleError> {
    column(batch, name)?.as_string_opt().ok_or_else(|| wrong_type(name))
}

fn embeddings(batch: &RecordBatch) -> Result<&FixedSizeBinaryArray, SampleError> {
    let array = column(batch, "embedding")?.as_fixed_size_binary_opt();
    array
        .filter(|array| usize::try_from(array.value_length()) == Ok(2 * DIMENSIONS))
        .ok_or_else(|| wrong_type("embedding"))
}

fn wrong_type(name: &str) -> SampleError {
    SampleError(format!("column {name} has another type"))
}

fn widen(halves: &[u8]) -> Vec<f32> {
    halves.chunks_exact(2).map(|half| f16::from_le_bytes([half[0], half[1]]).to_f32()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_what_the_demo_promises() {
        let synsets = synsets().unwrap();
        assert!(synsets.len() >= 10_000);
        assert!(synsets.windows(2).all(|pair| pair[0].id < pair[1].id));
        for synset in &synsets {
            assert_eq!(synset.embedding.len(), DIMENSIONS);
            let norm: f32 = synset.embedding.iter().map(|value| value * value).sum();
            assert!((norm - 1.0).abs() < 1e-2, "{}", synset.word);
            assert!(!synset.definition.is_empty());
            assert!(["noun", "verb", "adj", "adv"].contains(&synset.pos.as_str()));
        }
        let queries = queries().unwrap();
        assert_eq!(queries.len(), 100);
        assert!(queries[0].text.starts_with("We ferment the grapes"));
    }

    #[test]
    fn the_nearest_definition_is_the_meant_one() {
        let synsets = synsets().unwrap();
        let query = &queries().unwrap()[0];
        let dot = |synset: &Synset| -> f32 {
            synset.embedding.iter().zip(&query.embedding).map(|(a, b)| a * b).sum()
        };
        let nearest = synsets.iter().max_by(|a, b| dot(a).total_cmp(&dot(b))).unwrap();
        assert_eq!(nearest.word, "wine");
    }
}
