//! The index without SQL, storage or wire: `index_load --vectors v.f32 --dim 384 --queries q.f32 --truth t.i64`.
//!
//! Builds `USING hnsw` over one segment with `--threads`, then searches it with one thread, and prints one JSON
//! object: seconds of the build, bytes of the index, and per effort recall, queries a second, p50 and p99. Run by
//! `benches/compare/inprocess.py` beside libraries that search inside their process, and of use alone. Reads
//! little-endian files: vectors and queries are rows × `--dim` f32, the truth is queries × at least `--k` i64, the
//! positions of the nearest rows.
//!
//! ```text
//! index_load --vectors v.f32 --dim 384 --threads 2 --index graph.index                     builds, and writes it
//! index_load --vectors v.f32 --dim 384 --index graph.index --queries q.f32 --truth t.i64   opens it, and searches
//!            --k 10 --ef 10,20,40,80 --until 0.99 --seconds 1
//! ```
//!
//! `--metric` cosine (or l2, ip, l1); `--m` (16) and `--ef-construction` (64); `--until`: no more effort once this
//! recall is reached. Without `--index` it builds and searches in one go; without `--queries` it only builds.

mod measure;

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::Path,
    process::ExitCode,
    time::Instant,
};

use sepal_benches::{Failure, flags::Flags};
use sepal_index::{BuildParams, VectorIndex, build, kernel_level, open};
use sepal_types::{Metric, VectorIndexOptions, advise_large};
use serde_json::{Value, json};

use crate::measure::Workload;

const USAGE: &str = "usage: index_load --vectors FILE --dim N [--name value]…  (see the top of its source)";
const EFFORTS: &str = "10,20,40,80,160,320";
/// Bytes of one read of a file of vectors.
const READ_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    sepal_benches::end("index_load", run())
}

fn run() -> Result<Value, Failure> {
    let flags = Flags::read(std::env::args().skip(1), USAGE)?;
    let dim = flags.number("dim", 0)?;
    let vectors = floats(flags.text("vectors")?, dim)?;
    let (index, build_seconds) = index(&flags, dim, &vectors)?;
    let mut out = json!({
        "rows": vectors.len() / dim,
        "dim": dim,
        "kernels": kernel_level(),
        "build_s": build_seconds,
        "index_bytes": index.serialize().len(),
        "memory_bytes": index.memory_bytes(),
    });
    if let Some(queries) = flags.get("queries") {
        let workload = Workload::new(
            metric(flags.get("metric").unwrap_or("cosine"))?,
            floats(queries, dim)?,
            flags.text("truth")?,
            dim,
            flags.number("k", 10)?,
            decimal(&flags, "seconds", 1.0)?,
        )?;
        let efforts = numbers(flags.get("ef").unwrap_or(EFFORTS))?;
        out["efforts"] =
            workload.sweep(index.as_ref(), &vectors, &efforts, decimal(&flags, "until", 1.0)?)?.into();
    }
    Ok(out)
}

/// The index of `--index` if there is one, else a new one, with the seconds that it took to build.
fn index(flags: &Flags, dim: usize, vectors: &[f32]) -> Result<(Box<dyn VectorIndex>, Option<f64>), Failure> {
    let path = flags.get("index").map(Path::new);
    if let Some(path) = path.filter(|path| path.exists()) {
        let found = open(&fs::read(path)?)?;
        let (expected, shape) = ((vectors.len() / dim, dim), found.shape());
        if shape != expected {
            return Err(format!("{} is over {shape:?} and not {expected:?}", path.display()).into());
        }
        return Ok((found, None));
    }
    let metric = metric(flags.get("metric").unwrap_or("cosine"))?;
    let options = VectorIndexOptions::Hnsw {
        metric,
        m: u16::try_from(flags.number("m", 16)?)?,
        ef_construction: u16::try_from(flags.number("ef-construction", 64)?)?,
    };
    let params = BuildParams {
        metric,
        dim,
        vectors,
        valid: None,
        threads: flags.number("threads", 1)?,
        progress: &|_, _| {},
        cancelled: &|| false,
    };
    let begun = Instant::now();
    let built = build(&options, &params)?;
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(path) = path {
        fs::write(path, built.serialize())?;
    }
    Ok((built, Some(seconds)))
}

fn metric(name: &str) -> Result<Metric, Failure> {
    match name {
        "cosine" => Ok(Metric::Cosine),
        "ip" => Ok(Metric::InnerProduct),
        "l1" => Ok(Metric::L1),
        "l2" => Ok(Metric::L2),
        _ => Err(format!("--metric {name} is none of cosine, ip, l1, l2").into()),
    }
}

/// A file of rows × dim floats, read piece by piece: it may be as large as half of the memory.
fn floats(path: &str, dim: usize) -> Result<Vec<f32>, Failure> {
    let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let length = usize::try_from(file.metadata()?.len())?;
    if dim == 0 || length == 0 || !length.is_multiple_of(4 * dim) {
        return Err(format!("{path} does not hold vectors of --dim {dim}").into());
    }
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut row = vec![0; 4 * dim];
    let mut out = Vec::<f32>::with_capacity(length / 4);
    // As `storage` keeps decoded columns.
    advise_large(out.as_ptr().cast(), length);
    for _ in 0..length / row.len() {
        reader.read_exact(&mut row)?;
        out.extend(
            row.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        );
    }
    Ok(out)
}

fn numbers(text: &str) -> Result<Vec<usize>, Failure> {
    text.split(',')
        .map(|word| {
            word.parse::<usize>().map_err(|_| Failure::from(format!("--ef {text}: {word} is no number")))
        })
        .collect()
}

fn decimal(flags: &Flags, name: &str, default: f64) -> Result<f64, Failure> {
    match flags.get(name) {
        Some(text) => Ok(text.parse().map_err(|_| format!("--{name} {text} is no number"))?),
        None => Ok(default),
    }
}
