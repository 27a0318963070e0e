//! One frame: up to 1 MiB of a commit, sealed to its place.
//!
//! Written by `writer`, read by `recover`. The format is drawn in [`super`].

use sepal_crypto::{Aad, Key, OpenError, SEAL_OVERHEAD_BYTES, constant_time_eq, hmac_sha256, open, seal_to};
use sepal_types::{FileId, Lsn, TenantId};

pub(crate) const FRAME_HEADER_BYTES: usize = 48;
/// Bytes of a frame that are not its payload's.
pub(super) const FRAME_OVERHEAD_BYTES: usize = FRAME_HEADER_BYTES + SEAL_OVERHEAD_BYTES;
/// Payload bytes per frame: small enough that plaintext and ciphertext stay in the L2 cache.
pub(super) const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// The index of a marker, which no frame of a commit reaches: a commit of that many frames would have 4 PiB.
const MARKER: u32 = u32::MAX;
const MARK_AT: usize = 32;
const TAG_BYTES: usize = 16;
const MAX_SEALED_BYTES: usize = MAX_PAYLOAD_BYTES + SEAL_OVERHEAD_BYTES;

pub(super) type Tag = [u8; TAG_BYTES];
type HeaderBytes = [u8; FRAME_HEADER_BYTES];

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub lsn: Lsn,
    /// Counts the frames of a commit from 0.
    pub index: u32,
    pub last: bool,
    /// The file's length that was durable when the frame was made.
    pub synced: u64,
}

impl Place {
    /// Of a marker behind commit `lsn`, when all before it was durable.
    pub(super) const fn marker(lsn: Lsn, synced: u64) -> Self {
        Self { lsn, index: MARKER, last: false, synced }
    }

    pub(super) const fn is_marker(&self) -> bool {
        self.index == MARKER
    }
}

/// What a frame's first bytes say. Not a proof: only [`FrameKey::is_marked`] and [`FrameKey::open`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub sealed_bytes: u32,
    pub place: Place,
}

/// The file that frames belong to, with its key.
pub(super) struct FrameKey {
    tenant: TenantId,
    file: FileId,
    key: Key,
    mark_key: Key,
}

impl FrameHeader {
    /// The header without its mark.
    pub(super) fn encode(&self) -> HeaderBytes {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.sealed_bytes.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.place.index.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.place.lsn.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.place.synced.to_be_bytes());
        bytes[24] = u8::from(self.place.last);
        bytes
    }

    /// `None` for bytes that no frame begins with.
    pub(super) fn decode(bytes: &HeaderBytes) -> Option<Self> {
        let u32_at = |at: usize| bytes[at..at + 4].try_into().map(u32::from_be_bytes).ok();
        let u64_at = |at: usize| bytes[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        let sealed_bytes = u32_at(0)?;
        let plausible = (SEAL_OVERHEAD_BYTES..=MAX_SEALED_BYTES).contains(&(sealed_bytes as usize));
        if !plausible || bytes[24] > 1 || bytes[25..MARK_AT] != [0; MARK_AT - 25] {
            return None;
        }
        let place =
            Place { lsn: Lsn(u64_at(8)?), index: u32_at(4)?, last: bytes[24] == 1, synced: u64_at(16)? };
        Some(Self { sealed_bytes, place })
    }
}

impl FrameKey {
    pub(super) fn new(tenant: TenantId, file: FileId, key: Key) -> Self {
        let mark_key = key.derive("wal-mark 1", &[]);
        Self { tenant, file, key, mark_key }
    }

    /// Seals `payload`, at most [`MAX_PAYLOAD_BYTES`], to `frame`, which is [`FRAME_OVERHEAD_BYTES`] longer: header and
    /// sealed bytes. `offset` is where the frame will begin in the file. Returns the tag, which the next frame is bound
    /// to.
    pub(super) fn seal(
        &self,
        place: Place,
        offset: u64,
        previous: &Tag,
        payload: &[u8],
        frame: &mut [u8],
    ) -> Tag {
        let sealed_bytes = u32::try_from(payload.len() + SEAL_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let mut header = FrameHeader { sealed_bytes, place }.encode();
        let mark = self.mark(&header, offset);
        header[MARK_AT..].copy_from_slice(&mark);
        let (first, sealed) = frame.split_at_mut(FRAME_HEADER_BYTES);
        first.copy_from_slice(&header);
        seal_to(&self.key, &self.aad(&header, previous), payload, sealed);
        tag(sealed)
    }

    /// The same, behind what `out` holds.
    pub(super) fn append(
        &self,
        place: Place,
        offset: u64,
        previous: &Tag,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Tag {
        self.seal(place, offset, previous, payload, room(out, payload.len()))
    }

    /// Opens a frame's sealed bytes.
    pub(super) fn open(
        &self,
        header: &HeaderBytes,
        previous: &Tag,
        sealed: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        open(&self.key, &self.aad(header, previous), sealed)
    }

    /// Whether a frame with this header was made for this offset of this file, whatever became of the rest of it
    /// and of the frames before.
    pub(super) fn is_marked(&self, header: &HeaderBytes, offset: u64) -> bool {
        constant_time_eq(&self.mark(header, offset), &header[MARK_AT..])
    }

    fn mark(&self, header: &HeaderBytes, offset: u64) -> Tag {
        let message =
            Aad::new("wal-mark 1").tenant(self.tenant).file(self.file).u64(offset).bytes(&header[..MARK_AT]);
        let mac = hmac_sha256(&self.mark_key, &message.finish());
        mac.first_chunk().copied().unwrap_or_default()
    }

    fn aad(&self, header: &HeaderBytes, previous: &Tag) -> Vec<u8> {
        Aad::new("wal-frame 1").tenant(self.tenant).file(self.file).bytes(header).bytes(previous).finish()
    }
}

/// Room behind what `out` holds, for a frame of that many bytes of payload.
pub(super) fn room(out: &mut Vec<u8>, payload_bytes: usize) -> &mut [u8] {
    let begin = out.len();
    out.resize(begin + payload_bytes + FRAME_OVERHEAD_BYTES, 0);
    &mut out[begin..]
}

/// The last 16 bytes. Shorter input cannot occur: everything sealed ends in a tag.
pub(super) fn tag(sealed: &[u8]) -> Tag {
    sealed.last_chunk().copied().unwrap_or_default()
}
