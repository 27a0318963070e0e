//! Ops to payload bytes, without copying a column: an insert's Arrow buffers become parts as they are.
//!
//! Called by `group`, once per commit, outside the writer's lock. Never touches a file.

use arrow::{
    buffer::Buffer,
    datatypes::{Field, Schema},
    ipc::writer::StreamEncoder,
    record_batch::RecordBatch,
};
use serde::Serialize;

use super::{ALIGNMENT, Kind, OP_HEADER_BYTES, Op, SEQUENCE_BYTES, SequenceMark, VERSION};
use crate::StoreError;

/// The payload's head. It is made last, by the group's leader: only then is a sequence's order certain. Cannot
/// fail, because a leader must not stop between two commits of a group; [`encode_ops`] has counted the ops.
pub(crate) fn encode_head(ops: usize, sequences: &[SequenceMark]) -> Buffer {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    let mut head = Vec::with_capacity(16 + sequences.len() * SEQUENCE_BYTES + ALIGNMENT);
    head.extend_from_slice(&[VERSION, 0, 0, 0]);
    head.extend_from_slice(&count(ops));
    head.extend_from_slice(&count(sequences.len()));
    head.extend_from_slice(&[0; 4]);
    for mark in sequences {
        head.extend_from_slice(&mark.table.0.to_be_bytes());
        head.extend_from_slice(&mark.column.0.to_be_bytes());
        head.extend_from_slice(&mark.next.to_be_bytes());
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    Buffer::from_vec(head)
}

/// The payload's ops, in parts that are written one after the other.
pub(crate) fn encode_ops(ops: &[Op]) -> Result<Vec<Buffer>, StoreError> {
    if u32::try_from(ops.len()).is_err() {
        return Err(StoreError::Bug(format!("{} ops in one commit: at most 4,294,967,295 fit", ops.len())));
    }
    let mut parts = Vec::new();
    for op in ops {
        encode_op(op, &mut parts)?;
    }
    Ok(parts)
}

fn encode_op(op: &Op, parts: &mut Vec<Buffer>) -> Result<(), StoreError> {
    let (kind, number, body) = match op {
        Op::CreateTable(def) => (Kind::CreateTable, 0, json(def)?),
        Op::AlterTable(def) => (Kind::AlterTable, 0, json(def)?),
        Op::DropTable(_) => (Kind::DropTable, 0, Vec::new()),
        Op::Truncate(_) => (Kind::Truncate, 0, Vec::new()),
        Op::Insert { first_row, rows, .. } => (Kind::Insert, first_row.0, stream(rows)?),
        Op::Delete { rows, .. } => {
            let ids: Vec<u8> = rows.iter().flat_map(|row| row.0.to_be_bytes()).collect();
            (Kind::Delete, 0, vec![Buffer::from_vec(ids)])
        }
        Op::SetSequence { column, next, .. } => {
            (Kind::SetSequence, u64::from(column.0), vec![Buffer::from_vec(next.to_be_bytes().to_vec())])
        }
    };
    let length: usize = body.iter().map(Buffer::len).sum();
    let mut header = vec![0; ALIGNMENT - OP_HEADER_BYTES];
    header.extend_from_slice(&[kind as u8, 0, 0, 0]);
    header.extend_from_slice(&op.table().0.to_be_bytes());
    header.extend_from_slice(&number.to_be_bytes());
    header.extend_from_slice(&(length as u64).to_be_bytes());
    parts.push(Buffer::from_vec(header));
    parts.extend(body);
    let padding = length.next_multiple_of(ALIGNMENT) - length;
    if padding > 0 {
        parts.push(Buffer::from_vec(vec![0u8; padding]));
    }
    Ok(())
}

fn json(value: &impl Serialize) -> Result<Vec<Buffer>, StoreError> {
    let text = serde_json::to_vec(value)
        .map_err(|error| StoreError::Bug(format!("a table definition does not serialise: {error}")))?;
    Ok(vec![Buffer::from_vec(text)])
}

/// Names and types only: the fields' metadata repeats the definition, and nullability is the definition's too.
fn stream(rows: &RecordBatch) -> Result<Vec<Buffer>, StoreError> {
    let fields: Vec<Field> = rows
        .schema_ref()
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), field.data_type().clone(), true))
        .collect();
    let schema = Schema::new(fields);
    let mut encoder = StreamEncoder::try_new(&schema)?;
    let mut parts = encoder.encode(rows)?;
    parts.extend(encoder.finish()?);
    Ok(parts)
}
