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
//!      8    2  version: 2 where a calibration follows the body, else 1
//!     10    1  kind: 1 flat, 2 graph, 3 ivfflat without codes, 5 ivfflat with codes, 6 faiss
//!     11    1  metric: 1 L2, 2 inner product, 3 cosine, 4 L1
//!     12    4  n, rows of the segment
//!     16    4  dim, elements of a vector, 1 to 16,000
//!     20    4  bytes of the calibration at the end, which `crate::calibration` draws; 0 in version 1
//!     24       the kind's own body, the same in both versions
//! ```

use sepal_types::{Metric, limits};

use crate::IndexError;

const MAGIC: [u8; 8] = *b"SEPALIDX";
const PLAIN: u16 = 1;
const CALIBRATED: u16 = 2;
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
}

impl Header {
    /// # Panics
    /// When `rows` or `dim` are past what [`crate::BuildParams`] admits.
    pub(crate) fn new(kind: Kind, metric: Metric, rows: usize, dim: usize) -> Self {
        assert!(
            dim <= limits::MAX_DIMENSIONS && rows <= u32::MAX as usize,
            "{rows} × {dim} passed build's check"
        );
        Self { kind, metric, rows: rows as u32, dim: dim as u32, calibration: 0 }
    }

    /// Reads the header of a whole blob.
    pub(crate) fn peek(bytes: &[u8]) -> Result<Self, IndexError> {
        Self::decode(&mut Reader::new(bytes))
    }

    /// Reads the header and leaves the reader at the body.
    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, IndexError> {
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(reader.corrupt("the magic is not SEPALIDX"));
        }
        let version = reader.u16()?;
        if !matches!(version, PLAIN | CALIBRATED) {
            return Err(IndexError::Version { found: version, supported: CALIBRATED });
        }
        let kind = match reader.u8()? {
            1 => Kind::Flat,
            2 => Kind::Graph,
            3 => Kind::IvfFlat,
            5 => Kind::IvfCodes,
            6 => Kind::Faiss,
            other => return Err(reader.corrupt(format!("kind {other} is none of 1, 2, 3, 5 and 6"))),
        };
        let metric = match reader.u8()? {
            1 => Metric::L2,
            2 => Metric::InnerProduct,
            3 => Metric::Cosine,
            4 => Metric::L1,
            other => return Err(reader.corrupt(format!("metric {other} is none of 1 to 4"))),
        };
        let (rows, dim, calibration) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let fits = (calibration > 0) == (version == CALIBRATED);
        if dim == 0 || dim as usize > limits::MAX_DIMENSIONS || !fits {
            let why = format!("dim {dim} or {calibration} bytes of calibration in version {version}");
            return Err(reader.corrupt(why));
        }
        Ok(Self { kind, metric, rows, dim, calibration })
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
        writer.u16(if self.calibration > 0 { CALIBRATED } else { PLAIN });
        writer.u8(match self.kind {
            Kind::Flat => 1,
            Kind::Graph => 2,
            Kind::IvfFlat => 3,
            Kind::IvfCodes => 5,
            Kind::Faiss => 6,
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

/// An index's bytes with a calibration's behind them.
///
/// # Panics
/// When `blob` has no header, or a calibration already.
pub(crate) fn join(mut blob: Vec<u8>, calibration: &[u8]) -> Vec<u8> {
    let mut header = Header::peek(&blob).expect("an index writes a header");
    assert!(header.calibration == 0, "a second calibration behind a first");
    header.calibration = u32::try_from(calibration.len()).expect("a calibration is a few hundred bytes");
    let mut writer = Writer::with_capacity(HEADER_BYTES);
    header.encode(&mut writer);
    blob[..HEADER_BYTES].copy_from_slice(&writer.into_bytes());
    blob.extend_from_slice(calibration);
    blob
}

/// The bytes of an index and those of its calibration, which are none in version 1. The header stays as it is: the
/// kinds read over what it says of the calibration.
///
/// # Errors
/// [`IndexError::Corrupt`], [`IndexError::Version`]
pub(crate) fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), IndexError> {
    let mut reader = Reader::new(bytes);
    let header = Header::decode(&mut reader)?;
    match reader.remaining().checked_sub(header.calibration as usize) {
        Some(body) => Ok(bytes.split_at(HEADER_BYTES + body)),
        None => Err(reader.corrupt(format!(
            "{} bytes of calibration wanted, {} left",
            header.calibration,
            reader.remaining()
        ))),
    }
}

/// Reads little-endian numbers off a slice; never reads past it, never allocates more than it holds.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// An error that names where the reader stands.
    pub(crate) fn corrupt(&self, why: impl Into<String>) -> IndexError {
        IndexError::Corrupt { offset: self.offset, why: why.into() }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], IndexError> {
        if len > self.remaining() {
            return Err(self.corrupt(format!("{len} bytes wanted, {} left", self.remaining())));
        }
        let taken = &self.bytes[self.offset..][..len];
        self.offset += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
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
        // `take` has checked that the bytes are there before `collect` reserves for them.
        let (chunks, _) = self.take(len)?.as_chunks::<N>();
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
        for kind in [Kind::Flat, Kind::Graph, Kind::IvfFlat, Kind::IvfCodes, Kind::Faiss] {
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

    #[test]
    fn damage_is_named() {
        let cases: [(usize, u8, &str); 7] = [
            (0, b'X', "magic"),
            (8, 9, "version 9"),
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

    /// Version 2, for ever: the header says how many bytes follow the body.
    #[test]
    fn a_calibration_stands_behind_the_body() {
        let body = b"the body";
        let plain = [&GOLDEN[..], body].concat();
        let joined = join(plain.clone(), b"measured");
        let mut expected = plain.clone();
        (expected[8], expected[20]) = (2, 8);
        expected.extend(b"measured");
        assert_eq!(joined, expected);
        assert_eq!(split(&joined).unwrap(), (&expected[..plain.len()], &b"measured"[..]));
        assert_eq!(split(&plain).unwrap(), (&plain[..], &b""[..]));
        let mut cut = joined;
        cut[20] = 17;
        assert!(split(&cut).is_err(), "more than there is");
        cut[20] = 0;
        assert!(split(&cut).is_err(), "version 2 without any");
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
