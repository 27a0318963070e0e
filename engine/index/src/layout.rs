//! What all index blobs share: the header, and the reader and writer that the kinds use.
//!
//! Called by [`crate::open`] and by each kind's `layout`. Storage seals the bytes, so a blob that opens is
//! one we wrote; all the same the reader checks every length before it allocates, and every kind checks each
//! position it will index with, because a bug in a writer must not become a panic in a reader.
//!
//! All numbers are little-endian.
//!
//! ```text
//! offset size
//!      0    8  magic "SEPALIDX"
//!      8    2  version: 2 where a calibration follows the body, 3 where that tells of wear, too, 4 where it tells of
//!              reaches; else 1. And 4 more, 5 to 8, where codes have 8 bits an element
//!     10    1  kind: 1 flat, 2 graph, 3 ivfflat without codes, 5 ivfflat with codes, 6 faiss, 7 signs
//!     11    1  metric: 1 L2, 2 inner product, 3 cosine, 4 L1
//!     12    4  n, rows of the segment
//!     16    4  dim, elements of a vector, 1 to 16,000
//!     20    4  bytes of the calibration at the end, which `crate::calibration` draws; 0 in version 1
//!     24       the kind's own body, the same in all versions
//! ```

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, Write};

use sepal_types::{Metric, limits};

use crate::IndexError;
use crate::quantize::Width;

const MAGIC: [u8; 8] = *b"SEPALIDX";
const PLAIN: u16 = 1;
const CALIBRATED: u16 = 2;
const WORN: u16 = 3;
const REACHING: u16 = 4;
/// Added to the others.
const EIGHT_BITS: u16 = 4;
pub(crate) const HEADER_BYTES: usize = 24;

const _: () = assert!(HEADER_BYTES.is_multiple_of(8));

/// Which module reads the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Flat,
    Graph,
    IvfFlat,
    IvfCodes,
    Faiss,
    Signs,
}

/// The first 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) metric: Metric,
    pub(crate) rows: u32,
    pub(crate) dim: u32,
    /// Bytes of the calibration behind the body; 0 where there is none.
    pub(crate) calibration: u32,
    /// What that tells of.
    pub(crate) measured: Measured,
    /// Of its codes, if it has any.
    pub(crate) width: Width,
}

/// What a calibration tells of beside recall: the difference between versions 2, 3 and 4, or 6, 7 and 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Measured {
    /// Nothing else. Also where there is no calibration.
    #[default]
    Recall,
    /// Of wear, of which there is some.
    Wear,
    /// Of reaches, and of wear where there is some.
    Reach,
}

impl Header {
    /// # Panics
    /// When `rows` or `dim` are past what [`crate::BuildParams`] admits.
    pub(crate) fn new(kind: Kind, metric: Metric, rows: usize, dim: usize) -> Self {
        assert!(
            dim <= limits::MAX_DIMENSIONS && rows <= u32::MAX as usize,
            "{rows} × {dim} passed build's check"
        );
        Self {
            kind,
            metric,
            rows: rows as u32,
            dim: dim as u32,
            calibration: 0,
            measured: Measured::Recall,
            width: Width::Four,
        }
    }

    /// Reads the header of a whole blob.
    #[cfg(test)]
    pub(crate) fn peek(bytes: &[u8]) -> Result<Self, IndexError> {
        Self::decode(&mut Reader::new(bytes))
    }

    /// Reads the header and leaves the reader at the body.
    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, IndexError> {
        if reader.array::<8>()? != MAGIC {
            return Err(reader.corrupt("the magic is not SEPALIDX"));
        }
        let version = reader.u16()?;
        let (narrow, width) = match version.checked_sub(EIGHT_BITS) {
            Some(narrow @ PLAIN..=REACHING) => (narrow, Width::Eight),
            _ => (version, Width::Four),
        };
        let measured = match narrow {
            PLAIN | CALIBRATED => Measured::Recall,
            WORN => Measured::Wear,
            REACHING => Measured::Reach,
            found => return Err(IndexError::Version { found, supported: REACHING + EIGHT_BITS }),
        };
        let kind = match reader.u8()? {
            1 => Kind::Flat,
            2 => Kind::Graph,
            3 => Kind::IvfFlat,
            5 => Kind::IvfCodes,
            6 => Kind::Faiss,
            7 => Kind::Signs,
            other => return Err(reader.corrupt(format!("kind {other} is none of 1, 2, 3, 5, 6 and 7"))),
        };
        if width == Width::Eight && !matches!(kind, Kind::Graph | Kind::IvfCodes) {
            return Err(reader.corrupt(format!("codes of 8 bits (version {version}) in kind {kind:?}")));
        }
        let metric = match reader.u8()? {
            1 => Metric::L2,
            2 => Metric::InnerProduct,
            3 => Metric::Cosine,
            4 => Metric::L1,
            other => return Err(reader.corrupt(format!("metric {other} is none of 1 to 4"))),
        };
        let (rows, dim, calibration) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let fits = (calibration > 0) == (narrow != PLAIN);
        if dim == 0 || dim as usize > limits::MAX_DIMENSIONS || !fits {
            let why = format!("dim {dim} or {calibration} bytes of calibration in version {version}");
            return Err(reader.corrupt(why));
        }
        Ok(Self { kind, metric, rows, dim, calibration, measured, width })
    }

    /// [`Header::decode`] for a kind's own `decode`, which knows which kind it reads.
    pub(crate) fn expect(reader: &mut Reader, kind: Kind) -> Result<Self, IndexError> {
        let header = Self::decode(reader)?;
        if header.kind != kind {
            return Err(reader.corrupt(format!("kind {:?} where {kind:?} was expected", header.kind)));
        }
        Ok(header)
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.bytes(&MAGIC);
        let narrow = match (self.calibration, self.measured) {
            (0, _) => PLAIN,
            (_, Measured::Recall) => CALIBRATED,
            (_, Measured::Wear) => WORN,
            (_, Measured::Reach) => REACHING,
        };
        writer.u16(match self.width {
            Width::Four => narrow,
            Width::Eight => narrow + EIGHT_BITS,
        });
        writer.u8(match self.kind {
            Kind::Flat => 1,
            Kind::Graph => 2,
            Kind::IvfFlat => 3,
            Kind::IvfCodes => 5,
            Kind::Faiss => 6,
            Kind::Signs => 7,
        });
        writer.u8(match self.metric {
            Metric::L2 => 1,
            Metric::InnerProduct => 2,
            Metric::Cosine => 3,
            Metric::L1 => 4,
        });
        writer.u32(self.rows);
        writer.u32(self.dim);
        writer.u32(self.calibration);
    }
}

/// Writes an index's bytes, which `index` writes, with a calibration's behind them, which tells of `measured`.
///
/// # Errors
/// Those of `out`.
///
/// # Panics
/// When `index` writes no header, or one that has a calibration already.
pub(crate) fn join(
    index: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    calibration: &[u8],
    measured: Measured,
    out: &mut dyn Write,
) -> io::Result<()> {
    let bytes = u32::try_from(calibration.len()).expect("a calibration is a few hundred bytes");
    let mut renamed = Renamed { header: Vec::with_capacity(HEADER_BYTES), calibration: bytes, measured, out };
    index(&mut renamed)?;
    assert!(renamed.header.len() == HEADER_BYTES, "an index writes a header");
    renamed.out.write_all(calibration)
}

/// Passes an index's bytes on, with a header that says how many bytes of calibration follow.
struct Renamed<'a> {
    /// As much of it as has come.
    header: Vec<u8>,
    calibration: u32,
    measured: Measured,
    out: &'a mut dyn Write,
}

impl Write for Renamed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let missing = HEADER_BYTES - self.header.len();
        if missing == 0 {
            return self.out.write(bytes);
        }
        let taken = missing.min(bytes.len());
        self.header.extend_from_slice(&bytes[..taken]);
        if taken == missing {
            let mut header =
                Header::decode(&mut Reader::new(&self.header)).expect("an index writes a header");
            assert!(header.calibration == 0, "a second calibration behind a first");
            (header.calibration, header.measured) = (self.calibration, self.measured);
            let mut writer = Writer::with_capacity(HEADER_BYTES);
            header.encode(&mut writer);
            self.out.write_all(&writer.into_bytes())?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The header, the bytes of an index and those of its calibration, which are none in version 1. The header stays in the
/// index's as it is: the kinds read over what it says of the calibration.
///
/// # Errors
/// [`IndexError::Corrupt`], [`IndexError::Version`], [`IndexError::Unreadable`]
pub(crate) fn split(source: Source<'_>) -> Result<(Header, Reader<'_>, Reader<'_>), IndexError> {
    let mut reader = Reader::of(source);
    let header = Header::decode(&mut reader)?;
    let end = reader.end;
    match reader.remaining().checked_sub(header.calibration as usize) {
        Some(body) => Ok((
            header,
            Reader { source, offset: 0, end: HEADER_BYTES + body },
            Reader { source, offset: HEADER_BYTES + body, end },
        )),
        None => Err(reader.corrupt(format!(
            "{} bytes of calibration wanted, {} left",
            header.calibration,
            reader.remaining()
        ))),
    }
}

/// Where an index's bytes lie, for [`crate::open_stored`]: read from front to back in pieces, the largest straight into
/// the memory that a search reads. And for searches of an index that left some of them there
/// ([`crate::open_in_place`]).
pub trait Stored {
    /// How many there are.
    fn length(&self) -> usize;

    /// Fills `into` from an offset on; nothing is asked for past [`Stored::length`].
    ///
    /// # Errors
    /// What [`IndexError::Unreadable`] passes on.
    fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Bytes in memory, or elsewhere.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Bytes(&'a [u8]),
    Stored(&'a dyn Stored),
}

/// Reads little-endian numbers; never reads past the end, never allocates more than there is.
pub(crate) struct Reader<'a> {
    source: Source<'a>,
    offset: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self::of(Source::Bytes(bytes))
    }

    fn of(source: Source<'a>) -> Self {
        let end = match source {
            Source::Bytes(bytes) => bytes.len(),
            Source::Stored(stored) => stored.length(),
        };
        Self { source, offset: 0, end }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.end - self.offset
    }

    /// Where it stands among all bytes.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Passes over bytes that nobody looks at.
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), IndexError> {
        self.check(len)?;
        self.offset += len;
        Ok(())
    }

    /// An error that names where the reader stands.
    pub(crate) fn corrupt(&self, why: impl Into<String>) -> IndexError {
        IndexError::Corrupt { offset: self.offset, why: why.into() }
    }

    fn check(&self, len: usize) -> Result<(), IndexError> {
        if len > self.remaining() {
            return Err(self.corrupt(format!("{len} bytes wanted, {} left", self.remaining())));
        }
        Ok(())
    }

    /// The next bytes, as many as `into` has room for.
    pub(crate) fn fill(&mut self, into: &mut [u8]) -> Result<(), IndexError> {
        self.check(into.len())?;
        match self.source {
            Source::Bytes(bytes) => into.copy_from_slice(&bytes[self.offset..][..into.len()]),
            Source::Stored(stored) => {
                stored.read(self.offset, into).map_err(IndexError::Unreadable)?;
            }
        }
        self.offset += into.len();
        Ok(())
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<Vec<u8>, IndexError> {
        // Before anything is allocated by it.
        self.check(len)?;
        let mut taken = vec![0; len];
        self.fill(&mut taken)?;
        Ok(taken)
    }

    /// All that is left.
    pub(crate) fn rest(mut self) -> Result<Cow<'a, [u8]>, IndexError> {
        match self.source {
            Source::Bytes(bytes) => Ok(Cow::Borrowed(&bytes[self.offset..self.end])),
            Source::Stored(_) => self.take(self.remaining()).map(Cow::Owned),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, IndexError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, IndexError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, IndexError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Result<f32, IndexError> {
        self.array().map(f32::from_le_bytes)
    }

    pub(crate) fn u32s(&mut self, count: usize) -> Result<Vec<u32>, IndexError> {
        self.numbers(count, u32::from_le_bytes)
    }

    pub(crate) fn u64s(&mut self, count: usize) -> Result<Vec<u64>, IndexError> {
        self.numbers(count, u64::from_le_bytes)
    }

    pub(crate) fn f32s(&mut self, count: usize) -> Result<Vec<f32>, IndexError> {
        self.numbers(count, f32::from_le_bytes)
    }

    /// An error unless everything was read.
    pub(crate) fn finish(&self) -> Result<(), IndexError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.corrupt(format!("{left} bytes follow the end"))),
        }
    }

    fn numbers<T, const N: usize>(
        &mut self,
        count: usize,
        from: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, IndexError> {
        let len =
            count.checked_mul(N).ok_or_else(|| self.corrupt(format!("{count} numbers are too many")))?;
        let bytes = self.take(len)?;
        let (chunks, _) = bytes.as_chunks::<N>();
        Ok(chunks.iter().map(|chunk| from(*chunk)).collect())
    }
}

/// Appends little-endian numbers.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32s(&mut self, values: &[u32]) {
        values.iter().for_each(|value| self.u32(*value));
    }

    pub(crate) fn u64s(&mut self, values: &[u64]) {
        values.iter().for_each(|value| self.bytes(&value.to_le_bytes()));
    }

    pub(crate) fn f32s(&mut self, values: &[f32]) {
        values.iter().for_each(|value| self.bytes(&value.to_le_bytes()));
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1, for ever: a change here is a new version.
    const GOLDEN: [u8; HEADER_BYTES] = [
        b'S', b'E', b'P', b'A', b'L', b'I', b'D', b'X', 1, 0, 3, 3, 0x39, 0x30, 0, 0, 0x80, 1, 0, 0, 0, 0, 0,
        0,
    ];

    #[test]
    fn header_is_these_bytes() {
        let header = Header::new(Kind::IvfFlat, Metric::Cosine, 12_345, 384);
        let mut writer = Writer::with_capacity(HEADER_BYTES);
        header.encode(&mut writer);
        assert_eq!(writer.into_bytes(), GOLDEN);
        assert_eq!(Header::peek(&GOLDEN).unwrap(), header);
    }

    #[test]
    fn each_kind_and_metric_round_trips() {
        for kind in [Kind::Flat, Kind::Graph, Kind::IvfFlat, Kind::IvfCodes, Kind::Faiss, Kind::Signs] {
            for metric in Metric::ALL {
                let header = Header::new(kind, metric, 7, 3);
                let mut writer = Writer::with_capacity(HEADER_BYTES);
                header.encode(&mut writer);
                let bytes = writer.into_bytes();
                assert_eq!(Header::peek(&bytes).unwrap(), header);
                assert!(Header::expect(&mut Reader::new(&bytes), kind).is_ok());
            }
        }
    }

    /// Versions 5 to 8, for ever: those of 1 to 4, with codes of 8 bits an element.
    #[test]
    fn codes_of_eight_bits_are_four_versions_more() {
        let measured = [
            (0, Measured::Recall, 5),
            (9, Measured::Recall, 6),
            (9, Measured::Wear, 7),
            (9, Measured::Reach, 8),
        ];
        for (calibration, measured, version) in measured {
            let narrow = Header { calibration, measured, ..Header::new(Kind::IvfCodes, Metric::L2, 3, 40) };
            let header = Header { width: Width::Eight, ..narrow };
            let [four, eight] = [narrow, header].map(|header| {
                let mut writer = Writer::with_capacity(HEADER_BYTES);
                header.encode(&mut writer);
                writer.into_bytes()
            });
            assert_eq!((u16::from(four[8]), u16::from(eight[8])), (version - 4, version));
            assert!(four[..8] == eight[..8] && four[9..] == eight[9..]);
            assert_eq!(Header::peek(&eight).unwrap(), header);
        }
        // It stays so when a calibration comes behind.
        let mut plain = Writer::with_capacity(HEADER_BYTES);
        let header = Header { width: Width::Eight, ..Header::new(Kind::Graph, Metric::L2, 3, 40) };
        header.encode(&mut plain);
        let mut joined = Vec::new();
        join(|out| out.write_all(&plain.into_bytes()), b"measured", Measured::Reach, &mut joined).unwrap();
        assert_eq!((joined[8], joined[20]), (8, 8));
    }

    #[test]
    fn damage_is_named() {
        let cases: [(usize, u8, &str); 8] = [
            (0, b'X', "magic"),
            (8, 9, "version 9"),
            (8, 5, "codes of 8 bits (version 5) in kind IvfFlat"),
            (10, 0, "kind 0"),
            (10, 4, "kind 4"),
            (11, 5, "metric 5"),
            (18, 1, "dim 65920"),
            (20, 1, "1 bytes of calibration in version 1"),
        ];
        for (offset, value, word) in cases {
            let mut bytes = GOLDEN;
            bytes[offset] = value;
            let message = Header::peek(&bytes).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        for len in 0..HEADER_BYTES {
            assert!(Header::peek(&GOLDEN[..len]).is_err(), "{len} bytes");
        }
    }

    /// Versions 2 and 3, for ever: the header says how many bytes follow the body.
    #[test]
    fn a_calibration_stands_behind_the_body() {
        let body = b"the body";
        let plain = [&GOLDEN[..], body].concat();
        let mut joined = Vec::new();
        // Its header comes in pieces.
        let index = |out: &mut dyn Write| plain.chunks(7).try_for_each(|piece| out.write_all(piece));
        join(index, b"measured", Measured::Recall, &mut joined).unwrap();
        let mut expected = plain.clone();
        (expected[8], expected[20]) = (2, 8);
        expected.extend(b"measured");
        assert_eq!(joined, expected);
        let mut worn = Vec::new();
        join(|out| out.write_all(&plain), b"measured", Measured::Wear, &mut worn).unwrap();
        assert!(worn[8] == 3 && worn[..8] == joined[..8] && worn[9..] == joined[9..], "{worn:?}");
        let parts = |bytes: &[u8]| {
            let (_, index, calibration) = split(Source::Bytes(bytes))?;
            Ok::<_, IndexError>((index.rest()?.into_owned(), calibration.rest()?.into_owned()))
        };
        assert_eq!(parts(&joined).unwrap(), (expected[..plain.len()].to_vec(), b"measured".to_vec()));
        assert_eq!(parts(&plain).unwrap(), (plain, Vec::new()));
        let mut cut = joined;
        cut[20] = 17;
        assert!(parts(&cut).is_err(), "more than there is");
        cut[20] = 0;
        assert!(parts(&cut).is_err(), "version 2 without any");
        cut[8] = 3;
        assert!(parts(&cut).is_err(), "nor version 3");
    }

    #[test]
    fn huge_counts_allocate_nothing() {
        let mut reader = Reader::new(&GOLDEN);
        assert!(reader.u64s(usize::MAX).is_err());
        assert!(reader.f32s(usize::MAX / 8).is_err());
        assert_eq!(reader.u32s(6).unwrap().len(), 6);
        assert!(reader.finish().is_ok() && reader.u8().is_err());
    }
}
