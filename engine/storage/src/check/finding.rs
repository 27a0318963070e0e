//! What a check has to say, for a person and for `repair`.

use std::fmt;

use sepal_types::{FileId, Lsn, TableId};

use crate::{StoreError, manifest::SegmentEntry};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As it may be after a crash.
    Info,
    /// Nothing is lost, but it should not be so.
    Warning,
    /// Something cannot be read, or is not what it should be.
    Error,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub severity: Severity,
    /// The file, from the tenant's directory on; a directory where it concerns one.
    pub file: String,
    pub what: String,
    /// What it means for whoever uses the tenant.
    pub consequence: String,
    pub(crate) damage: Option<Damage>,
}

/// What is damaged, for `repair`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Damage {
    /// The device refused a read: nobody knows what is in the file.
    Unread,
    /// The newest manifest.
    Manifest { number: u64 },
    /// A segment of the newest manifest.
    Segment { table: TableId, segment: FileId },
    /// Its deletion vector.
    Vector { table: TableId, segment: FileId },
    /// One of its indexes.
    Index { table: TableId, segment: FileId, index: TableId },
    /// The log, from there on.
    Log { number: u64, offset: u64, after: Lsn, later: u64, last_later: Option<Lsn> },
    /// A log file that no recovery needs.
    OldLog { number: u64 },
    /// A segment that a clone in the log shares.
    Cloned(Box<ClonedSegment>),
    /// An index of one.
    ClonedIndex { table: TableId, name: String, index: TableId, blob: FileId },
    /// A file that only the past needs.
    Past,
    /// A manifest that keeps the past: it does not open, it is gone, or some of what it names is damaged.
    PastManifest { number: u64 },
}

/// A segment as a clone in the log names it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClonedSegment {
    pub table: TableId,
    pub environment: String,
    pub name: String,
    pub entry: SegmentEntry,
    /// Rows that the clone had of it.
    pub live: u64,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Finding {
    pub(super) fn new(severity: Severity, file: String, what: String, consequence: &str) -> Self {
        Self { severity, file, what, consequence: consequence.to_owned(), damage: None }
    }

    /// What a store would fail with. A read that the device refused is no damage of the file.
    pub(super) fn of(error: &StoreError, consequence: String, damage: Option<Damage>) -> Self {
        let (file, what, damage) = match error {
            StoreError::Corrupt { file, why } => (file.clone(), why.clone(), damage),
            StoreError::Io { action, file, why } => {
                (file.clone(), format!("the device did not {action} it: {why}"), Some(Damage::Unread))
            }
            other => (String::new(), other.to_string(), damage),
        };
        Self { severity: Severity::Error, file, what, consequence, damage }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.file, self.what)?;
        if self.consequence.is_empty() { Ok(()) } else { write!(f, "; {}", self.consequence) }
    }
}
