//! What stands behind a frame that does not open: found wherever it begins, and read in pieces.

use std::{
    io,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::buffer::Buffer;
use sepal_crypto::SEAL_OVERHEAD_BYTES;
use sepal_types::Lsn;

use super::{
    super::{frame::FRAME_HEADER_BYTES, header::HEADER_BYTES, recover, scan::PIECE_BYTES, survey::survey},
    Log, Replay, flip, group,
};
use crate::{
    FileHandle, Files, LocalFiles,
    disk::Disk,
    fixtures::{TENANT, keys},
};

#[test]
fn a_proof_is_found_where_one_piece_ends_and_the_next_begins() {
    let overhead = FRAME_HEADER_BYTES + SEAL_OVERHEAD_BYTES;
    // Behind the broken frame: from wholly in the first piece to wholly in the second.
    for distance in PIECE_BYTES - FRAME_HEADER_BYTES - 1..=PIECE_BYTES + 1 {
        let log = Log::new();
        let mut wal = log.start(1, 0, 0);
        wal.append(Lsn(1), &[Buffer::from_vec(vec![7_u8; distance - overhead])]).unwrap();
        wal.flush().unwrap();
        wal.sync().unwrap();
        assert_eq!(wal.synced_length(), (HEADER_BYTES + distance) as u64);
        group(&mut wal, 2..3);
        flip(&log.file(1), HEADER_BYTES + overhead);
        let error = log.recover().unwrap_err();
        assert!(error.to_string().contains("was acknowledged"), "{distance}: {error}");
        let broken = log.survey().broken.expect("damage");
        // The broken frame's own header is sound, and each of the two is counted once.
        assert_eq!((broken.later, broken.last_later), (2, Some(Lsn(2))), "{distance}");
    }
}

/// Files that note the most that was read at once.
struct Measured(Arc<AtomicUsize>);

struct MeasuredFile {
    file: Arc<dyn FileHandle>,
    most: Arc<AtomicUsize>,
}

impl Files for Measured {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        LocalFiles.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        Ok(Arc::new(MeasuredFile { file: LocalFiles.open(path)?, most: Arc::clone(&self.0) }))
    }

    fn open_writable(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        LocalFiles.open_writable(path)
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        LocalFiles.open_directory(path)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        LocalFiles.length(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        LocalFiles.list(path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        LocalFiles.is_directory(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        LocalFiles.create_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalFiles.remove(path)
    }
}

impl FileHandle for MeasuredFile {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.most.fetch_max(bytes.len(), Ordering::SeqCst);
        self.file.read_exact_at(bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn start_writeback(&self, offset: u64, length: usize) {
        self.file.start_writeback(offset, length);
    }
}

/// Whoever can write the directory makes a log file as long as he likes, without a byte of room. Its length is not what
/// a recovery may cost.
#[test]
fn a_tail_is_read_in_pieces_however_long_it_is() {
    let log = Log::new();
    let mut wal = log.start(1, 0, 0);
    group(&mut wal, 1..4);
    let whole = wal.synced_length();
    let longer = 1 << 20;
    std::fs::File::options().write(true).open(log.file(1)).unwrap().set_len(whole + longer).unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let measured: Arc<dyn Files> = Arc::new(Measured(Arc::clone(&most)));
    let (disk, keys) = (Disk::on(&measured), keys());
    let replay = || Replay {
        log: super::super::Log { disk: &disk, paths: &log.paths, tenant: TENANT, keys: &keys },
        from: 1,
        lsn: Lsn(0),
        end: None,
        limited: false,
    };
    let recovered = recover(&replay(), |_, _, _| Ok(ControlFlow::Continue(()))).unwrap();
    assert_eq!((recovered.lsn, recovered.last_length), (Lsn(3), whole));
    let tail = survey(&replay(), |_, _, _| Ok(())).unwrap().tail.expect("what was never acknowledged");
    assert_eq!((tail.offset, tail.bytes), (whole, longer));
    assert_eq!(most.load(Ordering::SeqCst), PIECE_BYTES);
}
