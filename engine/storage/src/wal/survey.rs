//! A whole log looked at: how far it is sound, what breaks it, and what lies behind the break.
//!
//! `check` and `repair` ask. Judges as `recover` does (a test holds the two against each other), but goes on where that
//! one stops, to say what would be lost. Changes nothing.

use std::ops::ControlFlow;

use arrow::buffer::Buffer;
use sepal_types::Lsn;

use super::{
    header::HEADER_BYTES,
    read::{Cursor, Log, LogFile, Next},
    recover::Replay,
};
use crate::{StoreError, paths::number};

/// What is in a log.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The last commit before the break, or of all.
    pub lsn: Lsn,
    /// Commits that were read.
    pub commits: u64,
    pub bytes: u64,
    pub files: u64,
    /// The highest number that a file has or should have.
    pub last_number: u64,
    /// How far the last file that was read is sound.
    pub last_length: u64,
    pub broken: Option<Break>,
    /// What a crash tore off.
    pub tail: Option<Tail>,
}

/// Where a log can no longer be followed.
#[derive(Debug)]
pub(crate) struct Break {
    pub number: u64,
    /// How far the file is sound; 0 when none of it is.
    pub offset: u64,
    /// The last commit before it.
    pub after: Lsn,
    pub error: StoreError,
    /// Commits behind it of which the end is still marked, and the last of them: at least these are lost.
    pub later: u64,
    pub last_later: Option<Lsn>,
}

/// Bytes at a log's end that were never acknowledged.
#[derive(Debug)]
pub(crate) struct Tail {
    pub name: String,
    pub offset: u64,
    pub bytes: u64,
}

/// Reads the files from `replay.from` on and hands every commit's payload to `apply`, with the name of its file. What
/// `apply` refuses breaks the log there.
pub(crate) fn survey(
    replay: &Replay<'_>,
    mut apply: impl FnMut(&str, Lsn, Buffer) -> Result<(), StoreError>,
) -> Result<Survey, StoreError> {
    let names = replay.log.disk.list(&replay.log.paths.wal())?;
    let known = replay.end.map_or(replay.from, |end| end.file.max(replay.from));
    let last_number = names.iter().filter_map(|name| number(name, "wal")).fold(known, u64::max);
    let mut survey = Survey::new(replay.lsn, last_number);
    let mut files = (replay.from..=last_number).map(|number| (number, LogFile::open(&replay.log, number)));
    let mut current = files.next();
    while let Some((number, opened)) = current.take() {
        let next = files.next();
        let end = next.as_ref().and_then(|(_, next)| next.as_ref().ok()).map(LogFile::previous_length);
        // A successor that does not open is told when its turn comes; until then this file is the last to judge by.
        let least = replay.end.filter(|end| end.file == number).map_or(0, |end| end.bytes);
        let outcome = match &opened {
            Ok(file) => survey.read(file, end, least, next.is_none(), &mut apply),
            Err(error) => Err((0, error.clone())),
        };
        if let Err((offset, error)) = outcome {
            let broken = Break { number, offset, after: survey.lsn, error, later: 0, last_later: None };
            let rest = opened.ok().map(|file| (file, offset));
            let later = next.into_iter().chain(files).filter_map(|(_, file)| Some((file.ok()?, 0)));
            survey.broken = Some(broken.with_later(rest.into_iter().chain(later)));
            break;
        }
        current = next;
    }
    Ok(survey)
}

/// Reads a file that no recovery needs any more, to its end, and hands its commits on. Returns its length.
pub(crate) fn survey_old(
    log: &Log<'_>,
    number: u64,
    apply: &mut dyn FnMut(&str, Lsn, Buffer) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let file = LogFile::open(log, number)?;
    let end = LogFile::open(log, number + 1).ok().map(|next| next.previous_length());
    let mut survey = Survey::new(file.base_lsn(), number);
    survey.read(&file, end, 0, false, apply).map_err(|(_, error)| error)?;
    Ok(file.length)
}

impl Survey {
    fn new(lsn: Lsn, last_number: u64) -> Self {
        Self { lsn, commits: 0, bytes: 0, files: 0, last_number, last_length: 0, broken: None, tail: None }
    }

    /// Follows one file. `Err`: where it breaks, and why.
    fn read(
        &mut self,
        file: &LogFile,
        end: Option<u64>,
        least: u64,
        is_last: bool,
        apply: &mut dyn FnMut(&str, Lsn, Buffer) -> Result<(), StoreError>,
    ) -> Result<(), (u64, StoreError)> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(file.length);
        let start = HEADER_BYTES as u64;
        if file.base_lsn() != self.lsn {
            let why = format!("it follows commit {}, but commit {} came before", file.base_lsn(), self.lsn);
            return Err((0, file.corrupt(why)));
        }
        let stop = end.unwrap_or(file.length);
        let cut = stop > file.length || stop < start;
        let mut cursor = Cursor::new(file);
        loop {
            let whole = cursor.whole().0;
            match cursor.next(file, stop.min(file.length).max(start)) {
                Ok(Next::Commit(lsn, payload)) => {
                    apply(file.name(), lsn, payload).map_err(|error| (whole, error))?;
                    self.lsn = lsn;
                    self.commits += 1;
                }
                Ok(Next::End) => break,
                Ok(Next::Bad) => {
                    let offset = cursor.offset();
                    let known = end.is_some() || offset < least;
                    let judged = if known {
                        Err(file.corrupt(format!("the frame at byte {offset} does not open")))
                    } else {
                        file.check_tail(offset)
                    };
                    judged.map_err(|error| (cursor.whole().0, error))?;
                    break;
                }
                Err(error) => return Err((cursor.whole().0, error)),
            }
        }
        let whole = cursor.whole().0;
        self.last_length = whole;
        if cut {
            return Err((whole, file.corrupt(format!("{} bytes, its successor says {stop}", file.length))));
        }
        if (end.is_some() && whole != stop) || whole < least {
            let reached = if end.is_some() { stop } else { least };
            let why = format!("its commits end at byte {whole}, but reached byte {reached}");
            return Err((whole, file.corrupt(why)));
        }
        if end.is_none() && is_last && whole < file.length {
            self.tail =
                Some(Tail { name: file.name().to_owned(), offset: whole, bytes: file.length - whole });
        }
        Ok(())
    }
}

impl Break {
    /// Counts the commits whose last frame's header is still genuine, whatever became of their content.
    fn with_later(mut self, files: impl Iterator<Item = (LogFile, u64)>) -> Self {
        for (file, offset) in files {
            for lsn in file.marked_commits(offset.max(HEADER_BYTES as u64)) {
                if lsn > self.after && self.last_later.is_none_or(|last| lsn > last) {
                    self.later += 1;
                    self.last_later = Some(lsn);
                }
            }
        }
        self
    }
}

impl LogFile {
    /// The commits of which the last frame begins at `offset` or later, by their headers' marks, as far as the file can
    /// be read.
    fn marked_commits(&self, offset: u64) -> Vec<Lsn> {
        let mut found = Vec::new();
        let read = self.each_marked(
            offset,
            |place| place.last,
            |place| {
                found.push(place.lsn);
                ControlFlow::Continue(())
            },
        );
        if let Err(error) = read {
            tracing::warn!(%error, "commits behind what cannot be read are not counted");
        }
        found
    }
}
