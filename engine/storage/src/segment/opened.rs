//! A segment's file, open for reading.
//!
//! Made by `read`, `rows` and `pages` for one look each. Gives bytes as they lie there: nothing here opens a seal.

use std::{ops::Range, path::Path};

use bytes::Bytes;
use sepal_types::advise_large;

use super::read::Regions;
use crate::{
    StoreError,
    disk::{Disk, File, io_error},
    paths::show,
};

pub(super) struct Opened<'a> {
    file: File,
    pub(super) path: &'a Path,
    pub(super) length: u64,
}

impl<'a> Opened<'a> {
    pub(super) fn new(disk: &Disk, path: &'a Path) -> Result<Self, StoreError> {
        let file = disk.open(path)?;
        let length = file.length().map_err(|error| io_error("read", path, &error))?;
        Ok(Self { file, path, length })
    }

    /// A range of the file, if it is one: what a footer says may lead anywhere.
    pub(super) fn span(&self, start: i64, end: i64) -> Option<Range<u64>> {
        let (start, end) = (u64::try_from(start).ok()?, u64::try_from(end).ok()?);
        (start <= end && end <= self.length).then_some(start..end)
    }

    /// The bytes of a span, in `space`, which grows to them.
    pub(super) fn read_into(&self, span: &Range<u64>, space: &mut Vec<u8>) -> Result<(), StoreError> {
        let bytes = usize::try_from(span.end - span.start).unwrap_or(usize::MAX);
        if space.capacity() < bytes {
            *space = Vec::with_capacity(bytes);
            advise_large(space.as_ptr(), bytes);
        }
        space.resize(bytes, 0);
        self.read_exact_at(space, span.start)
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| io_error("read", self.path, &error))
    }

    pub(super) fn read(&self, spans: &[Range<u64>]) -> Result<Regions, StoreError> {
        let mut parts = Vec::with_capacity(spans.len());
        for span in spans {
            let mut bytes = Vec::new();
            self.read_into(span, &mut bytes)?;
            parts.push((span.start, Bytes::from(bytes)));
        }
        Ok(Regions { length: self.length, parts })
    }

    pub(super) fn damaged(&self, why: impl Into<String>) -> StoreError {
        StoreError::corrupt(&show(self.path), why.into())
    }
}
