//! Loads the sample as an application would in bulk: `COPY … WITH (FORMAT binary)` over the wire.
//!
//! ```text
//! "PGCOPY\n\xff\r\n\0"  flags u32  extension length u32
//! row:  fields u16 (5)  then per field  length u32, bytes
//! end:  -1 i16
//! ```

use std::{pin::pin, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use tokio_postgres::Client;

use crate::cli::failure::Failure;

use super::{client::Vector, progress::Progress, sample::Synset};

/// The statement, shown to the person as it is run.
pub const CREATE_TABLE: &str = "CREATE TABLE definitions (id bigint PRIMARY KEY, word text, pos text, \
                                definition text, embedding vector(384))";
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const COPY: &str = "COPY definitions (id, word, pos, definition, embedding) FROM STDIN WITH (FORMAT binary)";
/// Rows per message: about half a megabyte, so that the bar moves.
const ROWS_PER_MESSAGE: usize = 256;

/// What loading took.
pub struct Loaded {
    pub rows: u64,
    pub bytes: u64,
    pub took: Duration,
}

/// Makes the extension and the table.
pub async fn create_table(client: &Client) -> Result<(), Failure> {
    client.batch_execute("CREATE EXTENSION IF NOT EXISTS vector").await?;
    Ok(client.batch_execute(CREATE_TABLE).await?)
}

/// Copies every definition into the table in one statement.
pub async fn load(client: &Client, synsets: &[Synset]) -> Result<Loaded, Failure> {
    let mut progress = Progress::start("loading", "rows", synsets.len() as u64);
    let mut sink = pin!(client.copy_in::<_, Bytes>(COPY).await?);
    let mut bytes = 0;
    let mut message = header();
    for (number, rows) in synsets.chunks(ROWS_PER_MESSAGE).enumerate() {
        for synset in rows {
            put_row(synset, &mut message);
        }
        bytes += message.len() as u64;
        sink.send(message.split().freeze()).await?;
        progress.set((number * ROWS_PER_MESSAGE + rows.len()) as u64);
    }
    message.put_i16(-1);
    sink.send(message.freeze()).await?;
    progress.phase("all sent, becoming durable");
    let rows = sink.finish().await?;
    Ok(Loaded { rows, bytes, took: progress.finish() })
}

/// Everything that [`load`] sends, in one piece: what the disk must not show.
pub fn stream(synsets: &[Synset]) -> Bytes {
    let mut out = header();
    synsets.iter().for_each(|synset| put_row(synset, &mut out));
    out.put_i16(-1);
    out.freeze()
}

fn header() -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(SIGNATURE);
    out.put_u32(0);
    out.put_u32(0);
    out
}

fn put_row(synset: &Synset, out: &mut BytesMut) {
    out.put_i16(5);
    out.put_i32(8);
    out.put_i64(synset.id);
    for text in [&synset.word, &synset.pos, &synset.definition] {
        put_length(text.len(), out);
        out.put_slice(text.as_bytes());
    }
    let vector = Vector(&synset.embedding);
    put_length(vector.len_bytes(), out);
    vector.put(out);
}

fn put_length(length: usize, out: &mut BytesMut) {
    out.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_postgres_binary_copy() {
        let synset = Synset {
            id: 7,
            word: "ox".into(),
            pos: "noun".into(),
            definition: "cattle".into(),
            embedding: vec![1.0, -2.0],
        };
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x05\0\0\0\x08\0\0\0\0\0\0\0\x07".to_vec();
        expected.extend(b"\0\0\0\x02ox\0\0\0\x04noun\0\0\0\x06cattle");
        expected.extend(b"\0\0\0\x0c\0\x02\0\0\x3f\x80\0\0\xc0\0\0\0\xff\xff");
        assert_eq!(stream(&[synset]), expected);
    }
}
