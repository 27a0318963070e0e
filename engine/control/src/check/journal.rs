//! A rollback journal that a crash left, played back in memory as SQLite plays it back into the file.
//!
//! [`Control::open_copy`](crate::Control::open_copy) alone asks. SQLite itself would need a file with a name to do it,
//! and a copy of tenants' wrapped keys would lie there until somebody removes it. The journals are of our own
//! transactions, each over one file, so that none names a super-journal.
//!
//! ```text
//! journal := part*                  each begins at a multiple of the sector size; the first one's sizes hold for all
//! part    := magic 8 | records 4 | nonce 4 | pages before 4 | sector size 4 | page size 4 | to the sector's end
//!            | record{records}
//! record  := page number 4 | page | checksum 4: the nonce and every 200th byte of the page
//! ```
//! Numbers are big-endian. A part counts its records once they are synced, and before that no page of theirs is in the
//! file: what is cut short needs no playing back. <https://www.sqlite.org/fileformat2.html#the_rollback_journal>

use crate::{ControlError, control_error::Result};

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// SQLite locks the file from this byte on, so that no page lies there.
const PENDING_BYTE: usize = 0x4000_0000;
/// Of pages, and of sectors.
const LARGEST: u32 = 65_536;

/// What the first part says of all.
struct Layout {
    /// In bytes, as is `page`.
    sector: usize,
    page: usize,
    /// How many the file had before the transaction.
    pages: usize,
}

/// Makes `database` what it was before the transaction of `journal`.
///
/// Errors: a journal that is not of this file.
pub(super) fn roll_back(database: &mut Vec<u8>, journal: &[u8]) -> Result<()> {
    let Some(layout) = Layout::of(journal).filter(|_| !database.is_empty()) else { return Ok(()) };
    let bytes = layout.pages.saturating_mul(layout.page);
    // Whatever the transaction cut off the file is in the journal.
    if bytes > database.len().saturating_add(journal.len()) {
        let why = format!("it speaks of {bytes} bytes, and the file has {}", database.len());
        return Err(ControlError::Corrupt { what: "control.db-journal", why });
    }
    database.resize(bytes, 0);
    let mut at = 0;
    while let Some((records, nonce)) = layout.part(journal, at) {
        at += layout.sector;
        for _ in 0..records {
            let Some(record) = journal.get(at..at + layout.record()) else { return Ok(()) };
            if !layout.put_back(database, record, nonce) {
                return Ok(());
            }
            at += layout.record();
        }
        at = at.next_multiple_of(layout.sector);
    }
    Ok(())
}

impl Layout {
    /// `None`: nothing is to be rolled back.
    fn of(journal: &[u8]) -> Option<Self> {
        if !journal.starts_with(&MAGIC) {
            return None;
        }
        let (pages, sector, page) = (number(journal, 16)?, number(journal, 20)?, number(journal, 24)?);
        let fits = |size: u32, least: u32| size.is_power_of_two() && (least..=LARGEST).contains(&size);
        if !fits(sector, 32) || !fits(page, 512) || journal.len() < sector as usize {
            return None;
        }
        Some(Self { sector: sector as usize, page: page as usize, pages: pages as usize })
    }

    /// How many records the part that begins there has, and their nonce.
    fn part(&self, journal: &[u8], at: usize) -> Option<(u32, u32)> {
        let header = journal.get(at..at + self.sector)?;
        if !header.starts_with(&MAGIC) {
            return None;
        }
        Some((number(header, 8)?, number(header, 12)?))
    }

    /// The bytes of a record.
    const fn record(&self) -> usize {
        4 + self.page + 4
    }

    /// `false`: it was never written whole, and so were none of those behind it.
    fn put_back(&self, database: &mut [u8], record: &[u8], nonce: u32) -> bool {
        let (Some(page), Some(sum)) = (number(record, 0), number(record, 4 + self.page)) else {
            return false;
        };
        let page = page as usize;
        if page == 0 || page == PENDING_BYTE / self.page + 1 {
            return false;
        }
        if page > self.pages {
            return true;
        }
        let bytes = &record[4..4 + self.page];
        let every = (1..self.page.div_ceil(200)).map(|n| u32::from(bytes[self.page - 200 * n]));
        if every.fold(nonce, u32::wrapping_add) != sum {
            return false;
        }
        let from = (page - 1) * self.page;
        database[from..from + self.page].copy_from_slice(bytes);
        true
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
