//! What stands behind a frame that does not open: found wherever it begins, and read in pieces.

use std::{
    io,
    ops::ControlFlow,
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
    Files,
    disk::Disk,
    fixtures::{TENANT, Watch, Watched, keys},
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

/// Notes the most that was read at once.
struct Measured(AtomicUsize);

impl Watch for Measured {
    fn is_read(&self, bytes: usize) -> io::Result<()> {
        self.0.fetch_max(bytes, Ordering::SeqCst);
        Ok(())
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
    let measured = Arc::new(Measured(AtomicUsize::new(0)));
    let files: Arc<dyn Files> = Arc::new(Watched(Arc::clone(&measured)));
    let (disk, keys) = (Disk::on(&files), keys());
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
    assert_eq!(measured.0.load(Ordering::SeqCst), PIECE_BYTES);
}
