//! Tables and their rows, the same in every run.

use std::{fmt::Write, ops::Range};

use sepal_benches::{Failure, connection::Connection};

pub const DIM: u64 = 384;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Five scalars: about 230 bytes of NDJSON.
    Narrow,
    /// A vector: about 4 KB.
    Vectors,
}

impl Shape {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Narrow => "narrow rows",
            Self::Vectors => "vectors of 384",
        }
    }

    /// As CREATE TABLE takes them.
    pub const fn columns(self) -> &'static str {
        match self {
            Self::Narrow => {
                "id bigint PRIMARY KEY, name text, price float8, made timestamptz, active boolean"
            }
            Self::Vectors => "id bigint PRIMARY KEY, embedding vector(384)",
        }
    }

    /// As COPY takes them.
    fn rows(self, ids: Range<u64>) -> String {
        let mut out = String::new();
        for id in ids {
            // A string takes whatever fits into memory.
            let _ = match self {
                Self::Narrow => {
                    let (price, second) = (noise(id) * 100.0, id % 60);
                    writeln!(out, "{id}\titem number {id}\t{price}\t2026-01-02 03:04:{second:02}+00\tt")
                }
                Self::Vectors => writeln!(out, "{id}\t{}", vector_text(id)),
            };
        }
        out
    }
}

/// Loads rows, so many a commit.
pub fn fill(
    connection: &mut Connection,
    table: &str,
    shape: Shape,
    ids: Range<u64>,
    per_commit: u64,
) -> Result<(), Failure> {
    const CHUNK: usize = 256 << 10;
    let copy = format!("COPY {table} FROM STDIN");
    let mut from = ids.start;
    while from < ids.end {
        let to = ids.end.min(from.saturating_add(per_commit));
        let data = shape.rows(from..to);
        let copied = connection.copy_in(&copy, data.as_bytes().chunks(CHUNK))?;
        if copied != to - from {
            return Err(format!("{copied} rows of {} were copied into {table}", to - from).into());
        }
        from = to;
    }
    Ok(())
}

/// The elements of one vector.
pub fn vector(id: u64) -> impl Iterator<Item = f32> {
    (0..DIM).map(move |place| noise(id * DIM + place))
}

fn vector_text(id: u64) -> String {
    let elements: Vec<String> = vector(id).map(|element| element.to_string()).collect();
    format!("[{}]", elements.join(","))
}

/// Evenly spread over -1 to 1 (SplitMix64).
fn noise(seed: u64) -> f32 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // The upper 24 bits, which a float holds exactly.
    ((mixed ^ (mixed >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
}
