//! Nearest-neighbour queries made beforehand, and how many of the true neighbours come back.

use std::{collections::HashSet, fs};

use sepal_benches::{
    Failure,
    connection::{Connection, execution},
};

/// Name of the prepared statement; its parameters are the vector and the limit.
const STATEMENT: &str = "knn";

pub struct Workload {
    /// One Bind, Execute and Sync per query.
    messages: Vec<Vec<u8>>,
    /// The ids of the exact answer per query; empty without a truth file.
    truth: Vec<HashSet<i64>>,
    k: usize,
}

/// What one pass over the queries found.
pub struct Answers {
    /// recall@k over all queries, a row that did not come being a miss; `None` without truth.
    pub recall: Option<f64>,
    /// Queries whose LIMIT was not filled.
    pub short: usize,
}

impl Workload {
    /// `queries`: n × dim f32; `truth`: n × anything ≥ k i64, nearest first. Both little-endian.
    pub fn read(queries: &str, truth: Option<&str>, dim: usize, k: usize) -> Result<Workload, Failure> {
        let bytes = fs::read(queries).map_err(|error| format!("{queries}: {error}"))?;
        if dim == 0 || bytes.is_empty() || bytes.len() % (4 * dim) != 0 {
            return Err(format!("{queries} does not hold vectors of --dim {dim}").into());
        }
        let limit = i64::try_from(k)?.to_be_bytes();
        let messages = bytes
            .chunks_exact(4 * dim)
            .map(|vector| Ok(execution(STATEMENT, &[&binary(vector, dim)?, &limit])))
            .collect::<Result<Vec<_>, Failure>>()?;
        let truth = match truth {
            Some(path) => exact(path, messages.len(), k)?,
            None => Vec::new(),
        };
        Ok(Workload { messages, truth, k })
    }

    /// Runs every query once. Fails when LIMIT is not filled, unless `allow_short`: then it is counted.
    pub fn answers(
        &self,
        connection: &mut Connection,
        sql: &str,
        allow_short: bool,
    ) -> Result<Answers, Failure> {
        connection.prepare(STATEMENT, sql)?;
        let (mut found, mut short) = (0, 0);
        let mut ids = Vec::new();
        for (number, message) in self.messages.iter().enumerate() {
            ids.clear();
            connection.round_trip(message, |row| {
                ids.push(id(row)?);
                Ok(())
            })?;
            if ids.len() != self.k {
                if !allow_short || ids.len() > self.k {
                    return Err(format!("query {number} returned {} rows of {}", ids.len(), self.k).into());
                }
                short += 1;
            }
            if let Some(truth) = self.truth.get(number) {
                found += ids.iter().filter(|id| truth.contains(id)).count();
            }
        }
        let recall = (!self.truth.is_empty()).then(|| found as f64 / (self.k * self.messages.len()) as f64);
        Ok(Answers { recall, short })
    }

    /// A client's turn for [`sepal_benches::load::Load::run`].
    pub fn client<'w>(
        &'w self,
        connection: &mut Connection,
        sql: &str,
    ) -> Result<impl FnMut(&mut Connection, usize) -> Result<(), Failure> + use<'w>, Failure> {
        connection.prepare(STATEMENT, sql)?;
        let messages = &self.messages;
        Ok(move |connection: &mut Connection, number: usize| {
            connection.round_trip(&messages[number % messages.len()], |_| Ok(()))
        })
    }
}

/// pgvector's binary form of little-endian floats: u16 dimensions, u16 zero, big-endian f32.
fn binary(vector: &[u8], dim: usize) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(4 + vector.len());
    out.extend_from_slice(&u16::try_from(dim)?.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    for number in vector.chunks_exact(4) {
        out.extend(number.iter().rev());
    }
    Ok(out)
}

fn exact(path: &str, queries: usize, k: usize) -> Result<Vec<HashSet<i64>>, Failure> {
    let bytes = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let ids: Vec<i64> = bytes
        .chunks_exact(8)
        .map(|chunk| Ok(i64::from_le_bytes(chunk.try_into()?)))
        .collect::<Result<_, Failure>>()?;
    let each = ids.len() / queries;
    if each < k || each * queries != ids.len() {
        return Err(format!("{path} holds {} ids, not {queries} × at least {k}", ids.len()).into());
    }
    Ok(ids.chunks_exact(each).map(|row| row[..k].iter().copied().collect()).collect())
}

/// The first column of a DataRow, int4 or int8 in binary.
fn id(row: &[u8]) -> Result<i64, Failure> {
    match row.get(2..6) {
        Some([0, 0, 0, 4]) => Ok(i64::from(i32::from_be_bytes(row[6..10].try_into()?))),
        Some([0, 0, 0, 8]) => Ok(i64::from_be_bytes(row[6..14].try_into()?)),
        other => Err(format!("the first column is no int4 or int8: {other:?}").into()),
    }
}
