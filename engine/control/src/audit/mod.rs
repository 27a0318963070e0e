//! The audit trail: who changed what, in order, so that a change of it shows.
//!
//! Whatever changes tenants, keys or copies appends an entry in its own transaction: there is no change without its
//! entry and no entry without its change.
//!
//! ```text
//! text    JSON: time, actor, action, tenant, object, details, salt
//! hash n  SHA-256( field "audit-entry 1" | bytes hash n-1 | u64 n | bytes text ), fields as in `sepal_crypto::Aad`
//! audit               number from 1, text sealed, hash
//! meta `audit`        sealed: the last number and its hash
//! audit_checkpoints   number, time, hash, Ed25519 signature over them
//! ```
//! The hash is over the text, so that exported entries can be checked by anybody; the salt keeps a hash from telling
//! what the text is. Who can write to control.db but has no key cannot change, remove or add an entry unseen: chain and
//! head show it, and a head that is not there is damage, because every file has one from its beginning. What nothing
//! inside of the file can show is an older state of all of it, as a backup has: `outside` shows that as long as it is
//! left alone. Beyond that, and against whoever has the keys and writes a whole new trail, only a checkpoint tells that
//! was kept elsewhere: the server logs each.

mod certificate;
mod chain;
mod event;
mod outside;

pub use certificate::{Destroyed, DestructionCertificate, Removal};
pub use chain::{AuditCheckpoint, AuditEntry, AuditReport};
pub(crate) use chain::{append, begin, resume};
pub use event::{AuditAction, AuditEvent, NewAuditEvent};
