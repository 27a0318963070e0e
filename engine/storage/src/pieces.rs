//! Bytes that are made on one thread while another writes what was made before.
//!
//! Called for what is large: the log's large commits and segments, so that sealing a piece does not wait until the last
//! one is written. All writes stay on the calling thread and in order, so that faults strike, and simulations replay, as
//! if there were one thread. Never opens or syncs a file.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, channel, sync_channel},
    thread,
};

/// Bytes are handed over when there are so many: the medium works on one piece while the next is made, and a piece is
/// still in the processor's cache when it is written.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// What is smaller is made and written in turns: a thread costs some ten microseconds.
pub(crate) const APART_BYTES: usize = 4 << 20;

/// Where a maker puts its bytes.
pub(crate) struct Pieces<'a> {
    piece: Vec<u8>,
    out: Out<'a>,
}

enum Out<'a> {
    /// Written at once, by the same thread. `false`: it failed, and nothing more is wanted.
    Here(&'a mut (dyn FnMut(&[u8]) -> bool + Send)),
    /// To whoever writes; empty buffers come back from there.
    There { full: SyncSender<Vec<u8>>, empty: Receiver<Vec<u8>> },
}

impl Pieces<'_> {
    /// What was not handed over yet, for appending.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.piece
    }

    /// Hands the bytes over if they are many enough. Errors: nobody writes any more; the writer knows why.
    pub(crate) fn hand_over(&mut self) -> io::Result<()> {
        if self.piece.len() >= PIECE_BYTES { self.hand_over_all() } else { Ok(()) }
    }

    fn hand_over_all(&mut self) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        match &mut self.out {
            _ if self.piece.is_empty() => Ok(()),
            Out::Here(write) => {
                let written = write(&self.piece);
                self.piece.clear();
                if written { Ok(()) } else { Err(gone()) }
            }
            Out::There { full, empty } => {
                let mut next = empty.try_recv().unwrap_or_default();
                next.clear();
                full.send(std::mem::replace(&mut self.piece, next)).map_err(|_| gone())
            }
        }
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE_BYTES + PIECE_BYTES / 4);
        }
        self.piece.extend_from_slice(bytes);
        self.hand_over()?;
        Ok(bytes.len())
    }

    /// Nothing: a piece goes when it is full, and the last one at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        let (full, pieces) = sync_channel::<Vec<u8>>(ahead);
        let (used, empty) = channel();
        let maker = thread::Builder::new()
            .name("sepal-sealing".to_owned())
            .spawn_scoped(scope, || make.take().map(|make| run(make, Out::There { full, empty })));
        let maker = maker.ok()?;
        // Ends when the maker has let go of its end, or when this one has been let go of.
        let written = pieces.iter().try_for_each(|piece| {
            write(&piece)?;
            // Whoever has made the last piece takes none back.
            let _ = used.send(piece);
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
    let mut pieces = Pieces { piece: Vec::new(), out };
    let made = make(&mut pieces)?;
    // A failure is the writer's, who tells of it.
    let _ = pieces.hand_over_all();
    Ok(made)
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
        let make = |pieces: &mut Pieces<'_>| steps.iter().try_for_each(|step| pieces.write_all(step));
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
    fn a_failed_write_ends_the_maker_and_is_what_is_told() {
        for ahead in [0, 1, 4] {
            let made = made_and_written(
                ahead,
                |pieces: &mut Pieces<'_>| (0..100).try_for_each(|_| pieces.write_all(&bytes(PIECE_BYTES))),
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
                pieces.write_all(&bytes(2 * PIECE_BYTES)).map_err(|_| "gone")?;
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
