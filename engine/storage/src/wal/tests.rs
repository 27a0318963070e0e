//! The log's bytes, torn tails told from damage, and frames that were moved.

use std::path::Path;

use arrow::buffer::Buffer;
use sepal_types::{FileId, LogEnd, Lsn};

use super::{
    Replay, WalFile, WalStart,
    frame::{FrameHeader, Place},
    header::{HEADER_BYTES, Header},
    recover,
    recover::Recovered,
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
fn file_header_is_golden() {
    let header =
        Header { tenant: TENANT, file: FileId([3; 16]), number: 2, base_lsn: Lsn(9), previous_length: 4096 };
    let bytes = header.encode(&keys(), &sepal_crypto::Key::random());
    assert_eq!(bytes.len(), 160);
    assert_eq!(
        hex(&bytes[..72]),
        concat!(
            "736570616c77616c",
            "0001000000000000",
            "07070707070707070707070707070707",
            "03030303030303030303030303030303",
            "0000000000000002",
            "0000000000000009",
            "0000000000001000",
        )
    );
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
