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
//! what the text is. Who can write to control.db but has no key cannot change, remove or add an entry unseen: chain
//! and head show it. Who has the keys could write a whole new trail; the checkpoints in the server's log show that.

mod certificate;
mod chain;
mod event;

pub use certificate::{Destroyed, DestructionCertificate, Removal};
pub(crate) use chain::append;
pub use chain::{AuditCheckpoint, AuditEntry, AuditReport};
pub use event::{AuditAction, AuditEvent, NewAuditEvent};
