//! Bytes of [`Graph`], after the header that `crate::layout` draws.
//!
//! ```text
//! offset  size
//!     24     2  m, links of a node in a layer (2 m in the lowest), at least 2
//!     26     1  layers, 1 to 24
//!     27     1  flags: 1 a mask, 2 shared nodes, 4 codes
//!     28     4  i, indexed rows
//!     32     4 · layers      c, nodes of each layer, lowest first, none more than the one before
//!            8 · ⌈n / 64⌉    flag 1: the indexed rows, bit j of word w is row 64 w + j
//!            4 · i           row positions by node
//!            4 · (c₀ + 1)    flag 2: where each node's positions start, and i
//!            4 · c₀ · 2m     links of the lowest layer; ff ff ff ff ends a list
//!            4 · c · m       links of each further layer
//!                            flag 4: c₀ codes, drawn in `quantize/layout`; set in versions of codes of 8 bits
//! ```

use std::io::{self, Write};

use super::Graph;
use super::links::{Layers, slots};
use super::nodes::{MOST_LAYERS, MOST_NODES, Nodes};
use crate::layout::{HEADER_BYTES, Header, Kind, Reader, Writer};
use crate::quantize::{Codes, Width};
use crate::{Bits, IndexError};

const MASK: u8 = 1;
const SHARED: u8 = 2;
const CODES: u8 = 4;

/// How many bytes [`encode`] writes.
pub(super) fn encoded_bytes(graph: &Graph) -> u64 {
    let Graph { nodes, layers, codes, .. } = graph;
    let mask = nodes.indexed().map_or(0, |indexed| size_of_val(indexed.words()));
    let starts = nodes.starts().map_or(0, size_of_val);
    let links: usize =
        (0..layers.len()).map(|layer| 4 * layers.count(layer) * slots(layer, layers.m())).sum();
    let codes = codes.as_ref().map_or(0, Codes::written_bytes);
    let head = HEADER_BYTES + 8 + 4 * layers.len();
    (head + mask + size_of_val(nodes.positions()) + starts + links + codes) as u64
}

/// # Errors
/// Those of `out`.
pub(super) fn encode(graph: &Graph, out: &mut dyn Write) -> io::Result<()> {
    let Graph { nodes, layers, codes, .. } = graph;
    let mut writer = Writer::with_capacity(HEADER_BYTES + nodes.memory_bytes());
    let header = Header::new(Kind::Graph, graph.metric, nodes.rows(), graph.dim);
    Header { width: codes.as_ref().map_or(Width::Four, Codes::width), ..header }.encode(&mut writer);
    writer.u16(layers.m() as u16);
    writer.u8(layers.len() as u8);
    writer.u8(if nodes.indexed().is_some() { MASK } else { 0 }
        | if nodes.starts().is_some() { SHARED } else { 0 }
        | if codes.is_some() { CODES } else { 0 });
    writer.u32(nodes.indexed_rows() as u32);
    (0..layers.len()).for_each(|layer| writer.u32(layers.count(layer) as u32));
    if let Some(indexed) = nodes.indexed() {
        writer.u64s(indexed.words());
    }
    writer.u32s(nodes.positions());
    if let Some(starts) = nodes.starts() {
        writer.u32s(starts);
    }
    out.write_all(&writer.into_bytes())?;
    (0..layers.len()).try_for_each(|layer| layers.write(layer, out))?;
    codes.as_ref().map_or(Ok(()), |codes| codes.write(out))
}

pub(super) fn decode(mut reader: Reader) -> Result<Graph, IndexError> {
    let header = Header::expect(&mut reader, Kind::Graph)?;
    let (rows, dim) = (header.rows as usize, header.dim as usize);
    let m = usize::from(reader.u16()?);
    let layers = usize::from(reader.u8()?);
    let flags = reader.u8()?;
    if m < 2 || !(1..=MOST_LAYERS).contains(&layers) || flags & !(MASK | SHARED | CODES) != 0 {
        return Err(reader.corrupt(format!("m {m}, {layers} layers or flags {flags} are out of range")));
    }
    if header.width == Width::Eight && flags & CODES == 0 {
        return Err(reader.corrupt(format!("codes of 8 bits, of which flags {flags} know nothing")));
    }
    let indexed_rows = reader.u32()? as usize;
    let counts = reader.u32s(layers)?;
    let falling = counts.windows(2).all(|pair| pair[0] >= pair[1] && pair[1] > 0);
    if !falling || counts[0] as usize > indexed_rows.min(MOST_NODES - 1) || indexed_rows > rows {
        return Err(reader.corrupt(format!("{counts:?} nodes for {indexed_rows} of {rows} rows")));
    }
    let nodes = decode_nodes(&mut reader, flags, rows, indexed_rows, counts[0] as usize)?;
    let layers = decode_layers(&mut reader, m, &counts)?;
    let codes = match flags & CODES {
        0 => None,
        _ => Some(Codes::read(&mut reader, header, counts[0] as usize)?),
    };
    reader.finish()?;
    Ok(Graph::new(header.metric, dim, nodes, layers, codes))
}

fn decode_nodes(
    reader: &mut Reader,
    flags: u8,
    rows: usize,
    indexed_rows: usize,
    count: usize,
) -> Result<Nodes, IndexError> {
    let indexed = match flags & MASK {
        0 => None,
        _ => {
            let words = reader.u64s(rows.div_ceil(64))?;
            Some(
                Bits::from_words(words, rows)
                    .ok_or_else(|| reader.corrupt("the mask has bits past the last row"))?,
            )
        }
    };
    let positions = reader.u32s(indexed_rows)?;
    let starts = match flags & SHARED {
        0 => None,
        _ => Some(reader.u32s(count + 1)?),
    };
    Nodes::from_parts(rows, indexed, positions, starts)
        .filter(|nodes| nodes.count() == count)
        .ok_or_else(|| reader.corrupt("the nodes' rows are not the indexed rows, each once"))
}

fn decode_layers(reader: &mut Reader, m: usize, counts: &[u32]) -> Result<Layers, IndexError> {
    // In u64 nothing overflows: 24 layers of 2^31 nodes with 2^17 slots of 4 bytes.
    let bytes_of = |(layer, count): (usize, &u32)| 4 * u64::from(*count) * slots(layer, m) as u64;
    let needed: u64 = counts.iter().enumerate().map(bytes_of).sum();
    if needed > reader.remaining() as u64 {
        return Err(reader.corrupt(format!("{needed} bytes of links wanted, {} left", reader.remaining())));
    }
    let mut layers = Layers::zeroed(m, counts)?;
    for layer in 0..layers.len() {
        if !layers.read(layer, reader)? {
            return Err(reader.corrupt(format!("layer {layer} links to a node it does not have")));
        }
    }
    Ok(layers)
}
