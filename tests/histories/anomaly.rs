//! What can be wrong with a history, by the names of Adya and of Elle.

use std::fmt;

/// Of which kind; the letters are Adya's (<https://pmg.csail.mit.edu/papers/adya-phd.pdf>), where he has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A value that nobody wrote.
    GarbageRead,
    /// A value that is there twice.
    DuplicateElement,
    /// Two reads of a key of which neither continues the other.
    IncompatibleOrder,
    /// G1a: a value of a transaction, or of a savepoint, that was rolled back.
    AbortedRead,
    /// G1b: a value that its own transaction had already gone beyond.
    IntermediateRead,
    /// A committed write on top of one that was rolled back.
    DirtyUpdate,
    /// A transaction contradicts what it itself has read or written.
    Internal,
    /// An acknowledged write that later reads do not have.
    LostWrite,
    /// G0: a cycle of writes.
    DirtyWrite,
    /// G1c: a cycle of writes and of reads of them.
    CircularFlow,
    /// Two transactions read the same version and both replaced it.
    LostUpdate,
    /// G-single: a cycle with one read of what was then replaced.
    ReadSkew,
    /// A cycle with several such reads, no two of them in a row: no snapshots explain it.
    NonAdjacent,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::GarbageRead => "garbage read",
            Kind::DuplicateElement => "duplicate element",
            Kind::IncompatibleOrder => "incompatible order",
            Kind::AbortedRead => "aborted read (G1a)",
            Kind::IntermediateRead => "intermediate read (G1b)",
            Kind::DirtyUpdate => "dirty update",
            Kind::Internal => "internal inconsistency",
            Kind::LostWrite => "lost write",
            Kind::DirtyWrite => "dirty write (G0)",
            Kind::CircularFlow => "circular information flow (G1c)",
            Kind::LostUpdate => "lost update (P4)",
            Kind::ReadSkew => "read skew (G-single)",
            Kind::NonAdjacent => "long fork or the like (G-nonadjacent)",
        }
    }
}

/// One of them, with the transactions that show it.
#[derive(Clone, Debug)]
pub struct Anomaly {
    pub kind: Kind,
    pub story: Vec<String>,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.kind.name())?;
        self.story.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// Anomalies, a few of each kind: one bug may show in every second transaction.
#[derive(Default)]
pub struct Findings {
    found: Vec<Anomaly>,
}

impl Findings {
    const OF_A_KIND: usize = 5;

    pub fn add(&mut self, kind: Kind, story: impl IntoIterator<Item = String>) {
        if self.found.iter().filter(|anomaly| anomaly.kind == kind).count() < Self::OF_A_KIND {
            self.found.push(Anomaly { kind, story: story.into_iter().collect() });
        }
    }

    pub fn into_vec(mut self) -> Vec<Anomaly> {
        self.found.sort_by_key(|anomaly| anomaly.kind);
        self.found
    }
}
