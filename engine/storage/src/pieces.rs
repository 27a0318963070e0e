//! Bytes that are made on one thread while another writes what was made before.
//!
//! Called for what is large: the log's large commits and segments, so that sealing a piece does not wait until the last
//! one is written. All writes stay on the calling thread and in order, so that faults strike, and simulations replay, as
//! if there were one thread. Never opens or syncs a file.

use std::{
    io, mem,
    ops::Deref,
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread,
};

use parking_lot::Mutex;

/// Bytes are handed over when there are so many: the medium works on one piece while the next is made, and a piece is
/// still in the processor's cache when it is written.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// What is smaller is made and written in turns: a thread costs some ten microseconds.
pub(crate) const APART_BYTES: usize = 4 << 20;

/// Buffers for whoever writes next: new memory is fetched page by page, and must be zeroed. They hold what is sealed
/// only.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
const MAX_SPARE: usize = 12;
/// Of a buffer: a piece, and what goes beyond its end.
const SPARE_BYTES: usize = PIECE_BYTES + PIECE_BYTES / 4;

/// Bytes from the front of a buffer. Behind them lies what was there before: zeroing it each time costs as much as a fast
/// cipher.
struct Piece {
    bytes: Vec<u8>,
    filled: usize,
}

impl Piece {
    fn new() -> Self {
        let bytes = SPARE.lock().pop().unwrap_or_else(|| vec![0; SPARE_BYTES]);
        Self { bytes, filled: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    fn space(&mut self, bytes: usize) -> &mut [u8] {
        let begin = self.filled;
        self.filled += bytes;
        if self.bytes.len() < self.filled {
            self.bytes.resize(self.filled, 0);
        }
        &mut self.bytes[begin..self.filled]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.bytes.len() == SPARE_BYTES {
            let mut spare = SPARE.lock();
            if spare.len() < MAX_SPARE {
                spare.push(mem::take(&mut self.bytes));
            }
        }
    }
}

/// Where a maker puts its bytes.
pub(crate) struct Pieces<'a> {
    piece: Piece,
    out: Out<'a>,
}

enum Out<'a> {
    /// Written at once, by the same thread. `false`: it failed, and nothing more is wanted.
    Here(&'a mut (dyn FnMut(&[u8]) -> bool + Send)),
    /// To whoever writes; used buffers come back from there.
    There { full: SyncSender<Piece>, used: Receiver<Piece> },
}

impl Pieces<'_> {
    /// Room for the next `bytes`, which whoever asks fills: what is in them is anything. Hands over what came before if
    /// that is a piece.
    ///
    /// Errors: nobody writes any more; the writer knows why.
    pub(crate) fn space(&mut self, bytes: usize) -> io::Result<&mut [u8]> {
        if self.piece.filled >= PIECE_BYTES {
            self.hand_over()?;
        }
        Ok(self.piece.space(bytes))
    }

    /// Appends `bytes`. Errors: as [`Self::space`].
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.space(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        match &mut self.out {
            _ if self.piece.filled == 0 => Ok(()),
            Out::Here(write) => {
                let written = write(self.piece.filled());
                self.piece.filled = 0;
                if written { Ok(()) } else { Err(gone()) }
            }
            Out::There { full, used } => {
                let mut next = used.try_recv().unwrap_or_else(|_| Piece::new());
                next.filled = 0;
                full.send(mem::replace(&mut self.piece, next)).map_err(|_| gone())
            }
        }
    }
}

/// Runs `make`, and `write` with the pieces of what it makes, in order and each at least [`PIECE_BYTES`] long but for the
/// last. `ahead`: how many pieces may be made and not yet written; 0 makes and writes in turns, on this thread.
///
/// Errors: the outer one is that of `write`, after which `make` is told to end; the inner one that of `make`.
pub(crate) fn made_and_written<T: Send, M: Send, W: Send>(
    ahead: usize,
    make: impl FnOnce(&mut Pieces<'_>) -> Result<T, M> + Send,
    mut write: impl FnMut(&[u8]) -> Result<(), W> + Send,
) -> Result<Result<T, M>, W> {
    // Taken by the thread that makes: this one, where no other can be had.
    let mut make = Some(make);
    if ahead > 0
        && let Some(made) = apart(ahead, &mut make, &mut write)
    {
        return made;
    }
    let Some(make) = make else { unreachable!("what nobody has run is still there") };
    let mut failed = None;
    let mut here = |piece: &[u8]| match write(piece) {
        Ok(()) => true,
        Err(error) => {
            failed = Some(error);
            false
        }
    };
    let made = run(make, Out::Here(&mut here));
    match failed {
        Some(error) => Err(error),
        None => Ok(made),
    }
}

/// `None`: there is no thread to be had, and `make` was not run.
fn apart<T: Send, M: Send, W>(
    ahead: usize,
    make: &mut Option<impl FnOnce(&mut Pieces<'_>) -> Result<T, M> + Send>,
    write: &mut impl FnMut(&[u8]) -> Result<(), W>,
) -> Option<Result<Result<T, M>, W>> {
    thread::scope(|scope| {
        let (full, pieces) = sync_channel::<Piece>(ahead);
        let (back, used) = channel();
        let maker = thread::Builder::new()
            .name("sepal-sealing".to_owned())
            .spawn_scoped(scope, || make.take().map(|make| run(make, Out::There { full, used })));
        let maker = maker.ok()?;
        // Ends when the maker has let go of its end, or when this one has been let go of.
        let written = pieces.iter().try_for_each(|piece| {
            write(piece.filled())?;
            // Whoever has made the last piece takes none back.
            let _ = back.send(piece);
            Ok(())
        });
        drop(pieces);
        match maker.join() {
            Ok(made) => made.map(|made| written.map(|()| made)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn run<T, M>(make: impl FnOnce(&mut Pieces<'_>) -> Result<T, M>, out: Out<'_>) -> Result<T, M> {
    let mut pieces = Pieces { piece: Piece::new(), out };
    let made = make(&mut pieces)?;
    // A failure is the writer's, who tells of it.
    let _ = pieces.hand_over();
    Ok(made)
}

/// Calls `run` with all bytes of `parts`, `bytes` at a time, and with whether they are the last. Of the last run there may
/// be fewer; without any bytes there is none. `scratch` takes those that lie in several parts; others are not copied.
pub(crate) fn runs<E>(
    parts: &[impl Deref<Target = [u8]>],
    bytes: usize,
    scratch: &mut Vec<u8>,
    mut run: impl FnMut(&[u8], bool) -> Result<(), E>,
) -> Result<(), E> {
    let mut left: usize = parts.iter().map(|part| part.len()).sum();
    scratch.clear();
    for part in parts {
        let mut rest: &[u8] = part;
        while !rest.is_empty() {
            let direct = scratch.is_empty() && (rest.len() >= bytes || rest.len() == left);
            let (now, later) = rest.split_at(rest.len().min(bytes - scratch.len()));
            rest = later;
            left -= now.len();
            if direct {
                run(now, left == 0)?;
                continue;
            }
            scratch.extend_from_slice(now);
            if scratch.len() == bytes || left == 0 {
                run(scratch, left == 0)?;
                scratch.clear();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|place| (place as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
    }

    /// What arrives, and the length of each piece.
    fn through(ahead: usize, steps: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut arrived, mut lengths) = (Vec::new(), Vec::new());
        let make = |pieces: &mut Pieces<'_>| steps.iter().try_for_each(|step| pieces.put(step));
        let made = made_and_written(ahead, make, |piece| {
            arrived.extend_from_slice(piece);
            lengths.push(piece.len());
            Ok::<(), io::Error>(())
        });
        made.unwrap().unwrap();
        (arrived, lengths)
    }

    #[test]
    fn the_same_pieces_arrive_from_either_thread() {
        let whole = bytes(3 * PIECE_BYTES + 17);
        for steps in
            [vec![&whole[..]], whole.chunks(1000).collect(), whole.chunks(PIECE_BYTES).collect(), vec![]]
        {
            let (here, there) = (through(0, &steps), through(2, &steps));
            assert_eq!(here.0, steps.concat());
            assert_eq!(here, there);
            assert!(here.1.iter().rev().skip(1).all(|length| *length >= PIECE_BYTES));
        }
    }

    #[test]
    fn runs_are_all_bytes_in_order() {
        for lengths in [&[][..], &[0], &[1], &[7], &[8, 8], &[3, 4, 1, 20, 0, 2], &[16, 1], &[5, 16]] {
            let whole = bytes(lengths.iter().sum());
            let mut rest = &whole[..];
            let mut parts = Vec::new();
            for length in lengths {
                let (part, later) = rest.split_at(*length);
                parts.push(part);
                rest = later;
            }
            let mut found: Vec<(Vec<u8>, bool)> = Vec::new();
            runs(&parts, 8, &mut Vec::new(), |run, last| {
                found.push((run.to_vec(), last));
                Ok::<(), ()>(())
            })
            .unwrap();
            let count = whole.len().div_ceil(8);
            let expected = whole.chunks(8).zip(1..).map(|(run, number)| (run.to_vec(), number == count));
            assert_eq!(found, expected.collect::<Vec<_>>(), "{lengths:?}");
        }
    }

    /// A buffer that was used before holds other bytes behind those that are asked for.
    #[test]
    fn what_was_in_a_buffer_before_is_never_written() {
        let (long, short) = (vec![0xee; 3 * PIECE_BYTES], vec![0x11; 5]);
        for ahead in [0, 2] {
            assert_eq!(through(ahead, &[&long]).0, long);
            assert_eq!(through(ahead, &[&short]).0, short);
        }
    }

    #[test]
    fn a_failed_write_ends_the_maker_and_is_what_is_told() {
        for ahead in [0, 1, 4] {
            let made = made_and_written(
                ahead,
                |pieces: &mut Pieces<'_>| (0..100).try_for_each(|_| pieces.put(&bytes(PIECE_BYTES))),
                {
                    let mut written = 0;
                    move |_: &[u8]| {
                        written += 1;
                        if written == 3 { Err("full") } else { Ok(()) }
                    }
                },
            );
            assert_eq!(made.unwrap_err(), "full");
        }
    }

    #[test]
    fn what_a_failed_maker_made_before_is_written() {
        for ahead in [0, 4] {
            let mut written = 0;
            let make = |pieces: &mut Pieces<'_>| -> Result<(), &str> {
                pieces.put(&bytes(2 * PIECE_BYTES)).map_err(|_| "gone")?;
                pieces.put(&[1]).map_err(|_| "gone")?;
                Err("a bad batch")
            };
            let made = made_and_written(ahead, make, |piece| {
                written += piece.len();
                Ok::<(), io::Error>(())
            });
            assert_eq!((made.unwrap(), written), (Err("a bad batch"), 2 * PIECE_BYTES));
        }
    }
}
