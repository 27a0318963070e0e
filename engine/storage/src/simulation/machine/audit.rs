//! Watches what is written for a nonce that was used before under the same key, with other content.
//!
//! Everything needed stands in the files in plaintext: which key (by the file's id, or the one key of all manifests)
//! and which nonce. Formats: docs/format/.

use std::collections::BTreeMap;

use crate::{manifest, wal};

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Which key, by what names it, and which nonce.
type Use = (Vec<u8>, Vec<u8>);

#[derive(Default)]
pub(super) struct Audit {
    /// To how long it was what they sealed, and its last bytes: the tag, which is of all of it.
    sealed: BTreeMap<Use, (usize, Vec<u8>)>,
}

impl Audit {
    /// `bytes` are written at `offset` of a file that holds `now`.
    pub(super) fn write(&mut self, now: &[u8], bytes: &[u8], offset: usize, misdeeds: &mut Vec<String>) {
        let head = if offset == 0 { bytes } else { now };
        let Some(magic) = head.get(..8) else { return };
        match magic {
            b"sepalwal" if offset == 0 => {
                // A wrapped key: check value 16, nonce 24, ciphertext.
                if let Some(wrapped) = bytes.get(72..wal::HEADER_BYTES) {
                    self.note(&wrapped[..16], &wrapped[16..], "a wrapped key", misdeeds);
                }
            }
            b"sepalwal" => {
                if let Some(file) = now.get(32..48) {
                    self.frames(file, bytes, misdeeds);
                }
            }
            b"sepalman" if offset == 0 => {
                if let Some(sealed) = bytes.get(manifest::HEADER_BYTES..) {
                    self.note(b"manifests", sealed, "a manifest", misdeeds);
                }
            }
            // A salt, which makes the key that the chunks' numbers are nonces under.
            b"sepalbl\x01" if offset == 0 => {
                if let Some(salt) = bytes.get(16..48) {
                    self.remember(b"blobs", salt, bytes, "a blob", misdeeds);
                }
            }
            _ => {}
        }
    }

    fn frames(&mut self, file: &[u8], mut bytes: &[u8], misdeeds: &mut Vec<String>) {
        while let Some((header, rest)) = bytes.split_at_checked(wal::FRAME_HEADER_BYTES) {
            let length = header.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
            let Some((sealed, rest)) = rest.split_at_checked(length) else { return };
            self.note(file, sealed, "a log frame", misdeeds);
            bytes = rest;
        }
    }

    /// `sealed` begins with its nonce.
    fn note(&mut self, key: &[u8], sealed: &[u8], what: &str, misdeeds: &mut Vec<String>) {
        if let Some((nonce, rest)) = sealed.split_at_checked(NONCE_BYTES) {
            self.remember(key, nonce, rest, what, misdeeds);
        }
    }

    fn remember(&mut self, key: &[u8], nonce: &[u8], content: &[u8], what: &str, misdeeds: &mut Vec<String>) {
        let tag = content[content.len().saturating_sub(TAG_BYTES)..].to_vec();
        let found = (content.len(), tag);
        let before = self.sealed.insert((key.to_vec(), nonce.to_vec()), found.clone());
        if before.is_some_and(|before| before != found) {
            misdeeds.push(format!("{what} was sealed under a key and nonce that sealed something else"));
        }
    }
}
