//! The log's bytes, torn tails told from damage, and frames that were moved.

mod tail;

use std::path::Path;

use arrow::buffer::Buffer;
use sepal_types::{FileId, LogEnd, Lsn};

use super::{
    Replay, WalFile, WalStart,
    frame::{FrameHeader, FrameKey, Place, tag},
    header::{HEADER_BYTES, Header},
    recover,
    recover::Recovered,
    survey::{Survey, survey},
};
use crate::{
    StoreError,
    disk::Disk,
    fixtures::{TENANT, hex, keys},
    paths::Paths,
};

#[test]
fn frame_header_is_golden() {
    let header =
        FrameHeader { sealed_bytes: 300, place: Place { lsn: Lsn(258), index: 3, last: true, synced: 160 } };
    let bytes = header.encode();
    assert_eq!(
        hex(&bytes),
        concat!(
            "0000012c",
            "00000003",
            "0000000000000102",
            "00000000000000a0",
            "01",
            "00000000000000",
            "00000000000000000000000000000000",
        )
    );
    assert_eq!(FrameHeader::decode(&bytes), Some(header));
}

#[test]
fn marker_header_is_golden() {
    let header = FrameHeader { sealed_bytes: 40, place: Place::marker(Lsn(258), 4096) };
    let bytes = header.encode();
    assert_eq!(
        hex(&bytes),
        concat!(
            "00000028",
            "ffffffff",
            "0000000000000102",
            "0000000000001000",
            "00",
            "00000000000000",
            "00000000000000000000000000000000",
        )
    );
    assert_eq!(FrameHeader::decode(&bytes), Some(header));
}

fn header(version: u16) -> Header {
    Header {
        version,
        tenant: TENANT,
        file: FileId([3; 16]),
        number: 2,
        base_lsn: Lsn(9),
        previous_length: 4096,
    }
}

/// Version 1, which had no markers, and version 2.
#[test]
fn file_header_is_golden() {
    for version in [1, 2] {
        let bytes = header(version).encode(&keys(), &sepal_crypto::Key::random());
        assert_eq!(bytes.len(), 160);
        let words = [
            "736570616c77616c".to_owned(),
            format!("000{version}000000000000"),
            "07070707070707070707070707070707".to_owned(),
            "03030303030303030303030303030303".to_owned(),
            "0000000000000002".to_owned(),
            "0000000000000009".to_owned(),
            "0000000000001000".to_owned(),
        ];
        assert_eq!(hex(&bytes[..72]), words.concat());
        let (decoded, _) = Header::decode(TENANT, &keys(), 2, &bytes).unwrap();
        assert_eq!(decoded, header(version));
    }
    let header = header(2);
    let bytes = header.encode(&keys(), &sepal_crypto::Key::random());
    let (decoded, _) = Header::decode(TENANT, &keys(), 2, &bytes).unwrap();
    assert_eq!(decoded, header);
    for position in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1;
        assert!(Header::decode(TENANT, &keys(), 2, &flipped).is_err(), "byte {position}");
    }
}

/// Lsn and payload.
type Commit = (u64, Vec<u8>);

struct Log {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir(paths.wal()).unwrap();
        Self { dir, paths }
    }

    fn start(&self, number: u64, base_lsn: u64, previous_length: u64) -> WalFile {
        let start = WalStart { number, base_lsn: Lsn(base_lsn), previous_length };
        WalFile::create(&Disk::default(), &self.paths, TENANT, &keys(), start).unwrap()
    }

    fn recover(&self) -> Result<(Recovered, Vec<Commit>), StoreError> {
        self.recover_to(None)
    }

    fn recover_to(&self, end: Option<LogEnd>) -> Result<(Recovered, Vec<Commit>), StoreError> {
        let (disk, paths, keys) = (&Disk::default(), &self.paths, &keys());
        let log = super::Log { disk, paths, tenant: TENANT, keys };
        let replay = Replay { log, from: 1, lsn: Lsn(0), end, limited: false };
        let mut commits = Vec::new();
        let recovered = recover(&replay, |_, lsn, payload| {
            commits.push((lsn.0, payload.to_vec()));
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        Ok((recovered, commits))
    }

    fn survey(&self) -> Survey {
        let (disk, paths, keys) = (&Disk::default(), &self.paths, &keys());
        let log = super::Log { disk, paths, tenant: TENANT, keys };
        survey(&Replay { log, from: 1, lsn: Lsn(0), end: None, limited: false }, |_, _, _| Ok(())).unwrap()
    }

    /// Writes a file of version 1: two commits, no marker.
    fn start_as_before(&self, key: &sepal_crypto::Key) {
        let header = Header { number: 1, base_lsn: Lsn(0), previous_length: 0, ..header(1) };
        let mut bytes = header.encode(&keys(), key);
        let frames = FrameKey::new(TENANT, header.file, key.clone());
        let mut last = tag(&bytes);
        for lsn in 1..3 {
            let place = Place { lsn: Lsn(lsn), index: 0, last: true, synced: bytes.len() as u64 };
            let (at, previous) = (bytes.len() as u64, last);
            last = frames.append(place, at, &previous, &payload(lsn), &mut bytes);
        }
        std::fs::write(self.file(1), bytes).unwrap();
    }

    fn commits(&self) -> Vec<u64> {
        self.recover().unwrap().1.into_iter().map(|(lsn, _)| lsn).collect()
    }

    fn file(&self, number: u64) -> std::path::PathBuf {
        self.paths.wal_file(number)
    }
}

/// One group: one sync for all its commits.
fn group(wal: &mut WalFile, lsns: std::ops::Range<u64>) {
    for lsn in lsns {
        wal.append(Lsn(lsn), &[Buffer::from_vec(payload(lsn))]).unwrap();
    }
    wal.flush().unwrap();
    wal.sync().unwrap();
}

fn payload(lsn: u64) -> Vec<u8> {
    lsn.to_be_bytes().repeat(8)
}

fn flip(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[position] ^= 0x20;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn large_commits_cross_frames_and_parts() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    let sizes = [10, (3 << 20) + 17, 5, 1 << 20, (1 << 20) - 5, 10 << 20, 1];
    let parts: Vec<Buffer> =
        sizes.iter().zip(1u8..).map(|(size, byte)| Buffer::from_vec(vec![byte; *size])).collect();
    wal.append(Lsn(1), &parts).unwrap();
    wal.append(Lsn(2), &parts[..1]).unwrap();
    wal.flush().unwrap();
    wal.sync().unwrap();
    let (recovered, commits) = log.recover().unwrap();
    assert_eq!(recovered.lsn, Lsn(2));
    assert_eq!(commits[0].1, parts.iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>());
    assert_eq!(commits[1].1, vec![1; 10]);
}

#[test]
fn a_cut_anywhere_loses_whole_commits_of_the_end_only() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    let mut ends = vec![wal.synced_length()];
    for lsn in 1..4 {
        group(&mut wal, lsn..lsn + 1);
        ends.push(wal.synced_length());
    }
    let bytes = std::fs::read(log.file(1)).unwrap();
    for length in HEADER_BYTES..=bytes.len() {
        std::fs::write(log.file(1), &bytes[..length]).unwrap();
        let whole = ends.iter().rposition(|end| *end <= length as u64).unwrap() as u64;
        let (recovered, commits) = log.recover().unwrap();
        assert_eq!(commits.len() as u64, whole, "{length} bytes");
        assert_eq!(
            (recovered.lsn, recovered.last_length),
            (Lsn(whole), ends[usize::try_from(whole).unwrap()])
        );
    }
    std::fs::write(log.file(1), &bytes[..HEADER_BYTES - 1]).unwrap();
    assert!(matches!(log.recover(), Err(StoreError::Corrupt { .. })), "a header is never torn");
}

#[test]
fn a_flip_is_damage_unless_it_is_in_the_last_group() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    group(&mut wal, 1..2);
    group(&mut wal, 2..4);
    let acknowledged = usize::try_from(wal.synced_length()).unwrap();
    // One frame only: it is bound to the tag before it, so a flip there spoils both.
    group(&mut wal, 4..5);
    let length = usize::try_from(wal.synced_length()).unwrap();
    for position in 0..length {
        flip(&log.file(1), position);
        if position < acknowledged {
            let error = log.recover().unwrap_err();
            assert!(error.to_string().contains("0000000000000001.wal"), "byte {position}: {error}");
        } else {
            assert_eq!(log.commits(), [1, 2, 3], "byte {position}");
        }
        flip(&log.file(1), position);
    }
    assert_eq!(log.commits(), [1, 2, 3, 4]);
}

/// A power cut may keep the second page of a write and lose the first.
#[test]
fn a_group_that_was_never_synced_may_be_torn_anywhere() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    group(&mut wal, 1..2);
    let start = usize::try_from(wal.synced_length()).unwrap();
    group(&mut wal, 2..5);
    let whole = std::fs::read(log.file(1)).unwrap();
    for position in (start..whole.len()).step_by(5) {
        let mut torn = whole.clone();
        let end = (position + 40).min(torn.len());
        torn[position..end].iter_mut().for_each(|byte| *byte ^= 0xff);
        std::fs::write(log.file(1), torn).unwrap();
        let found = log.commits();
        assert!([&[1][..], &[1, 2], &[1, 2, 3]].contains(&&*found), "byte {position}: {found:?}");
    }
}

#[test]
fn a_torn_tail_stays_ignored_after_the_next_file_begins() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    group(&mut wal, 1..3);
    let whole = wal.synced_length();
    group(&mut wal, 3..4);
    let bytes = std::fs::read(log.file(1)).unwrap();
    std::fs::write(log.file(1), &bytes[..bytes.len() - 1]).unwrap();
    let (recovered, _) = log.recover().unwrap();
    assert_eq!((recovered.lsn, recovered.last_length), (Lsn(2), whole));

    let mut next = log.start(2, 2, whole);
    group(&mut next, 3..4);
    assert_eq!(log.commits(), [1, 2, 3]);
    // What lies beyond the recorded length does not matter, what lies within it does.
    flip(&log.file(1), usize::try_from(whole).unwrap() + 3);
    assert_eq!(log.commits(), [1, 2, 3]);
    flip(&log.file(1), usize::try_from(whole).unwrap() - 3);
    assert!(log.recover().unwrap_err().to_string().contains("0000000000000001.wal"));
}

#[test]
fn missing_swapped_or_replayed_files_are_damage() {
    let log = Log::new();
    let mut lengths = Vec::new();
    for number in 1..4 {
        let mut wal = log.start(number, number - 1, lengths.last().copied().unwrap_or(0));
        group(&mut wal, number..number + 1);
        lengths.push(wal.synced_length());
    }
    assert_eq!(log.commits(), [1, 2, 3]);
    let second = std::fs::read(log.file(2)).unwrap();
    std::fs::remove_file(log.file(2)).unwrap();
    assert!(log.recover().unwrap_err().to_string().contains("0000000000000002.wal"));
    std::fs::copy(log.file(1), log.file(2)).unwrap();
    assert!(matches!(log.recover(), Err(StoreError::Corrupt { .. })));
    std::fs::write(log.file(2), second).unwrap();
    assert_eq!(log.commits(), [1, 2, 3]);
    // A frame moved to another file of the same tenant does not open there.
    let first = std::fs::read(log.file(1)).unwrap();
    let mut third = std::fs::read(log.file(3)).unwrap();
    third.truncate(HEADER_BYTES);
    third.extend_from_slice(&first[HEADER_BYTES..]);
    std::fs::write(log.file(3), third).unwrap();
    assert_eq!(log.commits(), [1, 2]);
    drop(log.dir);
}

#[test]
fn a_log_that_is_shorter_than_it_was_is_damage() {
    let log = Log::new();
    let mut first = log.start(1, 0, 0);
    group(&mut first, 1..3);
    let mut ends = Vec::new();
    let mut second = log.start(2, 2, first.synced_length());
    for lsn in 3..6 {
        group(&mut second, lsn..lsn + 1);
        ends.push(second.synced_length());
    }
    let at_close = LogEnd { file: 2, bytes: second.synced_length() };
    assert_eq!(log.recover_to(Some(at_close)).unwrap().1.len(), 5);
    // One from an earlier run is as true as it was then.
    for earlier in [LogEnd { file: 2, bytes: ends[0] }, LogEnd { file: 1, bytes: first.synced_length() }] {
        assert_eq!(log.recover_to(Some(earlier)).unwrap().1.len(), 5);
    }
    let whole = std::fs::read(log.file(2)).unwrap();
    for length in HEADER_BYTES..whole.len() {
        std::fs::write(log.file(2), &whole[..length]).unwrap();
        let error = log.recover_to(Some(at_close)).unwrap_err();
        assert!(error.to_string().contains("0000000000000002.wal"), "{length} bytes: {error}");
        // A crash after the first group: only what follows it may be torn.
        let crashed = log.recover_to(Some(LogEnd { file: 2, bytes: ends[0] }));
        assert_eq!(crashed.is_ok(), length as u64 >= ends[0], "{length} bytes");
    }
    flip(&log.file(2), HEADER_BYTES + 60);
    assert!(log.recover_to(Some(at_close)).is_err());
    std::fs::remove_file(log.file(2)).unwrap();
    let error = log.recover_to(Some(at_close)).unwrap_err();
    assert!(error.to_string().contains("0000000000000002.wal"), "{error}");
    assert_eq!(log.commits(), [1, 2], "without the knowledge nothing is missing");
}

#[test]
fn a_rolled_back_group_leaves_no_trace() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    group(&mut wal, 1..2);
    wal.append(Lsn(2), &[Buffer::from_vec(payload(99))]).unwrap();
    wal.flush().unwrap();
    wal.roll_back().unwrap();
    group(&mut wal, 2..3);
    let (_, commits) = log.recover().unwrap();
    assert_eq!(commits, [(1, payload(1)), (2, payload(2))]);
}

fn mark(wal: &mut WalFile, lsn: u64) {
    assert!(wal.wants_marker());
    wal.append_marker(Lsn(lsn));
    wal.flush().unwrap();
    wal.sync().unwrap();
    assert!(!wal.wants_marker());
}

#[test]
fn behind_a_marker_no_group_can_be_taken_for_torn() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    assert!(!wal.wants_marker(), "there is nothing to protect");
    group(&mut wal, 1..2);
    group(&mut wal, 2..4);
    let acknowledged = usize::try_from(wal.synced_length()).unwrap();
    mark(&mut wal, 3);
    let length = usize::try_from(wal.synced_length()).unwrap();
    assert_eq!(length - acknowledged, 48 + 40);
    for position in 0..length {
        flip(&log.file(1), position);
        if position < acknowledged {
            let error = log.recover().unwrap_err();
            assert!(error.to_string().contains("0000000000000001.wal"), "byte {position}: {error}");
        } else {
            assert_eq!(log.commits(), [1, 2, 3], "byte {position} of the marker itself");
        }
        flip(&log.file(1), position);
    }
    // The log goes on behind it, over a new file too.
    group(&mut wal, 4..5);
    mark(&mut wal, 4);
    let mut next = log.start(2, 4, wal.synced_length());
    group(&mut next, 5..6);
    assert_eq!(log.commits(), [1, 2, 3, 4, 5]);
    flip(&log.file(1), length - 1);
    assert!(log.recover().is_err(), "a marker that others follow is part of the log");
}

#[test]
fn a_marker_that_was_torn_or_taken_back_costs_nothing() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    group(&mut wal, 1..3);
    let whole = wal.synced_length();
    wal.append_marker(Lsn(2));
    wal.flush().unwrap();
    wal.roll_back().unwrap();
    assert!(wal.wants_marker());
    mark(&mut wal, 2);
    let bytes = std::fs::read(log.file(1)).unwrap();
    for length in usize::try_from(whole).unwrap()..=bytes.len() {
        std::fs::write(log.file(1), &bytes[..length]).unwrap();
        let (recovered, commits) = log.recover().unwrap();
        assert_eq!((recovered.lsn, commits.len()), (Lsn(2), 2));
        assert_eq!(recovered.last_length, if length == bytes.len() { length as u64 } else { whole });
    }
}

#[test]
fn files_of_version_1_are_read_and_have_no_markers() {
    let (log, key) = (Log::new(), sepal_crypto::Key::random());
    log.start_as_before(&key);
    assert_eq!(log.commits(), [1, 2]);
    let mut bytes = std::fs::read(log.file(1)).unwrap();
    let (at, previous) = (bytes.len() as u64, tag(&bytes));
    let frames = FrameKey::new(TENANT, header(1).file, key);
    frames.append(Place::marker(Lsn(2), at), at, &previous, &[], &mut bytes);
    std::fs::write(log.file(1), bytes).unwrap();
    assert!(log.recover().unwrap_err().to_string().contains("out of order"));
}

/// The same judgement at every byte, and no commit counted that is not there.
#[test]
fn a_survey_judges_as_a_recovery_does() {
    let log = Log::new();
    let mut first = log.start(1, 0, 0);
    group(&mut first, 1..2);
    group(&mut first, 2..4);
    let mut second = log.start(2, 3, first.synced_length());
    group(&mut second, 4..5);
    mark(&mut second, 4);
    let whole = log.survey();
    assert!(whole.broken.is_none() && whole.tail.is_none());
    assert_eq!((whole.lsn, whole.commits, whole.files, whole.last_number), (Lsn(4), 4, 2, 2));
    for number in [1, 2] {
        let bytes = std::fs::read(log.file(number)).unwrap();
        for position in 0..bytes.len() {
            flip(&log.file(number), position);
            let survey = log.survey();
            match log.recover() {
                Ok((recovered, commits)) => {
                    assert!(survey.broken.is_none(), "file {number} byte {position}");
                    assert_eq!((survey.lsn, survey.commits), (recovered.lsn, commits.len() as u64));
                }
                Err(error) => {
                    let broken = survey.broken.expect("damage");
                    assert_eq!(broken.error, error, "file {number} byte {position}");
                    assert_eq!(broken.number, number);
                    assert_eq!(broken.after, survey.lsn);
                    assert!(broken.offset <= position as u64);
                    // Every commit but the one whose header may be spoilt; without a key none of its file.
                    let least = match (position < HEADER_BYTES, number) {
                        (true, 1) => 1,
                        (true, _) => 0,
                        (false, _) => 4 - broken.after.0 - 1,
                    };
                    assert!(broken.later >= least, "file {number} byte {position}");
                    assert!(broken.last_later.is_none_or(|last| last <= Lsn(4)));
                }
            }
            flip(&log.file(number), position);
        }
    }
    std::fs::remove_file(log.file(1)).unwrap();
    let broken = log.survey().broken.expect("a file is missing");
    assert_eq!((broken.number, broken.offset, broken.after), (1, 0, Lsn(0)));
    assert_eq!((broken.later, broken.last_later), (1, Some(Lsn(4))));
}
