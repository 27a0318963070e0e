//! Looks for plaintext in every file of a data directory, as somebody who stole the disk would.
//!
//! Searched for: every definition of at least 24 bytes, whole, and of every embedding two windows of 32 bytes
//! (8 floats at the beginning, 8 in the middle), as little- and as big-endian float32. That the search finds
//! what is there is proved on the unsealed COPY stream first. The story of pipelines seeks its secrets instead.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::sample::Synset;

/// Shorter texts could occur by chance in tens of megabytes.
const MIN_TEXT_BYTES: usize = 24;
/// Floats per window of an embedding.
const WINDOW_FLOATS: usize = 8;
/// Every needle is at least this long; these bytes are its place in the map.
const KEY_BYTES: usize = 8;
/// Bits of the table that rules most positions out before the map is asked.
const FILTER_BITS: u32 = 20;

/// A sought byte string.
struct Needle {
    bytes: Vec<u8>,
    kind: Kind,
}

/// What a needle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Definition,
    LittleEndianVector,
    BigEndianVector,
    Secret,
}

/// Finds any of many byte strings in one pass.
pub struct Finder {
    needles: Vec<Needle>,
    by_key: HashMap<u64, Vec<usize>>,
    filter: Vec<u64>,
}

/// What a scan of a directory saw.
pub struct Report {
    pub files: u64,
    pub bytes: u64,
    /// File, offset in bytes and what was found there.
    pub hits: Vec<(PathBuf, usize, Kind)>,
}

impl Finder {
    pub fn new(synsets: &[Synset]) -> Self {
        let mut finder = Self::empty();
        for synset in synsets {
            if synset.definition.len() >= MIN_TEXT_BYTES {
                finder.add(synset.definition.as_bytes().to_vec(), Kind::Definition);
            }
            for start in [0, synset.embedding.len() / 2] {
                let Some(window) = synset.embedding.get(start..start + WINDOW_FLOATS) else { continue };
                let little = window.iter().flat_map(|value| value.to_le_bytes()).collect();
                let big = window.iter().flat_map(|value| value.to_be_bytes()).collect();
                finder.add(little, Kind::LittleEndianVector);
                finder.add(big, Kind::BigEndianVector);
            }
        }
        finder
    }

    /// Seeks secrets of at least 11 bytes: as they are, in hex, and in base64 wherever they stand in what was encoded.
    pub fn of_secrets(secrets: &[&str]) -> Self {
        let mut finder = Self::empty();
        for secret in secrets {
            finder.add(secret.as_bytes().to_vec(), Kind::Secret);
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            finder.add(hex.into_bytes(), Kind::Secret);
            for skipped in 0..3 {
                finder.add(base64_inside(secret, skipped), Kind::Secret);
            }
        }
        finder
    }

    fn empty() -> Self {
        Self { needles: Vec::new(), by_key: HashMap::new(), filter: vec![0; 1 << (FILTER_BITS - 6)] }
    }

    /// How many byte strings of a kind are sought.
    pub fn count(&self, kind: Kind) -> usize {
        self.needles.iter().filter(|needle| needle.kind == kind).count()
    }

    /// How many byte strings of a kind occur in `bytes`, each counted once.
    pub fn distinct(&self, bytes: &[u8], kind: Kind) -> usize {
        let mut seen = vec![false; self.needles.len()];
        self.find(bytes, |_, needle| seen[needle] = true);
        self.needles.iter().zip(seen).filter(|(needle, seen)| *seen && needle.kind == kind).count()
    }

    /// Reads every regular file below `directory`. Files that vanish meanwhile are passed over.
    pub fn scan(&self, directory: &Path) -> io::Result<Report> {
        let mut report = Report { files: 0, bytes: 0, hits: Vec::new() };
        self.scan_into(directory, &mut report)?;
        Ok(report)
    }

    fn scan_into(&self, directory: &Path, report: &mut Report) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                self.scan_into(&path, report)?;
            } else if kind.is_file() {
                let bytes = match fs::read(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    read => read?,
                };
                report.files += 1;
                report.bytes += bytes.len() as u64;
                self.find(&bytes, |offset, needle| {
                    report.hits.push((path.clone(), offset, self.needles[needle].kind));
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, bytes: Vec<u8>, kind: Kind) {
        let Some(key) = key_of(&bytes) else { return };
        let (word, bit) = filter_place(key);
        self.filter[word] |= bit;
        self.by_key.entry(key).or_default().push(self.needles.len());
        self.needles.push(Needle { bytes, kind });
    }

    fn find(&self, bytes: &[u8], mut found: impl FnMut(usize, usize)) {
        for (offset, window) in bytes.windows(KEY_BYTES).enumerate() {
            let Some(key) = key_of(window) else { continue };
            let (word, bit) = filter_place(key);
            if self.filter[word] & bit == 0 {
                continue;
            }
            for needle in self.by_key.get(&key).into_iter().flatten() {
                if bytes[offset..].starts_with(&self.needles[*needle].bytes) {
                    found(offset, *needle);
                }
            }
        }
    }
}

/// The digits of a text after `skipped` bytes of another that do not depend on what stands beside it.
fn base64_inside(text: &str, skipped: usize) -> Vec<u8> {
    let mut padded = vec![0_u8; skipped];
    padded.extend_from_slice(text.as_bytes());
    let digits = STANDARD_NO_PAD.encode(padded);
    let (first, last) = ((skipped * 8).div_ceil(6), (skipped + text.len()) * 8 / 6);
    digits.as_bytes()[first..last].to_vec()
}

fn key_of(bytes: &[u8]) -> Option<u64> {
    let key = bytes.get(..KEY_BYTES)?;
    Some(u64::from_le_bytes(key.try_into().ok()?))
}

/// The word and bit of the filter for a key (Fibonacci hashing).
fn filter_place(key: u64) -> (usize, u64) {
    let slot = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS);
    (usize::try_from(slot >> 6).unwrap_or(0), 1 << (slot & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{load, sample};

    #[test]
    fn planted_plaintext_is_found_and_a_clean_directory_is_clean() {
        let synsets = sample::synsets().unwrap();
        let finder = Finder::new(&synsets);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        let noise: Vec<u8> =
            (0..1_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        fs::write(dir.path().join("deep/noise"), &noise).unwrap();
        let clean = finder.scan(dir.path()).unwrap();
        assert_eq!((clean.files, clean.bytes, clean.hits.len()), (1, 4_000_000, 0));

        let mut planted = noise[..1_001].to_vec();
        planted.extend(synsets[5_000].embedding.iter().flat_map(|value| value.to_le_bytes()));
        let text = synsets.iter().find(|synset| synset.definition.len() > 60).unwrap();
        planted.extend(text.definition.as_bytes());
        fs::write(dir.path().join("deep/planted"), planted).unwrap();
        let report = finder.scan(dir.path()).unwrap();
        let kinds: Vec<Kind> = report.hits.iter().map(|hit| hit.2).collect();
        assert_eq!(report.hits[0].1, 1_001);
        assert_eq!(kinds[..2], [Kind::LittleEndianVector, Kind::LittleEndianVector]);
        // A definition can contain a shorter one.
        assert!(!kinds[2..].is_empty() && kinds[2..].iter().all(|kind| *kind == Kind::Definition));
    }

    #[test]
    fn a_secret_is_found_in_whatever_way_it_is_written() {
        let secret = "hook_5b3c9fd01a77";
        let finder = Finder::of_secrets(&[secret]);
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let encoded = |before: &str| STANDARD_NO_PAD.encode(format!("{before}{secret}, more"));
        let texts = [format!("x{secret}y"), hex, encoded(""), encoded("a:"), encoded("ab:"), encoded("abc:")];
        for text in texts {
            assert_eq!(finder.distinct(text.as_bytes(), Kind::Secret), 1, "{text}");
        }
        assert_eq!(finder.distinct(b"hook_5b3c9fd01a7", Kind::Secret), 0);
    }

    #[test]
    fn the_unsealed_stream_shows_everything() {
        let synsets = sample::synsets().unwrap();
        let finder = Finder::new(&synsets);
        let stream = load::stream(&synsets);
        for kind in [Kind::Definition, Kind::BigEndianVector] {
            assert_eq!(finder.distinct(&stream, kind), finder.count(kind));
        }
        assert_eq!(finder.distinct(&stream, Kind::LittleEndianVector), 0);
    }
}
